"""An engine that leaves in the midst of its answer is not taken for one that has answered, whatever it speaks."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import LLMConfig, ServerEngine, build_openai_app
from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError, Head
from actorrt.serve.llm.engines.stream_end import end_of, is_cut

from .test_engine_http import engine, items_of, read_request
from .test_engine_process import PROGRAM

CHAT, COMPLETION, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
# HTTP/1.0 and who says "close" end a body by closing: nothing tells its end from its engine's.
CLOSES = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\nconnection: close\r\n\r\n"
CHUNKED = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = "text/event-stream"


def data(value: dict[str, Any], name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(value)}\n\n"


def choice(finish: str | None = None, index: int = 0, text: str = "a") -> str:
    return data({"choices": [{"index": index, "delta": {"content": text}, "text": text, "finish_reason": finish}]})


DONE = "data: [DONE]\n\n"
FAILED = data({"error": {"message": "no", "code": 500}})
BEGUN = data({"type": "response.created", "response": {"id": "r", "error": None}}, "response.created")
WHOLE: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {}, choice() + choice("stop") + DONE),
    (CHAT, {}, choice() + choice("stop") + DONE + ": a comment\n\n"),
    (CHAT, {}, choice() + DONE.replace(" ", "")),
    (CHAT, {}, choice() + choice("stop")),
    (CHAT, {}, choice() + FAILED),
    (CHAT, {"n": 2}, choice("stop") + choice("length", 1)),
    (COMPLETION, {"prompt": ["a", "b"]}, choice("stop") + choice("stop", 1)),
    (COMPLETION, {"prompt": [1, 2]}, choice("stop")),
    (MESSAGES, {}, data({"type": "message_stop"}, "message_stop")),
    (MESSAGES, {}, data({"type": "error", "error": {"type": "api_error"}}, "error")),
    (RESPONSES, {}, BEGUN + data({"type": "response.completed", "response": {"id": "r", "error": None}})),
    (RESPONSES, {}, BEGUN + data({"type": "response.incomplete", "response": {"id": "r"}})),
    (RESPONSES, {}, BEGUN + data({"type": "response.failed", "response": {"error": {"code": "server_error"}}})),
    (RESPONSES, {}, BEGUN + data({"type": "error", "code": "server_error", "message": "it died"})),
    ("/completion", {}, data({"content": "a", "stop": False})),
]
CUT: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {}, ""),
    (CHAT, {}, choice()),
    (CHAT, {}, choice(text='data: [DONE]\n\n"finish_reason": "stop" {"error": 1}')),
    (CHAT, {"n": 2}, choice("stop") + choice(None, 1)),
    (COMPLETION, {"prompt": ["a", "b"]}, choice("stop")),
    (MESSAGES, {}, data({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "message_delta")),
    (MESSAGES, {}, data({"type": "content_block_delta", "delta": {"text": '"type": "message_stop"'}})),
    (RESPONSES, {}, BEGUN),
    (RESPONSES, {}, data({"type": "response.output_text.done", "text": '{"type": "response.completed"}'})),
]


@pytest.mark.parametrize(("path", "body", "events"), WHOLE)
@pytest.mark.parametrize("head", [CLOSES, CHUNKED])
async def test_a_stream_with_its_last_event_is_whole(head: str, path: str, body: dict[str, Any], events: str) -> None:
    items = await answered(head.format(EVENTS), path, body, events)
    assert b"".join(item.data for item in items if isinstance(item, Delta)).decode() == events


@pytest.mark.parametrize(("path", "body", "events"), CUT)
@pytest.mark.parametrize("head", [CLOSES, CHUNKED])
async def test_a_stream_that_ends_before_its_last_event_has_failed(
    head: str, path: str, body: dict[str, Any], events: str
) -> None:
    with pytest.raises(EngineError, match="ended its stream before the answer was finished"):
        await answered(head.format(EVENTS), path, body, events)


@pytest.mark.parametrize("sent", ['{"choices": [', "", '{"choices": []}'])
async def test_a_whole_answer_that_is_cut_short_has_failed(sent: str) -> None:
    """By whatever says how long it is: its length, its chunks, or its own form."""
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    for cut in (
        f"{head}content-length: 16\r\n\r\n{sent}",
        f"{head}transfer-encoding: chunked\r\n\r\n" + (f"{len(sent):x}\r\n{sent}\r\n" if sent else ""),
    ):
        with pytest.raises(EngineError, match="broke off in the midst of its answer"):
            await answered(cut, CHAT, {})
    if sent.endswith("}"):
        assert (await answered(f"{head}\r\n{sent}", CHAT, {}))[1] == Delta(sent.encode())
    else:
        with pytest.raises(EngineError, match="closed the connection in the midst of its answer"):
            await answered(f"{head}\r\n{sent}", CHAT, {})


def test_what_is_no_json_is_not_taken_for_the_beginning_of_some() -> None:
    assert not is_cut(Head(200, (("content-type", "text/plain"),)), b"{")
    assert not is_cut(Head(204, (("content-type", "application/json"),)), b"")
    assert is_cut(Head(200, (("content-type", "application/json; charset=utf-8"),)), b"{")


def test_a_body_that_is_no_object_asks_for_one_answer() -> None:
    end = end_of(EngineCall(CHAT, b"[", stream=True))
    end.feed(choice("stop").encode())
    assert end.is_there()


@pytest.mark.parametrize("resumes", [0, 1])
def test_a_stream_that_its_engine_leaves_goes_on_or_ends_with_an_error(serve_url: str, resumes: int) -> None:
    command = [sys.executable, str(PROGRAM), "{port}", "leaves"]
    paths = ["/v1/completions"]
    model = LLMConfig(model_id="m", engine=ServerEngine(command=command, paths=paths, context=99), max_resumes=resumes)
    serve.run(build_openai_app(model), name="leaves", route_prefix="/leaves")
    with httpx.Client(base_url=f"{serve_url}/leaves", timeout=20, trust_env=False) as client:
        answer = client.post("/v1/completions", json={"model": "m", "prompt": "p", "stream": True}).text
    *pieces, last = [line.removeprefix("data: ") for line in answer.split("\n\n") if line]
    if resumes:
        assert last == "[DONE]"
        assert [json.loads(piece)["choices"][0]["text"] for piece in pieces] == ["a", "a", "b"]
    else:
        assert len(pieces) == 1
        assert json.loads(last)["error"]["message"] == "the model's engine failed"
    serve.delete("leaves")


async def answered(head: str, path: str, body: dict[str, Any], events: str = "") -> list[Head | Delta]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if "chunked" in head and "event-stream" in head:
            pieces = f"{len(events.encode()):x}\r\n{events}\r\n" if events else ""
            writer.write(f"{head}{pieces}0\r\n\r\n".encode())
        else:
            writer.write((head + events).encode())

    async with engine(serve) as http:
        return await items_of(http, EngineCall(path, json.dumps(body).encode(), stream=True))
