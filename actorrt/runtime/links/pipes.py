"""The pipe of a call: bytes beside its arguments and its result, in both directions, as they are and without copies.

A call has one if its caller gave a receiver (`handle.method.remote_piped(receiver, ...)`) and its method asks for the
other end (`actorrt.call_pipe`). Each end says how many bytes it has room for; the caller's has FIRST_ROOM from the
start. Bytes leave in pieces, turn about with the pipes of other calls, and any message goes before them: who returns
while something is not sent yet overtakes it, so that `drained` is awaited first. What fits in one piece may leave with
the reply, in one write, which wakes the other end once (`write_with_reply`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from actorrt.wire.frames import TO_CALLER
from actorrt.wire.link import Ending
from actorrt.wire.messages import AnyMessage, Room
from actorrt.wire.pipe_end import Frame, PipeEnd, Tells

logger = logging.getLogger("actorrt")

# What the caller's end takes without having been asked.
FIRST_ROOM: Final = 512 * 1024


class PipeReceiver(Protocol):
    """What an end of a pipe tells. Both methods run on the runtime's own thread and must not wait."""

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        """Bytes have come: `data` is good until this returns. `last`: none come behind them."""

    def has_room(self, pipe: Pipe) -> None:
        """More may be written, after nothing could be."""


class PipeLink(Protocol):
    """What a pipe asks of the link that it is part of."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def closed(self) -> Ending | None: ...
    @property
    def congested(self) -> bool: ...
    @property
    def pipes(self) -> dict[int, Pipe]: ...

    def push_pipe(self, pipe: Pipe) -> None: ...
    def tell_of_room(self, pipe: Pipe) -> None: ...
    def push(self, message: AnyMessage) -> None: ...
    def send(self, message: AnyMessage) -> None: ...
    def flush(self) -> None: ...


class Turns(Protocol):
    """Where a pipe says that it has a little to send with the turn of its loop."""

    def wrote(self, pipe: Pipe | None) -> None: ...


class Pipe(PipeEnd):
    """One end of the pipe of a call, with its lock and its link. It ends with the call."""

    __slots__ = ("_find_turns", "_lock", "_receiver", "_turns", "_waiters", "link")

    def __init__(
        self,
        link: PipeLink,
        seq: int,
        receiver: PipeReceiver | None,
        flags: int,
        room: int,
        find_turns: Callable[[], Turns | None] | None = None,
    ) -> None:
        """`find_turns` gives the turns of the loop on whose thread it is called, if that has such."""
        super().__init__(seq, flags, room)
        self.link = link
        self._find_turns = find_turns
        self._receiver = receiver
        self._lock = threading.Lock()
        self._turns: Turns | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    # ---- writing, from any thread

    def room(self) -> int:
        """So many bytes may be written now. After 0, the receiver's `has_room` is called once that has changed."""
        free = self.free
        if free > 0 and self.link.congested:
            self.link.tell_of_room(self)
            return 0
        return free

    def write(self, *parts: bytes | memoryview, last: bool = False) -> None:
        """Send bytes as soon as the other end has room for them. Those in memory that may change are copied.

        `last`: nothing comes behind them.
        """
        with self._lock:
            queue = self.add(parts, last)
        if queue:
            self.link.push_pipe(self)
            self.link.flush()
        with self._lock:
            self.written()

    def write_with_turn(self, data: bytes) -> None:
        """The same for a little that comes often: it leaves at the end of this turn of the method's loop, or with what
        is written in the next few, in one write with what other calls have then. On the thread of that loop; no other
        one may write to this pipe then.
        """
        if self.is_closed or not data:
            return
        turns = self._turns
        if turns is None:
            turns = self._turns = None if self._find_turns is None else self._find_turns()
            if turns is None:
                self.write(data)
                return
        much, first = self.gather(data)
        if much:
            self.bring()
            self.link.flush()
        else:
            turns.wrote(self if first else None)

    def bring(self) -> None:
        """Have what was written with its turn sent by the next flush of the link; from any thread."""
        with self._lock:
            if self.turn():
                self.link.push_pipe(self)

    def write_with_reply(self, *parts: bytes) -> bool:
        """Have the last bytes leave with the reply of the call, in one write, behind what was written before and has
        not gone; for the method's end.

        False, and nothing is sent, if there are none or they are more than a piece. They are lost if the method raises,
        or returns anything but a small plain value.
        """
        with self._lock:
            return self.keep_for_reply(parts)

    async def drained(self) -> None:
        """Return when all that was written is on its way: what this call sends from then on comes after it."""
        self.bring()
        while True:
            with self._lock:
                if not self.drains:
                    return
                loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            await waiter

    def next_piece(self) -> tuple[list[bytes | memoryview], int, bool]:
        """For the link: the buffers of one frame, their length, and whether another one could follow."""
        with self._lock:
            return self.take_piece()

    def sent(self) -> None:
        """For the link: what it took last has gone, or goes before all else."""
        with self._lock:
            tells = self.gone(bool(self._waiters))
            if tells is Tells.NOBODY:
                return
            waiters, self._waiters = self._waiters, []
        _wake(waiters)
        if tells is Tells.WRITER and self._receiver is not None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed
                self.link.loop.call_soon_threadsafe(self._tell_of_room)

    # ---- reading

    def grant(self, count: int) -> None:
        """This end has room for so many more bytes; from any thread."""
        if self.is_closed or self.link.closed:
            return
        message = Room(self.seq, count, not self.flags & TO_CALLER)
        if _on_loop(self.link.loop):
            self.link.send(message)
        else:
            self.link.push(message)
            self.link.flush()

    # ---- what the link brings; runtime loop

    def link_is_free(self) -> None:
        """The link takes bytes again."""
        self._tell_of_room()

    def granted(self, count: int) -> None:
        with self._lock:
            queue, told = self.has_more_room(count)
        if queue:
            self.link.push_pipe(self)
            self.link.flush()
        elif told:
            self._tell_of_room()

    def arrived(self, data: memoryview, last: bool) -> None:
        if self._receiver is not None and not self.is_closed:
            try:
                self._receiver.arrived(self, data, last)
            except Exception:
                logger.exception("bytes beside a call could not be taken")

    def _tell_of_room(self) -> None:
        if self._receiver is not None and not self.is_closed:
            try:
                self._receiver.has_room(self)
            except Exception:
                logger.exception("room for bytes beside a call could not be used")

    def for_link(self, link: PipeLink) -> Pipe:
        """The caller's end where the call was sent again, over another link: what the first one had is void."""
        return self if self.link is link else Pipe(link, self.seq, self._receiver, self.flags, 0)

    def close(self) -> Frame | None:
        """The call has ended. Gives the frame that its reply takes along."""
        with self._lock:
            with_reply = self.cut_off()
            waiters, self._waiters = self._waiters, []
        if self.flags & TO_CALLER:
            self.link.pipes.pop(self.seq, None)
        _wake(waiters)
        return with_reply


def caller_end(call: Any, link: PipeLink) -> Pipe | None:
    """The caller's end of the pipe of a call that is under way on this link, made when it is first needed."""
    found = getattr(call, "pipe", None)
    if found is None:
        return None
    call.pipe = pipe = found.for_link(link) if type(found) is Pipe else Pipe(link, call.message.seq, found, 0, 0)
    return pipe


def _on_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _wake(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, waiter in waiters:
        with contextlib.suppress(RuntimeError):  # a loop that is closed
            loop.call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
