"""The body of a large request in a replica, between the runtime's thread, which brings it, and the code that reads it.

A body whose length was announced is gathered into the very bytes that the application gets, if the budget for such
bodies allows it: most applications read all of a body before they do anything, and nothing is copied then. Any other
body is given out in parts, as it comes, and no more than a window of it waits here.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Sequence
from typing import Final, Self

from actorrt import Pipe, PipeReceiver, call_pipe

from .request_head import announced_length

WINDOW_BYTES: Final = 512 * 1024
# All gathered bodies of a process together. Who comes when it is used up gets parts.
BUDGET_BYTES: Final = 24 * 1024 * 1024
# A part waits no longer than this for the rest of its body: whoever sends the rest only once it is answered is served.
HOLD_BACK_S: Final = 0.02


class _Budget:
    """Bytes that may be gathered at the same time. Changed by the loop that runs user code alone."""

    def __init__(self) -> None:
        self.left = BUDGET_BYTES


_budget: Final = _Budget()


class _Gathered:
    """One body of a known length, filled in place."""

    __slots__ = ("_all", "_filled", "_given", "_view")

    def __init__(self, length: int) -> None:
        # Not shared with anybody, so that its buffer is the bytes object itself, and `getvalue` gives that.
        self._all = io.BytesIO(bytes(length))
        self._view = self._all.getbuffer()
        self._filled = 0
        self._given = 0

    @property
    def complete(self) -> bool:
        return self._filled == len(self._view)

    def ready(self, late: bool) -> bool:
        """Is it time to give something? All of it, or after a while what is there."""
        return self.complete or (late and self._filled > self._given)

    def fill(self, data: memoryview) -> None:
        # ValueError where more comes than was announced.
        self._view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def take(self) -> bytes:
        """All that was not given yet; without a copy if that is all."""
        given, self._given = self._given, self._filled
        if given or not self.complete:
            return bytes(self._view[given : self._filled])
        self._view.release()
        self._view = memoryview(b"")
        self._filled = self._given = 0
        return self._all.getvalue()


class IncomingBody:
    """The body of the call that runs, by its pipe; `length`: what was announced, None where nothing was.

    Nothing of it is asked for before somebody wants it. Several tasks may wait in `next_part` at once.
    """

    def __init__(self, length: int | None, open_pipe: Callable[[PipeReceiver], Pipe] = call_pipe) -> None:
        self._length = length
        # What is still to come of it.
        self._left = length
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._gathered: _Gathered | None = None
        self._borrowed = 0
        self._parts: list[bytes] = []
        self._taken = 0
        self._ended = False
        self._closed = False
        self._asked = False
        self._waiters: list[asyncio.Future[None]] = []
        self._pipe = open_pipe(self)

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Self:
        """The body of the request whose packed head was split into these lines."""
        return cls(announced_length(lines))

    # ---- the runtime's thread

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        with self._lock:
            if self._closed:
                return
            if self._left is not None:
                self._left -= len(data)
                last = self._left == 0
            gathered = self._gathered
            if gathered is not None:
                gathered.fill(data)
            elif data:
                self._parts.append(bytes(data))
            self._ended = self._ended or last
            # A gathered body is told of once, at its end.
            ready = self._ended or gathered is None
            wake = ready and bool(self._waiters)
        if wake:
            self._loop.call_soon_threadsafe(self._wake)

    def has_room(self, pipe: Pipe) -> None:
        """Nothing is written here before the end of the request."""

    # ---- the application's loop

    async def next_part(self) -> tuple[bytes, bool] | None:
        """What has come, at least a byte or the end, and whether more will; None if nobody reads any more."""
        if not self._asked:
            self._ask()
        patience: asyncio.TimerHandle | None = None
        try:
            while not self._closed:
                with self._lock:
                    gathered = self._gathered
                    late = patience is not None and self._loop.time() >= patience.when()
                    if self._ended or self._parts or (gathered is not None and gathered.ready(late)):
                        break
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    self._waiters.append(waiter)
                if gathered is not None and (patience is None or late):
                    patience = self._loop.call_later(HOLD_BACK_S, self._wake)
                await waiter
        finally:
            if patience is not None:
                patience.cancel()
        return None if self._closed else self._take()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _ask(self) -> None:
        self._asked = True
        length = self._length
        if length is not None and length <= _budget.left:
            _budget.left -= length
            self._borrowed = length
            self._gathered = _Gathered(length)
            self._pipe.grant(length)
        else:
            self._pipe.grant(WINDOW_BYTES)

    def _take(self) -> tuple[bytes, bool]:
        with self._lock:
            gathered = self._gathered
            if gathered is not None:
                complete = gathered.complete
                data = gathered.take()
                if complete:
                    self._ended = True
                    self._gathered = None
                    self._give_back()
                return data, not self._ended
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._taken += len(data)
            grant = self._taken if self._taken * 2 >= WINDOW_BYTES and not self._ended else 0
            self._taken -= grant
            ended = self._ended
        if grant:
            self._pipe.grant(grant)
        return data, not ended

    def _give_back(self) -> None:
        _budget.left += self._borrowed
        self._borrowed = 0

    def close(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            self._closed = True
            self._gathered = None
            self._parts.clear()
            self._give_back()
        self._wake()
