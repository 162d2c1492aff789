"""The capacity queue, a proxy and replicas killed under load: no call is lost, and the ledger is what runs."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

import actorrt
from actorrt import get_actor, serve
from actorrt.serve.connection import NAMESPACE
from actorrt.util import list_named_actors

LIMIT = 4


@serve.deployment(name="works", num_replicas=2, max_ongoing_requests=LIMIT, request_router="capacity_queue")
class Works:
    """Knows how many requests it had at once at the most."""

    def __init__(self) -> None:
        self.running = self.most = 0

    async def __call__(self, request: Request) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.005)
        finally:
            self.running -= 1
        return os.getpid()

    async def pid(self) -> int:
        return os.getpid()

    async def hold(self, gate: Any) -> int:
        await gate.passed.remote()
        return os.getpid()

    async def counts(self) -> tuple[int, int]:
        return self.running, self.most


class Gate:
    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.came = asyncio.Event()
        self.waiting = 0

    async def passed(self) -> None:
        self.waiting += 1
        self.came.set()
        await self.opened.wait()
        self.waiting -= 1

    async def until(self, count: int) -> None:
        while self.waiting < count:
            self.came.clear()
            await self.came.wait()

    async def count(self) -> int:
        return self.waiting

    async def open(self) -> None:
        self.opened.set()


@pytest.fixture(scope="module")
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


async def the_queue() -> Any:
    listed = await asyncio.to_thread(list_named_actors, all_namespaces=True)
    (name,) = [each["name"] for each in listed if "#works#queue-" in each["name"]]
    return await asyncio.to_thread(get_actor, name, NAMESPACE)


async def kill(actor: Any) -> None:
    os.kill(await actor.__ray_call__.remote(lambda _: os.getpid()), signal.SIGKILL)


async def statistics(queue: Any) -> dict[str, Any]:
    """Of the queue that is there, maybe the next one."""
    while True:
        try:
            return await queue.statistics.remote()  # type: ignore[no-any-return]
        except actorrt.exceptions.ActorUnavailableError:
            continue


async def until(queue: Any, running: int, replicas: int = 2) -> None:
    """Until all replicas have said what they run, and the ledger has so many leases that run, and no others."""
    while True:
        found = await statistics(queue)
        lines = found["lines"]
        whole = [line for line in lines if line["slots"] == LIMIT and line["is_open"]]
        ran = sum(line["running"] for line in lines), sum(line["begun"] for line in lines)
        if len(whole) == len(lines) == replicas and ran == (running, running) and not found["tenants"]:
            assert sum(line["used"] for line in lines) == 2 * running
            return
        await asyncio.sleep(0)


class Load:
    """Clients that ask again and again until told to stop."""

    def __init__(self, url: str, clients: int = 16) -> None:
        self.url = url
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.stop = False
        self._clients = clients
        self._more = asyncio.Event()

    async def __aenter__(self) -> "Load":
        self._client = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=self._clients))
        self._tasks = [asyncio.ensure_future(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def _ask(self) -> None:
        while not self.stop:
            try:
                answer = await self._client.get(self.url)
            except httpx.TransportError:
                self.broken += 1
            else:
                self.statuses[answer.status_code] += 1
            self._more.set()

    async def until(self, answers: int) -> None:
        wanted = self.statuses.total() + answers
        while self.statuses.total() < wanted:
            self._more.clear()
            await self._more.wait()


async def test_a_killed_queue_costs_no_request_and_the_next_one_knows_what_runs(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await the_queue()
    handle = await asyncio.to_thread(serve.get_app_handle)
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(3)]
    await gate.until.remote(3)
    await until(queue, 3)
    async with Load(url) as load:
        await load.until(50)
        epoch = (await statistics(queue))["epoch"]
        await kill(queue)
        await load.until(200)
    assert (set(load.statuses), load.broken) == ({200}, 0)
    # What ran before is there under the next queue, which has not forgotten it.
    await until(queue, 3)
    assert (await statistics(queue))["epoch"] > epoch
    await gate.open.remote()
    await asyncio.gather(*held)
    await until(queue, 0)


async def test_who_waits_as_the_queue_is_killed_is_served_by_the_next(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await the_queue()
    handle = await asyncio.to_thread(serve.get_app_handle)
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(2 * LIMIT + 10)]
    await gate.until.remote(2 * LIMIT)
    await kill(queue)
    # Nothing has ended: the next queue finds all places taken, and those that wait in their order.
    while True:
        found = await statistics(queue)
        lines = [(line["running"], line["begun"]) for line in found["lines"]]
        if lines == [(LIMIT, LIMIT)] * 2 and found["tenants"].get("", {}).get("waiting") == 10:
            break
        await asyncio.sleep(0)
    assert await gate.count.remote() == 2 * LIMIT
    await gate.open.remote()
    await asyncio.gather(*held)
    await until(queue, 0)


async def test_a_killed_replica_costs_no_request_that_may_be_repeated_and_gives_its_tokens_back(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await the_queue()
    handle = await asyncio.to_thread(serve.get_app_handle)
    async with Load(url) as load:
        for _ in range(2):
            await load.until(50)
            os.kill(await handle.pid.remote(), signal.SIGKILL)
            await load.until(50)
    assert (set(load.statuses), load.broken) == ({200}, 0)
    await until(queue, 0)


async def test_a_killed_proxy_leaves_nothing_in_the_ledger(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind())
    queue = await the_queue()
    proxy = await asyncio.to_thread(get_actor, "proxy", NAMESPACE)
    routers = (await statistics(queue))["routers"]
    async with Load(url) as load:
        await load.until(50)
        await kill(proxy)
        await load.until(100)
    assert set(load.statuses) == {200}
    await until(queue, 0)
    assert (await statistics(queue))["routers"] == routers
