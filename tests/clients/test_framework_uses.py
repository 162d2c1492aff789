"""What people do with other packages' clients beside asking: events, counts, mistakes, conversations."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic
from pydantic import BaseModel, SecretStr

from .application import CALLS, KEY, MODEL, TOOLS

ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather?"}]
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOO_LONG: list[Any] = [{"role": "user", "content": "word " * 9000}]


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


# Anthropic's client.


@pytest.mark.parametrize("model", [CALLS, TOOLS])
def test_the_events_of_an_anthropic_call_of_a_tool(url: str, model: str) -> None:
    tools: list[Any] = [{"name": "weather", "description": "The weather.", "input_schema": CITY}]
    with (
        Anthropic(base_url=url, api_key=KEY, max_retries=0) as client,
        client.messages.stream(model=model, max_tokens=60, messages=QUESTION, tools=tools) as stream,
    ):
        events = list(stream)
        final = stream.get_final_message()
    kinds = [event.type for event in events]
    assert {"content_block_start", "input_json", "content_block_stop", "message_delta"} <= set(kinds)
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    (used,) = [block for block in final.content if block.type == "tool_use"]
    assert json.loads("".join(pieces)) == used.input == {"city": "Oslo"}


def test_anthropic_texts_systems_images_and_lengths(url: str) -> None:
    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        system: list[Any] = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
        with client.messages.stream(model=MODEL, max_tokens=6, messages=ASK, system=system) as stream:
            text = "".join(stream.text_stream)
            assert text == stream.get_final_text()
        raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=3, messages=ASK)
        assert raw.parse().stop_reason == "max_tokens"
        assert raw.request_id
        assert raw.parse()._request_id == raw.request_id
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        image: list[Any] = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        with pytest.raises(anthropic.BadRequestError, match="image input is not supported"):
            client.messages.create(model=MODEL, max_tokens=3, messages=image)
        with pytest.raises(anthropic.BadRequestError, match="context") as refused:
            client.messages.create(model=MODEL, max_tokens=3, messages=TOO_LONG)
        assert refused.value.request_id
        begun: list[Any] = [*ASK, {"role": "assistant", "content": "My colour is"}]
        assert client.messages.create(model=MODEL, max_tokens=3, messages=begun).content


# LiteLLM.


def test_litellm_builds_counts_and_names_mistakes(url: str) -> None:
    # In a loop of its own, since it leaves tasks behind.
    asyncio.run(_litellm(url))


async def _litellm(url: str) -> None:
    import litellm

    more: Any = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY, "max_tokens": 6}
    whole: Any = await litellm.acompletion(**more, messages=ASK)
    assert whole.choices[0].message.content
    stream: Any = litellm.completion(**more, messages=ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    built: Any = litellm.stream_chunk_builder(chunks, messages=ASK)
    assert built.choices[0].message.content == "".join(
        chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
    )
    assert built.usage.completion_tokens == 6
    assert litellm.token_counter(model=f"openai/{MODEL}", messages=ASK) > 0
    text: Any = await litellm.atext_completion(**more, prompt="One, two,")
    assert text.choices[0].text
    said: Any = await litellm.aresponses(
        model=f"openai/{MODEL}", input="Hello.", api_base=f"{url}/v1", api_key=KEY, max_output_tokens=16
    )
    assert said.output
    with pytest.raises(litellm.ContextWindowExceededError):
        await litellm.acompletion(**more, messages=TOO_LONG)
    with pytest.raises(litellm.AuthenticationError):
        await litellm.acompletion(**{**more, "api_key": "sk-other"}, messages=ASK)
    await litellm.close_litellm_async_clients()


@pytest.mark.parametrize("model", [CALLS, TOOLS])
def test_litellm_streams_a_call_of_a_tool(url: str, model: str) -> None:
    import litellm

    function = {"name": "weather", "parameters": CITY}
    more: Any = {"messages": QUESTION, "tools": [{"type": "function", "function": function}], "api_key": KEY}
    for name, base in ((f"openai/{model}", f"{url}/v1"), (f"anthropic/{model}", url)):
        chunks = list(litellm.completion(model=name, api_base=base, stream=True, max_tokens=60, **more))
        built: Any = litellm.stream_chunk_builder(chunks)
        (call,) = built.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "Oslo"}


# LangChain.


async def test_langchain_events_forms_and_usage(url: str) -> None:
    # All in one test, since it keeps its connections for the next one, whose loop is another.
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

    more: Any = {"base_url": f"{url}/v1", "api_key": SecretStr(KEY), "max_retries": 0}
    model = ChatOpenAI(model=MODEL, max_completion_tokens=30, stream_usage=True, **more)
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "Name {what}.")])
    kinds = [event["event"] async for event in (prompt | model).astream_events({"what": "a colour"})]
    assert kinds.count("on_chat_model_stream") > 1
    assert "on_chain_end" in kinds
    whole: Any = None
    for piece in model.stream("Name a colour."):
        whole = piece if whole is None else whole + piece
    assert whole.usage_metadata["output_tokens"] > 0
    formed = model.with_structured_output(Colour, include_raw=True)
    assert isinstance((await formed.ainvoke("Name a colour."))["parsed"], Colour)
    by_call = ChatOpenAI(model=CALLS, **more).with_structured_output(Colour, method="function_calling")
    assert isinstance(by_call.invoke("How is the weather?"), Colour)
    assert len([piece async for piece in model.astream("Name a colour.")]) > 2
    assert model.batch(["Red?", "Blue?"])
    by_responses = ChatOpenAI(model=MODEL, max_completion_tokens=16, use_responses_api=True, **more)
    assert by_responses.invoke("Hello.").content
    assert OpenAI(model=MODEL, max_tokens=4, **more).invoke("One, two,")
    embeddings = OpenAIEmbeddings(model="words", check_embedding_ctx_length=False, **more)
    assert [len(each) for each in await embeddings.aembed_documents(["a cat", "a dog"])] == [256, 256]


# The command `llm`.


@pytest.fixture
def llm(url: str, tmp_path: Path) -> Callable[..., str]:
    models = [
        {
            "model_id": "mine",
            "model_name": MODEL,
            "api_base": f"{url}/v1",
            "api_key_name": "mine",
            "supports_schema": True,
        }
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models), encoding="utf-8")
    (tmp_path / "keys.json").write_text(json.dumps({"mine": KEY}), encoding="utf-8")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("llm")), *arguments],
            # The package that carries the model is also a plugin of this command, which needs other packages.
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_llm_systems_schemas_and_conversations(llm: Callable[..., str]) -> None:
    assert llm("-m", "mine", "-o", "max_tokens", "8", "-s", "Be brief.", "Name a colour.")
    assert llm("-c", "-o", "max_tokens", "8", "And another.")
    logged = json.loads(llm("logs", "--json", "-n", "0"))
    assert len({each["conversation_id"] for each in logged}) == 1
    schema = json.dumps(Colour.model_json_schema())
    assert json.loads(llm("-m", "mine", "--schema", schema, "Name a colour."))["name"] in ("red", "green", "blue")


# Pydantic AI and OpenAI's agents.


def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def test_pydantic_ai_by_each_of_its_models(url: str) -> None:
    from pydantic_ai import Agent, NativeOutput, ToolOutput
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    openais = OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        theirs = AnthropicProvider(anthropic_client=client)
        callers: list[Any] = [
            OpenAIChatModel(CALLS, provider=openais),
            OpenAIResponsesModel(CALLS, provider=openais),
            AnthropicModel(CALLS, provider=theirs, settings={"max_tokens": 60}),
        ]
        for model in callers:
            assert (await Agent(model, tools=[weather]).run("How is the weather?")).output
            formed = await Agent(model, output_type=ToolOutput(Colour)).run("How is the weather?")
            assert isinstance(formed.output, Colour)
            async with Agent(model, tools=[weather]).run_stream("How is the weather?") as stream:
                assert [text async for text in stream.stream_text()][-1]
        by_responses = OpenAIResponsesModel(MODEL, provider=openais)
        formed = await Agent(by_responses, output_type=NativeOutput(Colour)).run("Name a colour.")
        assert isinstance(formed.output, Colour)


async def test_agents_have_forms_sessions_and_handoffs(url: str) -> None:
    from agents import (
        Agent,
        ModelSettings,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        Runner,
        SQLiteSession,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    brief = ModelSettings(extra_body={"grammar": 'root ::= "yes" | "no"'})
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
            formed = Agent("painter", model=kind(MODEL, client), output_type=Colour)
            assert isinstance((await Runner.run(formed, "Name a colour.")).final_output, Colour)
            session = SQLiteSession("one")
            judge = Agent("judge", model=kind(MODEL, client), instructions="Be brief.", model_settings=brief)
            for question in ("Is it so?", "And now?"):
                assert (await Runner.run(judge, question, session=session)).final_output in ("yes", "no")
            assert len(await session.get_items()) == 4
            session.close()
            # What it calls is the hand-over, and who takes over has no tools.
            clerk = Agent("clerk", model=kind(CALLS, client))
            door = Agent("door", model=kind(CALLS, client), handoffs=[clerk])
            ended = await Runner.run(door, "How is the weather?")
            assert (ended.last_agent.name, bool(ended.final_output)) == ("clerk", True)
