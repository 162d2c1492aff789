"""Shared workers of one environment: which of them gets the next thing to do, and when more are asked for. No I/O.

A shared worker runs on one loop what many ask of it: coroutine actors and async tasks. The least loaded one that takes
more is chosen. One whose loop is blocked gets nothing new until the node says that it goes on, or names it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from enum import auto
from typing import Final

from msgspec import Struct

from actorrt.types import ProcessId

from .labels import Label

# A further shared worker is asked for when each that there is has so much to do.
CROWDED: Final = 16


class State(Label):
    # The node has named it, and it is being dialled.
    DIALLED = auto()
    # The same, and its loop is blocked.
    DIALLED_BLOCKED = auto()
    TAKING = auto()
    # Its loop is blocked: nothing new goes there.
    BLOCKED = auto()
    GONE = auto()


class Event(Label):
    # The node names it as one to use, blocked or not: it may be that there are no better ones.
    NAMED = auto()
    REACHED = auto()
    UNREACHABLE = auto()
    BLOCKED = auto()
    GOES_ON = auto()
    # Its link is gone.
    LOST = auto()


S, E = State, Event

TABLE: Final[Mapping[tuple[State, Event], State]] = {
    (S.DIALLED, E.NAMED): S.DIALLED,
    (S.DIALLED, E.REACHED): S.TAKING,
    (S.DIALLED, E.UNREACHABLE): S.GONE,
    (S.DIALLED, E.BLOCKED): S.DIALLED_BLOCKED,
    (S.DIALLED, E.GOES_ON): S.DIALLED,
    (S.DIALLED_BLOCKED, E.NAMED): S.DIALLED,
    (S.DIALLED_BLOCKED, E.REACHED): S.BLOCKED,
    (S.DIALLED_BLOCKED, E.UNREACHABLE): S.GONE,
    (S.DIALLED_BLOCKED, E.BLOCKED): S.DIALLED_BLOCKED,
    (S.DIALLED_BLOCKED, E.GOES_ON): S.DIALLED,
    (S.TAKING, E.NAMED): S.TAKING,
    (S.TAKING, E.BLOCKED): S.BLOCKED,
    (S.TAKING, E.GOES_ON): S.TAKING,
    (S.TAKING, E.LOST): S.GONE,
    (S.BLOCKED, E.NAMED): S.TAKING,
    (S.BLOCKED, E.BLOCKED): S.BLOCKED,
    (S.BLOCKED, E.GOES_ON): S.TAKING,
    (S.BLOCKED, E.LOST): S.GONE,
}
TAKING: Final = State.TAKING
GONE: Final = State.GONE


class WorkerStateError(Exception):
    """An event that cannot happen to a shared worker in this state: a bug of ours."""


class SharedPoolStatistics(Struct, frozen=True):
    """Shared workers of one environment at one moment."""

    # Workers by the name of their state.
    workers: Mapping[str, int]
    # Actors that this process has placed there, and async tasks under way.
    load: int
    # So many workers there may be, as the node said last.
    limit: int
    # Whether the node is being asked for workers.
    asking: bool


class LeastLoaded:
    """The shared workers that are known, and what this process has placed on each."""

    def __init__(self) -> None:
        self._states: dict[ProcessId, State] = {}
        # Actors, and async tasks under way, of those that are reached.
        self._load: dict[ProcessId, int] = {}
        # Those of them that take more.
        self._taking: dict[ProcessId, None] = {}
        self._limit = 1
        # For so many workers the node is being asked; 0: it is not.
        self._asked = 0

    def __repr__(self) -> str:
        states = ", ".join(f"{worker.hex()} {state.name}" for worker, state in self._states.items())
        return f"<shared workers: {states or 'none'}>"

    @property
    def is_empty(self) -> bool:
        """No worker is here, or on its way."""
        return not self._states and not self._asked

    @property
    def takes(self) -> bool:
        """Whether a worker takes more."""
        return bool(self._taking)

    @property
    def dials(self) -> bool:
        """Whether workers are being dialled."""
        return any(state is S.DIALLED or state is S.DIALLED_BLOCKED for state in self._states.values())

    @property
    def loads(self) -> Mapping[ProcessId, int]:
        """What this process has placed on each worker that is reached."""
        return self._load

    def statistics(self) -> SharedPoolStatistics:
        states = list(self._states.values())
        workers = dict(Counter(state.name for state in states))
        return SharedPoolStatistics(workers, sum(self._load.values()), self._limit, bool(self._asked))

    # ---- choosing

    def pick(self) -> ProcessId | None:
        """The least loaded worker that takes more, counted as having one more thing to do; None if there is none."""
        taking = self._taking
        if not taking:
            return None
        load = self._load
        best = min(taking, key=load.__getitem__)
        load[best] += 1
        return best

    def is_crowded(self, picked: ProcessId) -> bool:
        """Whether one more is to be asked for, since even `picked` had much to do."""
        return self._load[picked] > CROWDED and len(self._taking) < self._limit and not self._asked and not self.dials

    def done(self, worker: ProcessId) -> None:
        """One thing less to do there."""
        if worker in self._load:
            self._load[worker] -= 1

    # ---- the node

    def asks(self) -> int:
        """The node is asked; for how many workers."""
        self._asked = len(self._taking) + 1
        return self._asked

    def asked(self) -> None:
        """The question has its answer, or none will come."""
        self._asked = 0

    def named(self, workers: Iterable[ProcessId], limit: int, dead: Container[ProcessId]) -> list[ProcessId]:
        """The node names workers to use; the new ones, which are to be dialled. `dead` are known to have ended."""
        self._limit = limit
        new: list[ProcessId] = []
        for worker in workers:
            if worker in self._states:
                self.on(worker, Event.NAMED)
            elif worker not in dead:
                self._states[worker] = S.DIALLED
                new.append(worker)
        return new

    def on(self, worker: ProcessId, event: Event) -> State:
        """Apply `event`; the state of the worker now. What happens to one that is not known changes nothing."""
        before = self._states.get(worker)
        if before is None:
            return GONE
        after = TABLE.get((before, event))
        if after is None:
            raise WorkerStateError(f"{event.name} cannot happen to a worker that is {before.name}: {self!r}")
        self._states[worker] = after
        if after is TAKING:
            self._taking[worker] = None
            self._load.setdefault(worker, 0)
        else:
            self._taking.pop(worker, None)
        if after is S.BLOCKED:
            self._load.setdefault(worker, 0)
        elif after is GONE:
            del self._states[worker]
            self._load.pop(worker, None)
        return after
