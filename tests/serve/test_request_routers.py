"""Deployments that say by which policy their requests are routed, through real Serve, by HTTP and by handles."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request as HttpRequest

import actorrt
from actorrt import serve
from actorrt.serve.exceptions import RequestRefusedError, RequestRouterError
from actorrt.serve.request_router import (
    NOTHING,
    Cost,
    DeploymentNews,
    Grant,
    LocalPolicy,
    PolicyContext,
    Refused,
    Request,
    RequestRouterConfig,
    Slots,
)

from ..gates import Gate, Held
from .conftest import Serving

Who = serve.deployment(name="Who", num_replicas=2, max_ongoing_requests=10)(Held)


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


class Ledger:
    """The one place that knows what all processes have sent: an actor that gives out so many tokens at once."""

    def __init__(self, tokens: int) -> None:
        self.free = tokens
        self.least = tokens
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used: list[int | None] = []

    async def take(self, tokens: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((tokens, future))
        self._look()
        await future

    async def give_back(self, tokens: int, used: int | None) -> None:
        self.free += tokens
        self.used.append(used)
        self._look()

    def _look(self) -> None:
        while self.waiting and (self.waiting[0][1].cancelled() or self.waiting[0][0] <= self.free):
            tokens, future = self.waiting.popleft()
            if not future.cancelled():
                self.free -= tokens
                self.least = min(self.least, self.free)
                future.set_result(None)

    async def seen(self) -> tuple[int, int, list[int | None]]:
        return self.free, self.least, self.used


class Lease(Grant):
    __slots__ = ("tokens",)

    def __init__(self, policy: "Central", replica: str, tokens: int) -> None:
        super().__init__(policy, replica)
        self.tokens = tokens


class Central:
    """A policy whose grants are the ledger's: each comes from another process, and is a lease of its own."""

    def __init__(self, context: PolicyContext, ledger: Any, most: int) -> None:
        self._context = context
        self._ledger = ledger
        self._most = most
        self._replicas: list[str] = []
        self._turn = 0
        self._asked: dict[Request, int] = {}
        self._granted: deque[tuple[Request, int]] = deque()

    def update(self, news: DeploymentNews) -> None:
        self._replicas = [each.id for each in news.replicas]

    def submit(self, request: Request) -> None:
        tokens = request.cost.tokens
        if tokens > self._most:
            raise Refused(f"{tokens} tokens are more than {self._most}", None, 413)
        self._asked[request] = tokens
        ref = self._ledger.take.remote(tokens)
        ref.add_done_callback(lambda _: self._arrived(request, tokens))

    def again(self, request: Request) -> None:
        self.submit(request)

    def _arrived(self, request: Request, tokens: int) -> None:
        self._granted.append((request, tokens))
        self._context.ready()

    def next(self) -> tuple[Request, Grant] | None:
        while self._granted and self._replicas:
            request, tokens = self._granted.popleft()
            self._turn += 1
            lease = Lease(self, self._replicas[self._turn % len(self._replicas)], tokens)
            if self._asked.pop(request, None) is not None:
                return request, lease
            self.release(lease, NOTHING)
        return None

    def withdraw(self, request: Request) -> None:
        self._asked.pop(request, None)

    def release(self, grant: Grant, used: Cost | None) -> None:
        assert isinstance(grant, Lease)
        self._ledger.give_back.remote(grant.tokens, None if used is None else used.tokens)

    def died(self, replica: str) -> None:
        self._replicas = [each for each in self._replicas if each != replica]

    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...
    def close(self) -> None: ...

    def statistics(self) -> dict[str, Any]:
        return {"asked": len(self._asked)}


