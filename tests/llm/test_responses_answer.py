"""Answers of chat/completions as responses and their events, checked by the types of OpenAI's own client."""

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.chat_answers import ChatError, Piece, ToolCall, Usage
from actorrt.serve.llm.responses.answer import envelope, whole
from actorrt.serve.llm.responses.events import ResponseEvents
from actorrt.serve.llm.responses.request import read_request

USAGE = Usage(prompt=31, completion=3, cached=30, reasoning=1)
LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "id": 5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}


def _ids() -> Callable[[str], str]:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(numbers)}"


def _envelope(**fields: Any) -> dict[str, Any]:
    return envelope(
        read_request({"model": "m", "input": "Hello", **fields}, _ids()),
        id="resp_1",
        model="m",
        created_at=1_700_000_000,
    )


def _whole(piece: Piece, **fields: Any) -> dict[str, Any]:
    return whole(_envelope(**fields), piece, _ids(), 1_700_000_001)


def _parsed(events: Iterable[bytes]) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = []
    for each in events:
        name, data = each.decode().removesuffix("\n\n").split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert name == f"event: {fields['type']}"
        parsed.append(fields)
    assert [event["sequence_number"] for event in parsed] == list(range(len(parsed)))
    return parsed


def _streamed(pieces: Iterable[Piece], **fields: Any) -> list[dict[str, Any]]:
    events = ResponseEvents(_envelope(**fields), _ids())
    out = events.start()
    for piece in pieces:
        out += events.feed(piece)
    return _parsed([*out, *events.end(1_700_000_001), events.last()])


def test_a_text_is_a_message_and_what_was_asked_is_said_back() -> None:
    said_back = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "time", "parameters": None, "strict": None}],
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }
    response = _whole(Piece(text="Hello", finish="stop", usage=USAGE), **said_back)
    assert {name: response[name] for name in said_back} == said_back
    assert response["status"] == "completed"
    assert (response["created_at"], response["completed_at"]) == (1_700_000_000, 1_700_000_001)
    assert response["output"] == [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}],
        }
    ]
    assert response["usage"] == {
        "input_tokens": 31,
        "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 34,
    }


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    response = _whole(Piece(text="Hel", finish=finish))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None
    assert _streamed([Piece(text="Hel"), Piece(finish=finish)])[-1]["type"] == "response.incomplete"


def test_the_order_of_a_streamed_text() -> None:
    events = _streamed([Piece(), Piece(text="Hel"), Piece(text="lo"), Piece(finish="stop"), Piece(usage=USAGE)])
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[2]["item"]["content"] == []
    assert events[6]["text"] == "Hello"
    assert events[-1]["response"]["usage"]["total_tokens"] == 34


def test_the_order_of_thoughts_text_and_tools() -> None:
    pieces = [
        Piece(reasoning="Hm."),
        Piece(text="So"),
        Piece(tool_calls=(ToolCall(0, "c1", "a", ""),)),
        Piece(tool_calls=(ToolCall(0, "", "", '{"x"'),)),
        Piece(tool_calls=(ToolCall(0, "", "", ": 1}"), ToolCall(1, "c2", "b", "{}"))),
        Piece(finish="tool_calls"),
    ]
    events = _streamed(pieces)
    of_third = [event["type"].removeprefix("response.") for event in events if event.get("output_index") == 2]
    assert of_third == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert (output[2]["call_id"], output[2]["name"], output[2]["arguments"]) == ("c1", "a", '{"x": 1}')


def test_logprobs_are_in_the_deltas_and_in_the_part() -> None:
    events = _streamed(
        [Piece(text="a", logprobs=(LOGPROB,)), Piece(text="a", logprobs=(LOGPROB,)), Piece(finish="stop")]
    )
    made = {
        "token": "a",
        "bytes": [97],
        "logprob": -0.5,
        "top_logprobs": [{"token": "b", "bytes": [], "logprob": -1.5}],
    }
    assert [event["logprobs"] for event in events if event["type"].endswith("delta")] == [[made], [made]]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [made, made]


def test_an_answer_of_no_tokens_is_an_empty_message() -> None:
    assert _whole(Piece(finish="stop"))["output"][0]["content"][0]["text"] == ""
    events = _streamed([Piece(finish="stop")])
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_a_chat_that_breaks_off_fails_with_what_there_was() -> None:
    events = ResponseEvents(_envelope(), _ids())
    out = events.start() + events.feed(Piece(text="Hel"))
    with pytest.raises(ChatError, match="before it was finished"):
        events.end(0)
    events.fail("the engine failed")
    last = _parsed([*out, events.last()])[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "the engine failed"}
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert last["response"]["output"][0]["status"] == "incomplete"


PIECES = st.lists(
    st.builds(lambda text: Piece(text=text), st.text(max_size=5))
    | st.builds(lambda text: Piece(reasoning=text), st.text(max_size=5))
    | st.builds(lambda text: Piece(refusal=text), st.text(max_size=5))
    | st.just(Piece(text="a", logprobs=(LOGPROB,))),
    max_size=20,
)
CALLS = st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=3)


@given(said=PIECES, calls=CALLS, finish=st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_clients_own_types_take_every_event_and_the_whole_is_the_sum(
    said: list[Piece], calls: list[list[str]], finish: str
) -> None:
    responses = pytest.importorskip("openai.types.responses")
    types = {
        get_args(each.model_fields["type"].annotation)[0]: each for each in _members(responses.ResponseStreamEvent)
    }
    pieces = list(said)
    for number, arguments in enumerate(calls):
        pieces.append(Piece(tool_calls=(ToolCall(number, f"c{number}", f"name{number}", ""),)))
        pieces += [Piece(tool_calls=(ToolCall(number, "", "", part),)) for part in arguments]
    events = _streamed([*pieces, Piece(finish=finish), Piece(usage=USAGE)])
    for event in events:
        types[event["type"]].model_validate(event, strict=True)
    response = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert response["output"] == done
    parts = [part for item in done for part in item.get("content", ())]
    assert "".join(part["text"] for part in parts if part["type"] == "output_text") == "".join(p.text for p in said)
    thought = "".join(part["text"] for part in parts if part["type"] == "reasoning_text")
    assert thought == "".join(piece.reasoning for piece in said)
    called = [item["arguments"] for item in done if item["type"] == "function_call"]
    assert called == ["".join(arguments) for arguments in calls]
    deltas = [event["delta"] for event in events if event["type"].endswith("delta")]
    assert sum(map(len, deltas)) == sum(
        len(piece.text) + len(piece.reasoning) + len(piece.refusal) for piece in said
    ) + sum(map(len, called))


@given(text=st.text(max_size=9), calls=CALLS, finish=st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_clients_own_type_takes_every_whole_response(text: str, calls: list[list[str]], finish: str) -> None:
    responses = pytest.importorskip("openai.types.responses")
    tool_calls = tuple(ToolCall(number, f"c{number}", "n", "".join(parts)) for number, parts in enumerate(calls))
    piece = Piece(text=text, tool_calls=tool_calls, finish=finish, usage=USAGE, logprobs=(LOGPROB,))
    responses.Response.model_validate(_whole(piece), strict=True)


def _members(annotated: Any) -> tuple[Any, ...]:
    return get_args(get_args(annotated)[0])
