"""The one rule for parameters that an engine would leave unread."""

from collections.abc import Iterator
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig
from actorrt.serve.llm.engines.interface import Capacity, EngineFacts
from actorrt.serve.llm.problems import Problem
from actorrt.serve.llm.routes import Kind
from actorrt.serve.llm.unsupported import check_supported

from .conftest import HELLO, ScriptedApp, run_scripted


def facts(kind: str, **more: bool) -> EngineFacts:
    return EngineFacts(kind, frozenset(), Capacity(1, 1, 1), **more)


ASKS: list[dict[str, Any]] = [
    {"suffix": "x"},
    {"best_of": 2},
    {"modalities": ["text", "audio"]},
    {"functions": [{"name": "f"}]},
    {"web_search_options": {"x": 1}},
]
ASKS_NOTHING: list[dict[str, Any]] = [
    {},
    {"suffix": None, "audio": None, "functions": [], "echo": False},
    {"function_call": "none"},
    {"function_call": "auto", "functions": []},
    {"best_of": 1, "modalities": ["text"]},
    {"unknown": 1, "temperature": 0},
]


@pytest.mark.parametrize("fields", ASKS)
def test_what_llama_cpp_would_leave_unread_is_refused_by_name_or_ignored(fields: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        check_supported(Kind.COMPLETION, fields, facts("llamacpp"), "refuse")
    assert (caught.value.status, caught.value.param) == (400, next(iter(fields)))
    check_supported(Kind.COMPLETION, fields, facts("llamacpp"), "ignore")
    # A server checks for itself what it is sent.
    check_supported(Kind.COMPLETION, fields, facts("server"), "refuse")


def test_a_length_of_vectors_that_llama_cpp_would_leave_unread_is_refused_or_ignored() -> None:
    with pytest.raises(Problem) as caught:
        check_supported(Kind.EMBEDDINGS, {"dimensions": 64}, facts("llamacpp"), "refuse")
    assert (caught.value.status, caught.value.param) == (400, "dimensions")
    check_supported(Kind.EMBEDDINGS, {"dimensions": 64}, facts("llamacpp"), "ignore")
    check_supported(Kind.EMBEDDINGS, {"dimensions": None, "echo": True}, facts("llamacpp"), "refuse")
    check_supported(Kind.EMBEDDINGS, {"dimensions": 64}, facts("wordllama"), "refuse")


@pytest.mark.parametrize("fields", ASKS_NOTHING)
def test_what_asks_for_nothing_is_not_refused(fields: dict[str, Any]) -> None:
    check_supported(Kind.CHAT, fields, facts("llamacpp"), "refuse")


@pytest.mark.parametrize("kind", ["llamacpp", "server"])
@pytest.mark.parametrize("choice", [None, "auto", "required", {"type": "any"}])
def test_tools_are_refused_where_the_chat_template_has_none(kind: str, choice: Any) -> None:
    fields = {"tools": [{"type": "function"}], "tool_choice": choice}
    with pytest.raises(Problem) as caught:
        check_supported(Kind.CHAT, fields, facts(kind, takes_tools=False), "refuse")
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "tools", "unsupported_parameter")
    check_supported(Kind.CHAT, fields, facts(kind, takes_tools=False), "ignore")
    check_supported(Kind.CHAT, fields, facts(kind), "refuse")


@pytest.mark.parametrize("fields", [{"tools": []}, {"tools": None}, {"tools": [{}], "tool_choice": "none"}])
def test_no_tools_are_not_refused(fields: dict[str, Any]) -> None:
    check_supported(Kind.CHAT, fields, facts("llamacpp", takes_tools=False), "refuse")


MESSAGES = "/v1/messages"


@pytest.fixture(scope="module", params=[(), (MESSAGES,)], ids=["made from chat", "the engine's own"])
def without_tools(serve_url: str, request: pytest.FixtureRequest) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "tools", FrontConfig(), *request.param, takes_tools=False)
    with app.client:
        yield app


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_which_a_model_would_hear_nothing_are_refused_in_the_shape_of_each_api(
    without_tools: ScriptedApp, stream: bool
) -> None:
    function = {"name": "weather", "parameters": {"type": "object"}}
    asked: dict[str, Any] = {"model": "scripted", "stream": stream}
    for path, more in (
        ("/v1/chat/completions", {"messages": HELLO, "tools": [{"type": "function", "function": function}]}),
        ("/v1/responses", {"input": "hello", "tools": [{"type": "function", **function}]}),
    ):
        response = without_tools.client.post(path, json={**asked, **more, "tool_choice": "required"})
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "tools", "unsupported_parameter")
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    response = without_tools.client.post(MESSAGES, json={**asked, "messages": HELLO, "tools": tools, "max_tokens": 5})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "has no tools" in response.json()["error"]["message"]
    assert not without_tools.ask("calls")
