"""Packages that speak to models for others: only their base URL and key are set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from .application import KEY, MODEL, WORDS

ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


async def test_litellm(url: str) -> None:
    import litellm

    more: Any = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY, "messages": ASK, "max_tokens": 6}
    whole: Any = litellm.completion(**more)
    assert whole.choices[0].message.content
    assert 0 < whole.usage.completion_tokens <= 6
    pieces: list[Any] = [piece async for piece in await litellm.acompletion(**more, stream=True)]
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces)
    by_anthropic: Any = litellm.completion(**{**more, "model": f"anthropic/{MODEL}", "api_base": url})
    assert by_anthropic.choices[0].message.content
    embedded: Any = litellm.embedding(
        model=f"openai/{WORDS}", input=["a cat"], api_base=f"{url}/v1", api_key=KEY, encoding_format="float"
    )
    assert len(embedded.data[0]["embedding"]) == 256
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**more, "model": "openai/nobody"})


async def test_pydantic_ai(url: str) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))
    agent = Agent(model, output_type=NativeOutput(Colour), model_settings={"max_tokens": 60})
    answer = await agent.run("Name a colour.")
    assert answer.output.name in ("red", "green", "blue")
    async with Agent(model, model_settings={"max_tokens": 8}).run_stream("Name a colour.") as stream:
        assert [text async for text in stream.stream_text()][-1]
    assert 0 < stream.usage.output_tokens <= 8


async def test_openai_agents(url: str) -> None:
    from agents import (
        Agent,
        ModelSettings,
        OpenAIChatCompletionsModel,
        Runner,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        # With its model for responses it wants answers that end by themselves: see test_tools.py.
        model = OpenAIChatCompletionsModel(MODEL, client)
        agent = Agent("clerk", model=model, model_settings=ModelSettings(max_tokens=12))
        assert (await Runner.run(agent, "Name a colour.")).final_output
        streamed = Runner.run_streamed(agent, "Name another.")
        assert [event.type async for event in streamed.stream_events()]
        assert streamed.final_output


def test_llm_the_command(url: str, tmp_path: Path) -> None:
    models = [{"model_id": "mine", "model_name": MODEL, "api_base": f"{url}/v1", "api_key_name": "mine"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    (tmp_path / "keys.json").write_text(json.dumps({"mine": KEY}))
    command = [sys.executable, "-m", "llm", "-m", "mine", "-o", "max_tokens", "8", "Name a colour."]
    for more in ([], ["--no-stream"]):
        done = subprocess.run(
            [*command, *more],
            # The package that carries the model is also a plugin of this command, which needs other packages.
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
