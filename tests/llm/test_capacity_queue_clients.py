"""What clients of a language model may say to its capacity queue: how long a request may wait, and whose turn it is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import ApiKey, FrontConfig, LLMConfig, SimulatedEngine, build_openai_app

from ..serve.queues import statistics, until_idle

MODEL = ("clients", "model:simulated")
LONG: dict[str, Any] = {"max_tokens": 9000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def url(serve_url: str) -> Iterator[str]:
    engine = SimulatedEngine(kv_tokens=40_000, slots=4, context=20_000, decode_step_s=0.005)
    options = {"num_replicas": 2, "max_ongoing_requests": 2, "request_router": "capacity_queue"}
    model = LLMConfig(model_id="simulated", engine=engine, deployment=options)
    front = FrontConfig(keys=[ApiKey.of("key", "tenant")])
    serve.run(build_openai_app(model, front), name="clients", route_prefix="/clients")
    yield f"{serve_url}/clients"
    serve.delete("clients")


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=headers) as client:
        yield client
    assert await until_idle(*MODEL)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "simulated", "messages": [{"role": "user", "content": "hello"}], **fields}


async def running() -> list[int]:
    """Requests at each replica."""
    return [line["running"] for line in (await statistics(*MODEL))["lines"]]


async def until_running(count: int) -> list[int]:
    while sum(found := await running()) != count:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return found


class Streams(AsyncExitStack):
    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def begin(self, path: str = "/v1/chat/completions", headers: Any = None, **fields: Any) -> None:
        stream = self._client.stream("POST", path, json={**LONG, **fields}, headers=headers)
        answer = await self.enter_async_context(stream)
        assert answer.status_code == 200, await answer.aread()


@pytest.mark.parametrize("by", ["x-session-id", "prompt_cache_key"])
async def test_a_session_runs_where_its_last_turn_did(client: httpx.AsyncClient, by: str) -> None:
    said = ({"x-session-id": "s"}, {}) if by == "x-session-id" else ({}, {"prompt_cache_key": "k"})
    async with Streams(client) as streams:
        for _ in range(2):
            await streams.begin(headers=said[0], **chat(**said[1]))
        assert sorted(await until_running(2)) == [0, 2]
        # It has no room there any more.
        await streams.begin(headers=said[0], **chat(**said[1]))
        assert sorted(await until_running(3)) == [1, 2]


async def test_others_go_to_who_has_less_to_do(client: httpx.AsyncClient) -> None:
    async with Streams(client) as streams:
        await streams.begin(headers={"x-session-id": "one"}, **chat())
        await streams.begin(headers={"x-session-id": "two"}, **chat())
        assert await until_running(2) == [1, 1]


async def test_a_chain_of_responses_is_a_session(client: httpx.AsyncClient) -> None:
    asked = {"model": "simulated", "max_output_tokens": 9000, "ignore_eos": True}
    first = (await client.post("/v1/responses", json={**asked, "input": "one", "max_output_tokens": 2})).json()
    second = {**asked, "input": "two", "previous_response_id": first["id"], "max_output_tokens": 2}
    second = (await client.post("/v1/responses", json=second)).json()
    async with Streams(client) as streams:
        for id in (first["id"], second["id"]):
            await streams.begin("/v1/responses", **asked, input="three", previous_response_id=id)
        assert sorted(await until_running(2)) == [0, 2]


async def test_who_would_wait_longer_than_he_says_is_429_in_each_api(client: httpx.AsyncClient) -> None:
    async with Streams(client) as streams:
        for number in range(4):
            await streams.begin(headers={"x-session-id": str(number)}, **chat())
        soon = {"x-request-timeout-ms": "20"}
        for path, fields in (
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat(stream=True)),
            ("/v1/messages", chat(max_tokens=5)),
            ("/v1/responses", {"model": "simulated", "input": "hi"}),
        ):
            refused = await client.post(path, json=fields, headers=soon)
            assert refused.status_code == 429, refused.text
            assert "to its deadline" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-actorrt-ticket"]
    # With room it is in time.
    assert (await client.post("/v1/chat/completions", json=chat(max_tokens=2), headers=soon)).status_code == 200


async def test_a_retry_with_its_ticket_keeps_its_place(client: httpx.AsyncClient) -> None:
    order: list[str] = []

    async def ask(name: str, ticket: str) -> None:
        answer = await client.post(
            "/v1/chat/completions", json=chat(max_tokens=1), headers={"x-actorrt-ticket": ticket, "x-session-id": "0"}
        )
        assert answer.status_code == 200
        order.append(name)

    async def waiting(count: int) -> None:
        while (await statistics(*MODEL))["tenants"].get("tenant", {}).get("waiting", 0) != count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async with Streams(client) as streams:
        for number in range(3):
            await streams.begin(headers={"x-session-id": str(number)}, **chat())
        async with Streams(client) as last:
            await last.begin(headers={"x-session-id": "3"}, **chat())
            soon = {"x-request-timeout-ms": "20", "x-session-id": "0"}
            refused = await client.post("/v1/messages", json=chat(max_tokens=1), headers=soon)
            asked = [asyncio.ensure_future(ask("other", ""))]
            await waiting(1)
            asked.append(asyncio.ensure_future(ask("back", refused.headers["x-actorrt-ticket"])))
            await waiting(2)
        # One place has come free, for one after the other.
        await asyncio.gather(*asked)
    assert order == ["back", "other"]


async def test_a_timeout_that_is_none_is_400(client: httpx.AsyncClient) -> None:
    for path in ("/v1/chat/completions", "/v1/messages"):
        refused = await client.post(path, json=chat(max_tokens=2), headers={"x-request-timeout-ms": "2s"})
        assert refused.status_code == 400
        assert "x-request-timeout-ms must be a whole number of milliseconds" in refused.json()["error"]["message"]
