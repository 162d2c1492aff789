"""Policies that decide by what this process has sent to each replica: Serve's own, and what a user's may build on.

Nothing here sends or waits; clock and random source are arguments.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from ..base.news import DeploymentNews
from .policy import Cost, Grant, Policy, PolicyContext, QueueFull, Request

# When to ask again is told from how fast the queue has moved since a refusal of late: this where there was none, and
# this at most.
UNKNOWN_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
# "Of late"; what lies further back than half of this counts for less.
MEMORY_S: Final = 30.0


class Slots(Grant):
    """One replica as this router sees it; a grant of it is one of its slots, whichever."""

    __slots__ = ("full", "ongoing")

    def __init__(self, policy: Policy, replica: str) -> None:
        super().__init__(policy, replica)
        self.ongoing = 0
        # It refused a request: others send to it too. No more until it says that it has room.
        self.full = False

    def __repr__(self) -> str:
        return f"Slots({self.replica}: {self.ongoing}{' full' if self.full else ''})"


class LocalPolicy(ABC):
    """The replicas of one deployment and the requests that wait for one, first come, first served.

    A subclass says which of `live` gets a request. Only it may know of limits beyond `max_ongoing` and `max_queued`.
    """

    def __init__(self, context: PolicyContext) -> None:
        self._clock = context.clock
        self.random = context.random
        self.max_ongoing = 1
        self.max_queued = -1
        self.live: list[Slots] = []
        self._by_id: dict[str, Slots] = {}
        # Replicas that are not in the list at the moment and have requests of before.
        self._away: dict[str, Slots] = {}
        self._waiting: OrderedDict[Request, None] = OrderedDict()
        # How many have left the queue to be sent, and since when that is counted.
        self._left = 0.0
        self._since = -math.inf

    @abstractmethod
    def choose(self, request: Request) -> Slots | None:
        """One of `live` that `has_room`; None if the request is to wait, and all that come after it."""
        ...

    def has_room(self, slots: Slots) -> bool:
        return not slots.full and slots.ongoing < self.max_ongoing

    def update(self, news: DeploymentNews) -> None:
        """Counts of replicas that stay are kept, and of those that come back while they have requests."""
        known, self._by_id = self._by_id, {}
        away = {id: slots for id, slots in (self._away | known).items() if slots.ongoing}
        for each in news.replicas:
            if (slots := known.get(each.id)) is None:
                if (slots := away.get(each.id)) is None:
                    slots = Slots(self, each.id)
                # Whether it has said so meanwhile, nobody has heard.
                slots.full = False
            self._by_id[each.id] = slots
            away.pop(each.id, None)
        self._away = away
        self.live = list(self._by_id.values())
        self.max_ongoing = news.max_ongoing
        self.max_queued = news.max_queued

    def submit(self, request: Request) -> Slots | None:
        # Nobody overtakes those that wait.
        if not self._waiting and (slots := self.choose(request)) is not None:
            slots.ongoing += 1
            return slots
        if 0 <= self.max_queued <= len(self._waiting):
            raise QueueFull(len(self._waiting), self.max_queued, self._expected_wait_s())
        self._waiting[request] = None
        return None

    def again(self, request: Request) -> Slots | None:
        if (slots := self.choose(request)) is not None:
            slots.ongoing += 1
            return slots
        self._waiting[request] = None
        self._waiting.move_to_end(request, last=False)
        return None

    def withdraw(self, request: Request) -> None:
        self._waiting.pop(request, None)

    def next(self) -> tuple[Request, Slots] | None:
        for request in self._waiting:
            if (slots := self.choose(request)) is None:
                return None
            slots.ongoing += 1
            self._left += 1
            del self._waiting[request]
            return request, slots
        return None

    def release(self, grant: Grant, used: Cost | None) -> None:
        grant.ongoing -= 1  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # only Slots are given

    def died(self, replica: str) -> None:
        if (slots := self._by_id.pop(replica, None)) is not None:
            self.live = [each for each in self.live if each is not slots]
            self._away[replica] = slots

    def filled(self, replica: str) -> None:
        if (slots := self._by_id.get(replica)) is not None:
            slots.full = True

    def emptied(self, replica: str) -> None:
        if (slots := self._by_id.get(replica)) is not None:
            slots.full = False

    def close(self) -> None:
        self._waiting.clear()

    def statistics(self) -> dict[str, int]:
        return {each.replica: each.ongoing for each in self.live}

    def _expected_wait_s(self) -> float:
        """How long all that wait take to leave the queue, if that goes on as it has since a refusal of late."""
        now = self._clock()
        elapsed, left = now - self._since, self._left
        if elapsed > MEMORY_S:
            self._since, self._left = now, 0.0
            return UNKNOWN_WAIT_S
        if not left:
            return UNKNOWN_WAIT_S
        if elapsed > MEMORY_S / 2:
            self._since, self._left = now - elapsed / 2, left / 2
        return min(len(self._waiting) * elapsed / left, LONGEST_WAIT_S)


class PowerOfTwo(LocalPolicy):
    """Of two replicas drawn at random the one with fewer requests gets the next.

    That keeps queues nearly as short as looking at all of them (Mitzenmacher, 2001).
    """

    def choose(self, request: Request) -> Slots | None:
        live = self.live
        count = len(live)
        if count == 1:
            chosen = live[0]
            return None if chosen.full or chosen.ongoing >= self.max_ongoing else chosen
        if count == 0:
            return None
        first = int(self.random() * count)
        second = int(self.random() * (count - 1))
        if second >= first:
            second += 1
        chosen, other = live[first], live[second]
        if chosen.full or (other.ongoing < chosen.ongoing and not other.full):
            chosen = other
        if chosen.full or chosen.ongoing >= self.max_ongoing:
            # Both are taken, but another may be free: a request waits only if all are.
            if count == 2:
                return None
            limit = self.max_ongoing
            return min((each for each in live if each.ongoing < limit and not each.full), key=_ongoing, default=None)
        return chosen


class LeastRequests(LocalPolicy):
    """The replica with the fewest requests of this process gets the next; any of them where there are several."""

    def choose(self, request: Request) -> Slots | None:
        chosen: Slots | None = None
        ties = 0
        for slots in self.live:
            if not self.has_room(slots):
                continue
            if chosen is None or slots.ongoing < chosen.ongoing:
                chosen, ties = slots, 1
            elif slots.ongoing == chosen.ongoing:
                ties += 1
                if self.random() * ties < 1:
                    chosen = slots
        return chosen


class RoundRobin(LocalPolicy):
    """One replica after the other; a replica without room is left out. Each process begins at a random one."""

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._turn: int | None = None

    def choose(self, request: Request) -> Slots | None:
        count = len(self.live)
        turn = int(self.random() * count) if self._turn is None else self._turn
        for index in range(turn, turn + count):
            slots = self.live[index % count]
            if self.has_room(slots):
                self._turn = (index + 1) % count
                return slots
        return None


BUILT_IN: Final[Mapping[str, type[LocalPolicy]]] = {
    "power_of_two": PowerOfTwo,
    "round_robin": RoundRobin,
    "least_requests": LeastRequests,
}


def _ongoing(slots: Slots) -> int:
    return slots.ongoing
