"""Requests of the Messages API as requests of chat/completions: each field, each kind of block, each mistake."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.fields import FieldError
from actorrt.serve.llm.messages.request import chat_request, check

HELLO: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
WEATHER = {"name": "weather", "description": "Of a city", "input_schema": {"type": "object"}}


def _chat(**fields: Any) -> dict[str, Any]:
    return chat_request({**HELLO, **fields}, "m").body


def test_the_least_request_says_the_same_in_both() -> None:
    assert _chat() == {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 3}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {}),
        ({"temperature": None, "tools": None}, {}),
        ({"service_tier": "auto", "cache_control": {"type": "ephemeral"}}, {}),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, {}),
        ({"seed": 7, "grammar": "root ::= 'x'"}, {"seed": 7, "grammar": "root ::= 'x'"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": 1024},
        ),
        ({"thinking": {"type": "disabled"}}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "reasoning_effort": "low",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                },
            },
        ),
    ],
)
def test_each_field_has_its_counterpart(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _chat(**fields) == {**_chat(), **expected}


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]])
def test_a_system_prompt_is_the_first_turn(system: Any) -> None:
    assert _chat(system=system)["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_tools_and_their_choice(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    chat = _chat(tools=[WEATHER], tool_choice=choice)
    function = {"name": "weather", "description": "Of a city", "parameters": {"type": "object"}}
    assert chat == {**_chat(), "tools": [{"type": "function", "function": function}], **expected}


def test_a_conversation_with_tools_thoughts_and_images() -> None:
    messages: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I "},
                {"type": "text", "text": "look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Köln"}},
                {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "sun"}]},
                {"type": "tool_result", "tool_use_id": "t3", "is_error": True},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    assert _chat(messages=messages, tools=[WEATHER])["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
                {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "sun"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "So?"},
    ]


def test_an_answer_that_the_client_began_is_gone_on_with() -> None:
    request = chat_request({**HELLO, "messages": [*HELLO["messages"], {"role": "assistant", "content": "Well"}]}, "m")
    assert request.prefill == "Well"
    assert request.body["continue_final_message"] is True
    assert request.body["add_generation_prompt"] is False


def test_counting_needs_no_max_tokens_and_asks_for_no_stream() -> None:
    body = {"model": "m", "messages": HELLO["messages"], "stream": True}
    assert chat_request(body, "m", counting=True).body == {"model": "m", "messages": HELLO["messages"]}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_tokens": None}, "max_tokens: the field is required"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"max_tokens": True}, "max_tokens: must be an integer, not a boolean"),
        ({"max_tokens": 2**32}, "max_tokens: must be at most 2147483647"),
        ({"max_tokens": "5"}, "max_tokens: must be an integer, not a string"),
        ({"messages": None}, "messages: the field is required"),
        ({"messages": []}, "messages: there must be at least one message"),
        ({"messages": "Hello"}, "messages: must be an array, not a string"),
        ({"messages": ["Hello"]}, "messages.0: must be an object, not a string"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: the field is required"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role: must be 'user', 'assistant' or 'system', not 'tool'",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content: the field is required"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content: there must be at least one block"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: must be an array, not an integer"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type: the field is required",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text: the field is required",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "graph"}]}]},
            "messages.0.content.0: a block of type 'graph' is not supported here; text, image and tool_result are",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "image"}]}]},
            "messages.0.content.0: a block of type 'image' cannot be in a message of the assistant here",
        ),
        ({"system": 5}, "system: must be an array, not an integer"),
        ({"system": [{"type": "image"}]}, "system.0.type: must be 'text', not 'image'"),
        ({"temperature": -1}, "temperature: must be between 0 and 2, not -1"),
        ({"temperature": "hot"}, "temperature: must be a number, not a string"),
        ({"temperature": 10**400}, "temperature: must be a number, not an integer of more than 64 bits"),
        ({"top_p": 1.5}, "top_p: must be between 0 and 1, not 1.5"),
        ({"top_k": -1}, "top_k: must be at least 0"),
        ({"stop_sequences": "a"}, "stop_sequences: must be an array, not a string"),
        ({"stop_sequences": [" "]}, "stop_sequences.0: must hold something else than white space"),
        ({"stream": "yes"}, "stream: must be true or false, not a string"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id: must be a string, not an integer"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema: the field is required"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1.name: there are two tools 'weather'"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0.type: the tool 'web_search_20250305' is Anthropic's own; here are tools that have an input_schema",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice: 'any' needs at least one tool in tools"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}},
            "tool_choice.name: there is no tool 'x' in tools",
        ),
        (
            {"tool_choice": {"type": "all"}},
            "tool_choice.type: must be 'auto', 'any', 'tool' or 'none', not 'all'",
        ),
        ({"mcp_servers": [{}]}, "mcp_servers: is not supported by this server"),
    ],
)
def test_each_mistake_is_a_sentence_that_names_the_field(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError) as error:
        _chat(**fields)
    assert str(error.value) == sentence


def test_tools_of_anthropics_own_may_be_left_out_instead() -> None:
    own = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    tools = chat_request({**HELLO, "tools": [own, WEATHER]}, "m", ignore=True).body["tools"]
    assert [tool["function"]["name"] for tool in tools] == ["weather"]
    assert "tools" not in chat_request({**HELLO, "tools": [own]}, "m", ignore=True).body


def test_what_only_an_engine_knows_is_left_to_an_engine_that_has_the_api() -> None:
    check({**HELLO, "messages": [{"role": "user", "content": [{"type": "of tomorrow"}]}], "tools": [{"type": "new"}]})


TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
BLOCKS = (
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})
    | st.fixed_dictionaries({"type": st.just("tool_use"), "id": VALUES, "name": VALUES, "input": VALUES})
    | st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": VALUES, "content": VALUES})
    | st.fixed_dictionaries({"type": st.just("image"), "source": VALUES})
    | VALUES
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS | st.lists(BLOCKS, max_size=4)}
)


@given(messages=st.lists(MESSAGES, max_size=4), tools=VALUES, choice=VALUES, system=VALUES)
def test_whatever_comes_is_converted_or_refused_by_name(messages: Any, tools: Any, choice: Any, system: Any) -> None:
    body = {**HELLO, "messages": messages, "tools": tools, "tool_choice": choice, "system": system}
    refusal: FieldError | None = None
    turns: list[dict[str, Any]] = []
    try:
        turns = chat_request(body, "m").body["messages"]
    except FieldError as error:
        refusal = error
    if refusal is not None:
        assert refusal.path[0] in body
    else:
        assert json.loads(json.dumps(turns)) == turns
        assert all(turn["role"] in {"user", "assistant", "system", "tool"} for turn in turns)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_no_character_of_what_was_said_is_lost(texts: list[str]) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]
    assert [turn["content"] for turn in _chat(messages=said)["messages"]] == texts
