"""The life of an actor as its owner decides it: a table, and a small class that applies it. No I/O.

PLACING --PLACED--> STARTING --STARTED--> ALIVE --LOST--> PLACING (while restarts are left) ... --> DEAD
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from .story import Story


class State(Enum):
    PLACING = auto()
    STARTING = auto()
    ALIVE = auto()
    DEAD = auto()


class Event(Enum):
    PLACED = auto()
    STARTED = auto()
    # Its constructor raised.
    FAILED = auto()
    # Its process, or the way to it, is gone.
    LOST = auto()
    # No place for it will ever be.
    UNPLACEABLE = auto()
    # Somebody killed it for good, its last handle went, or it left by itself.
    ENDED = auto()
    # Killed, but it may come back.
    KILLED = auto()
    # Its worker is blocked and has not begun to make it.
    TURNED_AWAY = auto()


class Action(Enum):
    SEND_START = auto()
    OPEN = auto()
    PLACE = auto()
    STOP_WORKER = auto()
    BURY = auto()


S, E, A = State, Event, Action

TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (S.PLACING, E.PLACED): (S.STARTING, (A.SEND_START,)),
    # The reply of an earlier incarnation may come late: it says nothing about this one.
    (S.PLACING, E.STARTED): (S.PLACING, ()),
    (S.PLACING, E.FAILED): (S.PLACING, ()),
    (S.PLACING, E.LOST): (S.PLACING, ()),
    (S.PLACING, E.UNPLACEABLE): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.ENDED): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.TURNED_AWAY): (S.PLACING, ()),
    (S.STARTING, E.TURNED_AWAY): (S.PLACING, (A.PLACE,)),
    (S.STARTING, E.STARTED): (S.ALIVE, (A.OPEN,)),
    # A constructor that raised would raise again: it is not retried.
    (S.STARTING, E.FAILED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.STARTING, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.ALIVE, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    # A kill that allows a restart; that it is lost comes as an event of its own.
    (S.STARTING, E.KILLED): (S.STARTING, (A.STOP_WORKER,)),
    (S.ALIVE, E.KILLED): (S.ALIVE, (A.STOP_WORKER,)),
    # Dead is dead: whatever was under way when it died may still arrive.
    (S.DEAD, E.PLACED): (S.DEAD, (A.STOP_WORKER,)),
    (S.DEAD, E.STARTED): (S.DEAD, ()),
    (S.DEAD, E.FAILED): (S.DEAD, ()),
    (S.DEAD, E.LOST): (S.DEAD, ()),
    (S.DEAD, E.UNPLACEABLE): (S.DEAD, ()),
    (S.DEAD, E.ENDED): (S.DEAD, ()),
    (S.DEAD, E.KILLED): (S.DEAD, ()),
    (S.DEAD, E.TURNED_AWAY): (S.DEAD, ()),
}

# These depend on the restarts left; see `Lifecycle.on`. A kill counts as often as it comes: one that is on its way to
# a place goes on, as its next life.
_RESTARTS: Final[Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (S.STARTING, E.LOST): (S.PLACING, (A.PLACE,)),
    (S.ALIVE, E.LOST): (S.PLACING, (A.PLACE,)),
    (S.PLACING, E.KILLED): (S.PLACING, ()),
}
_GIVE_UP: Final = (S.DEAD, (A.BURY,))


class TransitionError(Exception):
    """An event that cannot happen in this state: a bug of ours. It tells the last transitions."""


class Lifecycle:
    """One actor's state. `restarts_left` counts down; -1 is without limit."""

    __slots__ = ("_story", "incarnation", "restarts_left", "state")

    def __init__(self, restarts_left: int) -> None:
        self.state = State.PLACING
        self.restarts_left = restarts_left
        self.incarnation = 0
        self._story: Story | None = None

    def on(self, event: Event) -> tuple[Action, ...]:
        """Apply `event`; what to do now. Raises TransitionError for a pair that the table does not have."""
        before = self.state
        if (restart := _RESTARTS.get((before, event))) is not None:
            row = restart if self.restarts_left else _GIVE_UP
            # One that was never anywhere has no life to count.
            if self.restarts_left or before is not State.PLACING:
                self.incarnation += 1
            if self.restarts_left > 0:
                self.restarts_left -= 1
        else:
            found = TABLE.get((before, event))
            if found is None:
                story = "" if self._story is None else f"; before: {self._story}"
                raise TransitionError(f"{event.name} cannot happen while {before.name}{story}")
            row = found
            if event is Event.TURNED_AWAY and before is State.STARTING:
                # Who was told of this place looks for a later one.
                self.incarnation += 1
        self.state, actions = row
        if self.restarts_left or self._story is not None:
            # Only actors that may live several times have a story worth its memory.
            if self._story is None:
                self._story = Story()
            self._story.add(f"{before.name} --{event.name}--> {self.state.name}")
        return actions
