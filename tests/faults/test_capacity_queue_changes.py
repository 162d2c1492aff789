"""Replicas, requests and tokens that change under load, alone and while processes are killed."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import actorrt
from actorrt import serve
from actorrt.serve.request_router import QueueCost

from ..gates import Gate
from ..serve.queues import queue_of, statistics_of, until_running
from .closed_loop import Load
from .processes_of_serve import end, pid_of
from .queue_under_load import LIMIT, Works, all_is_given_again, kill


@pytest.fixture(scope="module")
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


async def test_more_or_fewer_requests_at_once_hold_from_the_change_on(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    async with Load(url):
        for slots in (7, 2, 1, LIMIT):
            gate = actorrt.remote(Gate).remote()
            held = [handle.hold.remote(gate) for _ in range(2)]
            await gate.until.remote(2)
            await asyncio.to_thread(serve.run, Works.options(max_ongoing_requests=slots).bind())
            while {line["slots"] for line in (await statistics_of(queue))["lines"]} != {slots}:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await gate.open.remote()
            await asyncio.gather(*held)
    await all_is_given_again(queue)


async def test_a_smaller_limit_lets_what_runs_end_and_gives_nothing_beyond_it(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    before, gate = actorrt.remote(Gate).remote(), actorrt.remote(Gate).remote()
    held = [handle.hold.remote(before) for _ in range(2 * LIMIT)]
    await before.until.remote(2 * LIMIT)
    waiting = [handle.hold.remote(gate) for _ in range(2 * LIMIT)]
    await asyncio.to_thread(serve.run, Works.options(max_ongoing_requests=1).bind())
    while [line["slots"] for line in (await statistics_of(queue))["lines"]] != [1, 1]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert sum(line["running"] for line in (await statistics_of(queue))["lines"]) == 2 * LIMIT
    await before.open.remote()
    await asyncio.gather(*held)
    await gate.until.remote(2)
    assert await gate.open.remote() == 2
    await asyncio.gather(*waiting)
    await all_is_given_again(queue, slots=1)


async def test_replicas_that_come_and_go_cost_no_request(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    async with Load(url) as load:
        for replicas in (3, 1, 2):
            await asyncio.to_thread(serve.run, Works.options(num_replicas=replicas).bind())
            await load.until(50)
    assert set(load.statuses()) == {200}
    await all_is_given_again(queue)


async def test_tokens_that_change_hold_from_then_on(url: str) -> None:
    def app(kv_tokens: int) -> Any:
        kwargs = {"units": "tokens", "kv_tokens": kv_tokens, "headroom": 1.0}
        router = serve.RequestRouterConfig("capacity_queue", kwargs)
        return Works.options(max_ongoing_requests=100, request_router=router).bind()

    await asyncio.to_thread(serve.run, app(1000), name="tokens", route_prefix=None)
    queue = await queue_of("tokens", "works")
    handle = (await asyncio.to_thread(serve.get_app_handle, "tokens")).options(
        cost=QueueCost(tokens=100, max_tokens=100)
    )
    gates = [actorrt.remote(Gate).remote() for _ in range(3)]
    # Of two replicas with 1,000 tokens each: what takes 200 runs five times at each.
    held = [[handle.hold.remote(gates[0]) for _ in range(12)]]
    await gates[0].until.remote(10)
    await asyncio.to_thread(serve.run, app(1200), name="tokens", route_prefix=None)
    await gates[0].until.remote(12)
    # With less nothing is stopped, and nothing begins.
    await asyncio.to_thread(serve.run, app(400), name="tokens", route_prefix=None)
    held.append([handle.hold.remote(gates[1]) for _ in range(12)])
    while True:
        found = await statistics_of(queue)
        lines = [(line["kv_tokens"], line["used"]) for line in found["lines"]]
        if lines == [(400, 1200)] * 2 and found["tenants"].get("", {}).get("waiting") == 12:
            break
        await asyncio.sleep(0)
    await gates[0].open.remote()
    await asyncio.gather(*held[0])
    await gates[1].until.remote(4)
    await kill(queue)
    assert await gates[1].open.remote() == 4
    await asyncio.gather(*held[1])
    held.append([handle.hold.remote(gates[2]) for _ in range(5)])
    await gates[2].until.remote(4)
    assert await gates[2].open.remote() == 4
    await asyncio.gather(*held[2])
    await until_running(queue, 0, replicas=2, slots=100)
    await asyncio.to_thread(serve.delete, "tokens")


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_killed_or_changed_in_any_order_all_are_answered_and_nothing_is_lost(
    url: str, seed: int
) -> None:
    dice = random.Random(seed)
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)

    async def end_replica() -> None:
        os.kill(await handle.pid.remote(), signal.SIGKILL)

    async def end_actor(name: str) -> None:
        await asyncio.to_thread(end, await asyncio.to_thread(pid_of, name))

    async def change() -> None:
        options = {"num_replicas": dice.randint(1, 3), "max_ongoing_requests": dice.randint(1, 6)}
        await asyncio.to_thread(serve.run, Works.options(**options).bind())

    deeds = [
        lambda: kill(queue),
        end_replica,
        lambda: end_actor("proxy"),
        lambda: end_actor("controller"),
        change,
        change,
    ]
    dice.shuffle(deeds)
    async with Load(url, may_break=True) as load:
        for deed in deeds:
            await load.until(dice.randint(1, 60))
            await deed()
        await load.until(60)
    assert set(load.statuses()) == {200}
    await asyncio.to_thread(serve.run, Works.bind())
    await all_is_given_again(queue)
