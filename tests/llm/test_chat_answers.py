"""Answers of chat/completions as engines give them that keep loosely to OpenAI's shape, for the APIs made of them."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from actorrt.serve.llm.chat_answers import ChatError, ToolCall, read_answer, read_chunk
from actorrt.serve.llm.messages.answer import message
from actorrt.serve.llm.messages.events import MessageEvents
from actorrt.serve.llm.responses.answer import envelope, whole
from actorrt.serve.llm.responses.events import ResponseEvents
from actorrt.serve.llm.responses.request import read_request

Json = dict[str, Any]
END: Json = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


def _ids() -> Callable[[str], str]:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(numbers)}"


def _chunk(*calls: Json, **said: Any) -> Json:
    return {"choices": [{"index": 0, "delta": {**said, **({"tool_calls": list(calls)} if calls else {})}}]}


def _call(name: str | None, arguments: Any, **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def _in_messages(*chunks: Json) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, as a client of Messages puts them together."""
    events = MessageEvents(id="msg_1", model="m")
    blocks: list[Json] = []
    for each in (events.start() + b"".join(events.feed(read_chunk(chunk)) for chunk in chunks)).split(b"\n\n")[:-1]:
        event = json.loads(each.split(b"data: ", 1)[1])
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "written": ""})
        elif event["type"] == "content_block_delta":
            blocks[event["index"]]["written"] += event["delta"]["partial_json"]
    return [(block["id"], block["name"], block["written"]) for block in blocks]


def _in_responses(*chunks: Json) -> list[tuple[str, str, str]]:
    """The same of Responses."""
    request = read_request({"model": "m", "input": "x"}, _ids())
    events = ResponseEvents(envelope(request, id="resp_1", model="m", created_at=0), _ids())
    for chunk in (*chunks, END):
        events.feed(read_chunk(chunk))
    events.end(0)
    return [(item["call_id"], item["name"], item["arguments"]) for item in events.response["output"]]


Both = pytest.mark.parametrize("calls_of", [_in_messages, _in_responses])


@Both
def test_calls_that_share_an_index_are_told_apart_by_their_ids(calls_of: Any) -> None:
    calls = [_call("a", '{"x":1}', index=0, id="c1"), _call("b", '{"x":', index=0, id="c2"), _call(None, "2}", index=0)]
    assert calls_of(*map(_chunk, calls)) == [("c1", "a", '{"x":1}'), ("c2", "b", '{"x":2}')]


@Both
def test_calls_without_an_index_are_told_apart_too(calls_of: Any) -> None:
    calls = [_call("a", "{}", id="c1"), _call("b", "{}", id="c2", index=None)]
    assert calls_of(*map(_chunk, calls)) == [("c1", "a", "{}"), ("c2", "b", "{}")]


@Both
def test_a_call_whose_pieces_each_have_its_id_is_one(calls_of: Any) -> None:
    pieces = [_call("a", '{"x"', index=0, id="c1"), _call("a", ":1}", index=0, id="c1")]
    assert calls_of(*map(_chunk, pieces)) == [("c1", "a", '{"x":1}')]


@Both
def test_calls_without_ids_get_some(calls_of: Any) -> None:
    (one, *_), (other, *_) = calls_of(_chunk(_call("a", "{}", index=0)), _chunk(_call("b", "{}", index=1)))
    assert "" not in (one, other)
    assert one != other


@Both
def test_arguments_may_come_as_an_object_and_a_call_without_a_list(calls_of: Any) -> None:
    alone = {"choices": [{"index": 0, "delta": {"tool_calls": _call("a", {"x": "é"}, index=0, id="c1")}}]}
    assert calls_of(alone) == [("c1", "a", '{"x": "é"}')]


def test_of_a_whole_answer_too_calls_have_ids_and_arguments_are_text() -> None:
    said = {"tool_calls": [_call("a", {"x": 1}), _call("b", None)]}
    answer = read_answer({"choices": [{"message": said, "finish_reason": "tool_calls"}]})
    assert answer.tool_calls == (ToolCall(0, "", "a", '{"x": 1}'), ToolCall(1, "", "b", ""))
    blocks = message(answer, id="msg_1", model="m", stop_sequences=(), prefill="")["content"]
    assert [block["input"] for block in blocks] == [{"x": 1}, {}]
    items = whole(
        envelope(read_request({"input": "x"}, _ids()), id="r", model="m", created_at=0), answer, _ids(), at=0
    )["output"]
    for ids in ([block["id"] for block in blocks], [item["call_id"] for item in items]):
        assert "" not in ids
        assert len(set(ids)) == 2


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_a_message_that_calls_a_tool_ends_by_its_use_however_the_chat_ends(finish: str) -> None:
    """A chat that was told which tool to call ends by "stop", as OpenAI's own does."""
    answer = {"choices": [{"message": {"tool_calls": [_call("a", "{}", id="c1")]}, "finish_reason": finish}]}
    whole = message(read_answer(answer), id="msg_1", model="m", stop_sequences=(), prefill="")
    assert whole["stop_reason"] == "tool_use"
    events = MessageEvents(id="msg_1", model="m")
    events.feed(read_chunk(_chunk(_call("a", "{}", index=0, id="c1"))))
    events.feed(read_chunk({"choices": [{"delta": {}, "finish_reason": finish}]}))
    assert b'"stop_reason":"tool_use"' in events.end()


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_an_answer_that_its_engine_gave_up_is_an_error(finish: str) -> None:
    for read, said in ((read_answer, "message"), (read_chunk, "delta")):
        with pytest.raises(ChatError, match=finish) as caught:
            read({"choices": [{said: {"content": "Hel"}, "finish_reason": finish}]})
        assert caught.value.status == 502


def test_a_text_may_come_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert read_chunk(_chunk(content=parts)).text == "Hello"
