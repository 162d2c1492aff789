"""The life of an actor in the worker that runs it, and which of its calls run, wait or are refused. No I/O.

STARTING --MADE--> READY --STOP--> DRAINING --IDLE--> OVER. An actor is LEAVING while a call that is to end it
(`__ray_terminate__`) waits for the others; one that its own code ends is EXITING for the rest of its loop's turn. What
holds for coroutine actors and for those in a thread alike:

* A call that comes before the constructor has returned waits; none begins before it, nor after an exit.
* An actor that is to stop takes up all that came before, and what still comes: its caller could not know of it.
* An actor that is LEAVING refuses what comes, and what waits behind the call that is to end it, which would wait for it
  and it for them.
* A call that was to end it and is cancelled while it waits ends nothing.
* An actor ends once, whatever crosses; its first exit is the one that its owner hears of.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final, Generic, TypeVar

from .concurrency import Groups, Limiter
from .labels import Label

T = TypeVar("T")


class State(Label):
    # Its constructor has not returned.
    STARTING = auto()
    # The same, and it is to stop as soon as it has nothing to do.
    STARTING_TO_STOP = auto()
    READY = auto()
    # It is to stop as soon as it has nothing to do.
    DRAINING = auto()
    # A call of its own waits for all others, to end it.
    LEAVING = auto()
    # The same, and it is to stop even if that call is cancelled.
    LEAVING_TO_STOP = auto()
    # Its own code has ended it: its loop ends it in the next turn.
    EXITING = auto()
    # The same, and its process ends with an exit code.
    EXITING_WITH_CODE = auto()
    OVER = auto()


class Event(Label):
    # Its constructor has returned.
    MADE = auto()
    # Its constructor, or what it needs, has raised.
    NOT_MADE = auto()
    # To stop once it has nothing to do: nobody holds a handle any more.
    STOP = auto()
    # To end at once: it was killed, or its owner is gone.
    KILLED = auto()
    # One of its calls is to end it, once that call is alone.
    LEAVE = auto()
    # The last of these calls was cancelled before that.
    STAYED = auto()
    # Nothing is under way but calls that are to end it.
    IDLE = auto()
    # Its own code has ended it.
    EXIT = auto()
    # The same, by an exit code that its process ends with: the loss of the process says so to its owner.
    EXIT_WITH_CODE = auto()


class Action(Label):
    # Say to its owner that it is made.
    CONFIRM = auto()
    # Say to its owner what its constructor raised.
    FAIL = auto()
    START_WAITING = auto()
    REFUSE_WAITING = auto()
    # Those that wait where the call that is to end it has waited.
    REFUSE_BEHIND = auto()
    CANCEL_CALLS = auto()
    # The calls that are to end it go on.
    RELEASE = auto()
    # Say to its owner that it has left by itself.
    REPORT = auto()
    # KILLED is to follow, when what runs just now has come to an await.
    END_SOON = auto()
    # Let go of its object, and end its tasks.
    FORGET = auto()
    # The process that it has for itself is not needed for it any more.
    LEAVE_PROCESS = auto()
    # The process that it has for itself ends now, whatever others need of it.
    END_PROCESS = auto()


Actions = tuple[Action, ...]
S, E, A = State, Event, Action

_END: Final = (S.OVER, (A.REFUSE_WAITING, A.CANCEL_CALLS, A.FORGET, A.LEAVE_PROCESS))
_END_WITH_CODE: Final = (S.OVER, (A.REFUSE_WAITING, A.CANCEL_CALLS, A.FORGET, A.END_PROCESS))
_EXIT: Final = (S.EXITING, (A.REPORT, A.END_SOON))
_EXIT_WITH_CODE: Final = (S.EXITING_WITH_CODE, (A.END_SOON,))
_EXITING: Final = (S.EXITING, S.EXITING_WITH_CODE)
_MAKING: Final = (S.STARTING, S.STARTING_TO_STOP)
_LEAVING: Final = (S.LEAVING, S.LEAVING_TO_STOP)
_MADE: Final = (S.READY, S.DRAINING, *_LEAVING)

TABLE: Final[Mapping[tuple[State, Event], tuple[State, Actions]]] = {
    (S.STARTING, E.MADE): (S.READY, (A.CONFIRM, A.START_WAITING)),
    (S.STARTING, E.STOP): (S.STARTING_TO_STOP, ()),
    (S.STARTING_TO_STOP, E.MADE): (S.DRAINING, (A.CONFIRM, A.START_WAITING)),
    (S.STARTING_TO_STOP, E.STOP): (S.STARTING_TO_STOP, ()),
    # Its process, if it has one, is left to its owner, who ends it.
    **{(state, E.NOT_MADE): (S.OVER, (A.FAIL, A.FORGET, A.REFUSE_WAITING)) for state in _MAKING},
    (S.READY, E.STOP): (S.DRAINING, ()),
    (S.READY, E.LEAVE): (S.LEAVING, (A.REFUSE_BEHIND,)),
    (S.DRAINING, E.STOP): (S.DRAINING, ()),
    (S.DRAINING, E.LEAVE): (S.LEAVING_TO_STOP, (A.REFUSE_BEHIND,)),
    (S.DRAINING, E.IDLE): (S.OVER, (A.FORGET, A.LEAVE_PROCESS)),
    (S.LEAVING, E.STOP): (S.LEAVING_TO_STOP, ()),
    (S.LEAVING, E.STAYED): (S.READY, ()),
    (S.LEAVING_TO_STOP, E.STOP): (S.LEAVING_TO_STOP, ()),
    (S.LEAVING_TO_STOP, E.STAYED): (S.DRAINING, ()),
    # Another one, which may have waited in another group.
    **{(state, E.LEAVE): (state, (A.REFUSE_BEHIND,)) for state in _LEAVING},
    # The first of the calls that go on ends it, by EXIT.
    **{(state, E.IDLE): (state, (A.RELEASE,)) for state in _LEAVING},
    **{(state, E.KILLED): _END for state in (*_MAKING, *_MADE, S.EXITING)},
    **{(state, E.EXIT): _EXIT for state in (*_MAKING, *_MADE)},
    **{(state, E.EXIT_WITH_CODE): _EXIT_WITH_CODE for state in (*_MAKING, *_MADE)},
    # It ends in a moment: what its code, or its owner, says until then changes nothing.
    **{(state, event): (state, ()) for state in _EXITING for event in Event if event not in (E.KILLED, E.IDLE)},
    (S.EXITING_WITH_CODE, E.KILLED): _END_WITH_CODE,
    # What was under way when it ended may still come to its end.
    **{(S.OVER, event): (S.OVER, ()) for event in Event if event is not E.IDLE},
}


class Verdict(Label):
    """What becomes of a call that has come."""

    START = auto()
    WAIT = auto()
    # Its caller is told that the actor is not here, and that the call did not begin.
    REFUSE = auto()


ADMITS: Final[Mapping[State, Verdict]] = {
    S.STARTING: Verdict.WAIT,
    S.STARTING_TO_STOP: Verdict.WAIT,
    S.READY: Verdict.START,
    S.DRAINING: Verdict.START,
    S.LEAVING: Verdict.REFUSE,
    S.LEAVING_TO_STOP: Verdict.REFUSE,
    # Until what runs just now has come to an await; then it is refused with all that wait.
    S.EXITING: Verdict.WAIT,
    S.EXITING_WITH_CODE: Verdict.WAIT,
    S.OVER: Verdict.REFUSE,
}

# To look a member up in its class costs as much as the rest of a call's way through here.
STARTING: Final = State.STARTING
READY: Final = State.READY
OVER: Final = State.OVER
# In these, calls that wait may begin.
BEGINS: Final = frozenset(_MADE)
# In these, no call takes its first step: one that was to begin in the same turn is refused as those that wait.
ENDED: Final = frozenset((*_EXITING, State.OVER))
# In these, a call of its own is to end it.
LEAVES: Final = frozenset(_LEAVING)
# An actor in these ends once nothing is under way.
ENDS_IDLE: Final = frozenset((S.DRAINING, *_LEAVING))
_EVENTS: Final = tuple(Event)
_BITS: Final = 4
_PAST: Final = (1 << (8 * _BITS)) - 1


class InstanceError(Exception):
    """An event that cannot happen to an actor in this state: a bug of ours. It tells the last events."""


class InstanceLife(Generic[T]):
    """One actor. What it is told comes in one thread, or under one lock; `T` is what stands for a call that waits."""

    __slots__ = ("_past", "groups", "leavers", "limiter", "state", "title")

    def __init__(self, title: str, concurrency: int, groups: Groups[T] | None = None) -> None:
        self.title = title
        self.state = STARTING
        # Calls that are under way to end it.
        self.leavers = 0
        self.limiter: Limiter[T] = Limiter(concurrency)
        self.groups = groups
        # The numbers of the last events, the latest one lowest: 100,000 actors have one each.
        self._past = 0

    # ---- its life

    @property
    def is_over(self) -> bool:
        return self.state is OVER

    @property
    def is_being_made(self) -> bool:
        return self.state is STARTING or self.state is State.STARTING_TO_STOP

    def on(self, event: Event) -> Actions:
        """Apply `event`; what to do now, in order. Raises InstanceError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise InstanceError(
                f"{event.name} cannot happen to {self.title} while it is {self.state.name}{self._story()}"
            )
        self._past = (self._past << _BITS | event.value) & _PAST
        self.state, actions = row
        return actions

    def _story(self) -> str:
        names: list[str] = []
        past = self._past
        while past:
            names.append(_EVENTS[(past & (1 << _BITS) - 1) - 1].name)
            past >>= _BITS
        return f"; before: {', '.join(reversed(names))}" if names else ""

    def exit(self, code: int) -> Actions:
        """Its own code ends it; `code`: its process ends with this."""
        return self.on(Event.EXIT_WITH_CODE if code else Event.EXIT)

    @property
    def ends_now(self) -> bool:
        """Whether IDLE is to be told: the actor ends once nothing is under way but calls that are to end it."""
        return self.state in ENDS_IDLE and self.under_way == self.leavers

    @property
    def is_leaving(self) -> bool:
        """Whether a call that is to end it may have to wait."""
        return self.state in LEAVES

    def leave(self) -> Actions:
        """A call that runs is to end it. Once `ends_now`, it may."""
        self.leavers += 1
        return self.on(Event.LEAVE)

    def stayed(self) -> Actions:
        """Such a call is cancelled."""
        self.leavers -= 1
        return () if self.leavers else self.on(Event.STAYED)

    # ---- its calls

    def limiter_of(self, method: str, group: str) -> Limiter[T]:
        """The limiter of a call; raises ValueError for a group that the actor does not have."""
        groups = self.groups
        if groups is None:
            if group:
                raise ValueError(f"{self.title} has no concurrency group {group!r}")
            return self.limiter
        name = groups.name_of(method, group)
        if not name:
            return self.limiter
        limiter = groups.limiters.get(name)
        if limiter is None:
            known = ", ".join(sorted(groups.limiters))
            raise ValueError(f"{self.title} has no concurrency group {name!r}, only {known}")
        return limiter

    def limiters(self) -> list[Limiter[T]]:
        return [self.limiter] if self.groups is None else [self.limiter, *self.groups.limiters.values()]

    @property
    def under_way(self) -> int:
        """How many calls run or wait."""
        return sum(limiter.under_way for limiter in self.limiters())

    def admit(self, limiter: Limiter[T], call: T) -> Verdict:
        """What becomes of a call that has come. It is counted by its limiter, unless it is refused."""
        verdict = ADMITS[self.state]
        if verdict is Verdict.START:
            if not limiter.is_full:
                limiter.begin()
                return verdict
            verdict = Verdict.WAIT
        if verdict is Verdict.WAIT:
            limiter.wait(call)
        return verdict

    def next(self, limiter: Limiter[T]) -> T | None:
        """The call that begins now, if one waits and there is room for it."""
        return limiter.next() if self.state in BEGINS else None

    def refuse_waiting(self) -> list[T]:
        """Take out the calls that wait, to tell their callers that they did not begin."""
        return [call for limiter in self.limiters() for call in limiter.refuse()]
