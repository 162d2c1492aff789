"""Deployments that say by which policy their requests are routed, through real Serve, by HTTP and by handles."""

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.requests import Request as HttpRequest

from actorrt import serve
from actorrt.serve.request_router import (
    LocalPolicy,
    PolicyContext,
    Request,
    RequestRouterConfig,
    Slots,
)

from .conftest import Serving


@serve.deployment(num_replicas=2, max_ongoing_requests=10)
class Who:
    """Says which replica it is, and holds requests until it is told."""

    def __init__(self) -> None:
        self.held: deque[asyncio.Future[None]] = deque()
        self.most = 0

    async def __call__(self, request: HttpRequest) -> int:
        return os.getpid()

    async def pid(self) -> int:
        return os.getpid()

    async def hold(self) -> int:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append(future)
        await future
        return os.getpid()

    async def let_go(self) -> None:
        self.held.popleft().set_result(None)

    async def numbers(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number


def pids(serving: Serving, url: str, times: int) -> list[int]:
    return [int(serving.client.get(url).raise_for_status().text) for _ in range(times)]


def test_requests_take_turns_where_the_option_says_so(serving: Serving) -> None:
    url = serving.run(Who.options(request_router="round_robin").bind(), "turns")
    found = pids(serving, url, 10)
    assert len(set(found)) == 2
    assert found == [found[0], found[1]] * 5
    handle = serve.get_app_handle("turns")
    own = [handle.pid.remote().result() for _ in range(10)]
    assert own == [own[0], own[1]] * 5
    # It is named, and can be changed while replicas run.
    assert handle.pid.remote()._router.statistics()["policy"] == "round_robin"
    serving.run(Who.options(request_router="least_requests").bind(), "turns")
    assert set(pids(serving, url, 20)) == set(found)
    assert handle.pid.remote()._router.statistics()["policy"] == "least_requests"


class Always(LocalPolicy):
    """The replica whose name comes first, or last."""

    def __init__(self, context: PolicyContext, last: bool = False) -> None:
        super().__init__(context)
        self._last = last

    def choose(self, request: Request) -> Slots | None:
        live = sorted(filter(self.has_room, self.live), key=lambda slots: slots.replica, reverse=self._last)
        return live[0] if live else None


def test_a_class_of_the_users_routes_in_every_process(serving: Serving) -> None:
    config = RequestRouterConfig(request_router_class=Always, request_router_kwargs={"last": True})
    url = serving.run(Who.options(request_router_config=config).bind(), "always")
    (last,) = set(pids(serving, url, 10))
    handle = serve.get_app_handle("always")
    assert {handle.pid.remote().result() for _ in range(10)} == {last}

    @serve.deployment
    class Front:
        def __init__(self, who: Any) -> None:
            self.who = who

        async def __call__(self, request: HttpRequest) -> int:
            return await self.who.pid.remote()  # type: ignore[no-any-return]

    front = serving.run(Front.bind(Who.options(request_router=Always).bind()), "behind")
    assert len(set(pids(serving, front, 10))) == 1


class Later(LocalPolicy):
    """Grants nothing at once, and what it would have granted when a timer has run, on the timer's thread."""

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._context = context
        self._asked: deque[Request] = deque()
        self._due = 0

    def choose(self, request: Request) -> Slots | None:
        return min(filter(self.has_room, self.live), key=lambda slots: slots.ongoing, default=None)

    def submit(self, request: Request) -> None:  # type: ignore[override]
        self._waiting[request] = None
        timer = threading.Timer(0.001, self._when_due)
        timer.daemon = True
        timer.start()

    def _when_due(self) -> None:
        self._due += 1
        self._context.ready()

    def next(self) -> tuple[Request, Slots] | None:
        if self._due > 0 and (found := super().next()) is not None:
            self._due -= 1
            return found
        return None


async def test_grants_that_come_from_a_timer_reach_clients_and_handles(serving: Serving) -> None:
    url = await asyncio.to_thread(serving.run, Who.options(request_router=Later).bind(), "later")
    async with httpx.AsyncClient(timeout=20) as client:
        answers = await asyncio.gather(*(client.get(url) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {200: 100}
    handle = await asyncio.to_thread(serve.get_app_handle, "later")
    assert len(await asyncio.gather(*(handle.pid.remote() for _ in range(100)))) == 100
    assert [each async for each in handle.options(stream=True).numbers.remote(3)] == [0, 1, 2]
