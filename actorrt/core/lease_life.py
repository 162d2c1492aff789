"""The life of a lease as who holds it decides it: a table, and a small class. No I/O; times are arguments.

    IDLE --PUSHED--> BUSY --EMPTIED--> IDLE ... --UNNEEDED--> GONE

What holds for every lease:

* It is returned exactly once, and never with calls under way.
* While others wait for it, or once its worker has run a function as often as it may, it gets nothing more and is
  returned as soon as it is empty. A lease that is granted while others wait takes one batch.
* A call that must not run twice has its worker for itself.
* Behind a task that blocks or runs long nothing waits.
* A worker that ends itself gets nothing more from the moment in which it is known, and goes to nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import auto
from typing import Final, Generic, TypeVar

from actorrt.types import FunctionKey, LeaseId

from .calls import CallLife
from .labels import Label
from .story import Story


class State(Label):
    # Granted while others wait for it: it takes one batch.
    OFFERED = auto()
    # Nothing is under way.
    IDLE = auto()
    # Calls are under way, and it takes more.
    BUSY = auto()
    # A call is under way that must not run twice: it takes nothing beside it.
    ALONE = auto()
    # What its worker runs blocks or runs long: it takes nothing behind it.
    LONG = auto()
    # It takes nothing more, and is returned once it is empty.
    LEAVING = auto()
    # Its worker is gone, and it is not known yet what that had begun.
    LOST = auto()
    # It was returned.
    GONE = auto()


class Event(Label):
    # It got calls that may be sent again.
    PUSHED = auto()
    # It got a call that must not run twice.
    PUSHED_ALONE = auto()
    # It got calls, with the last of which its worker has run a function as often as it may.
    PUSHED_LAST = auto()
    # Of its calls some have come to an end, and others are under way.
    REPLIED = auto()
    # The last of its calls has come to an end, or has come back.
    EMPTIED = auto()
    # Its worker has given back what it could not begin, and runs another call.
    GIVEN_BACK = auto()
    # Others wait for it.
    WANTED = auto()
    # There is nothing for it to do.
    UNNEEDED = auto()
    # Its worker ends itself: what it has not begun comes back.
    WORKER_ENDS = auto()
    # Its worker is gone.
    LOST = auto()
    # What its worker had begun is known, and its calls are sorted out.
    SORTED_OUT = auto()


S, E = State, Event

# To the next state; a lease that comes to be GONE is to be returned.
TABLE: Final[Mapping[tuple[State, Event], State]] = {
    (S.OFFERED, E.PUSHED): S.LEAVING,
    (S.OFFERED, E.PUSHED_ALONE): S.LEAVING,
    (S.OFFERED, E.PUSHED_LAST): S.LEAVING,
    (S.OFFERED, E.UNNEEDED): S.GONE,
    (S.IDLE, E.PUSHED): S.BUSY,
    (S.IDLE, E.PUSHED_ALONE): S.ALONE,
    (S.IDLE, E.PUSHED_LAST): S.LEAVING,
    # What emptied it was taken back before its answers were counted.
    (S.IDLE, E.EMPTIED): S.IDLE,
    (S.IDLE, E.WANTED): S.GONE,
    (S.IDLE, E.UNNEEDED): S.GONE,
    # The call that ends it was taken back.
    (S.IDLE, E.WORKER_ENDS): S.GONE,
    (S.IDLE, E.LOST): S.LOST,
    (S.BUSY, E.PUSHED): S.BUSY,
    # Its calls have ended, and are not counted yet.
    (S.BUSY, E.PUSHED_ALONE): S.ALONE,
    (S.BUSY, E.PUSHED_LAST): S.LEAVING,
    (S.BUSY, E.REPLIED): S.BUSY,
    (S.BUSY, E.EMPTIED): S.IDLE,
    (S.BUSY, E.GIVEN_BACK): S.LONG,
    (S.BUSY, E.WANTED): S.LEAVING,
    (S.BUSY, E.WORKER_ENDS): S.LEAVING,
    (S.BUSY, E.LOST): S.LOST,
    # Answers of calls that were before it are counted late.
    (S.ALONE, E.REPLIED): S.ALONE,
    (S.ALONE, E.GIVEN_BACK): S.ALONE,
    (S.ALONE, E.EMPTIED): S.IDLE,
    (S.ALONE, E.WANTED): S.LEAVING,
    (S.ALONE, E.WORKER_ENDS): S.LEAVING,
    (S.ALONE, E.LOST): S.LOST,
    # The one that ran long may have ended, and others that were behind it go on.
    (S.LONG, E.REPLIED): S.BUSY,
    (S.LONG, E.GIVEN_BACK): S.LONG,
    (S.LONG, E.EMPTIED): S.IDLE,
    (S.LONG, E.WANTED): S.LEAVING,
    (S.LONG, E.WORKER_ENDS): S.LEAVING,
    (S.LONG, E.LOST): S.LOST,
    (S.LEAVING, E.REPLIED): S.LEAVING,
    (S.LEAVING, E.GIVEN_BACK): S.LEAVING,
    (S.LEAVING, E.EMPTIED): S.GONE,
    (S.LEAVING, E.WANTED): S.LEAVING,
    (S.LEAVING, E.WORKER_ENDS): S.LEAVING,
    (S.LEAVING, E.LOST): S.LOST,
    # The node has not heard yet that its worker is gone.
    (S.LOST, E.WANTED): S.LOST,
    (S.LOST, E.WORKER_ENDS): S.LOST,
    (S.LOST, E.SORTED_OUT): S.GONE,
    # The question and the return have crossed; the worker that was returned ends.
    (S.GONE, E.WANTED): S.GONE,
    # The last of its calls was taken back while the answers of others were not counted yet.
    (S.GONE, E.EMPTIED): S.GONE,
    (S.GONE, E.WORKER_ENDS): S.GONE,
    (S.GONE, E.LOST): S.GONE,
}

# To look a member up in its class costs as much as the rest of a task's way through these states.
OFFERED: Final = State.OFFERED
IDLE: Final = State.IDLE
BUSY: Final = State.BUSY
ALONE: Final = State.ALONE
GONE: Final = State.GONE
LOST: Final = State.LOST
PUSHED: Final = Event.PUSHED
PUSHED_ALONE: Final = Event.PUSHED_ALONE
PUSHED_LAST: Final = Event.PUSHED_LAST


class LeaseError(Exception):
    """An event that cannot happen to a lease in this state: a bug of ours. It tells the last transitions."""


C = TypeVar("C", bound=CallLife)


class LeaseLife(Generic[C]):
    """One lease as its holder sees it."""

    __slots__ = ("_story", "calls", "id", "mark", "number", "runs_left", "state", "worker_ends")

    def __init__(self, lease: LeaseId, wanted: bool) -> None:
        """`wanted`: others wait for it already."""
        self.id = lease
        # Its number at its node, which its worker knows it by.
        self.number = lease.number
        self.state = OFFERED if wanted else IDLE
        # Unanswered, in the order in which the worker takes them.
        self.calls: dict[C, None] = {}
        # When its worker got something to do, or was last heard of.
        self.mark = 0.0
        # How often its worker may still run the functions that it has run and that have a limit.
        self.runs_left: dict[FunctionKey, int] | None = None
        # Its worker has said that it ends itself.
        self.worker_ends = False
        self._story: Story | None = None

    def __repr__(self) -> str:
        story = "" if self._story is None else f"; before: {self._story}"
        return f"<lease {self.number}: {self.state.name}, {len(self.calls)} calls under way{story}>"

    @property
    def takes_more(self) -> bool:
        state = self.state
        return state is IDLE or state is BUSY or state is OFFERED

    @property
    def spends_worker(self) -> bool:
        """Nobody else is to get its worker: it ends, or would not know how often it has run a function with a limit."""
        return self.worker_ends or self.runs_left is not None

    def on(self, event: Event) -> bool:
        """Apply `event`; True if it has to be returned now. Raises LeaseError for a pair that is not in the table."""
        before = self.state
        after = TABLE.get((before, event))
        if after is None:
            raise LeaseError(f"{event.name} cannot happen to a lease that is {before.name}: {self!r}")
        if self._story is None:
            self._story = Story()
        self._story.add(f"{before.name} --{event.name}--> {after.name}")
        self.state = after
        if event is Event.WORKER_ENDS:
            self.worker_ends = True
        return after is GONE and before is not GONE

    # ---- the rows that most calls take, without looking them up

    def pushed(self, calls: Sequence[C], event: Event, now: float) -> None:
        """It gets these calls: one of the three PUSHED."""
        under_way = self.calls
        if not under_way:
            self.mark = now
        for call in calls:
            under_way[call] = None
        state = self.state
        if event is PUSHED and (state is IDLE or state is BUSY):
            self.state = BUSY
        elif event is PUSHED_ALONE and state is IDLE:
            self.state = ALONE
        else:
            self.on(event)

    def heard(self, mark: float, gave_back: bool) -> bool:
        """Some of its calls are under way no more: REPLIED, GIVEN_BACK or EMPTIED. True if it has to be returned."""
        self.mark = mark
        state = self.state
        if self.calls:
            if gave_back:
                return self.on(Event.GIVEN_BACK)
            return False if state is BUSY else self.on(Event.REPLIED)
        if state is BUSY or state is ALONE:
            self.state = IDLE
            return False
        return self.on(Event.EMPTIED)

    def count_run(self, function: FunctionKey, most: int) -> bool:
        """Its worker runs a function that it may run `most` times; True if this is the last of them."""
        runs_left = self.runs_left
        if runs_left is None:
            runs_left = self.runs_left = {}
        left = runs_left[function] = runs_left.get(function, most) - 1
        return left <= 0
