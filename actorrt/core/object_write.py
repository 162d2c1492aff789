"""One object on its way into shared memory, as its writer decides it: a table and a small class. No I/O.

    BEGUN --RESERVED--> RESERVED --FILLED--> FILLED --ASKED--> ASKED --ACCEPTED--> THERE
      \\--------------------------------------^ \\---------------TOLD----------------^

A thread writes, and its runtime's loop talks to the node. The thread may be interrupted at any point: then nothing of
the write is to stay, whatever the node answers meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final


class State(IntEnum):
    # The node may be asked for room, and has given none.
    BEGUN = auto()
    # The node holds room for it.
    RESERVED = auto()
    # It lies in a segment of which the node has not been told.
    FILLED = auto()
    # The node is asked to take it in.
    ASKED = auto()
    # The node holds it.
    THERE = auto()
    # Given up, before the node has said that it gives room, or takes the object in.
    LEFT_BEGUN = auto()
    LEFT_ASKED = auto()
    ENDED = auto()


class Event(IntEnum):
    RESERVED = auto()
    FILLED = auto()
    ASKED = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    # The node is told, and cannot refuse.
    TOLD = auto()
    # The thread that writes was interrupted, or has failed.
    GIVEN_UP = auto()


class Action(IntEnum):
    # Give the room back that the node holds for it, if it does.
    UNRESERVE = auto()
    # Empty the segment that it lies in, or was being filled into, unless the node has it.
    EMPTY = auto()
    # Nobody wants the object.
    FREE = auto()


S, E, A = State, Event, Action
TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (S.BEGUN, E.RESERVED): (S.RESERVED, ()),
    # A segment that the node has already needs no room.
    (S.BEGUN, E.FILLED): (S.FILLED, ()),
    (S.BEGUN, E.GIVEN_UP): (S.LEFT_BEGUN, (A.EMPTY,)),
    (S.RESERVED, E.FILLED): (S.FILLED, ()),
    (S.RESERVED, E.GIVEN_UP): (S.ENDED, (A.EMPTY, A.UNRESERVE)),
    (S.FILLED, E.ASKED): (S.ASKED, ()),
    (S.FILLED, E.TOLD): (S.THERE, ()),
    (S.FILLED, E.GIVEN_UP): (S.ENDED, (A.EMPTY, A.UNRESERVE)),
    # What was reserved for it is used up.
    (S.ASKED, E.ACCEPTED): (S.THERE, ()),
    # The thread hears of it, and gives up.
    (S.ASKED, E.REFUSED): (S.RESERVED, (A.EMPTY,)),
    # The node may just be using up what it has reserved: its answer says what is to go.
    (S.ASKED, E.GIVEN_UP): (S.LEFT_ASKED, ()),
    # It may be that the node was to be told, and was not: then it has the segment, and no object in it.
    (S.THERE, E.GIVEN_UP): (S.ENDED, (A.EMPTY, A.FREE)),
    # The thread may give up, and be interrupted meanwhile.
    (S.ENDED, E.GIVEN_UP): (S.ENDED, ()),
    (S.LEFT_BEGUN, E.GIVEN_UP): (S.LEFT_BEGUN, ()),
    (S.LEFT_BEGUN, E.RESERVED): (S.ENDED, (A.UNRESERVE,)),
    (S.LEFT_ASKED, E.GIVEN_UP): (S.LEFT_ASKED, ()),
    (S.LEFT_ASKED, E.ACCEPTED): (S.ENDED, (A.FREE,)),
    (S.LEFT_ASKED, E.REFUSED): (S.ENDED, (A.EMPTY, A.UNRESERVE)),
}


class WriteError(Exception):
    """An event that cannot happen to a write in this state: a bug of ours."""


class ObjectWrite:
    """The state of one write."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.BEGUN

    def on(self, event: Event) -> tuple[Action, ...]:
        """Apply `event`; what to do now. Raises WriteError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise WriteError(f"{event.name} cannot happen to a write that is {self.state.name}")
        self.state, actions = row
        return actions
