"""The life of one segment of shared memory: a table, and the facts that decide what follows. No I/O.

    IN_MEMORY --freed, and the last reader gone--> RETURNED (its creator's pool) --sealed--> IN_MEMORY
    IN_MEMORY --chosen, since memory is short--> SPILLING --> DRAINING --> ON_DISK

A *segment* is a run of shared memory with one object in it. The node holds each by a descriptor. Three others may hold
on to it too: **readers**, processes that have it mapped; its **owner**, who says when the object is no longer wanted;
and its **creator**, the process that wrote it, which may keep it (`Hold`) to fill it again: memory whose pages are
there already is written many times as fast as new memory. When to spill and what to recall, `storage.py` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final

from actorrt.types import ObjectKey, ProcessId, SegmentId

from .labels import Label


class State(Label):
    IN_MEMORY = auto()
    # Its bytes are being copied to a file; it is still read from memory.
    SPILLING = auto()
    # The file is complete; the memory goes with the last who holds it, and is read until then.
    DRAINING = auto()
    ON_DISK = auto()
    # The object is not wanted any more, but readers have it mapped, from memory or from the file.
    LINGERING = auto()
    LINGERING_ON_DISK = auto()
    # The same while it is being copied: nothing can be taken away under the copying.
    DOOMED = auto()
    # In its creator's pool.
    RETURNED = auto()
    # Its creator has been asked to let go.
    RECALLED = auto()
    GONE = auto()


class Hold(Label):
    """How its creator stands to a segment."""

    NONE = auto()
    KEPT = auto()
    # The same, and it has been asked to let go.
    RECALLED = auto()


class Event(Label):
    SEALED = auto()
    FREED = auto()
    SPILL = auto()
    SPILLED = auto()
    SPILL_FAILED = auto()
    # What follows from the facts of a segment: see `consequence`.
    DRAINED = auto()
    RETURN = auto()
    RECALL = auto()
    DISCARD = auto()


class Step(Label):
    SPILL = auto()
    DROP_MEMORY = auto()
    DROP_FILE = auto()
    RETURN = auto()
    # Left out where the creator does not hold it, or has been asked.
    RECALL = auto()


S, E, P = State, Event, Step

TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Step, ...]]]] = {
    (S.IN_MEMORY, E.FREED): (S.LINGERING, ()),
    (S.IN_MEMORY, E.SPILL): (S.SPILLING, (P.SPILL, P.RECALL)),
    (S.SPILLING, E.FREED): (S.DOOMED, ()),
    (S.SPILLING, E.SPILLED): (S.DRAINING, ()),
    (S.SPILLING, E.SPILL_FAILED): (S.IN_MEMORY, ()),
    (S.DRAINING, E.FREED): (S.LINGERING, (P.DROP_FILE,)),
    (S.DRAINING, E.DRAINED): (S.ON_DISK, (P.DROP_MEMORY,)),
    (S.ON_DISK, E.FREED): (S.LINGERING_ON_DISK, ()),
    (S.LINGERING, E.RETURN): (S.RETURNED, (P.RETURN,)),
    # It was recalled when it was to be spilled; the answer is on its way, so it cannot be offered for use again.
    (S.LINGERING, E.RECALL): (S.RECALLED, (P.RECALL,)),
    (S.LINGERING, E.DISCARD): (S.GONE, (P.DROP_MEMORY,)),
    (S.LINGERING_ON_DISK, E.DISCARD): (S.GONE, (P.DROP_FILE,)),
    (S.DOOMED, E.SPILLED): (S.LINGERING, (P.DROP_FILE,)),
    (S.DOOMED, E.SPILL_FAILED): (S.LINGERING, ()),
    (S.RETURNED, E.SEALED): (S.IN_MEMORY, ()),
    (S.RETURNED, E.RECALL): (S.RECALLED, (P.RECALL,)),
    (S.RETURNED, E.DISCARD): (S.GONE, (P.DROP_MEMORY,)),
    # The request to let go crossed a new object on the way. The creator lets go of it all the same, later.
    (S.RECALLED, E.SEALED): (S.IN_MEMORY, ()),
    (S.RECALLED, E.DISCARD): (S.GONE, (P.DROP_MEMORY,)),
}

HOLDS_MEMORY: Final = frozenset(S) - {S.ON_DISK, S.LINGERING_ON_DISK, S.GONE}
HOLDS_FILE: Final = frozenset({S.SPILLING, S.DOOMED, S.DRAINING, S.ON_DISK, S.LINGERING_ON_DISK})
_ON_ITS_WAY_OUT: Final = frozenset({S.SPILLING, S.DRAINING, S.DOOMED, S.RECALLED})
IS_FREED: Final = frozenset({S.LINGERING, S.LINGERING_ON_DISK, S.DOOMED, S.RETURNED, S.RECALLED, S.GONE})


class Segment:
    """The facts of one segment. `size` is the memory it takes, `length` the part of it that is the object."""

    __slots__ = ("hold", "id", "key", "length", "readers", "size", "state", "used_at")

    def __init__(self, segment: SegmentId, size: int) -> None:
        self.id = segment
        self.size = size
        self.length = 0
        self.key: ObjectKey | None = None
        self.state = State.IN_MEMORY
        self.readers: dict[ProcessId, int] = {}
        self.hold = Hold.NONE
        self.used_at = 0.0

    def __str__(self) -> str:
        return f"segment {self.id.creator.hex()}:{self.id.serial} ({self.state.name})"

    def holds(self, key: ObjectKey, length: int, now: float, *, kept: bool) -> None:
        """An object was laid into it; `kept`: its creator holds on to it."""
        self.key, self.length, self.used_at = key, length, now
        if not kept:
            self.hold = Hold.NONE
        elif self.hold is Hold.NONE:
            self.hold = Hold.KEPT

    def use(self, now: float) -> None:
        self.used_at = now

    def is_let_go(self) -> None:
        """Its creator does not hold on to it any more."""
        self.hold = Hold.NONE

    def recall(self) -> bool:
        """Its creator is asked to let go; False if it does not hold it, or has been asked."""
        if self.hold is not Hold.KEPT:
            return False
        self.hold = Hold.RECALLED
        return True

    def enter(self, state: State) -> None:
        self.state = state
        if state in IS_FREED:
            self.key = None

    @property
    def kept(self) -> bool:
        """Its creator holds on to it."""
        return self.hold is not Hold.NONE

    @property
    def is_leaving(self) -> bool:
        """Its memory comes back without further decisions."""
        return self.state in _ON_ITS_WAY_OUT and not self.readers

    @property
    def may_spill(self) -> bool:
        return self.state is State.IN_MEMORY and not self.readers


def consequence(segment: Segment) -> Event | None:
    """What happens by itself to a segment that nobody reads, from whether its creator holds it."""
    if segment.readers:
        return None
    match segment.state:
        case State.DRAINING:
            return None if segment.kept else Event.DRAINED
        case State.LINGERING:
            if not segment.kept:
                return Event.DISCARD
            return Event.RECALL if segment.hold is Hold.RECALLED else Event.RETURN
        case State.LINGERING_ON_DISK:
            return Event.DISCARD
        case State.RETURNED | State.RECALLED:
            return None if segment.kept else Event.DISCARD
        case _:
            return None
