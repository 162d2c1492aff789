"""Hand work to whichever actor of a pool is free, from sync code."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from actorrt import ObjectRef, ObjectRefGenerator, get, wait
from actorrt.core import option_checks as check
from actorrt.exceptions import ActorDiedError, TaskError

H = TypeVar("H")
V = TypeVar("V")

Work = Callable[[H, V], Any]


class _Result:
    """What one piece of work has given: a ref, several, or a stream; or the error of the code that should start it."""

    __slots__ = ("_error", "_several", "_stream", "refs")

    def __init__(self, given: object, error: Exception | None = None) -> None:
        kind = type(given).__name__
        self._error = error
        self._stream: ObjectRefGenerator[Any] | None = None
        self._several = False
        # What is done when the work is.
        self.refs: list[ObjectRef[Any]] = []
        if isinstance(given, ObjectRef):
            self.refs.append(cast("ObjectRef[Any]", given))
        elif isinstance(given, ObjectRefGenerator):
            # Whoever takes the result takes all of it: the producer need not wait for that.
            self._stream = cast("ObjectRefGenerator[Any]", given)
            self.refs.append(self._stream.completed())
        elif isinstance(given, list) and all(type(one) is ObjectRef for one in cast("list[Any]", given)):
            self._several = True
            self.refs += cast("list[ObjectRef[Any]]", given)
        elif given is not None:
            raise TypeError(f"the work of an ActorPool must give the ref of its call, not {kind}")

    @property
    def missing(self) -> ObjectRef[Any] | None:
        """A ref that is not done yet."""
        return next((ref for ref in self.refs if not ref.done()), None)

    def take(self) -> Any:
        """The value, several as a list; or the error."""
        if self._error is not None:
            raise self._error
        if self._stream is not None:
            return [get(ref) for ref in self._stream]
        values = get(self.refs)
        return values if self._several else values[0] if values else None

    def has_lost_its_actor(self) -> bool:
        """True if the actor died and does not come back. The error of another actor is one of the work itself."""
        errors = (ref.exception() for ref in self.refs)
        return any(isinstance(error, ActorDiedError) and not isinstance(error, TaskError) for error in errors)


class _Batch:
    """Work whose results belong together: the numbers that were not taken yet, and the results that have come."""

    __slots__ = ("done", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[int, None] = {}
        self.done: dict[int, _Result] = {}

    def __bool__(self) -> bool:
        return bool(self.wanted)

    def oldest(self) -> int | None:
        number = next(iter(self.wanted))
        return number if number in self.done else None

    def first_done(self) -> int | None:
        return next(iter(self.done), None)


_Choose = Callable[[_Batch], int | None]


class ActorPool(Generic[H]):
    """Actors that each do one thing at a time. Work beyond that waits here, in order.

    `fn(actor, value)` starts one piece of work and gives its ref: `lambda actor, value: actor.double.remote(value)`.
    Where a method gives several refs the result is a list, and so it is for a stream. Waiting work starts when the pool
    is next asked for something. An actor that has died for good is not given further work.
    """

    def __init__(self, actors: Iterable[H]) -> None:
        self._idle = deque(actors)
        # Work is numbered as it is submitted: what waits for an actor, what runs, what is done in the order it came.
        self._waiting: deque[tuple[int, Work[H, Any], Any]] = deque()
        self._running: dict[int, tuple[_Result, H]] = {}
        self._submitted = 0
        # What `submit` has started and nobody has taken yet; each `map` has a batch of its own.
        self._open = _Batch()
        # The batch of each number that somebody still wants.
        self._batches: dict[int, _Batch] = {}

    def submit(self, fn: Work[H, V], value: V) -> None:
        """Start `fn` on a free actor, or when one becomes free.

        What `fn` raises on a free actor is raised here, and that work is given up. If it has to wait, it is raised in
        place of its result. The pool goes on in any case.
        """
        self._collect()
        self._add(self._open, fn, value)

    def map(self, fn: Work[H, V], values: Iterable[V]) -> Iterator[Any]:
        """The results in the order of the values.

        The work starts with this call. Its results come by this iterator alone; if that is closed, or ends with an
        error, what has not started by then is given up.
        """
        return self._results(self._batch_of(fn, values), _Batch.oldest)

    def map_unordered(self, fn: Work[H, V], values: Iterable[V]) -> Iterator[Any]:
        """The results as they come. Else as `map`."""
        return self._results(self._batch_of(fn, values), _Batch.first_done)

    def has_next(self) -> bool:
        """Whether a result of `submit` is still to be taken."""
        return bool(self._open)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the oldest `submit` that was not taken yet, or its error.

        Raises StopIteration if there is none, TimeoutError after `timeout` seconds (with `ignore_if_timedout` that
        result will not be waited for again), and RuntimeError if the pool has no actor that could do it.
        """
        return self._take_next(_Batch.oldest, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result that came first of those not taken yet. Raises as `get_next` does."""
        return self._take_next(_Batch.first_done, timeout, ignore_if_timedout)

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

    # ---- work

    def _add(self, batch: _Batch, fn: Work[H, V], value: V) -> None:
        number = self._submitted
        self._submitted += 1
        if self._idle:
            # Nothing waits while an actor is idle.
            self._begin(number, fn, value)
        else:
            self._waiting.append((number, fn, value))
        batch.wanted[number] = None
        self._batches[number] = batch

    def _batch_of(self, fn: Work[H, V], values: Iterable[V]) -> _Batch:
        self._collect()
        batch = _Batch()
        try:
            for value in values:
                self._add(batch, fn, value)
        except BaseException:
            self._give_up(batch)
            raise
        return batch

    def _begin(self, number: int, fn: Work[H, V], value: V) -> None:
        actor = self._idle.popleft()
        try:
            self._running[number] = (_Result(fn(actor, value)), actor)
        except BaseException:
            # There will be no result, and the actor is free.
            self._idle.appendleft(actor)
            raise

    def _start(self) -> None:
        while self._waiting and self._idle:
            number, fn, value = self._waiting.popleft()
            try:
                self._begin(number, fn, value)
            except Exception as error:
                self._is_done(number, _Result(None, error))
            except BaseException:
                if (batch := self._batches.get(number)) is not None:
                    self._forget(batch, number)
                raise

    def _collect(self) -> None:
        """Take note of what is done; its actor goes on with what waits."""
        for number in [number for number, (result, _) in self._running.items() if result.missing is None]:
            result, actor = self._running.pop(number)
            self._is_done(number, result)
            if not result.has_lost_its_actor():
                self._idle.append(actor)
        self._start()

    def _is_done(self, number: int, result: _Result) -> None:
        batch = self._batches.get(number)
        if batch is not None:
            batch.done[number] = result

    def _give_up(self, batch: _Batch) -> None:
        """Nobody takes what is left: what was not started never is."""
        self._waiting = deque(one for one in self._waiting if one[0] not in batch.wanted)
        for number in list(batch.wanted):
            self._forget(batch, number)

    def _forget(self, batch: _Batch, number: int) -> None:
        batch.wanted.pop(number)
        batch.done.pop(number, None)
        self._batches.pop(number)

    # ---- results

    def _results(self, batch: _Batch, choose: _Choose) -> Generator[Any]:
        results = self._take_all(batch, choose)
        # One that was never begun is closed and dropped without a word.
        next(results)
        return results

    def _take_all(self, batch: _Batch, choose: _Choose) -> Generator[Any]:
        try:
            yield
            while batch:
                yield self._take(batch, choose, None).take()
        finally:
            self._give_up(batch)

    def _take_next(self, choose: _Choose, timeout: float | None, ignore_if_timedout: bool) -> Any:
        timeout = check.seconds("timeout", timeout)
        if not self._open:
            raise StopIteration("no result is left to take")
        try:
            result = self._take(self._open, choose, timeout)
        except TimeoutError:
            if ignore_if_timedout:
                oldest = next(iter(self._open.wanted))
                self._forget(self._open, oldest)
            raise
        return result.take()

    def _take(self, batch: _Batch, choose: _Choose, timeout: float | None) -> _Result:
        end = None if timeout is None else monotonic() + timeout
        self._collect()
        while (number := choose(batch)) is None:
            missing = [ref for result, _ in self._running.values() if (ref := result.missing) is not None]
            if not self._running:
                raise RuntimeError("the pool has no actor for the work that waits: push() one")
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no result was there after {timeout} s")
            if missing:
                wait(missing, num_returns=1, timeout=left)
            self._collect()
        result = batch.done[number]
        self._forget(batch, number)
        return result
