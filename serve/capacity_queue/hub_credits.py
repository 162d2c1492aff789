"""Who of the routers gets credits, and when they are called back: `credits.py` of ../capacity keeps them.

A router that asks the queue while nothing waits gets credits, and from then on a few times a second says what it has of
them. They are called back as soon as somebody waits, when it has not used them for a while, and when what a credit
holds changes; those on one line also if they lie idle where a session has its next turn. One whose session ends, or
that does not answer, has them fenced off by the replicas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..capacity.credit_messages import Report, Room, Usage
from ..capacity.credits import NOBODY, NOTHING, CreditBook, CreditSize
from ..capacity.ledger import Line
from ..capacity.need import LineId
from ..capacity.queue import CapacityQueue
from ..capacity.share import Share
from .messages import CreditsHeld, CreditsTold, Learnt

# So often a router is asked what it has: within what it may go by one answer.
POLL_S: Final = 0.2
# Nobody has waited for so long, before any are given.
QUIET_S: Final = 0.2
# Who has let nothing in by its credits for so long has no use for them.
IDLE_S: Final = 3.0


class _Life:
    """A router from one session to its end. What it was told in another one is of no consequence."""

    __slots__ = ("admitted", "known", "name", "polled_at", "said", "tokens", "used_at")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        # The version that it was told, and the one that it goes by.
        self.said = self.known = -1
        self.admitted = self.tokens = 0
        self.polled_at = self.used_at = now

    def use(self, now: float) -> None:
        self.used_at = now

    def count(self, admitted: int, tokens: int) -> None:
        self.admitted, self.tokens = admitted, tokens

    def goes_by(self, version: int) -> bool:
        """Whether that is another version than before."""
        before, self.known = self.known, version
        return version != before

    def tell(self, version: int, now: float) -> bool:
        """Whether it was told another version before."""
        before, self.said, self.polled_at = self.said, version, now
        return version != before


class HubCredits:
    def __init__(self, queue: CapacityQueue) -> None:
        self._queue, self._ledger = queue, queue.ledger
        self._order, self._holdback, self._drain, self._lengths = (
            queue.order,
            queue.holdback,
            queue.drain,
            queue.lengths,
        )
        self.book = CreditBook(queue.ledger, queue.order, CreditSize(1, 1, 1))
        self._lives: dict[str, _Life] = {}
        self._names: dict[str, str] = {}
        self._count = 0
        self._size: CreditSize | None = None
        self._in_requests = True
        self._waited_at = float("-inf")
        # Since they were called back last.
        self._some_given = False
        # Routers that have asked for a place since they were looked at last.
        self._asking: dict[str, None] = {}
        # Those that are to be told of their credits.
        self._due: dict[str, None] = {}
        # Requests that routers have let in.
        self.admitted = 0

    def joined(self, router: str, now: float) -> None:
        self.left(router)
        self._count += 1
        life = self._lives[router] = _Life(f"{router} {self._count}", now)
        self._names[life.name] = router

    def left(self, router: str) -> None:
        life = self._lives.pop(router, None)
        if life is not None:
            del self._names[life.name]
            self._asking.pop(router, None)
            self.book.leave(life.name)
            self._due.pop(router, None)

    def asked(self, router: str) -> None:
        """It would use credits, had it any."""
        self._asking[router] = None

    def waits(self, now: float) -> None:
        """Somebody waits."""
        self._waited_at = now
        self._recall()

    def _recall(self) -> None:
        if not self._some_given:
            return
        self._some_given = False
        for name in self.book.recall():
            self._due[self._names[name]] = None

    def make_room(self, line: Line, tokens: int, share: Share, now: float) -> bool:
        """Call back the credits on a line, if for the next turn of a session that ran there nothing is in the way but
        what lies idle in them. None are given for a while, as when somebody waits.
        """
        idle = self.idle(line)
        if not idle.slots or not line.is_open or line.is_kept:
            return False
        unread = sum(
            lease.unread
            for number, lease in line.leases.items()
            if lease.router == NOBODY and self.book.filled(number) == NOTHING
        )
        at_work, used = line.at_work - idle.slots, line.used + line.others.tokens - idle.tokens + tokens
        backlog = line.backlog - unread
        if line.running > idle.slots:
            fits = at_work < line.slots * share.slots and used <= line.fill_tokens * share.tokens
            fits = fits and backlog <= line.most_backlog_within(share)
        else:
            fits = tokens <= line.kv_tokens
        if not fits or backlog > line.stays_backlog:
            return False
        self._waited_at = now
        for name in self.book.recall_line(line.id):
            self._due[self._names[name]] = None
        return True

    def resize(self, size: CreditSize | None, in_requests: bool) -> None:
        """A credit has so much from now on; None: there are none."""
        if (size, in_requests) != (self._size, self._in_requests):
            self._recall()
            self._size, self._in_requests = size, in_requests
            if size is not None:
                self.book.set_size(size)

    def take(self, router: str, said: CreditsHeld, now: float) -> None:
        """What a router has of its credits."""
        life = self._lives[router]
        held = {number: Room(tokens, slots) for number, tokens, slots, _, _ in said.held}
        filled = {number: Room(tokens, slots) for number, _, _, tokens, slots in said.held}
        order, served = self._order, dict[tuple[str, str, str], float]()
        for band, tenant, user, tokens in said.served:
            self._holdback.came(order.number_of(band), now)
            served[band, tenant, user] = tokens
        report = Report(
            life.name, self._ledger.epoch, said.number, said.version, held, Usage(said.usage, served), filled
        )
        self.book.report(report, now)
        self._queue.gained()
        if said.admitted > life.admitted:
            life.use(now)
            self.admitted += said.admitted - life.admitted
            self._drain.add(said.tokens - life.tokens, now)
            life.count(said.admitted, said.tokens)
        if life.goes_by(said.version):
            # It may begin once it knows that this was heard.
            self._due[router] = None

    def learn(self, learnt: Iterable[Learnt]) -> None:
        """What answers were that no lease of their own is known of."""
        order = self._order
        for each in learnt:
            if each.charge > 0:
                order.charge(order.number_of(each.band), each.tenant, each.user, each.charge)
            if each.is_whole:
                self._lengths.learn(each.model, each.tenant, each.prompt, each.generated)

    def tick(self, now: float, chance: float) -> None:
        """Give credits to those that ask, and have all say what they have."""
        may = self._size is not None and not self._order and now - self._waited_at >= QUIET_S
        asking, self._asking = self._asking, {}
        for router, life in self._lives.items():
            if may and router in asking:
                before = self.book.has_some(life.name)
                if self.book.extend(life.name, now, chance):
                    self._due[router] = None
                    self._some_given = True
                    if not before:
                        life.use(now)
            if not self.book.has_some(life.name):
                continue
            if now - life.used_at >= IDLE_S and self.book.recall(life.name):
                self._due[router] = None
            if now - life.polled_at >= POLL_S:
                self._due[router] = None

    def told(self, now: float) -> list[tuple[str, CreditsTold]]:
        """What routers are to be told now."""
        due, self._due = self._due, {}
        found: list[tuple[str, CreditsTold]] = []
        for router in due:
            life = self._lives[router]
            try:
                grants = self.book.grants(life.name)
            except KeyError:
                continue
            credits: list[tuple[int, str, int, int, int, int]] = []
            if life.tell(grants.version, now):
                credits = [
                    (number, each.line.replica, each.line.rank, each.room.tokens, each.room.slots, each.unread)
                    for number, each in grants.credits.items()
                ]
            found.append(
                (router, CreditsTold(grants.version, grants.heard, grants.counted, self._in_requests, credits))
            )
        return found

    def idle(self, line: Line) -> Room:
        """What of a line lies in credits and is not filled, as far as routers have said."""
        tokens = slots = 0
        for lease in line.leases.values():
            if lease.router == NOBODY and (filled := self.book.filled(lease.number)) is not None:
                tokens += lease.tokens - filled.tokens
                slots += lease.slots - filled.slots
        return Room(max(0, tokens), max(0, slots))

    # ---- replicas

    def unanswered(self, now: float) -> dict[int, str]:
        """Credits that are to be fenced off, of routers that are silent or have left, by the replica that is to."""
        self.book.silent(now)
        return {number: line.replica for number, line in self.book.unanswered().items()}

    def replica_said(self, id: str, lines: Iterable[LineId], credits: Iterable[tuple[int, int, int, int]]) -> None:
        """What runs there by credits that it has fenced off."""
        running: dict[int, dict[int, Room]] = {}
        for number, rank, tokens, slots in credits:
            running.setdefault(rank, {})[number] = Room(tokens, slots)
        for line in lines:
            self.book.adopt(line, running.get(line.rank, {}))

    def fenced(self, rooms: Iterable[tuple[int, int, int]]) -> None:
        """What is left of credits that are fenced off."""
        for number, tokens, slots in rooms:
            self.book.fenced(number, Room(tokens, slots))
        self._queue.gained()
