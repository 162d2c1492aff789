"""A capacity queue while the controller and the head are stopped, and after they were killed: nothing asks them."""

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
from .processes_of_serve import end, pid_of, pid_of_head
from .queue_under_load import LIMIT, Works, all_is_given_again, kill


@pytest.fixture
def url() -> Iterator[str]:
    """A node of its own: what dies here would be missed by the tests after this one."""
    with actorrt.init(num_cpus=2, preload_modules=["pytest", "httpx", *serve.WORKER_MODULES]):
        yield serve.start({"port": 0})
        serve.shutdown()


async def test_requests_are_admitted_while_controller_and_head_are_stopped_and_after_their_death(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    pids = [await asyncio.to_thread(pid_of, "controller"), await asyncio.to_thread(pid_of_head)]
    async with Load(url) as load:
        await load.until(50)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        # Whoever asked one of them would wait for ever.
        await load.until(500)
        await asyncio.to_thread(end, *pids)
        await load.until(500)
    assert set(load.statuses()) == {200}
    await all_is_given_again(queue)
    assert (await asyncio.to_thread(serve.status)).applications["default"].status == "RUNNING"


async def test_streams_go_on_whoever_of_those_that_are_not_in_their_way_is_killed(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await queue_of("default", "works")
    handle = await asyncio.to_thread(serve.get_app_handle)
    gate = actorrt.remote(Gate).remote()

    async def read() -> list[int]:
        return [number async for number in handle.options(stream=True).numbers.remote(500, gate)]

    # Two wait for a place, and all others are in their midst.
    streams = [asyncio.ensure_future(read()) for _ in range(2 * LIMIT + 2)]
    await gate.until.remote(2 * LIMIT)
    epoch = (await statistics_of(queue))["epoch"]
    await kill(queue)
    await asyncio.to_thread(end, await asyncio.to_thread(pid_of_head), await asyncio.to_thread(pid_of, "controller"))
    while True:
        found = await statistics_of(queue)
        lines = [(line["running"], line["begun"]) for line in found["lines"]]
        waiting = found["tenants"].get("", {}).get("waiting")
        if found["epoch"] > epoch and lines == [(LIMIT, LIMIT)] * 2 and waiting == 2:
            break
        await asyncio.sleep(0)
    assert await gate.open.remote() == 2 * LIMIT
    assert await asyncio.gather(*streams) == [list(range(500))] * (2 * LIMIT + 2)
    await until_running(queue, 0, replicas=2, slots=LIMIT)
    await all_is_given_again(queue)
