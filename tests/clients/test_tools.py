"""Tools, by each client's own way to have them called, from a server that has chat/completions alone."""

import json
from typing import Any, Literal

from .application import KEY, TOOLS

QUESTION = "How is the weather?"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_openai(url: str) -> None:
    from openai import OpenAI

    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        whole = client.chat.completions.create(model=TOOLS, messages=asked, tools=[tool]).choices[0]
        assert whole.finish_reason == "tool_calls"
        (call,) = whole.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
        with client.chat.completions.stream(model=TOOLS, messages=asked, tools=[tool]) as events:
            (streamed,) = events.get_final_completion().choices[0].message.tool_calls or []
        assert streamed.function.arguments == call.function.arguments
        asked += [whole.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        said = client.chat.completions.create(model=TOOLS, messages=asked, tools=[tool]).choices[0].message.content
        assert said == "It says rain."

        flat: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
        with client.responses.stream(model=TOOLS, input=QUESTION, tools=[flat]) as stream:
            kinds = [event.type for event in stream]
            response = stream.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        (item,) = response.output
        assert item.type == "function_call"
        gone_on = client.responses.create(
            model=TOOLS,
            previous_response_id=response.id,
            tools=[flat],
            input=[{"type": "function_call_output", "call_id": item.call_id, "output": "rain"}],
        )
        assert gone_on.output_text == "It says rain."


def test_anthropic(url: str) -> None:
    from anthropic import Anthropic

    tool: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        with client.messages.stream(model=TOOLS, max_tokens=50, messages=asked, tools=[tool]) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == "tool_use"
        (used,) = final.content
        assert used.type == "tool_use"
        assert used.input == {"city": "Oslo"}
        asked.append({"role": "assistant", "content": [used.model_dump(include={"type", "id", "name", "input"})]})
        asked.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "rain"}]})
        (text,) = client.messages.create(model=TOOLS, max_tokens=50, messages=asked, tools=[tool]).content
        assert text.type == "text"
        assert text.text == "It says rain."


def test_langchain(url: str) -> None:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    @tool
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    model = ChatOpenAI(model=TOOLS, base_url=f"{url}/v1", api_key=SecretStr(KEY), max_retries=0)
    (call,) = model.bind_tools([weather], tool_choice="required").invoke(QUESTION).tool_calls
    assert call["name"] == "weather"
    assert weather.invoke(call["args"]) == "rain in Oslo"


async def test_pydantic_ai(url: str) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    model = OpenAIChatModel(TOOLS, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
    assert (await Agent(model, tools=[weather]).run(QUESTION)).output == "It says rain in Oslo."


async def test_openai_agents(url: str) -> None:
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
            agent = Agent("clerk", model=kind(TOOLS, client), tools=[weather])
            assert (await Runner.run(agent, QUESTION)).final_output == "It says rain in Oslo."
            streamed = Runner.run_streamed(agent, QUESTION)
            assert [event.type async for event in streamed.stream_events()]
            assert streamed.final_output.strip() == "It says rain in Oslo."
