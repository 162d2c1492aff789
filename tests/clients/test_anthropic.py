"""Anthropic's own client."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from .application import KEY, MODEL

ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]


@pytest.fixture
def client(url: str) -> Iterator[Anthropic]:
    with Anthropic(base_url=url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def test_a_message_whole_and_streamed_says_the_same(client: Anthropic) -> None:
    more: Any = {"model": MODEL, "max_tokens": 12, "system": "Be brief.", "messages": ASK}
    # What was read before, from the cache or anew, changes how the model rounds.
    more["extra_body"] = {"temperature": 0, "cache_prompt": False}
    whole = client.messages.create(**more)
    (block,) = whole.content
    assert block.type == "text"
    assert block.text
    with client.messages.stream(**more) as stream:
        assert "".join(stream.text_stream) == block.text
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


async def test_asynchronously_as_well(async_client: AsyncAnthropic) -> None:
    async with async_client.messages.stream(model=MODEL, max_tokens=5, messages=ASK) as stream:
        kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_tokens_are_counted_before_they_are_sent(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=ASK).input_tokens
    usage = client.messages.create(model=MODEL, max_tokens=1, messages=ASK).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models_and_mistakes(client: Anthropic) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    with pytest.raises(anthropic.NotFoundError, match="nobody"):
        client.messages.create(model="nobody", max_tokens=5, messages=ASK)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=5, messages=[])
    other = client.with_options(api_key="sk-other")
    with pytest.raises(anthropic.AuthenticationError):
        other.models.list()
