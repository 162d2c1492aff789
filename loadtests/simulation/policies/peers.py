"""Policies of peers, as their documents describe them, written anew: llm-d's, Dynamo's and SMG's.

Holding: while every replica has more to read than is read in `TOLERATED_S`, requests wait with the router.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from ..requests import Request
from .prefixes import KnowsPrefixes

if TYPE_CHECKING:
    from ..fleet import Fleet

TOLERATED_S: Final = 2.0
# Rounds of deficits give each class so many tokens of prompts, times its weight.
_QUANTUM: Final = 8192
_WEIGHTS: Final = (8, 4, 2, 1)


class _Holding(KnowsPrefixes):
    def __init__(self, name: str, fleet: Fleet, stale_s: float) -> None:
        super().__init__(name, fleet, stale_s)
        self._threshold = fleet.model.prefill_rate * TOLERATED_S

    def push(self, request: Request) -> None:
        raise NotImplementedError

    def pop(self) -> Request | None:
        """Whose turn it is; None if nobody waits."""
        raise NotImplementedError

    def arrive(self, request: Request, now: float) -> None:
        self.push(request)
        self._place(request.router)

    def is_saturated(self, router: int) -> bool:
        unread, requests, slots = self.views[router].unread, self.views[router].requests, self.fleet.model.slots
        return all(
            unread[replica] > self._threshold or requests[replica] >= slots for replica in self.up_replicas()
        )  # fmt: skip

    def _place(self, router: int) -> None:
        while not self.is_saturated(router):
            request = self.pop()
            if request is None:
                return
            super().arrive(request, self.fleet.now)

    def first(self, request: Request, now: float) -> None:
        super().first(request, now)
        self._place(request.router)

    def ended(self, request: Request, now: float) -> None:
        super().ended(request, now)
        self._place(request.router)

    def tick(self, now: float) -> None:
        super().tick(now)
        for router in range(self.fleet.routers):
            self._place(router)

    def up(self, replica: int, now: float) -> None:
        self.tick(now)


class Sticky(_Holding):
    """llm-d's: where most of its prompt lies, until that replica is saturated, then the least loaded. Held requests go
    by tenant, the one first that was given least so far, unweighted; of bands the higher one first.
    """

    def __init__(self, name: str, fleet: Fleet, stale_s: float) -> None:
        super().__init__(name, fleet, stale_s)
        self._queues: dict[tuple[int, str], deque[Request]] = {}
        self._attained: dict[str, float] = {}

    def push(self, request: Request) -> None:
        queue = self._queues.setdefault((request.band, request.tenant), deque())
        (queue.appendleft if request.attempts else queue.append)(request)

    def pop(self) -> Request | None:
        key = min(self._queues, key=lambda key: (key[0], self._attained.get(key[1], 0.0)), default=None)
        if key is None:
            return None
        request = self._queues[key].popleft()
        if not self._queues[key]:
            del self._queues[key]
        self._attained[request.tenant] = self._attained.get(request.tenant, 0.0) + self.expected(request)
        return request

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        unread = self.view_of(request).unread
        for replica, tokens in hits.items():
            if 2 * tokens >= request.prompt and unread[replica] <= self._threshold:
                return replica
        return self.least({replica: float(unread[replica]) for replica in replicas})


class Deficits(_Holding):
    """Dynamo's: where prompts to be read, less what is there of this one, and tokens that decode are fewest. Held
    requests go by deficit round robin over static classes, in tokens of prompts, by deadlines within.
    """

    def __init__(self, name: str, fleet: Fleet, stale_s: float) -> None:
        super().__init__(name, fleet, stale_s)
        self._classes: list[list[tuple[float, float, int, Request]]] = [[] for _ in _WEIGHTS]
        self._deficits = [0.0] * len(_WEIGHTS)
        self._turn = 0
        self._numbers = count()

    def push(self, request: Request) -> None:
        heappush(self._classes[request.band], (request.deadline, request.arrived, next(self._numbers), request))

    def pop(self) -> Request | None:
        if not any(self._classes):
            return None
        while True:
            band = self._turn
            waiting = self._classes[band]
            if waiting and waiting[0][3].prompt <= self._deficits[band]:
                request = heappop(waiting)[3]
                self._deficits[band] -= request.prompt
                return request
            if not waiting:
                self._deficits[band] = 0.0
            self._turn = (band + 1) % len(_WEIGHTS)
            if self._classes[self._turn]:
                self._deficits[self._turn] += _QUANTUM * _WEIGHTS[self._turn]

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        view = self.view_of(request)
        return self.least(
            {replica: float(view.unread[replica] - hits.get(replica, 0) + view.tokens[replica]) for replica in replicas}
        )


class Classes(KnowsPrefixes):
    """SMG's: by a tree of prefixes while requests are even, else where fewest are. Slots of all replicas together are
    given by class, a part of them kept for the higher ones; a lower one that has not begun gives its slot back.
    """

    # Requests are even unless one replica has so many more than another, and so many times as many.
    _MORE = 32
    _TIMES = 1.5
    # A prefix counts from this part of the prompt on.
    _MATCH = 0.5
    # Of the slots, what lower classes may not have.
    _FLOOR = 0.1

    def __init__(self, name: str, fleet: Fleet, stale_s: float) -> None:
        super().__init__(name, fleet, stale_s)
        self._waiting: list[deque[Request]] = [deque() for _ in _WEIGHTS]
        self._running = [0] * len(_WEIGHTS)
        self._unbegun: list[dict[Request, None]] = [{} for _ in _WEIGHTS]

    def arrive(self, request: Request, now: float) -> None:
        waiting = self._waiting[request.band]
        (waiting.appendleft if request.attempts else waiting.append)(request)
        self._place()

    def _place(self) -> None:
        slots = self.fleet.model.slots * len(self.up_replicas())
        for band, waiting in enumerate(self._waiting):
            most = slots if band < 2 else math.floor(slots * (1 - self._FLOOR))
            while waiting and slots:
                if sum(self._running) >= most and not self._take_back(band):
                    break
                request = waiting.popleft()
                self._running[band] += 1
                self._unbegun[band][request] = None
                super().arrive(request, self.fleet.now)

    def _take_back(self, band: int) -> bool:
        for lower in range(len(_WEIGHTS) - 1, band, -1):
            for request in reversed(self._unbegun[lower]):
                if self.fleet.take_back(request):
                    self._over(request)
                    self._count(request, request.replica, -1, -request.memo.tokens, -request.memo.unread)
                    self._waiting[lower].appendleft(request)
                    return True
        return False

    def _over(self, request: Request) -> None:
        self._running[request.band] -= 1
        self._unbegun[request.band].pop(request, None)

    def first(self, request: Request, now: float) -> None:
        super().first(request, now)
        self._unbegun[request.band].pop(request, None)

    def ended(self, request: Request, now: float) -> None:
        super().ended(request, now)
        self._over(request)
        self._place()

    def down(self, replica: int, now: float) -> None:
        super().down(replica, now)
        for request in self.fleet.lost:
            self._over(request)

    def up(self, replica: int, now: float) -> None:
        self._place()

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        requests = self.view_of(request).requests
        most, least = max(requests[each] for each in replicas), min(requests[each] for each in replicas)
        is_even = most - least <= self._MORE or most <= self._TIMES * least
        best = next(iter(hits), None)
        if is_even and best is not None and hits[best] >= self._MATCH * request.prompt:
            return best
        return self.least({replica: float(requests[replica]) for replica in replicas})
