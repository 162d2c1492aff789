"""Anthropic's Messages API before a model that has chat/completions only."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt.serve.llm import ApiKey, FrontConfig

from .conftest import ScriptedApp, run_scripted
from .scripted import chunk

EVENTS = ["head", 200, "text/event-stream"]
JSON = ["head", 200, "application/json"]
USAGE = {"prompt_tokens": 31, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 30}}
DONE = ["say", "data: [DONE]\n\n", 0]


def _post(app: ScriptedApp, *script: Any, **fields: Any) -> httpx.Response:
    body = {"model": "scripted", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}], "script": script}
    return app.client.post("/v1/messages", json={**body, **fields})


def _whole(text: str, finish: str = "stop", **message: Any) -> list[Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return ["say", json.dumps({"choices": [choice], "usage": USAGE}), 2]


def _events(body: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for each in body.removesuffix("\n\n").split("\n\n"):
        name, data = each.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_an_answer_is_a_message(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, JSON, _whole("Hello!"))
    assert response.status_code == 200
    message = response.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": "Hello!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "container": None,
        "stop_details": None,
        "context_management": None,
        "usage": {
            "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 30,
            "output_tokens": 2,
        },
    }


def test_the_model_is_asked_by_its_chat_completions(scripted_app: ScriptedApp) -> None:
    _post(scripted_app, JSON, _whole("x"), system="Be brief.", model="other/name", metadata={"user_id": "me"})
    path, body, streamed, _ = scripted_app.last_call()
    asked = json.loads(body)
    assert (path, streamed) == ("/v1/chat/completions", False)
    assert (asked["model"], asked["user"]) == ("scripted", "me")
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


def test_each_chunk_is_an_event_at_once(scripted_app: ScriptedApp) -> None:
    script = [
        EVENTS,
        ["say", chunk(), 0],
        ["say", chunk("Hel"), 1],
        ["wait", "the first was read"],
        ["say", chunk("lo") + chunk(finish="stop"), 1],
        ["say", f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n", 0],
        DONE,
    ]
    body = {"model": "scripted", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    received = ""
    with scripted_app.client.stream("POST", "/v1/messages", json={**body, "script": script}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for part in response.iter_text():
            received += part
            if '"Hel"' in part:
                scripted_app.tell("the first was read")
    events = _events(received)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[-2]["usage"]["output_tokens"] == 2


def test_what_the_engine_says_of_the_prompt_as_it_reads_it_stands_in_the_first_event(scripted_app: ScriptedApp) -> None:
    def progress(processed: int) -> list[Any]:
        choice = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
        said = {"total": 31, "cache": 10, "processed": processed, "time_ms": 1}
        return ["say", f"data: {json.dumps({'choices': [choice], 'prompt_progress': said})}\n\n", 0]

    answer = [["say", chunk("Hel") + chunk("lo", "stop"), 2], DONE]
    for said, counts in (([progress(10), progress(31)], (21, 10)), ([], (0, 0))):
        response = _post(scripted_app, EVENTS, *said, *answer, stream=True, return_progress=True)
        start, *events = _events(response.text)
        usage = start["message"]["usage"]
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == counts
        assert [event["type"] for event in events].count("content_block_delta") == 2


def test_a_mistake_is_a_sentence_in_anthropics_shape(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, JSON, max_tokens=None, stream=True)
    assert response.status_code == 400
    assert response.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "max_tokens: the field is required"},
        "request_id": response.headers["request-id"],
    }
    assert response.headers["request-id"] == response.headers["x-request-id"]


def test_fields_of_the_chat_that_it_is_made_from_are_checked_as_those_of_a_chat(scripted_app: ScriptedApp) -> None:
    for wrong in ({"stop": 5}, {"stop": True}, {"n": 2}, {"seed": "x"}):
        response = _post(scripted_app, JSON, _whole("x"), **wrong)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["message"].startswith(f"{next(iter(wrong))!r} must be")
    assert _post(scripted_app, JSON, _whole("x"), stop=["y"], n=1, seed=1).status_code == 200


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engines_error_keeps_its_status_and_sentence(
    scripted_app: ScriptedApp, status: int, kind: str, stream: bool
) -> None:
    said = json.dumps({"error": {"code": status, "message": "too long", "type": "exceed_context_size_error"}})
    response = _post(scripted_app, ["head", status, "application/json"], ["say", said, 0], stream=stream)
    assert response.status_code == status
    error = {"type": kind, "message": "too long"}
    assert response.json() == {"type": "error", "error": error, "request_id": response.headers["request-id"]}


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ([["raise"]], "the model's engine failed"),
        ([["say", 'data: {"error": {"message": "out of memory", "code": 500}}\n\n', 0]], "out of memory"),
        ([], "the engine's answer ended before it was finished"),
        ([["say", 'data: {"choices\n\n', 0]], "the engine streams what is no JSON"),
    ],
)
def test_what_fails_in_the_midst_is_an_error_event(scripted_app: ScriptedApp, end: list[Any], sentence: str) -> None:
    response = _post(scripted_app, EVENTS, ["say", chunk("Hel"), 1], *end, stream=True)
    assert response.status_code == 200
    last = _events(response.text)[-1]
    error = {"type": "api_error", "message": sentence}
    assert last == {"type": "error", "error": error, "request_id": response.headers["request-id"]}


def test_an_answer_that_an_engine_cannot_go_on_with_is_refused(scripted_app: ScriptedApp) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Well"}]
    response = _post(scripted_app, JSON, messages=messages)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("messages.1: the engine cannot go on")


def test_an_answer_that_is_none_is_an_error(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, JSON, ["say", "<html>", 0])
    assert response.status_code == 502
    assert response.json()["error"] == {"type": "api_error", "message": "the engine's answer is no JSON"}


def test_tokens_cannot_be_counted_where_the_engine_does_not_say(scripted_app: ScriptedApp) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    response = scripted_app.client.post("/v1/messages/count_tokens", json=body)
    assert response.status_code == 501
    assert response.json()["error"]["message"] == (
        "the engine of model 'scripted' does not count the tokens of a chat (scripted)"
    )


@pytest.fixture(scope="module")
def strict_app(serve_url: str) -> Iterator[ScriptedApp]:
    front = FrontConfig(keys=[ApiKey.of("sk-a", "a")], ping_s=0.05, unsupported="ignore")
    app = run_scripted(serve_url, "strict", front)
    with app.client:
        yield app


def test_llama_cpp_makes_messages_itself_but_for_those_with_tools(serve_url: str) -> None:
    """Its own take a tool that is named for any, and have no `input` in the events of a call."""
    app = run_scripted(serve_url, "llamacpps", FrontConfig(), "/v1/messages", "/props")
    tools = [{"name": "time", "input_schema": {"type": "object"}}]
    with app.client:
        _post(app, JSON, ["say", "{}", 0], tools=[], tool_choice=None)
        assert app.last_call()[0] == "/v1/messages"
        assert _post(app, JSON, _whole("x"), tools=tools, tool_choice={"type": "any"}).status_code == 200
        path, body, *_ = app.last_call()
        assert (path, json.loads(body)["tool_choice"]) == ("/v1/chat/completions", "required")


def test_an_engine_that_is_busy_says_when_to_come_again(scripted_app: ScriptedApp, tmp_path: Path) -> None:
    busy = json.dumps({"error": {"message": "full", "type": "rate_limit_error"}})
    response = _post(scripted_app, ["fail", str(tmp_path / "calls"), 1, 429, busy])
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"] == {"type": "rate_limit_error", "message": "full"}


def test_who_lists_models_in_anthropics_shape_is_refused_in_it(strict_app: ScriptedApp) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    for path in ("/v1/models", "/v1/models/scripted"):
        no_key, wrong_method = (
            strict_app.client.get(path, headers=headers),
            strict_app.client.put(path, headers=headers),
        )
        for refused, status, kind in (
            (no_key, 401, "authentication_error"),
            (wrong_method, 405, "invalid_request_error"),
        ):
            assert (refused.status_code, refused.json().get("type")) == (status, "error")
            assert refused.json()["error"]["type"] == kind


def test_a_key_comes_as_x_api_key_and_a_wrong_one_is_refused(strict_app: ScriptedApp) -> None:
    refused = strict_app.client.post("/v1/messages", json={}, headers={"x-api-key": "sk-b"})
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}], "script": [JSON, _whole("x")]}
    asked = {"model": "scripted", **body, "mcp_servers": [{"url": "ignored"}]}
    assert strict_app.client.post("/v1/messages", json=asked, headers={"x-api-key": "sk-a"}).status_code == 200


def test_pings_come_while_the_engine_is_silent(strict_app: ScriptedApp) -> None:
    script = [["wait", "pinged"], EVENTS, ["say", chunk("x", "stop"), 1], DONE]
    body = {"model": "scripted", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    received = ""
    with strict_app.client.stream(
        "POST", "/v1/messages", json={**body, "script": script}, headers={"x-api-key": "sk-a"}
    ) as response:
        for part in response.iter_text():
            received += part
            if "ping" in part:
                strict_app.tell("pinged")
    events = [event["type"] for event in _events(received)]
    assert events[0] == "ping"
    assert events[-1] == "message_stop"
