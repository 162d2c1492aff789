"""What people do with OpenAI's client beside asking: raw responses, retries, deadlines, leaving in the midst."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from .application import CALLS, FAKE, KEY, MODEL, NARROW

ASK: list[Any] = [{"role": "user", "content": "Name a colour."}]
# Ends by itself.
BRIEF: dict[str, Any] = {"grammar": 'root ::= "red, blue"'}
# More than anybody waits for.
LONG: dict[str, Any] = {"messages": ASK, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def wait_until_idle(url: str) -> None:
    while httpx.get(f"{url}/load").json() != {"running": 0, "waiting": 0}:
        pass


def test_raw_responses(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=3)
    assert raw.status_code == 200
    assert raw.headers["content-type"].startswith("application/json")
    said = raw.parse()
    assert said.choices[0].message.content
    assert raw.request_id
    assert said._request_id == raw.request_id
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.with_raw_response.create(model=MODEL, messages=[])
    assert wrong.value.request_id
    assert wrong.value.code
    embedded = client.embeddings.with_raw_response.create(model="words", input="a")
    assert embedded.parse().data[0].embedding


def test_responses_that_are_read_as_they_stream(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASK, max_tokens=3, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=ASK, max_tokens=3) as response:
        assert response.parse().choices[0].message.content
    with client.responses.with_streaming_response.create(model=MODEL, input="x", max_output_tokens=16) as response:
        assert response.json()["object"] == "response"


def test_the_events_of_a_chat_add_up(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, logprobs=True, stream_options={"include_usage": True}, extra_body=BRIEF
    ) as events:
        deltas = [event.delta for event in events if event.type == "content.delta"]
        final = events.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content
    logprobs = final.choices[0].logprobs
    assert logprobs is not None
    assert final.usage is not None
    # The token that ends it has no text.
    assert final.usage.completion_tokens == len(logprobs.content or ()) + 1


def test_the_events_of_a_response_add_up(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Name a colour.", extra_body=BRIEF) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert "".join(deltas) == final.output_text == "red, blue"
    with client.responses.create(model=MODEL, input="Hello.", max_output_tokens=16, stream=True) as stream:
        assert [event.sequence_number for event in stream][:3] == [0, 1, 2]


def test_a_request_that_finds_no_room_is_sent_again_after_as_long_as_it_is_told(client: OpenAI, url: str) -> None:
    held = client.chat.completions.create(model=NARROW, stream=True, **LONG)
    next(held)
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=NARROW, messages=ASK, max_tokens=1)
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1
    told: list[int] = []

    def see(response: httpx.Response) -> None:
        told.append(response.status_code)
        held.close()

    http = openai.DefaultHttpxClient(event_hooks={"response": [see]})
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=3, http_client=http) as patient:
        assert patient.chat.completions.create(model=NARROW, messages=ASK, max_tokens=1).choices
    assert told[0] == 503
    assert told[-1] == 200


def test_a_deadline_ends_the_request_at_its_engine(client: OpenAI, url: str) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model=NARROW, **LONG)
    wait_until_idle(url)


def test_a_stream_that_is_left_ends_at_its_engine(client: OpenAI, url: str) -> None:
    for begun in client.chat.completions.create(model=MODEL, stream=True, **LONG):
        assert begun.choices
        break
    with client.chat.completions.create(model=MODEL, stream=True, **LONG) as stream:
        next(stream)
    wait_until_idle(url)


async def test_a_task_that_is_cancelled_ends_at_its_engine(async_client: AsyncOpenAI, url: str) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in await async_client.chat.completions.create(model=MODEL, stream=True, **LONG):
            begun.set()

    async def ask() -> None:
        begun.set()
        await async_client.chat.completions.create(model=NARROW, **LONG)

    for work in (read, ask):
        begun.clear()
        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(wait_until_idle, url)
    again = await async_client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=1)
    assert again.choices


def test_completions_as_they_used_to_be_asked_for(client: OpenAI) -> None:
    two = client.completions.create(model=MODEL, prompt=["One, two,", "Red,"], max_tokens=3, n=2, logprobs=2)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    for chunk in client.completions.create(model=MODEL, prompt=["One, two,", "Red,"], max_tokens=3, stream=True):
        assert chunk.choices
    for lacked in ({"echo": True}, {"suffix": "end"}, {"best_of": 2}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model=MODEL, prompt="One, two,", max_tokens=3, **lacked)
        assert refused.value.param == next(iter(lacked))
    echoed = client.completions.create(model=FAKE, prompt="One, two,", max_tokens=3, echo=True, best_of=1)
    assert echoed.choices[0].text.startswith("One, two,")


def test_a_call_that_is_forced(client: OpenAI) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}}}
    tool: Any = {"type": "function", "function": function}
    chosen: Any = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", chosen):
        asked: list[Any] = [{"role": "user", "content": "How is the weather?"}]
        answer = client.chat.completions.create(model=CALLS, messages=asked, tools=[tool], tool_choice=choice)
        assert answer.choices[0].finish_reason == "tool_calls"
