"""The capacity queue, a proxy and replicas killed under load: no call is lost, and the ledger is what runs."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

import actorrt
from actorrt import serve

from ..gates import Gate
from ..serve.queues import queue_of, statistics_of, until_running
from .closed_loop import Load
from .processes_of_serve import pid_of
from .queue_under_load import LIMIT, Works, all_is_given_again, kill


@pytest.fixture(scope="module")
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


async def test_a_killed_queue_costs_no_request_and_the_next_one_knows_what_runs(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(3)]
    await gate.until.remote(3)
    await until_running(queue, 3, replicas=2, slots=LIMIT)
    async with Load(url) as load:
        await load.until(50)
        epoch = (await statistics_of(queue))["epoch"]
        await kill(queue)
        await load.until(200)
    assert set(load.statuses()) == {200}
    # What ran before is there under the next queue, which has not forgotten it.
    found = await until_running(queue, 3, replicas=2, slots=LIMIT)
    assert found["epoch"] > epoch
    assert sum(line["used"] for line in found["lines"]) == 3
    await gate.open.remote()
    await asyncio.gather(*held)
    await all_is_given_again(queue)


async def test_who_waits_as_the_queue_is_killed_is_served_by_the_next(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(2 * LIMIT + 10)]
    await gate.until.remote(2 * LIMIT)
    await kill(queue)
    # Nothing has ended: the next queue finds all places taken, and those that wait in their order.
    while True:
        found = await statistics_of(queue)
        lines = [(line["running"], line["begun"]) for line in found["lines"]]
        if lines == [(LIMIT, LIMIT)] * 2 and found["tenants"].get("", {}).get("waiting") == 10:
            break
        await asyncio.sleep(0)
    assert await gate.count.remote() == 2 * LIMIT
    await gate.open.remote()
    await asyncio.gather(*held)
    await all_is_given_again(queue)


async def test_a_killed_replica_costs_no_request_that_may_be_repeated_and_gives_its_tokens_back(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    async with Load(url) as load:
        for _ in range(2):
            await load.until(50)
            os.kill(await handle.pid.remote(), signal.SIGKILL)
            await load.until(50)
    assert set(load.statuses()) == {200}
    await all_is_given_again(queue)


async def test_a_killed_proxy_leaves_nothing_in_the_ledger(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    routers = (await statistics_of(queue))["routers"]
    async with Load(url, may_break=True) as load:
        await load.until(50)
        os.kill(await asyncio.to_thread(pid_of, "proxy"), signal.SIGKILL)
        await load.until(100)
    assert set(load.statuses()) == {200}
    await all_is_given_again(queue)
    assert (await statistics_of(queue))["routers"] == routers
