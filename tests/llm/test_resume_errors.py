"""Errors that an engine puts into its stream: one of the engine ends a run, one of the request the answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig
from actorrt.serve.llm.engines.interface import Delta
from actorrt.serve.llm.resume.engine_errors import until_failure
from actorrt.serve.llm.resume.events import event

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import chunk

RESUMES = 2
HEAD = ["head", 200, "text/event-stream"]
DONE = "data: [DONE]\n\n"
# As llama.cpp says it.
FAILED = event({"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}).decode()
WRONG = event({"error": {"code": 400, "message": "no such token", "type": "invalid_request_error"}}).decode()

FAILURES: list[dict[str, Any]] = [
    json.loads(FAILED[6:]),
    {"error": {"message": "EngineCore died", "type": "InternalServerError", "param": None, "code": 500}},
    {"object": "error", "message": "it died", "type": "InternalServerError", "code": 500},
    {"error": {"message": "full", "type": "rate_limit_error", "code": 429}},
    {"error": "it died"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    {"type": "error", "sequence_number": 3, "code": "server_error", "message": "it died", "param": None},
    {"type": "response.failed", "response": {"id": "r", "error": {"code": "server_error", "message": "it died"}}},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]},
    {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}, {"finish_reason": "error"}]},
]
NO_FAILURES: list[dict[str, Any]] = [
    json.loads(WRONG[6:]),
    {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}},
    {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "too long"}}},
    {"type": "response.created", "response": {"id": "r", "error": None}},
    {"choices": [{"index": 0, "delta": {"content": '{"error": "it died"}'}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "abort"}}]}}]},
]


@pytest.mark.parametrize("value", FAILURES)
def test_what_an_engine_says_of_its_own_failure_ends_the_events_before(value: dict[str, Any]) -> None:
    first, second = Delta(b"data: 1\n\n", 1), Delta(b"data: 2\n\n" + event(value) + b"data: [DONE]\n\n", 1)
    sound, said = until_failure([first, second, Delta(b"data: 3\n\n")])
    assert said
    assert sound == [first, Delta(b"data: 2\n\n", 1)]


@pytest.mark.parametrize("value", NO_FAILURES)
def test_what_is_no_failure_of_the_engine_goes_on(value: dict[str, Any]) -> None:
    deltas = [Delta(event(value)), Delta(b"data: [DONE]\n\n")]
    assert until_failure(deltas) == (deltas, None)


@pytest.fixture(scope="module")
def app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "errors", FrontConfig(), max_resumes=RESUMES)
    with app.client:
        yield app


def asked(app: ScriptedApp, *scripts: list[list[Any]], path: str, **fields: Any) -> tuple[str, int]:
    """The answer, and how many calls it took."""
    user = uuid.uuid4().hex
    response = app.client.post(path, json=app.request(stream=True, user=user, scripts=scripts, **fields))
    calls = sum(json.loads(body).get("user") == user for _, body, _, _ in app.ask("calls"))
    return response.text, calls


def test_a_stream_goes_on_when_its_engine_says_that_it_failed(app: ScriptedApp) -> None:
    first = [HEAD, ["say", chunk("a", id="1"), 1], ["say", chunk("b", id="1") + FAILED + DONE, 1]]
    again = [["say", chunk("a", id="2"), 1], ["say", chunk("b", id="2"), 1], ["say", chunk("c", id="2"), 1]]
    end = [["say", chunk(finish="stop", id="2"), 0], ["say", DONE, 0]]
    answer, calls = asked(app, first, [HEAD, *again, *end], path="/v1/chat/completions")
    rest = [chunk(piece, id="1") for piece in ("a", "b", "c")]
    assert parsed(answer) == parsed("".join([*rest, chunk(finish="stop", id="1"), DONE]))
    assert calls == 2


def test_an_error_as_the_first_event_is_one_of_the_engine_too(app: ScriptedApp) -> None:
    second = [HEAD, ["say", chunk("a"), 1], ["say", chunk(finish="stop") + DONE, 0]]
    answer, _ = asked(app, [HEAD, ["say", FAILED + DONE, 0]], second, path="/v1/chat/completions")
    assert parsed(answer) == parsed(chunk("a") + chunk(finish="stop") + DONE)


def test_after_so_many_resumes_the_client_has_the_error_as_it_came(app: ScriptedApp) -> None:
    script = [HEAD, ["say", chunk("a"), 1], ["say", FAILED + DONE, 0]]
    answer, calls = asked(app, *[script] * (RESUMES + 1), path="/v1/chat/completions")
    assert parsed(answer) == parsed(chunk("a") + FAILED + DONE)
    assert calls == RESUMES + 1


def test_a_stream_goes_on_when_its_engine_gives_it_up(app: ScriptedApp) -> None:
    first = [HEAD, ["say", chunk("a", id="1"), 1], ["say", chunk(finish="abort", id="1") + DONE, 0]]
    second = [
        HEAD,
        ["say", chunk("a", id="2") + chunk("b", id="2"), 2],
        ["say", chunk(finish="stop", id="2") + DONE, 0],
    ]
    answer, calls = asked(app, first, second, path="/v1/chat/completions")
    rest = [chunk(piece, id="1") for piece in ("a", "b")]
    assert parsed(answer) == parsed("".join([*rest, chunk(finish="stop", id="1"), DONE]))
    assert calls == 2


def test_a_whole_answer_is_made_anew_when_its_engine_gives_it_up(app: ScriptedApp) -> None:
    user = uuid.uuid4().hex
    given_up, good = (whole(finish) for finish in ("abort", "stop"))
    scripts = [[["head", 200, "application/json"], ["say", each, 1]] for each in (given_up, good)]
    response = app.client.post("/v1/chat/completions", json=app.request(user=user, scripts=scripts))
    assert (response.text, response.headers["x-actorrt-resumes"]) == (good, "1")
    # After so many it is the client's.
    scripts = [[["head", 200, "application/json"], ["say", given_up, 1]]] * (RESUMES + 1)
    response = app.client.post("/v1/chat/completions", json=app.request(user=f"{user}-2", scripts=scripts))
    assert (response.status_code, response.text) == (200, given_up)


def whole(finish: str) -> str:
    said = {"role": "assistant", "content": 'Say "finish_reason": "error".'}
    return json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": finish}]})


def test_an_error_of_the_request_is_an_answer(app: ScriptedApp) -> None:
    script = [HEAD, ["say", chunk("a"), 1], ["say", WRONG + DONE, 0]]
    answer, calls = asked(app, script, path="/v1/chat/completions")
    assert answer == chunk("a") + WRONG + DONE
    assert calls == 1


def test_messages_that_are_made_from_chat_go_on_too(app: ScriptedApp) -> None:
    first = [HEAD, ["say", chunk("a"), 1], ["say", FAILED + DONE, 0]]
    second = [HEAD, ["say", chunk("a"), 1], ["say", chunk("b"), 1], ["say", chunk(finish="stop") + DONE, 0]]
    answer, _ = asked(app, first, second, path="/v1/messages", messages=HELLO, max_tokens=9)
    assert [value["delta"]["text"] for value in parsed(answer) if value["type"] == "content_block_delta"] == [
        "a",
        "b",
    ]
    assert "event: error" not in answer


def parsed(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) if each.startswith("{") else each for each in data]
