"""Answers of chat/completions as messages and their events, checked by the types of Anthropic's own client."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from actorrt.serve.llm.chat_answers import ChatError, Piece, ToolCall, Usage, read_answer, read_chunk
from actorrt.serve.llm.messages.answer import message, stop_of, tool_input, usage_of
from actorrt.serve.llm.messages.events import MessageEvents

USAGE = Usage(prompt=31, completion=3, cached=30)


def _message(piece: Piece, **options: Any) -> dict[str, Any]:
    return message(piece, **{"id": "msg_1", "model": "m", "stop_sequences": (), "prefill": "", **options})


def _events(pieces: Iterable[Piece], stop_sequences: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    events = MessageEvents(id="msg_1", model="m", stop_sequences=stop_sequences)
    return _parsed(events.start() + b"".join(map(events.feed, pieces)) + events.end())


def _parsed(stream: bytes) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = []
    for each in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = each.split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert name == f"event: {fields['type']}"
        parsed.append(fields)
    return parsed


def test_a_text_is_one_block() -> None:
    assert _message(Piece(text="Hello", finish="stop", usage=USAGE)) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
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
            "output_tokens": 3,
        },
    }


def test_thoughts_text_and_tools_are_blocks_in_this_order() -> None:
    calls = (ToolCall(0, "t1", "weather", '{"city": "Paris"}'), ToolCall(1, "t2", "time", ""))
    whole = _message(Piece(text="Look.", reasoning="Hm.", tool_calls=calls, finish="tool_calls", usage=USAGE))
    assert whole["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "t2", "name": "time", "input": {}},
    ]
    assert whole["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("finish", "stop", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("stop", "other", ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
        ("content_filter", None, ("refusal", None)),
    ],
)
def test_why_it_ended(finish: str, stop: str | None, expected: tuple[str, str | None]) -> None:
    assert stop_of(finish, stop, ("END",)) == expected


def test_a_prefill_that_the_engine_repeats_is_taken_off() -> None:
    said = Piece(text="The weather in Paris", finish="stop")
    assert _message(said, prefill="The weather")["content"] == [{"type": "text", "text": " in Paris"}]


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", '"x"'])
def test_arguments_that_are_no_object_are_kept_and_named(arguments: str) -> None:
    assert tool_input(arguments) == {"INVALID_JSON": arguments}


def test_a_streamed_text() -> None:
    pieces = [Piece(), Piece(text="Hel"), Piece(text="lo"), Piece(finish="stop"), Piece(usage=USAGE)]
    events = _events(pieces)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[1] == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert events[3]["delta"] == {"type": "text_delta", "text": "lo"}
    nothing = {"stop_sequence": None, "container": None, "stop_details": None}
    assert events[5]["delta"] == {"stop_reason": "end_turn", **nothing}
    assert events[5]["usage"] == usage_of(USAGE)


def test_streamed_thoughts_text_and_two_tools_are_blocks_one_after_the_other() -> None:
    events = _events(
        [
            Piece(reasoning="H"),
            Piece(reasoning="m"),
            Piece(text="So"),
            Piece(tool_calls=(ToolCall(0, "t1", "a", ""),)),
            Piece(tool_calls=(ToolCall(0, "", "", '{"x"'),)),
            Piece(tool_calls=(ToolCall(0, "", "", ": 1}"), ToolCall(1, "t2", "b", "{}"))),
            Piece(finish="tool_calls"),
        ]
    )
    blocks = [(event["index"], event["content_block"]) for event in events if event["type"] == "content_block_start"]
    assert blocks == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (1, {"type": "text", "text": ""}),
        (2, {"type": "tool_use", "id": "t1", "name": "a", "input": {}}),
        (3, {"type": "tool_use", "id": "t2", "name": "b", "input": {}}),
    ]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2, 3]
    written = [event["delta"]["partial_json"] for event in events if event.get("index") == 2 and "delta" in event]
    assert written == ['{"x"', ": 1}"]


def test_a_chat_that_breaks_off_is_not_ended_as_if_it_were_whole() -> None:
    with pytest.raises(ChatError, match="before it was finished"):
        _events([Piece(text="Hel")])


def test_a_tool_call_that_goes_on_after_its_end_is_an_error() -> None:
    calls = [ToolCall(0, "t1", "a", ""), ToolCall(1, "t2", "b", ""), ToolCall(0, "", "", "{}")]
    with pytest.raises(ChatError, match="a tool call that it had ended"):
        _events([Piece(tool_calls=(call,)) for call in calls])


def test_an_error_of_the_engine_is_read_with_its_status() -> None:
    with pytest.raises(ChatError) as error:
        read_chunk({"error": {"message": "too long", "code": 400}})
    assert (error.value.message, error.value.status) == ("too long", 400)


def test_engines_name_thoughts_and_stop_strings_differently() -> None:
    said = {"content": None, "reasoning": "Hm."}
    choice = {"index": 0, "message": said, "finish_reason": "stop", "stop_reason": "END"}
    assert read_answer({"choices": [choice]}) == Piece(reasoning="Hm.", finish="stop", stop="END")
    choice = {"message": {"reasoning_content": "Hm."}, "finish_reason": "stop", "matched_stop": 2}
    assert read_answer({"choices": [choice]}) == Piece(reasoning="Hm.", finish="stop")


PIECES = st.lists(
    st.builds(lambda text: Piece(text=text), st.text(max_size=5))
    | st.builds(lambda text: Piece(reasoning=text), st.text(max_size=5)),
    max_size=20,
)
CALLS = st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=3)


def _with_calls(calls: list[list[str]]) -> list[Piece]:
    pieces: list[Piece] = []
    for index, arguments in enumerate(calls):
        pieces.append(Piece(tool_calls=(ToolCall(index, f"t{index}", f"name{index}", ""),)))
        pieces += [Piece(tool_calls=(ToolCall(index, "", "", part),)) for part in arguments]
    return pieces


@given(said=PIECES, calls=CALLS)
def test_the_clients_own_types_take_every_event_and_find_what_was_said(
    said: list[Piece], calls: list[list[str]]
) -> None:
    types = pytest.importorskip("anthropic.types")
    adapter: TypeAdapter[Any] = TypeAdapter(types.RawMessageStreamEvent)
    finish = "tool_calls" if calls else "stop"
    events = _events([*said, *_with_calls(calls), Piece(finish=finish), Piece(usage=USAGE)])
    for event in events:
        adapter.validate_python(event, strict=True)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "".join(piece.text for piece in said)
    assert "".join(delta.get("thinking", "") for delta in deltas) == "".join(piece.reasoning for piece in said)
    written = "".join(delta.get("partial_json", "") for delta in deltas)
    assert written == "".join("".join(arguments) for arguments in calls)
    opened = [event["index"] for event in events if event["type"] == "content_block_start"]
    closed = [event["index"] for event in events if event["type"] == "content_block_stop"]
    assert opened == closed == list(range(len(opened)))


@given(text=st.text(max_size=9), calls=CALLS)
def test_the_clients_own_type_takes_every_whole_message(text: str, calls: list[list[str]]) -> None:
    types = pytest.importorskip("anthropic.types")
    tool_calls = tuple(ToolCall(index, f"t{index}", "n", "".join(parts)) for index, parts in enumerate(calls))
    whole = _message(Piece(text=text, tool_calls=tool_calls, finish="stop", usage=USAGE))
    types.Message.model_validate(whole, strict=True)
