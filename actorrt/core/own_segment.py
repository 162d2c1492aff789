"""The life of a segment as the process knows it that has created it: a table and a small class. No I/O.

    FILLING --FILLED--> SEALED --ADOPTED--> ADOPTED --RETURNED--> POOLED --TAKEN--> FILLING ...

The node's view of the same segment is core/segment_life.py. What is not wanted here any more, since the node needs its
memory or this process ends, is let go of as soon as nobody fills it and the node has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final, NamedTuple


class State(IntEnum):
    FILLING = auto()
    # Filled; the node has been told and may not have its own descriptor yet.
    SEALED = auto()
    ADOPTED = auto()
    # Without an object, until it is filled again.
    POOLED = auto()
    CLOSED = auto()


class Event(IntEnum):
    # It comes out of the pool.
    TAKEN = auto()
    FILLED = auto()
    # Nothing was put into it.
    ABANDONED = auto()
    # The node has its own descriptor of it.
    ADOPTED = auto()
    # The node refuses it, or the thread that was to fill it was interrupted.
    GIVEN_UP = auto()
    # Nobody uses its object any more.
    RETURNED = auto()
    # The node needs the memory.
    RECALLED = auto()
    # Others are kept in its place, if it can go at once.
    CROWDED_OUT = auto()
    # This process gives everything back.
    CLOSED = auto()


class Action(IntEnum):
    NOTHING = auto()
    POOL = auto()
    LET_GO = auto()


class Row(NamedTuple):
    wanted: tuple[State, Action]
    unwanted: tuple[State, Action]


S, E, A = State, Event, Action


def _always(state: State, action: Action) -> Row:
    return Row((state, action), (state, action))


_POOL_OR_LET_GO: Final = Row((S.POOLED, A.POOL), (S.CLOSED, A.LET_GO))
_LET_GO: Final = _always(S.CLOSED, A.LET_GO)

TABLE: Final[Mapping[tuple[State, Event], Row]] = {
    # What the node says of an earlier object comes late, or crosses what is done here.
    **{(state, event): _always(state, A.NOTHING) for state in State for event in (E.ADOPTED, E.GIVEN_UP, E.RETURNED)},
    (S.FILLING, E.FILLED): _always(S.SEALED, A.NOTHING),
    **{(S.FILLING, event): _POOL_OR_LET_GO for event in (E.ABANDONED, E.GIVEN_UP)},
    # Who fills it goes on.
    (S.FILLING, E.RECALLED): _always(S.FILLING, A.NOTHING),
    (S.FILLING, E.CROWDED_OUT): _always(S.FILLING, A.NOTHING),
    (S.FILLING, E.CLOSED): _always(S.FILLING, A.NOTHING),
    (S.SEALED, E.ADOPTED): Row((S.ADOPTED, A.NOTHING), (S.CLOSED, A.LET_GO)),
    (S.SEALED, E.GIVEN_UP): _LET_GO,
    # The node takes it by the descriptor that is open here.
    (S.SEALED, E.RECALLED): _always(S.SEALED, A.NOTHING),
    (S.SEALED, E.CROWDED_OUT): _always(S.SEALED, A.NOTHING),
    (S.SEALED, E.CLOSED): _LET_GO,
    (S.ADOPTED, E.RETURNED): _POOL_OR_LET_GO,
    (S.POOLED, E.TAKEN): _always(S.FILLING, A.NOTHING),
    **{(state, event): _LET_GO for state in (S.ADOPTED, S.POOLED) for event in (E.RECALLED, E.CROWDED_OUT, E.CLOSED)},
}
# After these it is not wanted any more, though it may take a while until it can go.
UNWANTED: Final = frozenset({E.RECALLED, E.CLOSED})


# To look a member up in its class costs as much as all else that a segment's way through its states does.
NOTHING: Final = Action.NOTHING
POOL: Final = Action.POOL
LET_GO: Final = Action.LET_GO
TAKEN: Final = Event.TAKEN
FILLED: Final = Event.FILLED
ADOPTED: Final = Event.ADOPTED
RETURNED: Final = Event.RETURNED
_EMPTIED: Final = frozenset({Event.ABANDONED, Event.GIVEN_UP})
_FILLING: Final = State.FILLING
_SEALED: Final = State.SEALED


class OwnSegmentError(Exception):
    """An event that cannot happen to a segment in this state: a bug of ours."""


class OwnSegmentLife:
    """The state of one segment. `is_new`: the node has never had it. `kept`: it is told that it is kept here."""

    __slots__ = ("is_new", "kept", "state", "wanted")

    def __init__(self) -> None:
        self.state = _FILLING
        self.is_new = True
        self.kept = True
        self.wanted = True

    def on(self, event: Event) -> Action:
        """Apply `event`; what to do now. Raises OwnSegmentError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise OwnSegmentError(f"{event.name} cannot happen to a segment that is {self.state.name}")
        if event is FILLED:
            self.kept = self.wanted
        elif event is ADOPTED:
            self.is_new = self.is_new and self.state is not _SEALED
        elif event in UNWANTED or (self.is_new and event in _EMPTIED):
            # One that is new has no pages yet that were worth keeping.
            self.wanted = False
        self.state, action = row.wanted if self.wanted else row.unwanted
        return action

    @property
    def is_missed(self) -> bool:
        """Once it is let go of: the node waits to be told so. What it never had, or knows not to be kept, it does not
        wait for."""
        return self.kept and not self.is_new

    @property
    def is_readable(self) -> bool:
        """It has an object, which this process may read itself."""
        return self.state is State.SEALED or self.state is State.ADOPTED
