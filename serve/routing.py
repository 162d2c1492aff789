"""Decide which replica gets a request, or that it waits, or that it is refused.

Power of two choices: of two replicas drawn at random the one with fewer requests gets it, which keeps queues nearly as
short as looking at all of them (Mitzenmacher, 2001). Nothing here sends; the random source is an argument.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Slots:
    """One replica as this router sees it."""

    __slots__ = ("dead", "full", "id", "ongoing")

    def __init__(self, id: str) -> None:
        self.id = id
        self.ongoing = 0
        # It refused a request: others send to it too. No more until it says that it has room.
        self.full = False
        self.dead = False

    def __repr__(self) -> str:
        marks = (" full" if self.full else "") + (" dead" if self.dead else "")
        return f"Slots({self.id}: {self.ongoing}{marks})"


class QueueFull(Exception):
    """`queued` requests wait, and that is the limit."""

    def __init__(self, queued: int, limit: int) -> None:
        super().__init__(queued, limit)
        self.queued, self.limit = queued, limit


class Routing(Generic[T]):
    """The replicas of one deployment and the requests that wait for one, first come, first served.

    `random` gives a float in [0, 1). A caller takes a slot by `choose` or `submit` and gives it back by `release`.
    """

    def __init__(self, random: Callable[[], float], max_ongoing: int = 1, max_queued: int = -1) -> None:
        self._random = random
        self.max_ongoing = max_ongoing
        self.max_queued = max_queued
        self._by_id: dict[str, Slots] = {}
        self._live: list[Slots] = []
        self._waiting: OrderedDict[T, None] = OrderedDict()

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def ongoing(self) -> int:
        return sum(each.ongoing for each in self._live)

    def statistics(self) -> dict[str, int]:
        """Requests at each replica."""
        return {each.id: each.ongoing for each in self._live}

    def update(self, replicas: Iterable[str]) -> None:
        """These are the replicas now. Who was found dead stays dead; counts of those that stay are kept."""
        ids = list(dict.fromkeys(replicas))
        known = self._by_id
        self._by_id = {id: known.get(id) or Slots(id) for id in ids}
        self._live = [each for each in self._by_id.values() if not each.dead]

    def died(self, replica: str) -> None:
        """It is never chosen again, whatever `update` says."""
        if (slots := self._by_id.get(replica)) is not None:
            slots.dead = True
            self._live = [each for each in self._live if each is not slots]

    def filled(self, replica: str) -> None:
        """It refused a request for want of room."""
        if (slots := self._by_id.get(replica)) is not None:
            slots.full = True

    def emptied(self, replica: str) -> None:
        """It has room again."""
        if (slots := self._by_id.get(replica)) is not None:
            slots.full = False

    def submit(self, request: T) -> Slots | None:
        """A slot for this request, or None: it waits. QueueFull if too many wait already."""
        # Nobody overtakes those that wait.
        if not self._waiting and (slots := self.choose()) is not None:
            return slots
        if 0 <= self.max_queued <= len(self._waiting):
            raise QueueFull(len(self._waiting), self.max_queued)
        self._waiting[request] = None
        return None

    def again(self, request: T) -> Slots | None:
        """A slot for a request that had one and did not start there. If it must wait, then before all others."""
        if (slots := self.choose()) is not None:
            return slots
        self._waiting[request] = None
        self._waiting.move_to_end(request, last=False)
        return None

    def withdraw(self, request: T) -> bool:
        """It waits no more. False if it did not wait."""
        if request in self._waiting:
            del self._waiting[request]
            return True
        return False

    def next_waiting(self) -> tuple[T, Slots] | None:
        """The request that has waited longest and a slot for it, as long as there are both."""
        if not self._waiting or (slots := self.choose()) is None:
            return None
        request, _ = self._waiting.popitem(last=False)
        return request, slots

    def drop_excess(self) -> list[T]:
        """Those that came last, as far as more wait than may."""
        dropped: list[T] = []
        while 0 <= self.max_queued < len(self._waiting):
            request, _ = self._waiting.popitem()
            dropped.append(request)
        return dropped

    def drop_waiting(self) -> list[T]:
        """All that wait, which do so no more: the deployment is gone."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def release(self, slots: Slots) -> None:
        slots.ongoing -= 1

    def choose(self) -> Slots | None:
        """A replica with room, one request of it taken; None if there is none."""
        live = self._live
        count = len(live)
        if count == 1:
            chosen = live[0]
        elif count == 0:
            return None
        else:
            first = int(self._random() * count)
            second = int(self._random() * (count - 1))
            if second >= first:
                second += 1
            chosen, other = live[first], live[second]
            if chosen.full or (other.ongoing < chosen.ongoing and not other.full):
                chosen = other
        if chosen.full or chosen.ongoing >= self.max_ongoing:
            # Both are taken, but another may be free: a request waits only if all are.
            chosen = min(
                (each for each in live if not each.full and each.ongoing < self.max_ongoing),
                key=_ongoing,
                default=None,
            )
            if chosen is None:
                return None
        chosen.ongoing += 1
        return chosen


def _ongoing(slots: Slots) -> int:
    return slots.ongoing
