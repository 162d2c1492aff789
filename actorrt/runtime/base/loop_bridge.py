"""What other threads have due on a loop: run there with one wake-up for all of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

logger = logging.getLogger("actorrt")

CALLBACK_RAISED: Final = "a callback of a ref raised an error"
# An error of a callback. That it looked at a future that was cancelled is one too; code that leaves has made none.
CALLBACK_ERRORS: Final = (Exception, asyncio.CancelledError)
_running_loop: Final = asyncio._get_running_loop


class LoopBridge:
    """Completes futures of a loop from other threads, with one wake-up for all that are due."""

    __slots__ = ("_due", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[Callable[[], object]] = deque()
        self._woken = False

    def call(self, callback: Callable[[], object], _: object = None) -> None:
        self._due.append(callback)
        if not self._woken:
            self._woken = True
            try:
                # Asked each time, since a loop may be run by one thread after the other.
                if _running_loop() is self._loop:
                    self._loop.call_soon(self._run)
                else:
                    self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:
                # The loop is closed: what is due is done here.
                self._run()
        elif self._loop.is_closed():
            # It was closed before it came to what was due.
            self._run()

    def complete(self, future: asyncio.Future[None], _: object = None) -> None:
        if _running_loop() is self._loop:
            # Who waits for it goes on in a turn of its own.
            complete(future)
        else:
            self.call(partial(complete, future))

    def _run(self) -> None:
        self._woken = False
        due = self._due
        try:
            while due:
                try:
                    callback = due.popleft()
                except IndexError:
                    return
                call_safely(callback)
        finally:
            if due and not self._woken and not self._loop.is_closed():
                # A callback has left its actor or the program: what is behind it has a turn of its own.
                self._woken = True
                self._loop.call_soon(self._run)


def call_safely(callback: Callable[[], object]) -> None:
    """Call what a user wrote where an error of his must not keep others from being told."""
    try:
        callback()
    except CALLBACK_ERRORS:
        logger.exception(CALLBACK_RAISED)


def complete(future: asyncio.Future[None]) -> None:
    # A future of a loop that is closed has nobody left who waits.
    if not future.done() and not future.get_loop().is_closed():
        future.set_result(None)


_bridges: dict[asyncio.AbstractEventLoop, LoopBridge] = {}


def bridge_to(loop: asyncio.AbstractEventLoop) -> LoopBridge:
    bridge = _bridges.get(loop)
    if bridge is None:
        # A program may use one loop after the other.
        for other in list(_bridges):
            if other.is_closed():
                _bridges.pop(other, None)
        bridge = _bridges.setdefault(loop, LoopBridge(loop))
    return bridge
