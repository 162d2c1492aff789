"""Requests of the Responses API as requests of chat/completions: items, fields, and each mistake."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.fields import FieldError
from actorrt.serve.llm.responses.answer import envelope
from actorrt.serve.llm.responses.items import items_as_they_are
from actorrt.serve.llm.responses.keeping import in_bytes
from actorrt.serve.llm.responses.request import ResponsesRequest, read_request

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
TIME = {"type": "function", "name": "time"}
_WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}
_TIME = {"type": "function", "function": {"name": "time"}}


def _ids() -> Callable[[str], str]:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(numbers)}"


def _read(**fields: Any) -> ResponsesRequest:
    return read_request({"model": "m", "input": "Hello", **fields}, _ids())


def _chat(**fields: Any) -> dict[str, Any]:
    request = _read(**fields)
    return request.chat_body(request.items, "m")


def _turns(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return _chat(input=list(items))["messages"]


def _say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _call(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "weather", "arguments": arguments}


def _made(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def test_a_text_is_a_message_of_the_user() -> None:
    assert _chat() == {"model": "m", "messages": [_say("user", "Hello")]}


def test_instructions_come_first_and_are_no_item() -> None:
    request = _read(instructions="Be brief.")
    assert request.chat_body(request.items, "m")["messages"] == [_say("system", "Be brief."), _say("user", "Hello")]
    assert len(request.items) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_output_tokens": 5, "temperature": 0, "top_p": 0.5}, {"max_tokens": 5, "temperature": 0, "top_p": 0.5}),
        ({"user": "u", "seed": 7}, {"user": "u", "seed": 7}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"tools": [WEATHER], "tool_choice": "auto"}, {"tools": [_WEATHER], "tool_choice": "auto"}),
        ({"tools": [WEATHER], "parallel_tool_calls": False}, {"tools": [_WEATHER], "parallel_tool_calls": False}),
        (
            {"tools": [WEATHER, TIME], "tool_choice": {"type": "function", "name": "time"}},
            {"tools": [_WEATHER, _TIME], "tool_choice": {"type": "function", "function": {"name": "time"}}},
        ),
        (
            {
                "tools": [WEATHER, TIME],
                "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [TIME]},
            },
            {"tools": [_TIME], "tool_choice": "required"},
        ),
        ({"metadata": {"a": "b"}, "store": False, "truncation": "disabled", "prompt_cache_key": "k"}, {}),
    ],
)
def test_each_field_has_its_counterpart(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _chat(**fields) == {**_chat(), **expected}


def test_messages_of_each_role_and_kind_of_part() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    said = [{"type": "output_text", "text": "b", "annotations": []}, {"type": "output_text", "text": "c"}]
    assert _turns(
        _say("developer", "d"),
        {"type": "message", **_say("user", parts)},
        {"type": "message", "id": "msg_x", "status": "completed", **_say("assistant", said)},
        _say("assistant", [{"type": "refusal", "refusal": "No."}]),
    ) == [
        _say("developer", "d"),
        _say(
            "user",
            [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        ),
        _say("assistant", "bc"),
        _say("assistant", "No."),
    ]


def test_what_the_assistant_did_in_a_row_is_one_turn() -> None:
    thought = {"type": "reasoning", "id": "rs_x", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    summed = {"type": "reasoning", "id": "rs_y", "summary": [{"type": "summary_text", "text": "So."}]}
    assert _turns(
        thought,
        _say("assistant", "I look."),
        _call("c1", '{"city":"Paris"}'),
        _call("c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        summed,
        _call("c3"),
        {"type": "function_call_output", "call_id": "c3", "output": ""},
        _say("assistant", "Done."),
        _call("c4"),
        _say("assistant", "Really."),
    ) == [
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [_made("c1", '{"city":"Paris"}'), _made("c2")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "sun"},
        {"role": "assistant", "content": None, "reasoning_content": "So.", "tool_calls": [_made("c3")]},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
        {"role": "assistant", "content": "Done.", "tool_calls": [_made("c4")]},
        _say("assistant", "Really."),
    ]


def test_a_call_without_arguments_has_an_object_of_none() -> None:
    (turn,) = _turns(_call("c1", ""))
    assert turn["tool_calls"] == [_made("c1", "{}")]


def test_items_are_kept_complete() -> None:
    reference = {"type": "item_reference", "id": "msg_x"}
    items = _read(input=[_say("user", "a"), _say("assistant", "b"), _call("c1"), reference, {"id": "msg_y"}]).items
    assert items == [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            **_say("user", [{"type": "input_text", "text": "a"}]),
        },
        {
            "type": "message",
            "id": "msg_2",
            "status": "completed",
            **_say("assistant", [{"type": "output_text", "text": "b", "annotations": []}]),
        },
        {"id": "fc_3", "status": "completed", **_call("c1")},
        reference,
        {"type": "item_reference", "id": "msg_y"},
    ]


def test_tools_that_are_no_functions_may_be_left_out_instead() -> None:
    fields = {"model": "m", "input": "Hello", "tools": [{"type": "web_search"}, WEATHER, {"type": "custom"}]}
    request = read_request(fields, _ids(), ignore=True)
    assert request.chat_body(request.items, "m")["tools"] == [_WEATHER]
    # What is said back is what the model was told of.
    assert [tool["name"] for tool in envelope(request, id="r", model="m", created_at=0)["tools"]] == ["weather"]


def test_what_this_server_lacks_may_be_left_out_instead() -> None:
    fields = {"model": "m", "input": "Hello", "conversation": "conv_1", "truncation": "auto"}
    request = read_request(fields, _ids(), ignore=True)
    assert request.chat_body(request.items, "m") == _chat()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"input": None}, "input: the field is required"),
        ({"input": []}, "input: there must be at least one item"),
        ({"input": 5}, "input: must be an array, not an integer"),
        ({"input": ["x"]}, "input[0]: must be an object, not a string"),
        ({"input": [{"role": "user"}]}, "input[0].content: the field is required"),
        ({"input": [{"role": "tool", "content": ""}]}, "input[0].role: must be 'user', 'assistant', 'system' or"),
        (
            {"input": [_say("user", [{"type": "input_file"}])]},
            "input[0].content[0]: a part of type 'input_file' is not",
        ),
        (
            {"input": [_say("user", [{"type": "input_image", "file_id": "f"}])]},
            "input[0].content[0]: needs an image_url: files are not kept by this server",
        ),
        ({"input": [_say("assistant", [{"type": "input_image"}])]}, "input[0].content[0].type: a part of type"),
        ({"input": [{"type": "computer_call"}]}, "input[0]: an item of type 'computer_call' is not supported"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name: the field is required"),
        ({"input": [{**_call("c"), "id": 5}]}, "input[0].id: must be a string, not an integer"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output: the field is required"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id: the field is required"),
        ({"instructions": []}, "instructions: must be a string, not an array"),
        ({"max_output_tokens": 0}, "max_output_tokens: must be at least 1"),
        ({"max_output_tokens": 2**32}, "max_output_tokens: must be at most 2147483647"),
        ({"temperature": 3}, "temperature: must be between 0 and 2, not 3"),
        ({"top_p": -(10**400)}, "top_p: must be a number, not an integer of more than 64 bits"),
        ({"top_logprobs": 21}, "top_logprobs: must be at most 20"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type: the tool 'web_search' is not there on this server"),
        ({"tools": [{"type": "function"}]}, "tools[0].name: the field is required"),
        ({"tools": [TIME, TIME]}, "tools[1]: there are two tools 'time'"),
        ({"tool_choice": "required"}, "tool_choice: 'required' needs at least one tool in tools"),
        ({"tool_choice": "any"}, "tool_choice: must be 'auto', 'none' or 'required', not 'any'"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name: there is no tool 'x' in tools"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema: the field is required"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type: must be 'text', 'json_object' or 'json_schema'"),
        ({"metadata": {"a": 5}}, "metadata.a: must be a string, not an integer"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata: must have at most 16 keys, not 17"),
        ({"metadata": {"a" * 65: ""}}, "metadata: has a key of 65 characters: 64 are the most"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a: must have at most 512 characters"),
        ({"background": True, "store": False}, "background: needs store to be true"),
        ({"stream": 1}, "stream: must be true or false, not an integer"),
        ({"truncation": "auto"}, "truncation: 'auto' is not supported by this server"),
        ({"conversation": "conv_1"}, "conversation: is not supported by this server"),
        ({"prompt": {"id": "p"}}, "prompt: is not supported by this server"),
        ({"previous_response_id": 5}, "previous_response_id: must be a string, not an integer"),
    ],
)
def test_each_mistake_is_a_sentence_that_names_the_field(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError) as error:
        _chat(**fields)
    assert f"{error.value.bracketed}: {error.value.problem}".startswith(sentence)


TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "item_reference", "other"])
NAMES = st.sampled_from(["id", "role", "content", "call_id", "name", "arguments", "output", "summary", "status"])
ITEMS = st.builds(
    lambda kind, fields: {"type": kind, **fields}, KINDS, st.dictionaries(NAMES, VALUES | st.just("user"), max_size=9)
)


@given(items=st.lists(ITEMS | VALUES, max_size=4), tools=VALUES, choice=VALUES, text=VALUES)
def test_whatever_comes_is_converted_or_refused_by_name(items: Any, tools: Any, choice: Any, text: Any) -> None:
    fields = {"model": "m", "input": items, "tools": tools, "tool_choice": choice, "text": text}
    refusal: FieldError | None = None
    turns: list[dict[str, Any]] = []
    try:
        request = read_request(fields, _ids())
        known = [item for item in request.items if item["type"] != "item_reference"]
        turns = request.chat_body(known, "m")["messages"]
    except FieldError as error:
        refusal = error
    if refusal is not None:
        assert refusal.path[0] in fields
    else:
        assert json.loads(json.dumps(turns)) == turns
        assert all(turn["role"] in {"user", "assistant", "system", "developer", "tool"} for turn in turns)


def test_items_for_an_engine_of_its_own_have_names_that_can_be_kept_by() -> None:
    items = [{"id": 5, "type": "message"}, {"id": [1], "role": "user"}, {"type": None}, {"id": "own", "type": "x"}, 7]
    assert items_as_they_are(items, lambda kind: f"{kind}_new") == [
        {"id": "item_new", "type": "message"},
        {"id": "item_new", "type": "message", "role": "user"},
        {"id": "item_new", "type": "item_reference"},
        {"id": "own", "type": "x"},
    ]
    assert [each.id for each in in_bytes([{"id": 5}, {"id": "own"}, {}])] == ["", "own", ""]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "id": "1"},
        {"type": "function_call"},
        {"type": "message", "role": "assistant", "content": 5},
        {},
    ],
)
def test_what_an_engine_of_its_own_has_kept_in_another_shape_is_refused_and_not_our_failure(
    item: dict[str, Any],
) -> None:
    request = read_request({"model": "m", "input": "go on"}, lambda kind: f"{kind}_new")
    with pytest.raises(FieldError, match="cannot go on with"):
        request.chat_body([item], "m")
