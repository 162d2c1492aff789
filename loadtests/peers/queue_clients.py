# pyright: basic, reportMissingImports=false
"""Clients of capacity queues: each takes places and gives them back at once, with so many requests under way.

Ray's is its CapacityQueue actor, asked as its router does: a call to acquire that is awaited, and one to release that
is not. Ours is asked by the router of a real deployment, so through its policy and the session with the queue. Both
know eight replicas with room for all, which get no requests: what is measured are the decisions.
"""

import asyncio
import importlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from loadtests.serve_modules import serve_module

REPLICAS: Final = 8
PLACES: Final = 100
# A client runs a while before it is measured.
WARM_S: Final = 1.0
# So many times are kept of each client.
MOST_TIMES: Final = 200_000

# Nanoseconds from asking to having, and how many there were in so many seconds.
Told = tuple[list[int], int, float]


class _Measured:
    """What one client counts, between its warm-up and its end."""

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic() + WARM_S
        self.until = self.began + seconds
        self.count = 0
        self.times: list[int] = []

    def took(self, nanoseconds: int) -> bool:
        """Whether to go on."""
        now = time.monotonic()
        if self.began <= now < self.until:
            self.count += 1
            if len(self.times) < MOST_TIMES:
                self.times.append(nanoseconds)
        return now < self.until

    def told(self) -> Told:
        return self.times, self.count, self.until - self.began


def _ray_client() -> Any:
    import ray

    class Client:
        async def run(self, queue: Any, in_flight: int, seconds: float) -> Told:
            measured = _Measured(seconds)

            async def ask() -> None:
                goes_on = True
                while goes_on:
                    begin = time.perf_counter_ns()
                    replica = await queue.acquire.remote()
                    goes_on = measured.took(time.perf_counter_ns() - begin)
                    queue.release.remote(replica)

            await asyncio.gather(*(ask() for _ in range(in_flight)))
            return measured.told()

    return ray.remote(num_cpus=0)(Client)


@contextmanager
def ray_queue(clients: int) -> Generator[Callable[[int, float], list[Told]]]:
    import ray

    queues = importlib.import_module("ray.serve.experimental.capacity_queue")
    ray.init(num_cpus=2, log_to_driver=False)
    try:
        queue = queues.CapacityQueue.remote(acquire_timeout_s=30.0, token_ttl_s=120.0, _enable_long_poll=False)
        ray.get([queue.register_replica.remote(str(number), PLACES) for number in range(REPLICAS)])
        actors = [_ray_client().remote() for _ in range(clients)]
        yield lambda in_flight, seconds: ray.get([each.run.remote(queue, in_flight, seconds) for each in actors])
    finally:
        ray.shutdown()


class _Asked:
    """A request as a router knows it, that is content to have a place."""

    __slots__ = ("_client", "_since", "cost")

    def __init__(self, client: "Client", cost: Any) -> None:
        self._client, self.cost = client, cost
        self._since = time.perf_counter_ns()

    def send(self, target: Any, grant: Any) -> None:
        self._client.has(time.perf_counter_ns() - self._since, grant)

    def fail(self, error: Exception) -> None:
        self._client.failed(error)


class Client:
    def __init__(self) -> None:
        # Not where its loop would wait for it.
        for name in ("routing.handle", "policies.policy", "routing.router", "declaration.spec"):
            serve_module(name)

    async def run(self, handle: Any, in_flight: int, seconds: float) -> Told:
        self._cost = serve_module("policies.policy").ONE_REQUEST
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._given: deque[tuple[int, Any]] = deque()
        self._due = False
        self._left = in_flight
        # It has its replicas once one has answered.
        await handle.remote()
        deployment = serve_module("declaration.spec").DeploymentId(handle.app_name, handle.deployment_name)
        self._router = serve_module("routing.router").router_of(deployment)
        self._measured = _Measured(seconds)
        for _ in range(in_flight):
            self._router.submit(_Asked(self, self._cost))
        await self._over
        return self._measured.told()

    def has(self, nanoseconds: int, grant: Any) -> None:
        """From any thread."""
        self._given.append((nanoseconds, grant))
        if not self._due:
            self._due = True
            later = self._loop.call_soon
            if threading.get_ident() != self._thread:
                later = self._loop.call_soon_threadsafe
            later(self._go_on)

    def failed(self, error: Exception) -> None:
        self._loop.call_soon_threadsafe(self._over.set_exception, error)

    def _go_on(self) -> None:
        self._due = False
        # Those that are here. What comes meanwhile has its own turn, or a router that grants at once would be all.
        for _ in range(len(self._given)):
            nanoseconds, grant = self._given.popleft()
            goes_on = self._measured.took(nanoseconds)
            self._router.released(grant)
            if goes_on:
                self._router.submit(_Asked(self, self._cost))
            else:
                self._left -= 1
                if not self._left:
                    self._over.set_result(None)


class Places:
    async def __call__(self) -> None:
        pass


@contextmanager
def own_queue(clients: int) -> Generator[Callable[[int, float], list[Told]]]:
    import actorrt
    from actorrt import serve

    with actorrt.init(num_cpus=2):
        options: dict[str, Any] = {"num_cpus": 0}
        app = serve.deployment(
            name="places", num_replicas=REPLICAS, max_ongoing_requests=PLACES, request_router="capacity_queue",
            ray_actor_options=options,
        )(Places).bind()  # fmt: skip
        handle = serve.run(app, name="decisions", route_prefix=None)
        actors = [actorrt.remote(num_cpus=0)(Client).remote() for _ in range(clients)]
        yield lambda in_flight, seconds: actorrt.get([each.run.remote(handle, in_flight, seconds) for each in actors])
        serve.shutdown()
