"""Iterate a blocking iterable in a thread and take its items on a loop, as many at a time as are there."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Executor, Future
from enum import Enum
from typing import Final, Generic, TypeVar, cast

T = TypeVar("T")

WINDOW = 64
_END: Final = object()


class _Run(Enum):
    RUNS = "RUNS"
    STOPPED = "STOPPED"  # nobody takes any more, but what it is at is done to its end
    ENDED = "ENDED"


class _Belt(Generic[T]):
    """The thread puts items on it; the loop takes all that are there, with one wake-up for each batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, window: int) -> None:
        self.items: deque[T] = deque()
        self.error: BaseException | None = None
        self._state = _Run.RUNS
        self.arrived = asyncio.Event()
        self._loop = loop
        self._room = threading.Semaphore(window)
        self._woken = False

    def run(self, iterable: Iterable[T]) -> None:
        iterator = iter(iterable)
        try:
            while self._state is _Run.RUNS and (item := next(iterator, _END)) is not _END:
                self.items.append(cast("T", item))
                self._wake()
                self._room.acquire()
        except BaseException as error:
            self.error = error
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                try:
                    close()
                except BaseException as error:
                    self.error = self.error or error
            self._state = _Run.ENDED
            self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self._woken = False
        self.arrived.set()

    @property
    def ended(self) -> bool:
        return self._state is _Run.ENDED

    def took(self, count: int) -> None:
        self._room.release(count)

    def stop(self) -> None:
        self._state = _Run.STOPPED
        self._room.release()


async def iterate_in_thread(
    iterable: Iterable[T],
    executor: Executor,
    window: int = WINDOW,
    on_left: Callable[[Future[None]], None] | None = None,
) -> AsyncGenerator[T]:
    """The items of `iterable`, which is iterated in one thread of `executor`, at most `window` items ahead.

    Closing the generator stops the thread after the item that it is at, and closes the iterator there; `on_left`
    is told what the thread still does then. One that still waits for a thread is only closed.
    """
    loop = asyncio.get_running_loop()
    belt = _Belt[T](loop, window)
    context = contextvars.copy_context()
    future = executor.submit(context.run, belt.run, iterable)
    running = asyncio.wrap_future(future)
    try:
        while True:
            belt.arrived.clear()
            while belt.items:
                yield belt.items.popleft()
                belt.took(1)
            if belt.ended and not belt.items:
                break
            await belt.arrived.wait()
        await running
        if belt.error is not None:
            raise belt.error
    finally:
        belt.stop()
        if on_left is not None and not future.done():
            on_left(future)
