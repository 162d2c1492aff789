"""A router without its queue: when it does without, and at which replicas it may have how much. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Final

from ..capacity.credit_holder import Held
from .messages import Share

# Of replicas of which nothing was told.
_UNKNOWN: Final = Share(1, 0)


class Place:
    """A replica that serves, with what runs there for this router."""

    __slots__ = ("_credits", "_requests", "_tokens")

    def __init__(self) -> None:
        # By leases; what runs by credits these say themselves.
        self._requests = self._tokens = 0
        self._credits: list[Held] = []

    def add(self, requests: int, tokens: int) -> None:
        self._requests += requests
        self._tokens += tokens

    def counts(self, credit: Held) -> None:
        """What is filled of a credit runs here too."""
        for each in self._credits:
            if not each.running and not each.slots:
                # Should it be good once more, it is counted anew.
                each.count_at(None)
        self._credits = [each for each in self._credits if each.place is not None]
        self._credits.append(credit)

    @property
    def requests(self) -> int:
        return self._requests + sum(each.running for each in self._credits)

    @property
    def tokens(self) -> int:
        return self._tokens + sum(each.filled for each in self._credits)


class QueueState(Enum):
    """A router's queue, as far as the router knows."""

    UNHEARD = auto()  # it is being asked, and may be there
    THERE = auto()
    GONE = auto()


# As what each look at them costs less than by the class.
_THERE: Final = QueueState.THERE
_GONE: Final = QueueState.GONE


class Alone:
    def __init__(self, now: float, number: int) -> None:
        """`number`: below zero, and of no two routers the same; leases that it gives itself have those below."""
        # The queue, and when it was heard last.
        self.queue = QueueState.UNHEARD
        self.heard_at = now
        # What one router may have at each replica, as the queue told last.
        self.shares: dict[str, Share] = {}
        # A replica knows of a later queue: until then it is waited for.
        self.stands_back_until = 0.0
        self._number = number

    def hear(self, now: float) -> None:
        self.heard_at = now

    def found(self) -> None:
        """The queue has said that it is there."""
        self.queue = _THERE

    def lost(self) -> None:
        """The queue has gone, or the stream to it has."""
        self.queue = _GONE

    def asks(self, now: float) -> None:
        """Another queue is asked. Where the one before it is known to have gone, the router does without meanwhile."""
        self.heard_at = now
        if self.queue is _THERE:
            self.queue = QueueState.UNHEARD

    def stand_back(self, until: float) -> None:
        self.stands_back_until = until

    def share(self, shares: dict[str, Share]) -> None:
        self.shares = shares

    @property
    def is_connected(self) -> bool:
        return self.queue is _THERE

    def is_near(self, silence_s: float, now: float) -> bool:
        """Whether the queue is there and was heard of late."""
        return self.queue is _THERE and now - self.heard_at <= silence_s

    def is_alone(self, silence_s: float, now: float) -> bool:
        is_silent = now - self.heard_at > silence_s
        return (is_silent or self.queue is _GONE) and now >= self.stands_back_until

    def choose(self, places: Mapping[str, Place], full: Collection[str], tokens: int) -> str | None:
        """The replica where the router has least, within its share; one request fits wherever it has none."""
        best: str | None = None
        for id, place in places.items():
            share, has = self.shares.get(id, _UNKNOWN), place.requests
            fits = has < share.requests and (not share.tokens or place.tokens + tokens <= share.tokens)
            if id not in full and (fits or not has) and (best is None or has < places[best].requests):
                best = id
        return best

    def new_number(self) -> int:
        """Of a lease that the router gives itself."""
        self._number -= 1
        return self._number
