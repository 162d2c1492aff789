"""What a process knows of the value of one object, from the first ref to the value or the error. No I/O.

    REMOTE --asked for--> PENDING --came--> PRESENT | SHARED | RAISED

An object has one outcome: what comes later changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class State(IntEnum):
    """In order: above PENDING it is done."""

    # Another process owns the object and has not been asked for it yet.
    REMOTE = 0
    PENDING = 1
    # The value's bytes are here.
    PRESENT = 2
    # The value lies in a segment.
    SHARED = 3
    # It is an error.
    RAISED = 4


class Event(IntEnum):
    ASKED_FOR = 0
    BYTES_CAME = 1
    SEGMENT_CAME = 2
    ERROR_CAME = 3


class Action(IntEnum):
    NOTHING = 0
    # Have its owner asked.
    FETCH = 1
    # Tell those who wait; of an error also those who wait for many objects.
    TELL = 2
    TELL_ALL = 3


S, E, A = State, Event, Action

TABLE: Final[Mapping[tuple[State, Event], tuple[State, Action]]] = {
    (S.REMOTE, E.ASKED_FOR): (S.PENDING, A.FETCH),
    # Any number may ask, in any thread.
    **{(state, E.ASKED_FOR): (state, A.NOTHING) for state in State if state is not S.REMOTE},
    # One that was not asked for may be settled at once, since it is known to be gone.
    **{(state, E.BYTES_CAME): (S.PRESENT, A.TELL) for state in (S.REMOTE, S.PENDING)},
    **{(state, E.SEGMENT_CAME): (S.SHARED, A.TELL) for state in (S.REMOTE, S.PENDING)},
    **{(state, E.ERROR_CAME): (S.RAISED, A.TELL_ALL) for state in (S.REMOTE, S.PENDING)},
    # A call that was given up may be answered all the same, and a value come twice.
    **{
        (state, event): (state, A.NOTHING)
        for state in (S.PRESENT, S.SHARED, S.RAISED)
        for event in (E.BYTES_CAME, E.SEGMENT_CAME, E.ERROR_CAME)
    },
}

# To look a member up in its class takes longer than to compare it.
REMOTE: Final = State.REMOTE
PENDING: Final = State.PENDING
PRESENT: Final = State.PRESENT
SHARED: Final = State.SHARED
RAISED: Final = State.RAISED
