"""What each line has left, and the leases that took it: the sum of a line's leases is what it has given, always.

A lease is of one queue's epoch, one incarnation of a line, and has a number of its own. It ends once, by its number:
whoever gives it back a second time, or after its line has ended, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Any, Final, NamedTuple

from .credit_messages import Room
from .engine_load import NOTHING
from .line_index import LineIndex, busyness
from .most_first import MostFirst
from .need import DEFAULT_LIMITS, Limits, LineFacts, LineId, Takes
from .share import WHOLE, Share

# So few lines are looked at one by one: that costs less than to keep them sorted.
FEW_LINES: Final = 8
# What is read in so short a time does not wait: where prompts are no matter, rates are endless.
_AT_ONCE_S: Final = 1e-9
# More than any line is.
_BUSIEST: Final = 1 << 200


class LeaseId(NamedTuple):
    epoch: int
    incarnation: int
    number: int


class Line:
    """One rank of a replica, in tokens."""

    __slots__ = (
        "at_work",
        "backlog",
        "fill_tokens",
        "id",
        "incarnation",
        "is_kept",
        "is_open",
        "kv_tokens",
        "leases",
        "most_backlog",
        "prefill_rate",
        "number",
        "others",
        "running",
        "slots",
        "stays_backlog",
        "used",
    )

    def __init__(self, id: LineId, number: int, incarnation: int) -> None:
        self.id: LineId = id
        # By which the index knows it.
        self.number: int = number
        self.incarnation: int = incarnation
        # Prompts and expected answers of what runs; of that, the parts of prompts that are not read yet.
        self.used: int = 0
        self.backlog: int = 0
        self.running: int = 0
        # With what others run at its engine.
        self.at_work: int = 0
        self.leases: dict[int, Lease] = {}
        # What its engine has beside them.
        self.others: Room = NOTHING
        # Whether it takes requests: not while it drains, or has not said what it runs.
        self.is_open = True
        # Whether it is kept for one request, which only who keeps it knows.
        self.is_kept = False
        self.kv_tokens: int = 0
        self.fill_tokens: int = 0
        self.slots: int = 0
        self.most_backlog: float = 0.0
        # Tokens of prompts a second.
        self.prefill_rate: float = 1.0
        # Up to which a session stays.
        self.stays_backlog: float = 0.0

    def offer(self, facts: LineFacts, limits: Limits) -> None:
        self.kv_tokens, self.slots = facts.kv_tokens, facts.slots
        self.fill_tokens = int(facts.kv_tokens * limits.fill)
        self.prefill_rate = facts.prefill_rate
        self.most_backlog = facts.prefill_rate * limits.prefill_s
        self.stays_backlog = facts.prefill_rate * limits.session_s

    def take(self, tokens: int, unread: int, slots: int) -> None:
        """So much more of it is taken; `unread` of the tokens are parts of prompts that are not read yet."""
        self.used += tokens
        self.backlog += unread
        self.running += slots
        self.at_work += slots

    def give_back(self, tokens: int, unread: int, slots: int) -> None:
        """So much less of it is taken."""
        self.used -= tokens
        self.backlog -= unread
        self.running -= slots
        self.at_work -= slots

    def open(self, is_open: bool) -> None:
        self.is_open = is_open

    def keep(self, is_kept: bool) -> None:
        self.is_kept = is_kept

    def set_others(self, others: Room) -> None:
        self.at_work += others.slots - self.others.slots
        # By its identity `admits` knows that there are none.
        self.others = others if others != NOTHING else NOTHING

    @property
    def free(self) -> int:
        """The largest need that it admits now; -1 if it admits none."""
        return -1 if self.is_kept else self.room

    @property
    def room(self) -> int:
        """The largest need that fits now, -1 if none does. Empty, it takes whatever can ever fit."""
        if not self.is_open:
            return -1
        if not self.running:
            return self.kv_tokens
        if self.at_work >= self.slots or self.backlog > self.most_backlog:
            return -1
        room = self.spare
        return room if room >= 0 else -1

    @property
    def spare(self) -> int:
        """Tokens that it may give beside what is taken; below zero where that is more than it may give."""
        return self.fill_tokens - self.used - self.others.tokens

    def admits(self, tokens: int, share: Share = WHOLE, saved: int = 0) -> bool:
        """Whether it takes such a need. As much as is `saved` of its prompt, which the line has read before, may wait
        there beyond the limit, up to as much again: elsewhere it would have to be read.
        """
        running = self.running
        if not saved and share is WHOLE and running and self.others is NOTHING:
            return (
                running < self.slots
                and self.used + tokens <= self.fill_tokens
                and self.backlog <= self.most_backlog
                and self.is_open
                and not self.is_kept
            )
        if self.is_kept:
            return False
        if saved and self.most_backlog < self.backlog <= self.most_backlog + min(saved, self.most_backlog):
            return (
                self.is_open
                and share.backlog >= 1.0
                and 0 < running <= self.at_work < self.slots * share.slots
                and self.used + self.others.tokens + tokens <= self.fill_tokens * share.tokens
            )
        return self.has_room(tokens, share)

    def has_room(self, tokens: int, share: Share = WHOLE) -> bool:
        """Whether a need fits, within a share of what the line may give at all; alone, it always does."""
        if tokens > self.room:
            return False
        if share is WHOLE or not self.running:
            return True
        used = self.used + self.others.tokens
        return used + tokens <= self.fill_tokens * share.tokens and self.is_within(share)

    def admits_alike(self, tokens: int, prompt: int, share: Share = WHOLE) -> int:
        """How many such needs it takes, one after the other."""
        if not self.admits(tokens, share):
            return 0
        # The first may be more than there is room for, the others beside it are not: so many requests, tokens, and
        # tokens of prompts before the last of them.
        slots, may_use, most_backlog = self.slots, self.fill_tokens, self.most_backlog
        if share is not WHOLE:
            slots = math.ceil(slots * min(1.0, share.slots))
            may_use = int(may_use * min(1.0, share.tokens))
            most_backlog = min(most_backlog, self.most_backlog_within(share))
        most = slots - self.at_work
        if tokens and (fit := (may_use - self.used - self.others.tokens) // tokens) < most:
            most = fit
        if self.backlog + most * prompt > most_backlog:
            most = min(most, int(most_backlog - self.backlog) // prompt + 1) if prompt else 1
        return max(1, most)

    def is_within(self, share: Share) -> bool:
        """Whether it runs few enough requests, and has little enough to read, for another of this share."""
        return not self.running or (
            self.at_work < self.slots * share.slots and self.backlog <= self.most_backlog_within(share)
        )

    def most_backlog_within(self, share: Share) -> float:
        """So much may wait to be read for another of this share to begin."""
        return max(self.most_backlog * share.backlog, self.prefill_rate * _AT_ONCE_S)


class Lease:
    """What one request takes of one line, until it is released."""

    __slots__ = (
        "ask", "epoch", "generated", "granted_at", "has_begun", "line", "number", "output", "prompt", "router", "slots",
        "tokens", "unread",
    )  # fmt: skip

    def __init__(
        self,
        epoch: int,
        number: int,
        line: Line,
        router: str,
        need: Takes,
        uncached: int,
        slots: int = 1,
        ask: Any = None,
    ) -> None:
        self.epoch = epoch
        self.number = number
        self.line = line
        # Of whoever keeps the ledger: whose it is, whether its line has said that it runs, and since when its prompt is
        # read, where that is to be measured.
        self.ask = ask
        self.has_begun = False
        self.granted_at: float | None = None
        # Who has it, and answers for it.
        self.router = router
        self.prompt = need.prompt
        # As expected, and as it is by now.
        self.output = need.output
        self.generated = 0
        # Of the line: the prompt and whichever of the two is more.
        self.tokens = need.tokens
        # What of the prompt is still to be read by the engine.
        self.unread = uncached
        # Requests that run by it: one, but of a credit.
        self.slots = slots

    @property
    def is_short(self) -> bool:
        """Whether its answer is longer than expected."""
        return self.generated > self.output

    def belongs_to(self, ask: Any) -> None:
        self.ask = ask

    def begin(self) -> None:
        """Its line has said that it runs."""
        self.has_begun = True

    def reads_from(self, now: float) -> None:
        """Its prompt is read from now on, and how long that takes is measured."""
        self.granted_at = now

    def take_reading_s(self, now: float) -> float | None:
        """How long its prompt was read, once; None: that is not measured, or was asked before."""
        since, self.granted_at = self.granted_at, None
        return None if since is None else now - since

    def grow(self, generated: int) -> int:
        """Its answer has so many tokens by now. How many it takes more of its line than before."""
        before = self.tokens
        self.generated = generated
        self.tokens = max(before, self.prompt + generated)
        return self.tokens - before

    def read_all(self) -> int:
        """Its prompt was read. How many tokens of it were not, until now."""
        unread, self.unread = self.unread, 0
        return unread

    def shrink(self, tokens: int, slots: int) -> tuple[int, int, int]:
        """It takes no more than so much, all of it a prompt. What it gives back: tokens, unread ones, slots."""
        before = self.tokens, self.unread, self.slots
        self.prompt = self.tokens = min(self.tokens, tokens)
        self.output = self.generated = 0
        self.unread = min(self.unread, self.prompt)
        self.slots = min(self.slots, slots)
        return before[0] - self.tokens, before[1] - self.unread, before[2] - self.slots

    @property
    def id(self) -> LeaseId:
        return LeaseId(self.epoch, self.line.incarnation, self.number)


class Placed(NamedTuple):
    """A line for a request, how much it has to read there, and how much of that it was spared, for which the line may
    have more to read already.
    """

    line: Line
    uncached: int
    saved: int = 0


class Ledger:
    def __init__(self, epoch: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.epoch = epoch
        self.limits = limits
        self.lines: dict[LineId, Line] = {}
        self.leases: dict[int, Lease] = {}
        # Leases whose answer was longer than expected.
        self.short = 0
        # Lines that may have got more room since they were last taken from here.
        self._gained: dict[Line, None] = {}
        # Those that have changed since somebody asked for their order, which is rare where there are few.
        self._moved: dict[int, Line] = {}
        self._index: LineIndex[Line] = LineIndex()
        self._spare: MostFirst[Line] = MostFirst(lambda line: line.spare)
        self._most_tokens: int | None = 0
        self._fastest: float | None = 1.0
        self._next_line = 0
        # Above those of all earlier epochs: an epoch is a time in units in which no two leases are given.
        self._next_lease = epoch

    @property
    def most_tokens(self) -> int:
        """The largest need that some line can ever hold; 0 without lines."""
        if self._most_tokens is None:
            self._most_tokens = max((line.kv_tokens for line in self.lines.values()), default=0)
        return self._most_tokens

    @property
    def fastest(self) -> float:
        """Tokens of prompts a second that the fastest line reads; without lines 1."""
        if self._fastest is None:
            self._fastest = max((line.prefill_rate for line in self.lines.values()), default=1.0)
        return self._fastest

    def begin_epoch(self, epoch: int) -> None:
        """It is this from now on: a later one was seen somewhere than there was."""
        self.epoch = epoch
        self._next_lease = max(self._next_lease, epoch)

    # Lines.

    def set_limits(self, limits: Limits) -> None:
        """How full lines that come, or offer something else, may get from now on."""
        self.limits = limits

    def set_line(self, id: LineId, facts: LineFacts, incarnation: int) -> list[Lease]:
        """A line is there, or offers something else now. The leases of its earlier incarnation, which have ended."""
        line = self.lines.get(id)
        ended: list[Lease] = []
        if line is not None and line.incarnation != incarnation:
            ended = self.drop_line(id)
            line = None
        if line is None:
            self._next_line += 1
            line = self.lines[id] = Line(id, self._next_line, incarnation)
        line.offer(facts, self.limits)
        self._most_tokens = self._fastest = None
        self._spare.put(line)
        self._changed(line)
        return ended

    def _changed(self, line: Line) -> None:
        """It may have more room than before."""
        self._moved[line.number] = line
        self._gained[line] = None

    def _sort_in(self) -> None:
        moved, self._moved = self._moved, {}
        for line in moved.values():
            self._index.put(line)
            self._spare.changed(line)

    def take_gained(self) -> dict[Line, None]:
        """The lines that may have more room than when this was last asked: none else has."""
        gained, self._gained = self._gained, {}
        return gained

    def give_back_gained(self, lines: dict[Line, None]) -> None:
        """What they have got is still to be looked at."""
        self._gained = lines | self._gained

    def open_line(self, id: LineId, is_open: bool) -> None:
        """Have it take requests, or none: what runs there goes on."""
        line = self.lines[id]
        line.open(is_open)
        self._changed(line)

    def keep_line(self, id: LineId, is_kept: bool) -> None:
        """Have it take nothing for now, whatever room it has."""
        line = self.lines[id]
        line.keep(is_kept)
        if is_kept:
            self._moved[line.number] = line
        else:
            self._changed(line)

    def set_others(self, id: LineId, others: Room) -> None:
        """Its engine has so much beside what is given here."""
        line = self.lines[id]
        if line.others != others:
            line.set_others(others)
            self._changed(line)

    def drop_line(self, id: LineId) -> list[Lease]:
        """It has ended, and its leases with it."""
        line = self.lines.pop(id, None)
        if line is None:
            return []
        self._moved.pop(line.number, None)
        self._index.take(line)
        self._spare.take(line)
        self._gained.pop(line, None)
        self._most_tokens = self._fastest = None
        ended = list(line.leases.values())
        for lease in ended:
            del self.leases[lease.number]
        line.leases.clear()
        return ended

    # Leases.

    def find(
        self,
        need: Takes,
        cached: Iterable[tuple[Line, int]] = (),
        share: Share = WHOLE,
        chance: float = 0.0,
        among: Collection[Line] | None = None,
        load: int = 0,
    ) -> Placed | None:
        """The line that would begin to answer soonest, of those that admit it.

        `cached` are lines that hold the beginning of its prompt, with how many tokens of it; `share` is how much of a
        line its band may fill; `chance`, in [0, 1), decides between equals; `among` are the only lines to be looked
        at, beside those. `load` is what else there is to be done first, in tokens, where it is not among the cached.
        """
        prompt = need.prompt + load
        best: Placed | None = None
        least: int | None = None
        for line, tokens in cached:
            saved = min(tokens, prompt)
            if line.admits(need.tokens, share, saved):
                busy = busyness(line.backlog + prompt - saved, line.at_work)
                if least is None or busy < least:
                    best, least = Placed(line, prompt - saved, saved), busy
        found = self.least_busy(need.tokens, prompt, share, chance, among, least)
        return best if found is None else Placed(found, prompt)

    def least_busy(
        self,
        tokens: int,
        prompt: int,
        share: Share = WHOLE,
        chance: float = 0.0,
        among: Collection[Line] | None = None,
        less_than: int | None = None,
    ) -> Line | None:
        """The same for so many tokens of which no line holds any, if it is less busy than `less_than`."""
        if among is None:
            if len(self.lines) > FEW_LINES:
                if self._moved:
                    self._sort_in()
                found = self._index.least_busy(tokens, prompt, share, chance, less_than)
                return None if found is None else found[0]
            among = self.lines.values()
        best: Line | None = None
        least = _BUSIEST if less_than is None else less_than
        equals: list[Line] | None = None
        unread = prompt + 1
        for line in among:
            # As `busyness` says.
            busy = (line.backlog + unread) * (line.at_work + 1)
            if busy < least:
                best, least, equals = line, busy, None
            elif busy == least and best is not None:
                if equals is None:
                    equals = [best]
                equals.append(line)
        if best is None:
            return None
        if equals is not None:
            best = equals[int(chance * len(equals))]
        if best.admits(tokens, share):
            return best
        # Mostly the first that is wanted has room, and only now the others are asked.
        able = [line for line in among if line.admits(tokens, share)]
        return self.least_busy(tokens, prompt, share, chance, able, less_than) if able else None

    @property
    def largest_room(self) -> int:
        """The most tokens that some line has room for now; -1 if none takes any."""
        if len(self.lines) <= FEW_LINES:
            return max([line.free for line in self.lines.values()], default=-1)
        if self._moved:
            self._sort_in()
        return self._index.largest_room

    def soonest(self, tokens: int) -> Line | None:
        """The open line that will have room for so many tokens first, if nothing else is given there."""

        def is_able(line: Line) -> bool:
            return line.is_open and line.kv_tokens >= tokens

        if self._moved:
            self._sort_in()
        found = self._spare.first(is_able)
        if found is None:
            # Those with most to spare may be too small, or closed.
            able = filter(is_able, self.lines.values())
            found = min(able, key=lambda line: (-line.spare, line.number), default=None)
        return found

    @property
    def looks(self) -> int:
        """Lines that were looked at so far, to find one."""
        return self._index.looks

    def admit(self, placed: tuple[Line, int, int], need: Takes, router: str, slots: int = 1) -> Lease:
        """Give what was `Placed`. ValueError where the line does not admit it: nothing is given beyond the ledger."""
        line, uncached, saved = placed
        if (
            self.lines.get(line.id) is not line
            or not line.admits(need.tokens, WHOLE, saved)
            or (slots > 1 and line.at_work + slots > line.slots)
        ):
            raise ValueError(f"{line.id} does not admit {need.tokens} tokens")
        return self._give(line, need, router, uncached, slots)

    def admit_alike(
        self, need: Takes, count: int, router: str, share: Share, chance: float, ask: Any = None
    ) -> list[Lease]:
        """Give what so many that take the same have a place for, each on the line that is the least busy then; they
        are numbered one after the other.
        """
        tokens, prompt = need.tokens, need.prompt
        leases: list[Lease] = []
        if len(self.lines) > FEW_LINES:
            while len(leases) < count and (line := self.least_busy(tokens, prompt, share, chance)) is not None:
                leases.append(self._give(line, need, router, prompt, 1, ask))
            return leases
        # Of equals the first is taken, wherever that is.
        lines = list(self.lines.values())
        first = int(chance * len(lines))
        lines = lines[first:] + lines[:first]
        most = [line.admits_alike(tokens, prompt, share) for line in lines]
        # How busy each is, and in the last place which it is: a number is compared faster than a pair.
        size = len(lines)
        heap = [busyness(line.backlog + prompt, line.at_work) * size + at for at, line in enumerate(lines) if most[at]]
        heapify(heap)
        given = [0] * size
        for _ in range(count):
            if not heap:
                break
            at = heap[0] % size
            more = given[at] = given[at] + 1
            if more < most[at]:
                line = lines[at]
                # As `busyness` says.
                heapreplace(heap, (line.backlog + more * prompt + prompt + 1) * (line.at_work + more + 1) * size + at)
            else:
                heappop(heap)
        for line, some in zip(lines, given, strict=True):
            if some:
                self._give_some(line, need, router, some, ask, leases)
        return leases

    def _give_some(self, line: Line, need: Takes, router: str, count: int, ask: Any, leases: list[Lease]) -> None:
        everywhere, here, epoch, prompt = self.leases, line.leases, self.epoch, need.prompt
        first = self._next_lease + 1
        self._next_lease += count
        for number in range(first, first + count):
            lease = everywhere[number] = here[number] = Lease(epoch, number, line, router, need, prompt, 1, ask)
            leases.append(lease)
        line.take(count * need.tokens, count * prompt, count)
        self._moved[line.number] = line

    def _give(self, line: Line, need: Takes, router: str, uncached: int, slots: int, ask: Any = None) -> Lease:
        number = self._next_lease = self._next_lease + 1
        lease = Lease(self.epoch, number, line, router, need, uncached, slots, ask)
        self.leases[number] = line.leases[number] = lease
        line.take(lease.tokens, uncached, slots)
        self._moved[line.number] = line
        return lease

    def adopt(
        self, id: LineId, number: int, router: str, need: Takes, generated: int, unread: int, slots: int = 1
    ) -> Lease | None:
        """A lease of an earlier epoch, which a line says it runs. None if there is no such line, or it has it already.

        It may fill the line beyond its limits: it runs, whoever let it.
        """
        line = self.lines.get(id)
        if line is None or number in self.leases:
            return None
        self._next_lease = max(self._next_lease, number)
        lease = Lease(self.epoch, number, line, router, need, unread, slots)
        lease.grow(generated)
        self.leases[number] = line.leases[number] = lease
        line.take(lease.tokens, unread, slots)
        self._moved[line.number] = line
        return lease

    def progress(self, number: int, generated: int) -> None:
        """An answer has come so far, which means that its prompt was read."""
        lease = self.leases.get(number)
        if lease is None or generated < lease.generated:
            return
        line, was_short = lease.line, lease.is_short
        more, unread = lease.grow(generated), lease.read_all()
        if not (more or unread):
            return
        self.short += lease.is_short and not was_short
        line.take(more, -unread, 0)
        if unread:
            self._changed(line)
        else:
            self._moved[line.number] = line

    def release(self, number: int, generated: int = 0) -> Lease | None:
        """A request has ended, after so many tokens. None if that is known."""
        lease = self.leases.pop(number, None)
        if lease is None:
            return None
        line = lease.line
        del line.leases[number]
        line.give_back(lease.tokens, lease.unread, lease.slots)
        if generated > lease.generated:
            was_short = lease.is_short
            lease.grow(generated)
            self.short += lease.is_short and not was_short
        self._moved[line.number] = line
        self._gained[line] = None
        return lease

    def release_all(self, numbers: Iterable[int]) -> list[Lease]:
        """Those of requests that end, after no more tokens than are known; credits end by `shrink`."""
        leases, moved, gained = self.leases, self._moved, self._gained
        ended: list[Lease] = []
        last: Line | None = None
        for number in numbers:
            lease = leases.get(number)
            if lease is None or lease.ask is None:
                continue
            del leases[number]
            line = lease.line
            del line.leases[number]
            line.give_back(lease.tokens, lease.unread, lease.slots)
            if line is not last:
                moved[line.number] = last = line
                gained[line] = None
            ended.append(lease)
        return ended

    def shrink(self, number: int, tokens: int, slots: int) -> None:
        """A credit's lease takes no more than so much from now on; without slots it ends."""
        lease = self.leases.get(number)
        if lease is None:
            return
        if slots <= 0:
            self.release(number)
            return
        lease.line.give_back(*lease.shrink(tokens, slots))
        self._changed(lease.line)

    def of_router(self, router: str) -> Iterator[Lease]:
        return (lease for lease in self.leases.values() if lease.router == router)
