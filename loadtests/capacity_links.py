"""What the capacity queue decides in a second for four router processes over real links, with credits and without.

Run as `python -m loadtests.capacity_links`; prints a table, or a line of JSON with --json. A deployment is served, its
queue is the real actor, each router process has a real session and policy, with a lock as routers have it. A request
is given back as soon as it has its place: nothing but decisions is measured. About half a minute, and two cores.
"""

import argparse
import asyncio
import json
import random
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import actorrt
from actorrt import serve
from actorrt.serve.base.connection import connect
from actorrt.serve.base.news import DeploymentNews
from actorrt.serve.capacity_queue.by_credit import LocalLease
from actorrt.serve.capacity_queue.policy import CapacityQueuePolicy
from actorrt.serve.policies import policy as policies
from actorrt.serve.policies.policy import PolicyContext, Refused

ROUTERS: Final = 4
IN_FLIGHT: Final = 16
APP: Final = "links"
# Of decisions by credits, one in so many is timed, or the clock would be most of it; so many are made in one turn.
_TIMED: Final = 64
_TURN: Final = 256


@dataclass(frozen=True, slots=True)
class Figures:
    credits: bool
    routers: int
    in_flight: int
    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the routers' processes, CPU time a decision: it says more than the rest where others use the machine too."""
    by_credit: float
    """Of all requests, this part did not ask the queue."""


class Wanted:
    __slots__ = ("at", "cost")

    def __init__(self) -> None:
        self.cost = policies.ONE_REQUEST
        self.at = 0


@actorrt.remote(isolated=True)
class RouterProcess:
    """One process that routes requests, without a replica at their end."""

    def __init__(self, name: str) -> None:
        self._lock = threading.RLock()
        self._told = threading.Event()
        self._until = self._cpu_s = 0.0
        self._count = self._by_credit = 0
        self._times: list[int] = []
        self._policy = CapacityQueuePolicy(
            PolicyContext(f"{APP}#{name}", random.Random().random, time.monotonic, self._look)
        )
        connect().listen(("deployment", APP, name), self._news)

    def _news(self, news: DeploymentNews) -> None:
        with self._lock:
            self._policy.update(news)
        if news.replicas:
            self._told.set()

    async def is_told(self) -> None:
        await asyncio.to_thread(self._told.wait)

    def _look(self) -> None:
        """Each place that has come is given back, and another one asked for: on the thread that brings them."""
        if not self._lock.acquire(blocking=False):
            return  # who has it looks too
        policy, times = self._policy, self._times
        try:
            while (found := policy.next()) is not None:
                wanted, grant = found
                assert isinstance(wanted, Wanted)
                if isinstance(grant, Refused):
                    raise grant
                times.append(time.perf_counter_ns() - wanted.at)
                policy.release(grant, None)
                self._count += 1
                if time.monotonic() < self._until:
                    self._ask()
        finally:
            self._lock.release()

    def _ask(self) -> None:
        wanted = Wanted()
        wanted.at = time.perf_counter_ns()
        if (grant := self._policy.submit(wanted)) is not None:
            raise RuntimeError(f"{grant} was given without asking the queue")

    async def ask_queue(self, seconds: float, in_flight: int) -> tuple[int, float, list[int], int, float]:
        """Decisions, seconds, nanoseconds of each, those that did not ask, CPU seconds: with so many in flight."""
        began = self._begin(seconds)
        with self._lock:
            for _ in range(in_flight):
                self._ask()
            self._look()
        await asyncio.sleep(seconds + 0.2)
        return self._count, time.perf_counter() - began - 0.2, self._times, 0, time.process_time() - self._cpu_s

    async def ask_nobody(self, seconds: float) -> tuple[int, float, list[int], int, float]:
        """The same one after the other, as credits let them in."""
        began = self._begin(seconds)
        # Whoever calls makes them, and not who decides.
        first, others = [Wanted()], [Wanted() for _ in range(_TIMED - 1)]
        while time.monotonic() < self._until:
            grant = None
            for _ in range(_TURN // _TIMED):
                begin = time.perf_counter_ns()
                if (grant := self._decide(first)) is None:
                    break
                self._times.append(time.perf_counter_ns() - begin)
                self._by_credit += _TIMED * (type(grant) is LocalLease)
                if (grant := self._decide(others)) is None:
                    break
                self._count += _TIMED
            self._look()
            await asyncio.sleep(0 if grant is not None else 0.001)
        return self._count, time.perf_counter() - began, self._times, self._by_credit, time.process_time() - self._cpu_s

    def _decide(self, requests: list[Wanted]) -> Any:
        """Let each in and give its place back, with the lock as routers do; the last grant, None where one waits."""
        policy, lock, grant = self._policy, self._lock, None
        for wanted in requests:
            with lock:
                grant = policy.submit(wanted)
                if grant is None:
                    policy.withdraw(wanted)
                    return None
            with lock:
                policy.release(grant, None)
        return grant

    def _begin(self, seconds: float) -> float:
        self._count = self._by_credit = 0
        self._times = []
        self._until = time.monotonic() + seconds
        self._cpu_s = time.process_time()
        return time.perf_counter()


class Held:
    def __call__(self) -> None: ...


async def measure(credits: bool, replicas: int, seconds: float) -> Figures:
    name = "by-credit" if credits else "by-asking"
    router = serve.RequestRouterConfig("capacity_queue", {"credit_share": 0.5 if credits else 0.0})
    app = serve.deployment(Held, name=name, num_replicas=replicas, max_ongoing_requests=100, request_router=router)
    await asyncio.to_thread(serve.run, app.bind(), name=APP, route_prefix=None)
    processes: list[Any] = [RouterProcess.remote(name) for _ in range(ROUTERS)]
    await asyncio.gather(*(each.is_told.remote() for each in processes))

    async def all_of(length_s: float) -> list[tuple[int, float, list[int], int, float]]:
        if credits:
            return list(await asyncio.gather(*(each.ask_nobody.remote(length_s) for each in processes)))
        return list(await asyncio.gather(*(each.ask_queue.remote(length_s, IN_FLIGHT) for each in processes)))

    await all_of(1.0)
    found = await all_of(seconds)
    for each in processes:
        actorrt.kill(each)
    await asyncio.to_thread(serve.delete, APP)
    times = sorted(each for _, _, some, _, _ in found for each in some)
    decided = sum(count for count, *_ in found)
    return Figures(
        credits,
        ROUTERS,
        1 if credits else IN_FLIGHT,
        sum(count / length_s for count, length_s, *_ in found),
        times[len(times) // 2] / 1000,
        times[int(0.99 * len(times))] / 1000,
        sum(cpu_s for *_, cpu_s in found) / decided * 1e6,
        sum(local for *_, local, _ in found) / decided,
    )


async def all_figures(replicas: int, seconds: float) -> list[Figures]:
    return [await measure(credits, replicas, seconds) for credits in (False, True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row of the table")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    serve.start({"port": 0})
    try:
        rows = asyncio.run(all_figures(arguments.replicas, arguments.seconds))
    finally:
        serve.shutdown()
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| credits | routers | in flight each | a second | p50 us | p99 us | CPU us | did not ask |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        says = "with" if row.credits else "without"
        print(
            f"| {says} | {row.routers} | {row.in_flight} | {row.per_s:,.0f} | {row.p50_us:,.1f} | {row.p99_us:,.1f} | "
            f"{row.cpu_us:.1f} | {100 * row.by_credit:.1f} % |"
        )


if __name__ == "__main__":
    main()