@serve.deployment
class Front:
    """Says what each of its calls costs, as a front that counts tokens does."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def __call__(self, request: HttpRequest) -> int:
        cost = Cost(tokens=int(request.query_params["tokens"]))
        return await self.engine.options(cost=cost).pid.remote()  # type: ignore[no-any-return]

    async def stream(self, tokens: int) -> int:
        numbers = self.engine.options(cost=Cost(tokens=tokens), stream=True).numbers.remote(10**9)
        count = 0
        async for _ in numbers:
            count += 1
            numbers.report_used(Cost(tokens=count))
            if count == 3:
                break
        await numbers.aclose()
        return count


@pytest.fixture
def ledger(serving: Serving) -> Iterator[Any]:
    handle = actorrt.remote(Ledger).remote(10)
    yield handle
    actorrt.kill(handle)


async def test_a_ledger_in_another_process_grants_tokens_to_all_that_send(serving: Serving, ledger: Any) -> None:
    config = RequestRouterConfig(Central, {"ledger": ledger, "most": 10})
    engine = Who.options(request_router=config)
    url = await asyncio.to_thread(serving.run, Front.options(num_replicas=2).bind(engine.bind()), "central")
    async with httpx.AsyncClient(timeout=30) as client:
        sizes = [number % 10 + 1 for number in range(60)]
        answers = await asyncio.gather(*(client.get(url, params={"tokens": size}) for size in sizes))
        assert Counter(answer.status_code for answer in answers) == {200: 60}
        # What can never fit is refused, with the reason and without a time to come again, through the front.
        refused = await client.get(url, params={"tokens": 11})
    assert (refused.status_code, "retry-after" in refused.headers) == (413, False)
    assert "11 tokens are more than 10" in refused.text
    front = await asyncio.to_thread(serve.get_app_handle, "central")
    assert await front.stream.remote(8) == 3
    with pytest.raises(RequestRefusedError) as error:
        direct = await asyncio.to_thread(serve.get_deployment_handle, "Who", "central")
        await direct.options(cost=Cost(tokens=12)).pid.remote()
    assert error.value.status == 413
    while (seen := await ledger.seen.remote())[0] != 10 or len(seen[2]) < 61:  # noqa: ASYNC110
        await asyncio.sleep(0)
    free, least, used = seen
    assert (free, least >= 0, len(used)) == (10, True, 61)
    assert Counter(used) == {None: 60, 3: 1}


class Odd(LocalPolicy):
    """Has an opinion of each request by its tokens."""

    def choose(self, request: Request) -> Slots | None:
        match request.cost.tokens:
            case 1:
                raise ValueError("told to")
            case 2:
                raise Refused("come again later", 2.1, 429)
            case 3:
                raise SystemExit(3)
            case _:
                return next(filter(self.has_room, self.live), None)


async def test_what_a_policy_raises_is_the_answer_to_its_request_alone(serving: Serving) -> None:
    url = await asyncio.to_thread(serving.run, Front.bind(Who.options(request_router=Odd).bind()), "odd")
    async with httpx.AsyncClient(timeout=30) as client:
        answers = await asyncio.gather(*(client.get(url, params={"tokens": number % 4}) for number in range(40)))
    assert [answer.status_code for answer in answers] == [200, 500, 429, 500] * 10
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 429} == {"3"}
    handle = await asyncio.to_thread(serve.get_deployment_handle, "Who", "odd")
    with pytest.raises(RequestRouterError, match="request router Odd of deployment 'odd#Who' failed: ValueError: told"):
        await handle.options(cost=Cost(tokens=1)).pid.remote()
    with pytest.raises(RequestRefusedError, match="come again later"):
        await handle.options(cost=Cost(tokens=2)).pid.remote()
    assert isinstance(await handle.pid.remote(), int)


class Broken(LocalPolicy):
    """Of what the proxy itself asks it nothing comes."""

    def choose(self, request: Request) -> Slots | None:
        raise ValueError("not for clients")


def test_a_broken_router_of_an_ingress_is_500_and_the_next_update_mends_it(serving: Serving) -> None:
    url = serving.run(Who.options(request_router=Broken).bind(), "broken")
    answer = serving.client.get(url)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    serving.run(Who.bind(), "broken")
    assert len(pids(serving, url, 4)) == 4


async def test_an_update_to_another_policy_loses_none_that_wait(serving: Serving) -> None:
    gate = actorrt.remote(Gate).remote()
    app = Who.options(num_replicas=1, max_ongoing_requests=2)
    await asyncio.to_thread(serving.run, app.options(max_queued_requests=20).bind(), "waiting")
    handle = await asyncio.to_thread(serve.get_app_handle, "waiting")
    waiting = [handle.hold.remote(gate) for _ in range(12)]
    for number, other in enumerate(["round_robin", Always, Later, "power_of_two"]):
        options = app.options(request_router=other, max_queued_requests=number)
        await asyncio.to_thread(serving.run, options.bind(), "waiting")
        assert not any(each.done() for each in waiting)
    await gate.open.remote()
    assert len(set(await asyncio.gather(*waiting))) == 1
