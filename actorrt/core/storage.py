"""The node's ledger of shared memory: what lies where, who holds it, and what must go when memory is short. No I/O.

Events come in as method calls, decisions go out as actions; the shell performs them, in order, without an opinion.
Room for a new segment is asked for (`reserve`) before it is written, so that a full memory is an answer, not a crash.
When there is none, memory comes back first from the pools of segments that wait to be filled again, then from the
objects that were used longest ago. What somebody reads is never spilled: its memory would stay. The life of a single
segment is in `segment_life.py`. Times are numbers that only ever grow, and are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from actorrt.types import ObjectKey, ProcessId, SegmentId

from .item_numbers import next_item, run_of
from .segment_life import (
    HOLDS_FILE,
    HOLDS_MEMORY,
    TABLE,
    Event,
    Segment,
    State,
    Step,
    consequence,
)
from .storage_actions import Action, DropFile, DropMemory, Grant, Recall, Refuse, Return, Spill

# So many owners that ended are remembered: what they own may be sealed a moment later by another process.
DEAD_OWNERS: Final = 4096
# The same of streams whose producer may lay items here that are nobody's.
CUT_OFF: Final = 4096


class LedgerError(Exception):
    """An event that cannot happen: a bug of ours, or a peer that breaks the protocol. It tells the last transitions."""


class UnknownObjectError(LookupError):
    """The object was never sealed here, or has been freed."""


class Statistics(msgspec.Struct, frozen=True):
    """Bytes in memory, of which in pools and on their way out; promised to writers; on disk; and the segments."""

    memory: int
    pooled: int
    leaving: int
    reserved: int
    disk: int
    segments: int
    waiting: int


class _Request(msgspec.Struct, frozen=True):
    creator: ProcessId
    number: int
    size: int


class Ledger:
    """Keeps memory, pools and promises together below `limit`, and the pools below `pool_limit`.

    `can_spill` is False where there is no disk to spill to. Methods return what to do now, in this order.
    """

    def __init__(self, limit: int, pool_limit: int, *, can_spill: bool = True) -> None:
        self.limit = limit
        self.pool_limit = pool_limit
        self._can_spill = can_spill
        # A copy failed; until a file is dropped or somebody asks for room, trying again is pointless.
        self._disk_failed = False
        self._memory = self._pooled = self._leaving = self._spillable = self._disk = 0
        self._segments: dict[SegmentId, Segment] = {}
        self._live: dict[ObjectKey, Segment] = {}
        self._owned: dict[ProcessId, dict[ObjectKey, None]] = {}
        # In the order of last use, the longest ago first.
        self._unread: dict[SegmentId, Segment] = {}
        self._pool: dict[SegmentId, Segment] = {}
        self._dead_owners: dict[ProcessId, None] = {}
        # The runs of streams that were cut off, by owner and run, each with the first item that is nobody's.
        self._cut_off: dict[tuple[ProcessId, int], int] = {}
        self._reserved: dict[ProcessId, int] = {}
        self._promised = 0
        self._now = 0.0
        self._waiting: deque[_Request] = deque()
        self._actions: list[Action] = []
        # The last transitions, for the text of an error.
        self._last: deque[tuple[SegmentId, State, Event, State]] = deque(maxlen=16)

    # -- room

    def reserve(self, creator: ProcessId, request: int, size: int) -> tuple[Action, ...]:
        """`creator` wants to write a new segment of `size` bytes: a Grant or Refuse follows, now or later, in order."""
        self._disk_failed = False
        self._waiting.append(_Request(creator, request, size))
        return self._done()

    def unreserve(self, creator: ProcessId, size: int) -> tuple[Action, ...]:
        """`size` bytes that were granted will not be written after all."""
        held = self._reserved.get(creator, 0)
        if size > held:
            raise LedgerError(f"{creator.hex()} gives back {size} reserved bytes and has {held}")
        self._set_reserved(creator, held - size)
        return self._done()

    # -- objects

    def sealed(
        self, key: ObjectKey, segment: SegmentId, size: int, length: int, now: float, *, kept: bool
    ) -> tuple[Action, ...]:
        """The object `key` of `length` bytes is complete in `segment`, which takes `size` bytes of memory.

        A new segment uses up what its creator reserved; without a reservation it is taken in all the same, and others
        are spilled. A second copy of an object, by a task that was run again, takes the place of the first.
        """
        known = self._segments.get(segment)
        if known is None:
            known = self._segments[segment] = Segment(segment, size)
            held = self._reserved.get(segment.creator, 0)
            self._set_reserved(segment.creator, held - min(held, size))
            self._count(known, 1)
        elif known.size != size:
            raise LedgerError(f"{known} has {known.size} bytes, not {size}")
        else:
            self._apply(known, Event.SEALED)
        if (old := self._live.get(key)) is not None:
            self._free(old)
        self._count(known, -1)
        known.holds(key, length, self._tick(now), kept=kept)
        self._count(known, 1)
        self._live[key] = known
        self._owned.setdefault(key[0], {})[key] = None
        if key[0] in self._dead_owners or self._is_cut_off(key):
            self._free(known)
        return self._done()

    def _is_cut_off(self, key: ObjectKey) -> bool:
        run = run_of(key[1])
        if run is None:
            return False
        first = self._cut_off.get((key[0], run))
        return first is not None and key[1] >= first

    def opened(self, key: ObjectKey, reader: ProcessId, now: float) -> tuple[SegmentId, tuple[Action, ...]]:
        """`reader` is about to map the object. It stays where it is until `closed` was called as often.

        Which segment to map, and what else to do. Raises UnknownObjectError.
        """
        segment = self._live.get(key)
        if segment is None:
            raise UnknownObjectError(f"object {key[0].hex()}:{key[1]} is not here")
        self._count(segment, -1)
        segment.readers[reader] = segment.readers.get(reader, 0) + 1
        segment.use(self._tick(now))
        self._count(segment, 1)
        return segment.id, self._done()

    def closed(self, segment: SegmentId, reader: ProcessId, now: float) -> tuple[Action, ...]:
        """`reader` has unmapped what one `opened` gave it."""
        known = self._segments.get(segment)
        if known is None or reader not in known.readers:
            raise LedgerError(
                f"{reader.hex()} closes segment {segment} that it has not opened; before: {self._story()}"
            )
        self._tick(now)
        self._forget_reader(known, reader, 1)
        return self._done()

    def freed(self, key: ObjectKey) -> tuple[Action, ...]:
        """The owner does not want the object any more. Nothing happens if it is not here."""
        if (segment := self._live.get(key)) is not None:
            self._free(segment)
        return self._done()

    def cut_off(self, key: ObjectKey) -> tuple[Action, ...]:
        """Item `key` of a stream never came to its owner, and never will, nor any behind it: they are freed.

        So are those that their producer is yet to seal. Raises LedgerError if the object is no item.
        """
        owner, number = key
        run = run_of(number)
        if run is None:
            raise LedgerError(f"object {owner.hex()}:{number} is no item of a stream")
        self._cut_off.pop((owner, run), None)
        self._cut_off[owner, run] = number
        if len(self._cut_off) > CUT_OFF:
            del self._cut_off[next(iter(self._cut_off))]
        # They are sealed one after the other, so that none lies behind a gap.
        while (segment := self._live.get((owner, number))) is not None:
            self._free(segment)
            number = next_item(number)
        return self._done()

    # -- reports

    def spilled(self, segment: SegmentId) -> tuple[Action, ...]:
        """The file is complete."""
        self._apply(self._known(segment), Event.SPILLED)
        return self._done()

    def spill_failed(self, segment: SegmentId) -> tuple[Action, ...]:
        """There is no file; the object is where it was."""
        self._disk_failed = True
        self._apply(self._known(segment), Event.SPILL_FAILED)
        return self._done()

    def let_go(self, segment: SegmentId) -> tuple[Action, ...]:
        """Its creator does not hold it any more: because it was recalled, or on its own."""
        known = self._known(segment)
        if not known.kept:
            raise LedgerError(f"the creator lets go of {known} that it does not hold; before: {self._story()}")
        self._let_go(known)
        return self._done()

    def owner_died(self, owner: ProcessId) -> tuple[Action, ...]:
        """All that it owned is freed, and what is yet to be sealed for it will be."""
        self._dead_owners[owner] = None
        if len(self._dead_owners) > DEAD_OWNERS:
            del self._dead_owners[next(iter(self._dead_owners))]
        for key in tuple(self._owned.get(owner, ())):
            self._free(self._live[key])
        return self._done()

    def process_died(self, process: ProcessId, now: float) -> tuple[Action, ...]:
        """Its mappings and promises are gone. What it created stays for its owners; what it owned is `owner_died`."""
        self._tick(now)
        self._set_reserved(process, 0)
        self._waiting = deque(one for one in self._waiting if one.creator != process)
        for segment in tuple(self._segments.values()):
            if segment.kept and segment.id.creator == process:
                self._let_go(segment)
            if process in segment.readers:
                self._forget_reader(segment, process, segment.readers[process])
        return self._done()

    def expire(self, idle: float, now: float) -> tuple[Action, ...]:
        """Recall what has lain in the pools for longer than `idle`."""
        before = self._tick(now) - idle
        self._recall(segment for segment in tuple(self._pool.values()) if segment.used_at < before)
        return self._done()

    def statistics(self) -> Statistics:
        return Statistics(
            self._memory,
            self._pooled,
            self._leaving,
            self._promised,
            self._disk,
            len(self._segments),
            len(self._waiting),
        )

    def find(self, key: ObjectKey) -> Segment | None:
        """What is known about the segment of a live object."""
        return self._live.get(key)

    def length_of(self, segment: SegmentId) -> int:
        """The bytes of the object in a segment, or of the last one."""
        return self._known(segment).length

    # -- decisions

    def _free(self, segment: Segment) -> None:
        key = segment.key
        assert key is not None
        del self._live[key]
        owned = self._owned[key[0]]
        del owned[key]
        if not owned:
            del self._owned[key[0]]
        self._apply(segment, Event.FREED)

    def _let_go(self, segment: Segment) -> None:
        segment.is_let_go()
        self._settle(segment)

    def _forget_reader(self, segment: Segment, reader: ProcessId, times: int) -> None:
        self._count(segment, -1)
        left = segment.readers[reader] - times
        if left:
            segment.readers[reader] = left
        else:
            del segment.readers[reader]
        segment.use(self._now)
        self._count(segment, 1)
        self._settle(segment)

    def _settle(self, segment: Segment) -> None:
        """Apply what follows from who holds the segment, until nothing does."""
        while (event := consequence(segment)) is not None:
            self._apply(segment, event, settle=False)

    def _done(self) -> tuple[Action, ...]:
        """Trim the pools, answer those who wait for room, in order, and make room; then hand out what is to be done."""
        self._recall(self._oldest(self._pool, self._pooled - self.pool_limit))
        while True:
            wanted = self._waiting[0].size if self._waiting else 0
            over = self._memory + self._promised + wanted - self.limit
            missing = over - self._leaving
            if over <= 0 and self._waiting:
                granted = self._waiting.popleft()
                self._set_reserved(granted.creator, self._reserved.get(granted.creator, 0) + granted.size)
                self._actions.append(Grant(granted.creator, granted.number))
            elif self._waiting and missing > self._pooled + self._may_spill_bytes():
                # Nothing is disturbed for one who gets nothing in the end.
                refused = self._waiting.popleft()
                self._actions.append(Refuse(refused.creator, refused.number, refused.size, self._why_full(refused)))
            else:
                if missing > 0:
                    self._make_room(missing)
                actions = tuple(self._actions)
                self._actions.clear()
                return actions

    def _make_room(self, missing: int) -> None:
        before = self._leaving
        self._recall(self._oldest(self._pool, missing))
        missing -= self._leaving - before
        if self._may_spill_bytes():
            for segment in self._oldest(self._unread, missing):
                self._apply(segment, Event.SPILL)

    def _recall(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._apply(segment, Event.RECALL)

    @staticmethod
    def _oldest(among: Mapping[SegmentId, Segment], bytes_wanted: int) -> list[Segment]:
        chosen: list[Segment] = []
        for segment in among.values():
            if bytes_wanted <= 0:
                break
            chosen.append(segment)
            bytes_wanted -= segment.size
        return chosen

    def _may_spill_bytes(self) -> int:
        return self._spillable if self._can_spill and not self._disk_failed else 0

    def _why_full(self, request: _Request) -> str:
        if request.size > self.limit:
            return "it is larger than all of it"
        if not self._can_spill:
            return "there is no disk to spill to"
        return "the disk to spill to is full or fails" if self._disk_failed else "what is there is being read"

    # -- bookkeeping

    def _story(self) -> str:
        return ", ".join(
            f"{which.creator.hex()}:{which.serial} {before.name} --{event.name}--> {after.name}"
            for which, before, event, after in self._last
        )

    def _tick(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now

    def _known(self, segment: SegmentId) -> Segment:
        known = self._segments.get(segment)
        if known is None:
            raise LedgerError(f"there is no segment {segment}; before: {self._story()}")
        return known

    def _set_reserved(self, creator: ProcessId, size: int) -> None:
        self._promised += size - self._reserved.get(creator, 0)
        if size:
            self._reserved[creator] = size
        else:
            self._reserved.pop(creator, None)

    def _apply(self, segment: Segment, event: Event, *, settle: bool = True) -> None:
        row = TABLE.get((segment.state, event))
        if row is None:
            raise LedgerError(f"{event.name} cannot happen to {segment}; before: {self._story()}")
        self._last.append((segment.id, segment.state, event, row[0]))
        self._count(segment, -1)
        segment.enter(row[0])
        self._count(segment, 1)
        for step in row[1]:
            self._perform(segment, step)
        if segment.state is State.GONE:
            del self._segments[segment.id]
        elif settle:
            self._settle(segment)

    def _perform(self, segment: Segment, step: Step) -> None:
        match step:
            case Step.SPILL:
                self._actions.append(Spill(segment.id))
            case Step.DROP_MEMORY:
                self._actions.append(DropMemory(segment.id))
            case Step.DROP_FILE:
                self._disk_failed = False
                self._actions.append(DropFile(segment.id))
            case Step.RETURN:
                segment.use(self._now)
                self._actions.append(Return(segment.id))
            case Step.RECALL:
                if segment.recall():
                    self._actions.append(Recall(segment.id))

    def _count(self, segment: Segment, sign: int) -> None:
        """Take the segment out of all sums and orders, as it is (-1), or put it in (1)."""
        state, size = segment.state, sign * segment.size
        if state in HOLDS_MEMORY:
            self._memory += size
        if state in HOLDS_FILE:
            self._disk += sign * segment.length
        if segment.is_leaving:
            self._leaving += size
        if segment.may_spill:
            self._spillable += size
            _enter_or_leave(self._unread, segment, sign)
        if state is State.RETURNED:
            self._pooled += size
            _enter_or_leave(self._pool, segment, sign)


def _enter_or_leave(order: dict[SegmentId, Segment], segment: Segment, sign: int) -> None:
    if sign > 0:
        order[segment.id] = segment
    else:
        del order[segment.id]
