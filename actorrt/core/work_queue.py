"""What waits for the one thread of a worker that runs calls one at a time, and what of it goes back. No I/O, no lock.

IDLE --TAKEN--> BUSY --EMPTY--> IDLE; LEAVES once a task has ended the process. What holds:

* What comes begins in this order, unless it is withdrawn, or its caller is gone.
* Tasks that wait behind one that blocks or runs long go back to their callers, for another worker.
* A thread that LEAVES begins no task: what comes goes back.
* Calls of an actor do not go back: they can be answered nowhere else.

Events come one at a time (the shell has a lock), but for `add`, which may cross them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import auto
from typing import Final, Generic, Protocol, TypeVar

from .labels import Label
from .long_calls import LongCalls, Look


class State(Label):
    # It has nothing to do.
    IDLE = auto()
    # It runs a call, or is about to.
    BUSY = auto()
    # A task has ended its process, which may stay for what it owns.
    LEAVES = auto()
    ENDED = auto()


class Event(Label):
    # It takes up what waits.
    TAKEN = auto()
    # Nothing waits.
    EMPTY = auto()
    # A task ends the process.
    EXIT = auto()
    # The process ends now.
    END = auto()


S, E = State, Event

TABLE: Final[Mapping[tuple[State, Event], State]] = {
    (S.IDLE, E.TAKEN): S.BUSY,
    (S.IDLE, E.EMPTY): S.IDLE,
    (S.IDLE, E.END): S.ENDED,
    (S.BUSY, E.TAKEN): S.BUSY,
    (S.BUSY, E.EMPTY): S.IDLE,
    (S.BUSY, E.EXIT): S.LEAVES,
    (S.BUSY, E.END): S.ENDED,
    **{(S.LEAVES, event): S.LEAVES for event in Event if event is not E.END},
    (S.LEAVES, E.END): S.ENDED,
    # The thread may be in a call, and comes to its end later.
    **{(S.ENDED, event): S.ENDED for event in Event},
}
IDLE: Final = State.IDLE
BUSY: Final = State.BUSY
LEAVES: Final = State.LEAVES
ENDED: Final = State.ENDED


class Source(Protocol):
    """Where work comes from."""

    @property
    def closed(self) -> object:
        """True where nobody waits for it any more."""


F = TypeVar("F", bound=Source)
W = TypeVar("W")
R = TypeVar("R")


class WorkQueue(Generic[F, W, R]):
    """The queue of one thread; `W` is what waits, and `R` stands for a call that runs."""

    __slots__ = ("_is_task", "_long", "_number_of", "_waiting", "state")

    def __init__(self, is_task: Callable[[W], bool], number_of: Callable[[W], int | None]) -> None:
        """`number_of`: by which its source names a call; None for what is no call."""
        self._is_task = is_task
        self._number_of = number_of
        # Always the same one: what comes is added while others look at it.
        self._waiting: deque[tuple[F, W]] = deque()
        self._long: LongCalls[R] = LongCalls()
        self.state = IDLE

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, source: F, work: Iterable[W], current: R | None) -> bool:
        """It comes while `current` runs. True: `look` is to follow in LONG_S."""
        waiting = self._waiting
        for one in work:
            waiting.append((source, one))
        return (len(waiting) > 1 or self.state is not IDLE) and self._long.waits(current)

    def look(self, current: R | None) -> Look:
        """LONG_S after `add` or `look` has asked for it."""
        return self._long.look(current, bool(self._waiting))

    def on(self, event: Event) -> None:
        self.state = TABLE[self.state, event]

    def take(self) -> tuple[F, W, bool] | None:
        """What comes next, and whether it begins: it goes back to its caller otherwise."""
        waiting = self._waiting
        while waiting:
            # First: what is added from now on is behind this one, or finds it still in front. TAKEN, written out.
            if self.state is IDLE:
                self.state = BUSY
            source, work = waiting.popleft()
            if not source.closed:
                return source, work, self.state is BUSY or not self._is_task(work)
        if self.state is BUSY:
            self.state = IDLE
        return None

    def give_back(self, has_actor: bool) -> list[tuple[F, W]]:
        """Take out what others can run."""
        return [] if has_actor else self._take_out(lambda _, work: self._is_task(work))

    def source_lost(self, lost: F) -> None:
        self._take_out(lambda source, _: source is lost)

    def _take_out(self, wanted: Callable[[F, W], bool]) -> list[tuple[F, W]]:
        """What comes meanwhile stays behind all that is left."""
        waiting = self._waiting
        found: list[tuple[F, W]] = []
        left: list[tuple[F, W]] = []
        for _ in range(len(waiting)):
            one = waiting.popleft()
            (found if wanted(*one) else left).append(one)
        waiting.extendleft(reversed(left))
        return found

    def find(self, source: F, number: int) -> W | None:
        """The call that waits by this number."""
        for other, work in self._waiting:
            if other is source and self._number_of(work) == number:
                return work
        return None

    def withdraw(self, source: F, number: int) -> bool:
        """A call is not to begin any more. False: it does not wait."""
        for index, (other, work) in enumerate(self._waiting):
            if other is source and self._number_of(work) == number:
                del self._waiting[index]
                return True
        return False
