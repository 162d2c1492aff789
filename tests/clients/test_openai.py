"""OpenAI's own client."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from .application import CALLS, FAKE, KEY, MODEL, NARROW, TOOLS, WORDS

ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def test_chat_whole_and_streamed_says_the_same(client: OpenAI) -> None:
    more: Any = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 12}
    # What was read before, from the cache or anew, changes how the model rounds.
    more["extra_body"] = {"cache_prompt": False}
    whole = client.chat.completions.create(**more)
    said = whole.choices[0].message.content
    assert said
    assert whole.usage is not None
    chunks = list(client.chat.completions.create(**more, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert whole.choices[0].finish_reason == chunks[-2].choices[0].finish_reason


async def test_asynchronously_as_well(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=5, stream=True)
    assert [chunk async for chunk in stream]
    async with async_client.chat.completions.stream(model=MODEL, messages=ASK, response_format=Colour) as events:
        kinds = {event.type async for event in events}
        assert "content.delta" in kinds
        assert isinstance((await events.get_final_completion()).choices[0].message.parsed, Colour)


def test_an_answer_is_parsed_into_a_pydantic_model(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Colour)
    assert isinstance(parsed.choices[0].message.parsed, Colour)
    response = client.responses.parse(model=MODEL, input="Name a colour.", text_format=Colour)
    assert isinstance(response.output_parsed, Colour)


def test_responses_have_a_state(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hello.", max_output_tokens=8)
    assert first.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    again: Any = {"model": MODEL, "input": "A colour?", "previous_response_id": first.id}
    with client.responses.stream(**again, text_format=Colour) as events:
        kinds = [event.type for event in events]
        second = events.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert "response.output_text.delta" in kinds
    assert isinstance(second.output_parsed, Colour)
    assert second.previous_response_id == first.id
    assert [item.type for item in client.responses.input_items.list(second.id)]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_completions_embeddings_and_models(client: OpenAI) -> None:
    done = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=5, temperature=0)
    assert done.choices[0].text
    embedded = client.embeddings.create(model=WORDS, input=["a cat", "a dog"])
    assert [len(each.embedding) for each in embedded.data] == [256, 256]
    assert {model.id for model in client.models.list()} == {MODEL, WORDS, FAKE, TOOLS, CALLS, NARROW}
    assert client.models.retrieve(MODEL).id == MODEL


def test_mistakes_are_the_exceptions_that_the_client_has_for_them(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=ASK)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-other").models.list()
