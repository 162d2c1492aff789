"""Futures of local mode: whoever waits for one in code without a loop turns the session's loop meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Turned(Protocol):
    """The loop of a session, which whoever waits turns."""

    def pump(self) -> None: ...
    def turn(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None: ...
    def turns_elsewhere(self) -> bool: ...


class LocalFuture(Future[T]):
    """As any concurrent future, also in `concurrent.futures.wait` and `as_completed`."""

    def __init__(self, loop: Turned) -> None:
        super().__init__()
        self._loop = loop
        # Each of those functions appends what it waits with here.
        self._waiters: Any = _Waiters(loop)

    def result(self, timeout: float | None = None) -> T:
        return super().result(self._turn(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._turn(timeout))

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        super().add_done_callback(fn)
        # Where a loop runs, it is this that is waited for.
        self._loop.pump()

    def _turn(self, timeout: float | None) -> float | None:
        """Wait; for how long its base class may wait then."""
        if self.done() or _turn(self._loop, self.done, timeout):
            return 0.0
        return timeout


class _Waiters(list[Any]):
    def __init__(self, loop: Turned) -> None:
        super().__init__()
        self._loop = loop

    def append(self, waiter: Any, /) -> None:
        if type(waiter.event) is not _TurningEvent:
            event, waiter.event = waiter.event, _TurningEvent(self._loop)
            if event.is_set():
                waiter.event.set()
        super().append(waiter)


class _TurningEvent(threading.Event):
    def __init__(self, loop: Turned) -> None:
        super().__init__()
        self._loop = loop

    def wait(self, timeout: float | None = None) -> bool:
        if self.is_set() or _turn(self._loop, self.is_set, timeout):
            return self.is_set()
        return super().wait(timeout)


def _turn(loop: Turned, ready: Any, timeout: float | None) -> bool:
    """False: another thread turns the loop, so that this one can simply wait."""
    if loop.turns_elsewhere():
        return False
    with contextlib.suppress(TimeoutError):
        loop.turn(ready, timeout, "a future")
    return True
