"""The body of a large request in a replica, between the runtime's thread, which brings it, and the code that reads it.

A body whose length was announced is gathered into the very bytes that the application gets, if the budget for such
bodies allows it: most applications read all of a body before they do anything, and nothing is copied then. Any other
body is given out in parts, as it comes, and no more than a window of it waits here. Bodies that come together are
gathered one after the other, so that those of many connections are not all held at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Self

from actorrt import Pipe, PipeReceiver, call_pipe

from ..http.request_head import announced_length
from .heap import keep_large_blocks

WINDOW_BYTES: Final = 512 * 1024
# All gathered bodies of a process together.
BUDGET_BYTES: Final = 12 * 1024 * 1024
# A part waits no longer than this for the rest of its body: whoever sends the rest only once it is answered is served.
# Nor does a slow client keep for longer what others wait for.
HOLD_BACK_S: Final = 0.05
# Who has waited for its turn to be gathered for so long gets parts.
PATIENCE_S: Final = 0.2


class _Budget:
    """Bytes that may be gathered at the same time, first come, first served. For the loop that runs user code alone."""

    def __init__(self) -> None:
        self.left = BUDGET_BYTES
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def take(self, size: int, admitted: Callable[[], None]) -> bool:
        """True if it is granted. Else `admitted()` is called once it is, unless `forget` comes first."""
        if size > self.left or self._waiting:
            self._waiting.append((size, admitted))
            return False
        self.left -= size
        return True

    def forget(self, size: int, admitted: Callable[[], None]) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove((size, admitted))
        self.give_back(0)

    def give_back(self, size: int) -> None:
        self.left += size
        while self._waiting and self._waiting[0][0] <= self.left:
            size, admitted = self._waiting.popleft()
            self.left -= size
            admitted()


_budget: Final = _Budget()


class _Gathered:
    """One body of a known length, filled in place."""

    __slots__ = ("_all", "_filled", "_view")

    def __init__(self, length: int) -> None:
        # Not shared with anybody, so that its buffer is the bytes object itself, and `getvalue` gives that.
        self._all = io.BytesIO(bytes(length))
        self._view = self._all.getbuffer()
        self._filled = 0

    def fill(self, data: memoryview) -> None:
        # ValueError where more comes than was announced.
        self._view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def take(self) -> bytes:
        """What has come, once; without a copy if that is all."""
        if self._filled < len(self._view):
            return bytes(self._view[: self._filled])
        self._view.release()
        return self._all.getvalue()


class BodyState(Enum):
    UNASKED = "UNASKED"  # nobody has wanted any of it
    COMES = "COMES"
    ENDED = "ENDED"  # all of it is here
    CLOSED = "CLOSED"  # nobody reads any more


class IncomingBody:
    """The body of the call that runs, by its pipe; `length`: what was announced, None where nothing was.

    Nothing of it is asked for before somebody wants it. Several tasks may wait in `next_part` at once.
    """

    def __init__(self, length: int | None, open_pipe: Callable[[PipeReceiver], Pipe] = call_pipe) -> None:
        self._length = length
        # What is still to come of it, and what the other end was not told yet that there is room for.
        self._left = length
        self._unasked = length
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._gathered: _Gathered | None = None
        # What of the budget it has, and until when it waits for that.
        self._borrowed = 0
        self._turn: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._taken = 0
        self._state = BodyState.UNASKED
        self._waiters: list[asyncio.Future[None]] = []
        self._pipe = open_pipe(self)

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Self:
        """The body of the request whose packed head was split into these lines."""
        return cls(announced_length(lines))

    # ---- the runtime's thread

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        with self._lock:
            if self._state is BodyState.CLOSED:
                return
            if self._left is not None:
                self._left -= len(data)
                last = self._left == 0
            grant = 0
            if self._gathered is not None:
                self._gathered.fill(data)
                grant = self._room_for(len(data))
            elif data:
                self._parts.append(bytes(data))
            if last:
                self._state = BodyState.ENDED
            # A gathered body is told of once, at its end.
            wake = bool(self._waiters) and (self._state is BodyState.ENDED or self._gathered is None)
        if grant:
            pipe.grant(grant)
        if wake:
            self._loop.call_soon_threadsafe(self._wake)

    def _room_for(self, taken: int) -> int:
        """So much has been taken out of the window: what the other end is to be told, in steps of half of it."""
        self._taken += taken
        if self._taken * 2 < WINDOW_BYTES:
            return 0
        grant, self._taken = self._taken, 0
        if self._unasked is not None:
            grant = min(grant, self._unasked)
            self._unasked -= grant
        return grant

    def has_room(self, pipe: Pipe) -> None:
        """Nothing is written here before the end of the request."""

    # ---- the application's loop

    async def next_part(self) -> tuple[bytes, bool] | None:
        """What has come, at least a byte or the end, and whether more will; None if nobody reads any more."""
        if self._state is BodyState.UNASKED:
            self._ask()
        patience: asyncio.TimerHandle | None = None
        try:
            while self._state is not BodyState.CLOSED:
                if patience is not None and self._loop.time() >= patience.when():
                    patience = None
                    self._gather_no_more()
                with self._lock:
                    if self._state is BodyState.ENDED or self._parts:
                        break
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    self._waiters.append(waiter)
                if self._gathered is not None and patience is None:
                    patience = self._loop.call_later(HOLD_BACK_S, self._wake)
                await waiter
        finally:
            if patience is not None:
                patience.cancel()
        return None if self._state is BodyState.CLOSED else self._take()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _ask(self) -> None:
        with self._lock:
            if self._state is not BodyState.UNASKED:
                return
            self._state = BodyState.COMES
        length = self._length
        if length is None or length > BUDGET_BYTES:
            self._begin()
        elif _budget.take(length, self._gather):
            self._gather()
        else:
            self._turn = self._loop.call_later(PATIENCE_S, self._gather_no_more)

    def _gather(self) -> None:
        assert self._length is not None
        keep_large_blocks()
        self._borrowed = self._length
        self._gathered = _Gathered(self._length)
        self._begin()
        # Who waits is not to wait for long.
        self._wake()

    def _begin(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        with self._lock:
            self._taken = WINDOW_BYTES
            grant = self._room_for(0)
        self._pipe.grant(grant)

    def _gather_no_more(self) -> None:
        """It takes too long: what is here, and what comes, is given in parts."""
        if self._turn is not None:
            assert self._length is not None
            _budget.forget(self._length, self._gather)
            self._begin()
            return
        with self._lock:
            gathered, self._gathered = self._gathered, None
            if gathered is not None and (data := gathered.take()):
                # Room for it was given when it came.
                self._parts.append(data)
                self._taken -= len(data)
        self._give_back()

    def _take(self) -> tuple[bytes, bool]:
        with self._lock:
            ended = self._state is BodyState.ENDED
            if self._gathered is not None:
                data = self._gathered.take()
                self._gathered = None
                grant = 0
            else:
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                grant = 0 if ended else self._room_for(len(data))
        self._give_back()
        if grant:
            self._pipe.grant(grant)
        return data, not ended

    def _give_back(self) -> None:
        borrowed, self._borrowed = self._borrowed, 0
        if borrowed:
            _budget.give_back(borrowed)

    def close(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            self._state = BodyState.CLOSED
            self._gathered = None
            self._parts.clear()
        if self._turn is not None and self._length is not None:
            self._turn.cancel()
            self._turn = None
            _budget.forget(self._length, self._gather)
        self._give_back()
        self._wake()
