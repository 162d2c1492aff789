"""Tools, by each client's own way to have them called: from llama.cpp with a real model, whose calls a grammar forms,
and from a server that has chat/completions alone and calls them by a script."""

import json
from typing import Any, Literal

import pytest

from .application import CALLS, KEY, TOOLS

QUESTION = "How is the weather?"
CITIES = ("Oslo", "Rome")
both = pytest.mark.parametrize("model", [CALLS, TOOLS])
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": [*CITIES]}},
    "required": ["city"],
    "additionalProperties": False,
}


def check_end(model: str, text: object, told: str = "rain") -> None:
    """What is said in the end; the real model makes of it what it will."""
    assert isinstance(text, str)
    assert text.strip() == f"It says {told}." if model == TOOLS else text


@both
def test_openai(url: str, model: str) -> None:
    from openai import OpenAI

    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        whole = client.chat.completions.create(model=model, messages=asked, tools=[tool]).choices[0]
        assert whole.finish_reason == "tool_calls"
        (call,) = whole.message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"] in CITIES
        with client.chat.completions.stream(model=model, messages=asked, tools=[tool]) as events:
            (streamed,) = events.get_final_completion().choices[0].message.tool_calls or []
        assert json.loads(streamed.function.arguments)["city"] in CITIES
        asked += [whole.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        said = client.chat.completions.create(model=model, messages=asked, tools=[tool]).choices[0].message.content
        check_end(model, said)

        flat: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
        with client.responses.stream(model=model, input=QUESTION, tools=[flat]) as stream:
            kinds = [event.type for event in stream]
            response = stream.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        (item,) = response.output
        assert item.type == "function_call"
        gone_on = client.responses.create(
            model=model,
            previous_response_id=response.id,
            tools=[flat],
            input=[{"type": "function_call_output", "call_id": item.call_id, "output": "rain"}],
        )
        check_end(model, gone_on.output_text)


@both
def test_anthropic(url: str, model: str) -> None:
    from anthropic import Anthropic

    tool: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        with client.messages.stream(model=model, max_tokens=50, messages=asked, tools=[tool]) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == "tool_use"
        (used,) = final.content
        assert used.type == "tool_use"
        assert used.input["city"] in CITIES
        asked.append({"role": "assistant", "content": [used.model_dump(include={"type", "id", "name", "input"})]})
        asked.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "rain"}]})
        (text,) = client.messages.create(model=model, max_tokens=50, messages=asked, tools=[tool]).content
        assert text.type == "text"
        check_end(model, text.text)


@both
def test_langchain(url: str, model: str) -> None:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    @tool
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    chat = ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=SecretStr(KEY), max_retries=0)
    (call,) = chat.bind_tools([weather], tool_choice="required").invoke(QUESTION).tool_calls
    assert call["name"] == "weather"
    assert weather.invoke(call["args"]) in ("rain in Oslo", "rain in Rome")


@both
async def test_pydantic_ai(url: str, model: str) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    chat = OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
    check_end(model, (await Agent(chat, tools=[weather]).run(QUESTION)).output, "rain in Oslo")


@both
async def test_openai_agents(url: str, model: str) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
    from agents import set_tracing_disabled as no_tracing
    from openai import AsyncOpenAI

    no_tracing(True)

    @function_tool
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
            agent = Agent("clerk", model=kind(model, client), tools=[weather])
            check_end(model, (await Runner.run(agent, QUESTION)).final_output, "rain in Oslo")
            streamed = Runner.run_streamed(agent, QUESTION)
            assert [event.type async for event in streamed.stream_events()]
            check_end(model, streamed.final_output, "rain in Oslo")
