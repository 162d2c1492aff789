"""What clients of a language model may say to its capacity queue: how long a request may wait, and whose turn it is."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.llm import ApiKey, EngineCall, FrontConfig, LLMConfig, SimulatedEngine, build_openai_app

from ..serve.queues import statistics, until_idle

MODEL = ("clients", "model:simulated")
LONG: dict[str, Any] = {"max_tokens": 9000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def url(serve_url: str) -> Iterator[str]:
    engine = SimulatedEngine(kv_tokens=40_000, slots=4, context=20_000, decode_step_s=0.005)
    # What lies in credits is not there for the turn of a session: of two slots it would be one.
    router = serve.RequestRouterConfig("capacity_queue", {"credit_share": 0})
    options = {"num_replicas": 2, "max_ongoing_requests": 2, "request_router": router}
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


def own_cost(call: EngineCall) -> Any:
    """By the last digit of what was asked."""
    digit = json.loads(call.body)["messages"][-1]["content"][-1]
    match digit:
        case "0":
            return QueueCost(tokens=10, band="nowhere")
        case "1":
            raise ValueError("told to")
        case "2":
            return math.nan
        case "3":
            return -1
        case "4":
            return "many"
        case "5":
            return 10**6
        case "7":
            raise asyncio.CancelledError
        case "8":
            raise KeyboardInterrupt
        case _:
            return 1000


@pytest.fixture(scope="module")
def costly(serve_url: str) -> Iterator[str]:
    options = {"max_ongoing_requests": 2, "request_router": "capacity_queue"}
    engine = SimulatedEngine(kv_tokens=40_000, slots=4, context=20_000)
    model = LLMConfig(model_id="simulated", engine=engine, deployment=options, cost=own_cost)
    serve.run(build_openai_app(model), name="costly", route_prefix="/costly")
    yield f"{serve_url}/costly/v1/chat/completions"
    serve.delete("costly")


@pytest.mark.parametrize(
    ("digit", "status", "words"),
    [
        (0, 400, "there is no band 'nowhere'"),
        (1, 500, "internal error"),
        (2, 500, "internal error"),
        (3, 500, "internal error"),
        (4, 500, "internal error"),
        (
            5,
            413,
            "the prompt has 1000000 tokens, and a replica holds 40000 at most, 20000 of one prompt and its answer",
        ),
        (7, 500, "internal error"),
        (8, 500, "internal error"),
        (6, 200, ""),
    ],
)
async def test_a_model_may_have_a_cost_function_whose_failures_are_its_requests(
    costly: str, digit: int, status: int, words: str
) -> None:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.post(costly, json=chat(messages=[{"role": "user", "content": str(digit)}], max_tokens=2))
    assert answer.status_code == status
    if words:
        assert words in answer.json()["error"]["message"]
        assert "retry-after" not in answer.headers


async def test_a_cost_function_counts_before_the_estimate(costly: str) -> None:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client, Streams(client) as streams:
        await streams.begin(costly, **chat())
        # By a credit it is told a little later.
        while (await statistics("costly", "model:simulated"))["lines"][0]["used"] < 1000:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await until_idle("costly", "model:simulated")


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


def limited(**limits: Any) -> Any:
    router = serve.RequestRouterConfig("capacity_queue", {"tenants": {"tenant": limits}})
    options = {"max_ongoing_requests": 2, "request_router": router}
    engine = SimulatedEngine(kv_tokens=40_000, slots=4, context=20_000)
    model = LLMConfig(model_id="simulated", engine=engine, deployment=options)
    return build_openai_app(model, FrontConfig(keys=[ApiKey.of("key", "tenant")]))


async def test_a_tenants_limits_answer_429_with_their_numbers_and_change_while_it_is_served(serve_url: str) -> None:
    async def deploy(**limits: Any) -> None:
        await asyncio.to_thread(serve.run, limited(**limits), name="limited", route_prefix="/limited")

    async def lines() -> list[str]:
        return [line["replica"] for line in (await statistics("limited", "model:simulated"))["lines"]]

    await deploy(waiting_requests=0)
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=f"{serve_url}/limited", timeout=60, headers=headers) as client:

        async def refused(sentence: str) -> None:
            answer = await client.post("/v1/chat/completions", json=chat(max_tokens=1))
            assert answer.status_code == 429
            assert sentence in answer.json()["error"]["message"]
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert int(answer.headers["retry-after"]) >= 1
            assert int(answer.headers["retry-after-ms"]) >= 1000
            assert int(answer.headers["x-actorrt-queue-ms"]) >= 0
            assert answer.headers["x-actorrt-ticket"]

        async with Streams(client) as streams:
            for _ in range(2):
                await streams.begin(**chat())
            replicas = await lines()
            await refused("0 requests of tenant tenant wait, and 0 is the limit")
            await deploy(waiting_requests=1)
            waits = asyncio.ensure_future(client.post("/v1/chat/completions", json=chat(max_tokens=1)))
            while not (await statistics("limited", "model:simulated"))["tenants"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await refused("1 requests of tenant tenant wait, and 1 is the limit")
            await deploy(waiting_tokens=1)
            while True:
                answer = await client.post("/v1/chat/completions", json=chat(max_tokens=1))
                if "1 is the limit" in (found := answer.json()["error"]["message"]) and "tokens of tenant" in found:
                    break
            # Nothing that runs was ended for it, nor started anew.
            assert await lines() == replicas
        assert (await waits).status_code == 200
    await asyncio.to_thread(serve.delete, "limited")
