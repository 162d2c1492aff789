"""A language model behind a capacity queue: tokens are counted as they come, tenants have limits, answers say how long
they waited."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.llm import ApiKey, FrontConfig, LLMConfig, SimulatedEngine, build_openai_app
from actorrt.serve.routing.broadcast import ask_all
from actorrt.serve.routing.router import router_of

from ..serve.queues import queue_of, statistics, until_idle

KEYS = {name: {"authorization": f"Bearer {name}"} for name in ("big", "small")}
TOKENS = 40_000


@pytest.fixture(scope="module")
def url(serve_url: str) -> Iterator[str]:
    router = serve.RequestRouterConfig(
        "capacity_queue",
        {"tenants": {"small": {"waiting_requests": 0}}, "bands": [{"name": "priority"}, {"name": "default"}]},
    )
    model = LLMConfig(
        model_id="simulated",
        engine=SimulatedEngine(kv_tokens=TOKENS, slots=2, context=TOKENS, decode_step_s=0.005),
        deployment={"num_replicas": 2, "request_router": router},
    )
    front = FrontConfig(keys=[ApiKey.of(name, name) for name in KEYS])
    serve.run(build_openai_app(model, front), name="queued", route_prefix="/queued")
    yield f"{serve_url}/queued/v1/chat/completions"
    serve.delete("queued")


def asked(words: int = 3, **fields: Any) -> dict[str, Any]:
    return {"model": "simulated", "messages": [{"role": "user", "content": "word " * words}], **fields}


async def ledger() -> dict[str, Any]:
    return await statistics("queued", "model:simulated")


async def test_a_stream_is_counted_as_it_comes_and_gives_all_back(url: str) -> None:
    async with httpx.AsyncClient(timeout=30, headers=KEYS["big"]) as client:
        body = asked(2000, stream=True, max_tokens=300, ignore_eos=True)
        seen: list[int] = []
        async with client.stream("POST", url, json=body) as answer:
            assert answer.status_code == 200
            assert int(answer.headers["x-actorrt-queue-ms"]) >= 0
            async for _ in answer.aiter_lines():
                found = await ledger()
                seen.append(max(line["backlog"] for line in found["lines"]))
                if found["units"] == "tokens" and not seen[-1]:
                    break
            # Its first token has come: the prompt is no backlog any more, and its answer is counted in full.
            (used,) = [line["used"] for line in found["lines"] if line["running"]]
            assert used >= 300 + 1000
        await until_idle("queued", "model:simulated")
        whole = await client.post(url, json=asked(max_tokens=5))
        assert (whole.status_code, whole.json()["usage"]["completion_tokens"]) == (200, 5)
        assert int(whole.headers["x-actorrt-queue-ms"]) >= 0
        await until_idle("queued", "model:simulated")


async def test_the_first_token_takes_the_prompt_off_the_backlog_also_of_an_answer_that_is_not_streamed(
    url: str,
) -> None:
    async with httpx.AsyncClient(timeout=60, headers=KEYS["big"]) as client:
        # From then on the queue counts tokens, and the front asks it.
        while (said := await ledger())["units"] != "tokens" or not said["granted"]:
            await client.post(url, json=asked(max_tokens=1))
        await until_idle("queued", "model:simulated")
        body = asked(2000, max_tokens=4000, ignore_eos=True)
        whole = asyncio.ensure_future(client.post(url, json=body))

        found: dict[str, Any] = {}
        while not found or found["backlog"]:
            found = next((line for line in (await ledger())["lines"] if line["running"]), {})
            assert not whole.done()
        assert found["used"] >= 1000
        whole.cancel()
        await asyncio.wait([whole])
        await until_idle("queued", "model:simulated")


async def test_what_a_tenant_may_not_have_wait_is_429_and_says_when_to_come_again(url: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        long = asked(stream=True, max_tokens=5000, ignore_eos=True)
        # Four slots in all.
        streams = [client.stream("POST", url, json=long, headers=KEYS["big"]) for _ in range(4)]
        for stream in streams:
            await stream.__aenter__()
        while sum(line["running"] for line in (await ledger())["lines"]) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0)
        refused = await client.post(url, json=asked(), headers=KEYS["small"])
        assert refused.status_code == 429
        assert "requests of tenant small wait, and 0 is the limit" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 1000
        assert "x-actorrt-queue-ms" in refused.headers
        waits = asyncio.ensure_future(client.post(url, json=asked(max_tokens=3), headers=KEYS["big"]))
        while (await ledger())["tenants"].get("big", {}).get("waiting") != 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # Its tenant is named to itself alone.
        load = url.replace("/v1/chat/completions", "/load")
        for headers, named in ((KEYS["big"], ["big"]), (KEYS["small"], []), ({}, []), ({"x-api-key": "big!"}, [])):
            (queue,) = (await client.get(load, headers=headers)).json()["queues"]
            assert (queue["waiting"], [each["tenant"] for each in queue["tenants"]]) == (1, named)
            assert queue["more_tenants"] == 1 - len(named)
        # A client that leaves gives its place to who waits.
        for stream in streams:
            await stream.__aexit__(None, None, None)
        answer = await waits
        assert answer.status_code == 200
        assert int(answer.headers["x-actorrt-queue-ms"]) > 0
        await until_idle("queued", "model:simulated")


async def test_a_prompt_that_no_replica_holds_is_413(url: str) -> None:
    async with httpx.AsyncClient(timeout=30, headers=KEYS["big"]) as client:
        refused = await client.post(url, json=asked(5 * TOKENS))
    assert refused.status_code == 413
    assert f"a replica holds {TOKENS} at most" in refused.json()["error"]["message"]
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert "retry-after" not in refused.headers


async def test_many_at_once_leave_nothing_in_the_ledger(url: str) -> None:
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(timeout=60, limits=limits, headers=KEYS["big"]) as client:

        async def ask(number: int) -> int:
            body = asked(number * 5, max_tokens=number % 7 + 1, stream=number % 2 == 0)
            tier = {"service_tier": "priority"} if number % 3 == 0 else {}
            answer = await client.post(url, json={**body, **tier})
            if body["stream"]:
                lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
                assert "choices" in json.loads(lines[0].removeprefix("data: "))
            return answer.status_code

        assert set(await asyncio.gather(*map(ask, range(80)))) == {200}
    await until_idle("queued", "model:simulated")
    # Of those that were let in by credits the queue hears a little later.
    while (await ledger())["granted"] < 80:  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize("killed", ["replica", "queue"])
async def test_streams_go_on_whatever_is_killed_and_leave_nothing_in_the_ledger(url: str, killed: str) -> None:
    async with httpx.AsyncClient(timeout=60, headers=KEYS["big"]) as client:

        async def stream() -> int:
            tokens = 0
            body = asked(stream=True, max_tokens=200, ignore_eos=True, seed=1)
            async with client.stream("POST", url, json=body) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        tokens += bool(json.loads(line[6:])["choices"][0]["delta"].get("content"))
                        begun.set()
            return tokens

        begun = asyncio.Event()
        streams = [asyncio.ensure_future(stream()) for _ in range(6)]
        await begun.wait()
        if killed == "queue":
            queue = await queue_of("queued", "model:simulated")
            os.kill(await queue.__ray_call__.remote(lambda _: os.getpid()), signal.SIGKILL)
        else:
            handle = await asyncio.to_thread(serve.get_deployment_handle, "model:simulated", "queued")
            await ask_all(handle, "facts", timeout_s=20)
            target = next(iter(router_of(DeploymentId("queued", "model:simulated")).targets().values()))
            os.kill((await target.handle.where.remote())[0], signal.SIGKILL)
        assert len(set(await asyncio.gather(*streams))) == 1
    while len((await ledger())["lines"]) != 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await until_idle("queued", "model:simulated")


async def test_metrics_have_the_ledger_by_replica(url: str) -> None:
    async with httpx.AsyncClient(timeout=30, headers=KEYS["big"]) as client:
        await client.post(url, json=asked(max_tokens=2))
        await until_idle("queued", "model:simulated")
        text = (await client.get(url.replace("/v1/chat/completions", "/metrics"))).text
    lines = [line for line in text.splitlines() if line.startswith("actorrt_queue_line_tokens{")]
    assert len(lines) == 2
    assert all(line.endswith(f" {float(TOKENS)}") and 'deployment="model:simulated"' in line for line in lines)
    assert 'actorrt_queue_admitted_total{deployment="model:simulated"}' in text
