"""The life of an actor as its owner decides it: a table, and a small class that applies it. No I/O.

PLACING --PLACED--> STARTING --STARTED--> ALIVE --LOST--> PLACING (while restarts are left) ... --> DEAD

How it died, which life of it an event belongs to, and what its owner answers to those who ask where it is, is said here
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final, NamedTuple

from .labels import Label
from .story import Story


class State(Label):
    PLACING = auto()
    STARTING = auto()
    ALIVE = auto()
    DEAD = auto()


class Event(Label):
    PLACED = auto()
    STARTED = auto()
    # Its constructor raised.
    FAILED = auto()
    # Its process, or the way to it, is gone.
    LOST = auto()
    # Its start was cancelled.
    CANCELLED = auto()
    # Its worker says that it does not have it.
    ABSENT = auto()
    # No place for it will ever be.
    UNPLACEABLE = auto()
    # What it is to be made of cannot be had.
    UNMAKEABLE = auto()
    # It was killed for good.
    ENDED = auto()
    # Its last handle is gone.
    UNHELD = auto()
    # It has left by itself.
    LEFT = auto()
    # Killed, but it may come back.
    KILLED = auto()
    # Its worker is blocked and has not begun to make it.
    TURNED_AWAY = auto()


class Action(Label):
    SEND_START = auto()
    # It will not be started again: what that would take can go.
    DROP_START = auto()
    # It takes calls. Its last handle may be gone already: then UNHELD follows.
    OPEN = auto()
    LEAVE_PLACE = auto()
    # Nothing new goes to its worker until that is known to go on.
    AVOID_WORKER = auto()
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
    (S.PLACING, E.CANCELLED): (S.PLACING, ()),
    (S.PLACING, E.LOST): (S.PLACING, ()),
    (S.PLACING, E.ABSENT): (S.PLACING, ()),
    (S.PLACING, E.UNPLACEABLE): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.UNMAKEABLE): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.ENDED): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.UNHELD): (S.DEAD, (A.FORGET, A.BURY)),
    (S.PLACING, E.LEFT): (S.DEAD, (A.BURY,)),
    (S.PLACING, E.TURNED_AWAY): (S.PLACING, ()),
    # It was not even begun: no sign that it cannot live.
    (S.STARTING, E.TURNED_AWAY): (S.PLACING, (A.AVOID_WORKER, A.LEAVE_PLACE, A.PLACE)),
    (S.STARTING, E.STARTED): (S.ALIVE, (A.OPEN,)),
    # A constructor that raised would raise again: it is not retried.
    (S.STARTING, E.FAILED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.STARTING, E.CANCELLED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.STARTING, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    # A call was there before it was made, or as it was turned away: what comes of its start will say.
    (S.STARTING, E.ABSENT): (S.STARTING, ()),
    # It is ended once it has started, so that its constructor's work is not cut short.
    (S.STARTING, E.UNHELD): (S.STARTING, ()),
    (S.STARTING, E.LEFT): (S.DEAD, (A.LET_FINISH, A.BURY)),
    (S.ALIVE, E.ENDED): (S.DEAD, (A.STOP_WORKER, A.BURY)),
    (S.ALIVE, E.UNHELD): (S.DEAD, (A.LET_FINISH, A.FORGET, A.BURY)),
    (S.ALIVE, E.LEFT): (S.DEAD, (A.LET_FINISH, A.BURY)),
    # Dead is dead: whatever was under way when it died may still arrive. A place that comes too late goes back unused.
    **{(S.DEAD, event): (S.DEAD, ()) for event in Event},
    (S.DEAD, E.PLACED): (S.DEAD, (A.LEAVE_PLACE,)),
    (S.DEAD, E.UNHELD): (S.DEAD, (A.REMEMBER,)),
}
# The same for one that has no restarts left.
LAST_LIFE: Final[Mapping[tuple[State, Event], Row]] = {
    (S.STARTING, E.STARTED): (S.ALIVE, (A.DROP_START, A.OPEN)),
}


class Loss(NamedTuple):
    """A row that depends on the restarts that are left."""

    left: Row
    spent: Row


LOSSES: Final[Mapping[tuple[State, Event], Loss]] = {
    (S.STARTING, E.LOST): Loss((S.PLACING, (A.LEAVE_PLACE, A.PLACE_AGAIN)), (S.DEAD, (A.BURY,))),
    **{
        (S.ALIVE, event): Loss((S.PLACING, (A.LEAVE_PLACE, A.PLACE_AGAIN)), (S.DEAD, (A.BURY,)))
        # Its owner would know by now if it had ended in any way that is reported.
        for event in (E.LOST, E.ABSENT)
    },
    # By its user, who wants it back at once.
    **{
        (state, E.KILLED): Loss((S.PLACING, (A.STOP_WORKER, A.LEAVE_PLACE, A.PLACE)), (S.DEAD, (A.STOP_WORKER, A.BURY)))
        for state in (S.STARTING, S.ALIVE)
    },
    # A kill counts as often as it comes: one that is on its way to a place goes on, as its next life.
    (S.PLACING, E.KILLED): Loss((S.PLACING, ()), (S.DEAD, (A.BURY,))),
}


# Why it died, where the event says that by itself.
CAUSES: Final[Mapping[Event, str]] = {
    E.FAILED: "its constructor raised an error",
    E.CANCELLED: "it was cancelled",
    E.ABSENT: "its worker has lost it",
    E.UNPLACEABLE: "it could not be created",
    E.UNMAKEABLE: "it could not be created",
    E.ENDED: "it was killed by actorrt.kill",
    E.KILLED: "it was killed by actorrt.kill",
    E.UNHELD: "no process held a handle to it any more",
}
# What it was doing then.
STARTING_PHASE: Final = "starting"
RUNNING_PHASE: Final = "running"
IDLE_PHASE: Final = "idle"
_PHASES: Final[Mapping[Event, str]] = {
    E.FAILED: STARTING_PHASE,
    E.CANCELLED: STARTING_PHASE,
    E.UNPLACEABLE: "being placed",
    E.UNMAKEABLE: "being created",
    E.UNHELD: IDLE_PHASE,
}
_PHASES_IN: Final[Mapping[tuple[State, Event], str]] = {
    (S.STARTING, E.LOST): STARTING_PHASE,
    (S.PLACING, E.ENDED): "being placed",
    (S.PLACING, E.KILLED): "being placed",
}
# What an actor that died so in its first life was doing: it has run no call.
NEVER_RAN: Final = frozenset({STARTING_PHASE, "being placed", "being created"})
# An error that is longer is not kept once nobody is known who could ask for it.
FAILURE_BYTES: Final = 16 * 1024


class Death(NamedTuple):
    """How an actor died."""

    cause: str
    phase: str
    # The error of its constructor, or why it cannot be placed; pickled.
    failure: bytes = b""

    def in_short(self) -> Death:
        """What is kept of it once nobody is known who could ask for it."""
        return self if len(self.failure) <= FAILURE_BYTES else Death(self.cause, self.phase)


# Of an actor of which nothing is known any more.
FORGOTTEN: Final = Death("it has ended", IDLE_PHASE)


class Until(Label):
    """For what somebody waits who asks where an actor is."""

    # For nothing: the place that it was given will do, though it may not have started there.
    NOW = auto()
    # Until it is known whether it will be in a later life than the one that the asker has seen.
    FATE = auto()
    # Until it runs in a later life.
    RUNNING = auto()


class Answer(Label):
    PLACE = auto()
    DEATH = auto()
    # None yet: ask again once something has happened to it.
    WAIT = auto()


# To look a member up in its class takes longer than the rest of a step: an actor's first steps use these.
PLACING: Final = State.PLACING
STARTING: Final = State.STARTING
DEAD: Final = State.DEAD
_TURNED_AWAY: Final = Event.TURNED_AWAY


class TransitionError(Exception):
    """An event that cannot happen in this state: a bug of ours. It tells the last transitions."""


class Lifecycle:
    """One actor's state. `restarts_left` counts down; -1 is without limit."""

    __slots__ = ("_story", "death", "incarnation", "restarts_left", "starting", "state")

    def __init__(self, restarts_left: int) -> None:
        self.state = PLACING
        self.restarts_left = restarts_left
        self.incarnation = 0
        # The number of the start that was sent last.
        self.starting = 0
        # Once it is dead.
        self.death: Death | None = None
        self._story: Story | None = None

    @property
    def wants_place(self) -> bool:
        return self.state is PLACING

    def sent(self, start: int) -> None:
        """The start with this number is on its way to its place."""
        self.starting = start

    def answer(self, seen: int, until: Until) -> Answer:
        """What to say to one who asks where it is, and has seen it in life `seen`; -1: in none."""
        if self.state is State.DEAD:
            return Answer.DEATH
        if until is Until.NOW:
            return Answer.PLACE
        known = self.incarnation > seen and (until is Until.FATE or self.state is State.ALIVE)
        return Answer.PLACE if known else Answer.WAIT

    def on(
        self,
        event: Event,
        cause: str = "",
        failure: bytes = b"",
        *,
        incarnation: int | None = None,
        start: int | None = None,
    ) -> tuple[Action, ...]:
        """Apply `event`; what to do now. `cause`: why, where CAUSES does not say it. `failure`: the error behind it.

        An event that belongs to one life names its `incarnation`, and the answer to a start the number of that: they
        say nothing about later ones. Raises TransitionError for a pair that the table does not have.
        """
        if incarnation is not None and incarnation != self.incarnation:
            return ()
        if start is not None and start != self.starting:
            return ()
        before = self.state
        if (loss := LOSSES.get((before, event))) is not None:
            row = loss.left if self.restarts_left else loss.spent
            # One that was never anywhere has no life to count.
            if self.restarts_left or before is not PLACING:
                self.incarnation += 1
            if self.restarts_left > 0:
                self.restarts_left -= 1
        else:
            found = None if self.restarts_left else LAST_LIFE.get((before, event))
            found = found or TABLE.get((before, event))
            if found is None:
                story = "" if self._story is None else f"; before: {self._story}"
                raise TransitionError(f"{event.name} cannot happen while {before.name}{story}")
            row = found
            if event is _TURNED_AWAY and before is STARTING:
                # Who was told of this place looks for a later one.
                self.incarnation += 1
        self.state, actions = row
        if self.state is DEAD and self.death is None:
            phase = _PHASES_IN.get((before, event)) or _PHASES.get(event, RUNNING_PHASE)
            self.death = Death(cause or CAUSES.get(event, ""), phase, failure)
        if self.restarts_left or self._story is not None:
            # Only actors that may live several times have a story worth its memory.
            if self._story is None:
                self._story = Story()
            self._story.add(f"{before.name} --{event.name}--> {self.state.name}")
        return actions
