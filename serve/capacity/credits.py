"""Credits as the queue keeps them: room on lines that routers fill by themselves while nothing waits.

A credit is a lease of the ledger, taken before its router hears of it, so nothing is ever given beyond the ledger. It
gets smaller when the router has said, knowing of the smaller one, that it holds no more; or, of a router that is
silent, when the line has fenced it off and said what of it still runs there. What lies idle in credits is at most
routers x lines x `size`, and is called back as soon as somebody waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .ask import Ask
from .credit_messages import Credit, Grants, Report, Room
from .fair_order import FairOrder
from .ledger import Ledger
from .need import LineId, Need
from .share import Share

# A router that has not been heard for so long has its credits fenced off.
SILENT_S: Final = 1.0
# Before that it stops by itself, by a clock that may run a little slower.
STOPS_S: Final = 0.8
# Routers that have gone, and are remembered.
MOST_AWAY: Final = 1000


NOTHING: Final = Room(0, 0)
# Nobody's name: a credit is none of the requests that its router has asked for.
NOBODY: Final = ""


@dataclass(frozen=True, slots=True)
class CreditSize:
    """What a router gets on one line, and on how many lines."""

    tokens: int
    """A few median requests."""
    slots: int = 4
    lines: int = 32
    unread: int = 0
    """Of its tokens, how many may be prompts that are not read yet: the ledger counts them as such all the time."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.slots < 1 or self.lines < 1 or self.unread < 0:
            raise ValueError(f"a credit needs tokens, slots and lines above zero, not {self}")


@dataclass(slots=True)
class _Given:
    line: LineId
    incarnation: int
    # What its router may fill by now; the lease has at least as much.
    room: Room
    unread: int
    # Of that, what it had filled when it said so last.
    filled: Room = NOTHING

    def set_room(self, room: Room) -> None:
        self.room = room

    def recall(self) -> bool:
        """Its router is to fill no more of it. False if it may not already."""
        may_fill = bool(self.room.slots)
        self.room = NOTHING
        return may_fill

    def say_filled(self, filled: Room) -> None:
        self.filled = filled


class _Router:
    def __init__(self, now: float, version: int, counted: int) -> None:
        self.credits: dict[int, _Given] = {}
        self.lines: set[LineId] = set()
        # Of what it may fill: each change has a higher one, of all routers.
        self.version = version
        self.heard_at = now
        # The numbers of its last report, and of the last usage that was counted.
        self.heard = 0
        self.counted = counted

    def changed(self, version: int) -> None:
        self.version = version

    def begins(self, now: float) -> None:
        """It had nothing to be silent about."""
        self.heard_at = now

    def hear(self, number: int, now: float) -> None:
        if number > self.heard:
            self.heard, self.heard_at = number, now

    def count(self, number: int) -> bool:
        """Whether this usage was not counted yet. Not just the next one: of a router that has gone long since the book
        forgets how many were counted."""
        if number <= self.counted:
            return False
        self.counted = number
        return True


