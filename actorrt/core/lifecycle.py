"""The life of an actor as its owner decides it: a table, and a small class that applies it. No I/O.

PLACING --PLACED--> STARTING --STARTED--> ALIVE --LOST--> PLACING (while restarts are left) ... --> DEAD
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

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
    # It was killed for good, or its start was cancelled.
    ENDED = auto()
    # Its last handle is gone.
    UNHELD = auto()
    # It has left by itself.
    LEFT = auto()
    # Killed, but it may come back.
    KILLED = auto()
    # Its worker is blocked and has not begun to make it.
    TURNED_AWAY = auto()


class Action(Enum):
    SEND_START = auto()
    # It takes calls. Its last handle may be gone already: then UNHELD follows.
    OPEN = auto()
    LEAVE_PLACE = auto()
    PLACE = auto()
    # The same, but an actor that is lost again and again waits for it; see core/restarts.py.
    PLACE_AGAIN = auto()
    # End what it runs, and its process if that is its own.
    STOP_WORKER = auto()
    # Have it end once it has finished what it was called for; its process ends with it.
    LET_FINISH = auto()
    # Nobody is left who could ask what has become of it.
    FORGET = auto()
    # The same, but it has died before: how, is kept for a while, since a handle may lie in a value.
    REMEMBER = auto()
    # Tell its callers. Its last handle may be gone already: then UNHELD follows.
    BURY = auto()


S, E, A = State, Event, Action

Row = tuple[State, tuple[Action, ...]]

TABLE: Final[Mapping[tuple[State, Event], Row]] = {
    (S.PLACING, E.PLACED): (S.STARTING, (A.SEND_START,)),
    # The reply of an earlier incarnation may come late: it says nothing about this one.
    (S.PLACING, E.STARTED): (S.PLACING, ()),
    (S.PLACING, E.FAILED): (S.PLACING, ()),
    (S.PLACING, E.LOST): (S.PLACING, ()),
    (S.PLACING, E.UNPLACEABLE): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.ENDED): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.UNHELD): (S.DEAD, (A.FORGET, A.BURY)),
    (S.PLACING, E.LEFT): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.TURNED_AWAY): (S.PLACING, ()),
    # It was not even begun: no sign that it cannot live.
    (S.STARTING, E.TURNED_AWAY): (S.PLACING, (A.LEAVE_PLACE, A.PLACE)),
    (S.STARTING, E.STARTED): (S.ALIVE, (A.OPEN,)),
    # A constructor that raised would raise again: it is not retried.
    (S.STARTING, E.FAILED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.STARTING, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    # It is ended once it has started, so that its constructor's work is not cut short.
    (S.STARTING, E.UNHELD): (S.STARTING, ()),
    (S.STARTING, E.LEFT): (S.DEAD, (A.LET_FINISH, A.BURY)),
    (S.ALIVE, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.ALIVE, E.UNHELD): (S.DEAD, (A.LET_FINISH, A.FORGET, A.BURY)),
    (S.ALIVE, E.LEFT): (S.DEAD, (A.LET_FINISH, A.BURY)),
    # Dead is dead: whatever was under way when it died may still arrive.
    (S.DEAD, E.PLACED): (S.DEAD, (A.STOP_WORKER,)),
    (S.DEAD, E.UNHELD): (S.DEAD, (A.REMEMBER,)),
    **{(S.DEAD, event): (S.DEAD, ()) for event in (E.STARTED, E.FAILED, E.LOST, E.UNPLACEABLE)},
    **{(S.DEAD, event): (S.DEAD, ()) for event in (E.ENDED, E.LEFT, E.KILLED, E.TURNED_AWAY)},
}


class Loss(NamedTuple):
    """A row that depends on the restarts that are left."""

    left: Row
    spent: Row


LOSSES: Final[Mapping[tuple[State, Event], Loss]] = {
    (S.STARTING, E.LOST): Loss((S.PLACING, (A.LEAVE_PLACE, A.PLACE_AGAIN)), (S.DEAD, (A.BURY,))),
    (S.ALIVE, E.LOST): Loss((S.PLACING, (A.LEAVE_PLACE, A.PLACE_AGAIN)), (S.DEAD, (A.BURY,))),
    # By its user, who wants it back at once.
    **{
        (state, E.KILLED): Loss((S.PLACING, (A.STOP_WORKER, A.LEAVE_PLACE, A.PLACE)), (S.DEAD, (A.STOP_WORKER, A.BURY)))
        for state in (S.STARTING, S.ALIVE)
    },
    # A kill counts as often as it comes: one that is on its way to a place goes on, as its next life.
    (S.PLACING, E.KILLED): Loss((S.PLACING, ()), (S.DEAD, (A.BURY,))),
}


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
        if (loss := LOSSES.get((before, event))) is not None:
            row = loss.left if self.restarts_left else loss.spent
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
