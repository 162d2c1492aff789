"""Hand work to whichever actor of a pool is free, from sync code."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar

from actorrt import ObjectRef, get, wait

H = TypeVar("H")
V = TypeVar("V")
R = TypeVar("R")

Work = Callable[[H, V], "ObjectRef[Any]"]


class ActorPool(Generic[H]):
    """Actors that each do one thing at a time. Work beyond that waits here, in order.

    `fn(actor, value)` starts one piece of work and gives its ref: `lambda actor, value: actor.double.remote(value)`.
    """

    def __init__(self, actors: Iterable[H]) -> None:
        self._idle = deque(actors)
        # Work is numbered as it is submitted: what waits for an actor, what runs, what is done in the order it came.
        self._waiting: deque[tuple[int, Work[H, Any], Any]] = deque()
        self._running: dict[ObjectRef[Any], tuple[int, H]] = {}
        self._done: dict[int, ObjectRef[Any]] = {}
        self._submitted = 0
        # The oldest number that was not taken, and those after it that were taken or given up.
        self._oldest = 0
        self._taken: set[int] = set()

    def submit(self, fn: Work[H, V], value: V) -> None:
        """Start `fn` on a free actor, or when one becomes free.

        What `fn` raises is raised where it is called: here, or in the method that finds the actor free. That work is
        given up, and the pool goes on.
        """
        self._waiting.append((self._submitted, fn, value))
        self._submitted += 1
        self._start()

    def map(self, fn: Work[H, V], values: Iterable[V]) -> Iterator[Any]:
        """The results in the order of the values."""
        for value in values:
            self.submit(fn, value)
        while self.has_next():
            yield self.get_next()

    def map_unordered(self, fn: Work[H, V], values: Iterable[V]) -> Iterator[Any]:
        """The results as they come."""
        for value in values:
            self.submit(fn, value)
        while self.has_next():
            yield self.get_next_unordered()

    def has_next(self) -> bool:
        """Whether a result is still to be taken."""
        return self._submitted - self._oldest > len(self._taken)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the oldest submit that was not taken yet, or its error.

        Raises StopIteration if there is none, and TimeoutError after `timeout` seconds; with `ignore_if_timedout` that
        result will not be waited for again.
        """
        return self._take(lambda: self._oldest if self._oldest in self._done else None, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result that came first of those not taken yet. Raises as `get_next` does."""
        return self._take(lambda: next(iter(self._done), None), timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for it."""
        self._collect()
        return bool(self._idle)

    def pop_idle(self) -> H | None:
        """Take an idle actor out of the pool; None if all are busy."""
        self._collect()
        return self._idle.popleft() if self._idle else None

    def push(self, actor: H) -> None:
        """Put an actor into the pool; ValueError if it is there."""
        if actor in self._idle or any(actor == busy for _, busy in self._running.values()):
            raise ValueError("the actor is in the pool already")
        self._idle.append(actor)
        self._start()

    def _take(self, choose: Callable[[], int | None], timeout: float | None, ignore_if_timedout: bool) -> Any:
        if not self.has_next():
            raise StopIteration("no result is left to take")
        end = None if timeout is None else monotonic() + timeout
        self._collect()
        while (number := choose()) is None:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                if ignore_if_timedout:
                    self._mark_taken(self._oldest)
                raise TimeoutError(f"no result was there after {timeout} s")
            wait(list(self._running), num_returns=1, timeout=left)
            self._collect()
        self._mark_taken(number)
        return get(self._done.pop(number))

    def _mark_taken(self, number: int) -> None:
        self._taken.add(number)
        while self._oldest in self._taken:
            self._taken.discard(self._oldest)
            self._oldest += 1

    def _start(self) -> None:
        while self._waiting and self._idle:
            number, fn, value = self._waiting.popleft()
            actor = self._idle.popleft()
            try:
                self._running[fn(actor, value)] = (number, actor)
            except BaseException:
                # Nothing was started: there will be no result to take, and the actor is free.
                self._idle.appendleft(actor)
                self._mark_taken(number)
                raise

    def _collect(self) -> None:
        """Take note of what is done; its actor goes on with what waits."""
        for ref in [ref for ref in self._running if ref.done()]:
            number, actor = self._running.pop(ref)
            if number >= self._oldest and number not in self._taken:
                self._done[number] = ref
            self._idle.append(actor)
        self._start()
