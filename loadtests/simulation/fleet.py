"""The event loop: requests arrive, a policy sends them to engines, engines say what has become of them. Virtual time.

Who decides hears of everything in the moment in which it happens; what a policy knows late it keeps late itself
(policies/views.py). A replica that dies loses its cache, and its requests come to the policy again with what they have
got so far, as a front that resumes them does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

from .engine import Engine, Heard
from .engine_model import EngineModel
from .fairness import Fairness
from .policies.policy import Policy
from .requests import Request


class Failure(NamedTuple):
    """A replica that dies at a time, and is there again after so many seconds."""

    at: float
    replica: int
    for_s: float


class Fleet:
    """What a policy has: engines, chance, and two ways to be rid of a request."""

    def __init__(self, model: EngineModel, replicas: int, routers: int, dice: Random) -> None:
        self.model, self.routers, self.dice = model, routers, dice
        self.engines = [Engine(model, number) for number in range(replicas)]
        self.now = 0.0
        self.is_up = [True] * replicas
        # So many of the first only read prompts, with a policy that has such; 0: as it likes.
        self.prefill = 0
        self.fairness: Fairness | None = None
        # Requests that are with nobody yet, or with the policy; and those that have ended or were refused.
        self.done = 0
        # Tokens that engines have read and given.
        self.read_tokens = self.given_tokens = 0
        self._events: list[tuple[float, int, Engine | Callable[[], None], int]] = []
        self._numbers = count()
        self._settling: Engine | None = None
        # Where engines slow each other down: those that are at work.
        self._at_work: set[Engine] = set()
        # What the replica had that has died last.
        self.lost: list[Request] = []

    # ---- for policies

    def send(self, request: Request, replica: int) -> None:
        """It is to run there."""
        engine, now = self.engines[replica], self.now
        request.replica, request.sent = replica, now
        if not request.attempts:
            request.queued_s = now - request.arrived
        request.attempts += 1
        if self.fairness is not None:
            self.fairness.left(request, now)
        if engine.submit(request, now):
            self._schedule(engine)
        elif engine.ends_at == math.inf and engine is not self._settling:
            engine.begin(now)
            self._schedule(engine)

    def refuse(self, request: Request, why: str) -> None:
        """Its client gets an error at once, and does not come again."""
        request.refused, request.ended = why, self.now
        self._count(request)
        if self.fairness is not None:
            self.fairness.left(request, self.now)

    def take_back(self, request: Request) -> bool:
        """It was sent, has no slot there yet, and is to be sent again. False if it has one."""
        if not self.engines[request.replica].take_back(request):
            return False
        if self.fairness is not None:
            self.fairness.waits(request, self.now)
        return True

    def at(self, time: float, call: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._numbers), call, 0))

    # ---- the run

    def run(
        self,
        policy: Policy,
        requests: Sequence[Request],
        failures: Iterable[Failure] = (),
        background: Sequence[Request] = (),
        say: Callable[[float, int], None] | None = None,
    ) -> None:
        """All requests, in the order of their arrival, to their ends; those of the `background`, whose numbers are
        below zero, are there from the beginning, and are left as they are then.
        """
        for request in background:
            self._arrive(policy, request)
        for failure in failures:
            self.at(failure.at, lambda failure=failure: self._die(policy, failure))
        if policy.tick_s is not None:
            self._tick(policy, len(requests))
        arrivals: Iterator[Request] = iter(requests)
        arrival = next(arrivals, None)
        events = self._events
        said = 0
        while self.done < len(requests):
            if arrival is not None and (not events or arrival.arrived <= events[0][0]):
                self.now = arrival.arrived
                self._arrive(policy, arrival)
                arrival = next(arrivals, None)
                if arrival is None and self.fairness is not None:
                    self.fairness.all_came()
                continue
            if not events:
                raise RuntimeError(f"{policy.name} keeps {len(requests) - self.done} requests and nothing runs")
            time, _, what, plan = heappop(events)
            if isinstance(what, Engine):
                if what.plan == plan:
                    self.now = time
                    self._settle(policy, what)
            else:
                self.now = time
                what()
            if say is not None and self.done >= said:
                said = self.done + max(1, len(requests) // 200)
                say(self.now, self.done)

    def _schedule(self, engine: Engine) -> None:
        if self.model.slower_beside:
            self._pace(engine)
        if engine.ends_at < math.inf:
            heappush(self._events, (engine.ends_at, next(self._numbers), engine, engine.plan))

    def _pace(self, changed: Engine) -> None:
        """It may have begun to work, or ended: the others go on faster or slower after their steps under way."""
        at_work, is_at_work = self._at_work, changed.ends_at < math.inf
        if is_at_work == (changed in at_work):
            return
        (at_work.add if is_at_work else at_work.discard)(changed)
        for engine in self.engines:
            engine.pace = 1.0 + self.model.slower_beside * (len(at_work) - (engine in at_work))
            if engine is not changed and engine in at_work and engine.cut(self.now):
                self._schedule(engine)

    def _tick(self, policy: Policy, requests: int) -> None:
        policy.tick(self.now)
        if self.done < requests:
            assert policy.tick_s is not None
            self.at(self.now + policy.tick_s, lambda: self._tick(policy, requests))

    def _arrive(self, policy: Policy, request: Request) -> None:
        if request.prompt + request.output > self.model.longest:
            self.refuse(request, "it fits into no engine")
            return
        if self.fairness is not None:
            self.fairness.waits(request, self.now)
        policy.arrive(request, self.now)

    def _settle(self, policy: Policy, engine: Engine) -> None:
        now, fairness = self.now, self.fairness
        self._settling = engine
        for what, request in engine.settle():
            if what is Heard.FIRST:
                if math.isnan(request.first):
                    request.first = now
                # Where another engine has read it, it was counted there.
                read = 0 if request.is_handed_over else request.prompt - request.cached
                self.read_tokens += read
                if fairness is not None:
                    fairness.served(request, read, int(request.answers), now)
                policy.first(request, now)
            elif what is Heard.FURTHER:
                generated = engine.generated(request)
                if fairness is not None and request.answers:
                    fairness.served(request, 0, generated, now)
                policy.further(request, generated, now)
            else:
                request.ended = now
                self._count(request)
                if request.answers:
                    self.given_tokens += request.output
                    if fairness is not None:
                        fairness.served(request, 0, request.output, now)
                policy.ended(request, now)
        self._settling = None
        engine.begin(now)
        self._schedule(engine)

    def _count(self, request: Request) -> None:
        """It is over. Those of the background are not waited for."""
        self.done += request.number >= 0

    def _die(self, policy: Policy, failure: Failure) -> None:
        replica = failure.replica
        if not self.is_up[replica]:
            return
        self.is_up[replica] = False
        had = self.lost = self.engines[replica].stop()
        if self.model.slower_beside:
            self._pace(self.engines[replica])
        policy.down(replica, self.now)
        for request in had:
            if self.fairness is not None:
                self.fairness.waits(request, self.now)
            policy.arrive(request, self.now)
        self.at(self.now + failure.for_s, lambda: self._rise(policy, replica))

    def _rise(self, policy: Policy, replica: int) -> None:
        self.is_up[replica] = self.engines[replica].is_up = True
        policy.up(replica, self.now)