class CreditBook:
    def __init__(self, ledger: Ledger, order: FairOrder[Ask], size: CreditSize) -> None:
        self._ledger, self._order = ledger, order
        self.size = size
        self._routers: dict[str, _Router] = {}
        # The credits of all of them.
        self._given: dict[int, _Given] = {}
        # Of all routers, as one that was fenced off may come back.
        self._version = 0
        self._counted: OrderedDict[str, int] = OrderedDict()
        # Credits of routers that have gone or were silent, until nothing of them runs; of some their line has said that
        # they are fenced off.
        self._fenced: dict[int, LineId] = {}
        self._answered: set[int] = set()

    @property
    def tokens(self) -> int:
        """What credits take of the ledger, filled or not."""
        leases = self._ledger.leases
        numbers = [*self._fenced, *(number for router in self._routers.values() for number in router.credits)]
        return sum(leases[number].tokens for number in numbers if number in leases)

    def set_size(self, size: CreditSize) -> None:
        """What a credit has that is given from now on."""
        self.size = size

    def extend(self, router: str, now: float, chance: float = 0.0) -> bool:
        """Give it credits on lines where it has none, if nobody waits. Whether `grants` has something new. A router's
        name is of one life of it.
        """
        self.drop_ended()
        known = self._routers.get(router)
        if known is None:
            known = self._routers[router] = _Router(now, self._next_version(), self._counted.pop(router, 0))
        if not known.credits:
            known.begins(now)
        size, before = self.size, known.version
        need, room = Need(size.tokens, 0), Room(size.tokens, size.slots)
        for number, given in known.credits.items() if not self._order else ():
            # What was called back and is still held in full is good again.
            lease = self._ledger.leases[number]
            if given.room != room and (lease.tokens, lease.slots) == room:
                given.set_room(room)
                known.changed(self._next_version())
        while not self._order and len(known.credits) < size.lines:
            placed = self._ledger.find(need, share=Share(tokens=0.9), chance=chance)
            if placed is None or placed.line.id in known.lines or placed.line.slots - placed.line.at_work < size.slots:
                break
            line = placed.line
            unread = min(size.unread, size.tokens)
            lease = self._ledger.admit(placed._replace(uncached=unread), need, NOBODY, size.slots)
            number = lease.number
            known.credits[number] = self._given[number] = _Given(line.id, line.incarnation, room, unread)
            known.lines.add(line.id)
            known.changed(self._next_version())
        return known.version != before

    def recall(self, router: str | None = None) -> list[str]:
        """Call all back: somebody waits; or those of one router. Those whose `grants` say something new."""
        told: list[str] = []
        for name, known in self._routers.items():
            if router not in (None, name):
                continue
            recalled = [given.recall() for given in known.credits.values()]
            if any(recalled):
                known.changed(self._next_version())
                told.append(name)
        return told

    def recall_line(self, line: LineId) -> list[str]:
        """Call back those on one line: somebody has a better use for it. Those whose `grants` say something new."""
        told: list[str] = []
        for name, known in self._routers.items():
            if line not in known.lines:
                continue
            for given in known.credits.values():
                if given.line == line and given.recall():
                    known.changed(self._next_version())
                    told.append(name)
        return told

    def grants(self, router: str) -> Grants:
        """What it is to be told, as often as one likes. Raises KeyError for one that has no credits or lost them."""
        known = self._routers[router]
        credits = {
            number: Credit(given.line, given.incarnation, given.room, given.unread)
            for number, given in known.credits.items()
        }
        return Grants(self._ledger.epoch, known.version, credits, known.heard, known.counted)

    def report(self, report: Report, now: float) -> None:
        """A router has said what it holds. One that has been fenced off has nothing to say."""
        known = self._routers.get(report.router)
        if known is None or report.epoch != self._ledger.epoch:
            return
        known.hear(report.number, now)
        if known.count(report.usage.number):
            for (band, tenant, user), tokens in report.usage.served.items():
                self._order.charge(self._order.number_of(band), tenant, user, tokens)
        for number, filled in report.filled.items():
            if (given := known.credits.get(number)) is not None:
                given.say_filled(filled)
        if report.version != known.version:
            # It may take up what it has not heard of yet.
            return
        for number, given in list(known.credits.items()):
            # By one version it never holds more than it said: the least of any order of reports is true.
            held = report.held.get(number, Room(0, 0))
            self._ledger.shrink(number, max(held.tokens, given.room.tokens), max(held.slots, given.room.slots))
            if number not in self._ledger.leases:
                self._drop(known, number)

    def has_some(self, router: str) -> bool:
        known = self._routers.get(router)
        return known is not None and bool(known.credits)

    def silent(self, now: float) -> dict[int, LineId]:
        """Fence off routers that were silent for too long. All fenced credits whose line has not said that nothing is
        left of them: it is to refuse what begins by them from now on, and to say what runs.
        """
        for name, router in list(self._routers.items()):
            if now - router.heard_at >= SILENT_S:
                self.leave(name)
        self.drop_ended()
        return dict(self._fenced)

    def leave(self, router: str) -> None:
        """It has gone, or is taken to have: its credits are to be fenced off."""
        known = self._routers.pop(router, None)
        if known is None:
            return
        self._counted[router] = known.counted
        while len(self._counted) > MOST_AWAY:
            self._counted.popitem(last=False)
        for number, given in known.credits.items():
            self._fenced[number] = given.line
            del self._given[number]

    def unanswered(self) -> dict[int, LineId]:
        """Fenced credits of which their line has said nothing."""
        return {number: line for number, line in self._fenced.items() if number not in self._answered}

    def adopt(self, line: LineId, running: Mapping[int, Room]) -> None:
        """A line begins to say what runs there by credits that it has fenced off, as it has those of earlier queues."""
        for number in [number for number, at in self._fenced.items() if at == line and number in self._answered]:
            if number not in running:
                self.fenced(number, NOTHING)
        for number, room in running.items():
            if room.slots > 0 and number not in self._ledger.leases:
                need = Need(room.tokens, 0)
                if self._ledger.adopt(line, number, NOBODY, need, 0, 0, room.slots) is not None:
                    self._fenced[number] = line
            self.fenced(number, room)

    def fenced(self, number: int, running: Room) -> None:
        """A line has fenced a credit off, and so much of it still runs there: told again as that ends."""
        if number in self._fenced:
            self._answered.add(number)
            self._ledger.shrink(number, running.tokens, running.slots)
            if number not in self._ledger.leases:
                self._forget(number)

    def drop_ended(self) -> None:
        """Lines that have ended took the credits on them along."""
        leases = self._ledger.leases
        for router in self._routers.values():
            for number in [number for number in router.credits if number not in leases]:
                self._drop(router, number)
                router.changed(self._next_version())
        for number in [number for number in self._fenced if number not in leases]:
            self._forget(number)

    def filled(self, number: int) -> Room | None:
        """What runs by a credit, as far as was said; None for one that is none, or of which all that is left runs."""
        given = self._given.get(number)
        return None if given is None else given.filled

    def _forget(self, number: int) -> None:
        del self._fenced[number]
        self._answered.discard(number)

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _drop(self, router: _Router, number: int) -> None:
        router.lines.discard(router.credits.pop(number).line)
        del self._given[number]
