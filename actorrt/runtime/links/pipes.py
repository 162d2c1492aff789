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
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from actorrt.wire.frames import LAST, TO_CALLER, TRAILER, raw_head
from actorrt.wire.link import Ending
from actorrt.wire.messages import AnyMessage, Room

logger = logging.getLogger("actorrt")

# What the caller's end takes without having been asked.
FIRST_ROOM: Final = 512 * 1024
# A little more than a power of two, so that a body of such a size and its head are no piece more.
PIECE: Final = 260 * 1024
# The rest of what was written goes with the piece before it if it is so small: the end of a body is not worth a frame
# of its own, or the wait for more room.
_REST: Final = 4 * 1024
# A piece is written by one system call, which takes only so many buffers.
_MOST_BUFFERS: Final = 256


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


class _Writing(Enum):
    """What may still be written."""

    OPEN = "anything"
    LAST = "nothing more: the last bytes are here and have not gone"
    CLOSED = "nothing: the call has ended"


# Bound here, since looking up a member of an Enum takes long.
_OPEN: Final = _Writing.OPEN
_LAST: Final = _Writing.LAST
_CLOSED: Final = _Writing.CLOSED


class Frame(NamedTuple):
    """A frame in pieces, as one system call writes them."""

    buffers: list[bytes]
    size: int


class Pipe:
    """One end of the pipe of a call. It ends with the call."""

    __slots__ = (
        "_find_turns",
        "_flags",
        "_gathered",
        "_lock",
        "_pending",
        "_queued",
        "_receiver",
        "_room",
        "_seq",
        "_size",
        "_stuck",
        "_taken",
        "_turns",
        "_waiters",
        "_with_reply",
        "_with_turns",
        "_writing",
        "link",
    )

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
        self.link = link
        self._find_turns = find_turns
        self._seq = seq
        self._receiver = receiver
        self._flags = flags
        self._lock = threading.Lock()
        # What was written and is not sent yet.
        self._pending: deque[memoryview] = deque()
        self._size = 0
        # What was written with its turn, by the method's thread alone, and is not among that yet; how many bytes were
        # written so in all, and how many of them were taken from here.
        self._gathered: deque[bytes] = deque()
        self._with_turns = self._taken = 0
        self._turns: Turns | None = None
        self._room = room
        self._writing = _OPEN
        # It waits for its turn at the link.
        self._queued = False
        # Something was left by the last write: who writes is told when all of it has gone.
        self._stuck = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        # A frame that the reply of the call takes along.
        self._with_reply: Frame | None = None

    # ---- writing, from any thread

    def room(self) -> int:
        """So many bytes may be written now. After 0, the receiver's `has_room` is called once that has changed."""
        if self._pending:
            return 0
        if self._room > 0 and self.link.congested:
            self.link.tell_of_room(self)
            return 0
        return self._room

    def write(self, *parts: bytes | memoryview, last: bool = False) -> None:
        """Send bytes as soon as the other end has room for them. Those in memory that may change are copied.

        `last`: nothing comes behind them.
        """
        with self._lock:
            if self._writing is _CLOSED:
                return
            self._take_gathered()
            for part in parts:
                if size := len(part):
                    self._pending.append(_lasting(part))
                    self._size += size
            if last:
                self._writing = _LAST
            queue = self._takes_a_turn()
        if queue:
            self.link.push_pipe(self)
            self.link.flush()
        with self._lock:
            self._stuck = bool(self._pending)

    def write_with_turn(self, data: bytes) -> None:
        """The same for a little that comes often: it leaves at the end of this turn of the method's loop, or with what
        is written in the next few, in one write with what other calls have then. On the thread of that loop; no other
        one may write to this pipe then.
        """
        if self._writing is _CLOSED or not data:
            return
        turns = self._turns
        if turns is None:
            turns = self._turns = None if self._find_turns is None else self._find_turns()
            if turns is None:
                self.write(data)
                return
        gathered = self._gathered
        gathered.append(data)
        self._with_turns += len(data)
        if self._with_turns - self._taken < PIECE:
            turns.wrote(self if len(gathered) == 1 else None)
        else:
            self.bring()
            self.link.flush()

    def bring(self) -> None:
        """Have what was written with its turn sent by the next flush of the link; from any thread."""
        with self._lock:
            self._take_gathered()
            if self._writing is not _CLOSED and self._takes_a_turn():
                self.link.push_pipe(self)

    def _take_gathered(self) -> None:
        gathered = self._gathered
        if not gathered:
            return
        parts = [gathered.popleft() for _ in range(len(gathered))]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._taken += len(data)
        self._pending.append(memoryview(data))
        self._size += len(data)

    @property
    def held(self) -> int:
        """Bytes that were written and are not on their way."""
        return self._size + self._with_turns - self._taken

    def write_with_reply(self, *parts: bytes) -> bool:
        """Have the last bytes leave with the reply of the call, in one write, behind what was written before and has
        not gone; for the method's end.

        False, and nothing is sent, if there are none or they are more than a piece. They are lost if the method raises,
        or returns anything but a small plain value.
        """
        with self._lock:
            self._take_gathered()
            size = self._size + sum(map(len, parts))
            if self._writing is _CLOSED or self._with_reply is not None or not 0 < size <= min(PIECE, self._room):
                return False
            if self._pending:
                parts = (b"".join(self._pending), *parts)
                self._pending.clear()
                self._size = 0
            self._room -= size
            head = raw_head(self._seq, self._flags | LAST, size)
            self._with_reply = Frame(_in_few([head, *parts, TRAILER], size), len(head) + size + len(TRAILER))
        return True

    async def drained(self) -> None:
        """Return when all that was written is on its way: what this call sends from then on comes after it."""
        self.bring()
        while True:
            with self._lock:
                if self._writing is _CLOSED or not self._pending:
                    return
                loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.append((loop, waiter))
            await waiter

    def _takes_a_turn(self) -> bool:
        # An end without bytes needs no room.
        takes = not self._queued and (self._room > 0 if self._pending else self._writing is _LAST)
        self._queued = self._queued or takes
        return takes

    def next_piece(self) -> tuple[list[bytes | memoryview], int, bool]:
        """For the link: the buffers of one frame, their length, and whether another one could follow."""
        with self._lock:
            pending = self._pending
            most = min(PIECE, self._room)
            if most < self._size <= most + _REST:
                most = self._size
            size = 0
            buffers: list[bytes | memoryview] = [b""]
            while pending and size < most and len(buffers) < _MOST_BUFFERS:
                part = pending.popleft()
                if size + len(part) > most:
                    pending.appendleft(part[most - size :])
                    part = part[: most - size]
                buffers.append(part)
                size += len(part)
            self._room -= size
            self._size -= size
            last = self._writing is _LAST and not pending
            if last:
                self._writing = _OPEN
            self._queued = bool(pending) and self._room > 0
            if not size and not last:
                return [], 0, False
            buffers[0] = head = raw_head(self._seq, self._flags | LAST if last else self._flags, size)
            buffers.append(TRAILER)
            return _in_few(buffers, size), len(head) + size + len(TRAILER), self._queued

    def sent(self) -> None:
        """For the link: what it took last has gone, or goes before all else."""
        with self._lock:
            if self._pending:
                return
            stuck, self._stuck = self._stuck, False
            if not self._waiters and not stuck:
                return
            waiters, self._waiters = self._waiters, []
        _wake(waiters)
        if stuck and self._receiver is not None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed
                self.link.loop.call_soon_threadsafe(self._tell_of_room)

    # ---- reading

    def grant(self, count: int) -> None:
        """This end has room for so many more bytes; from any thread."""
        if self._writing is _CLOSED or self.link.closed:
            return
        message = Room(self._seq, count, not self._flags & TO_CALLER)
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
            self._room += count
            queue = self._takes_a_turn()
            idle = not self._pending
        if queue:
            self.link.push_pipe(self)
            self.link.flush()
        elif idle:
            self._tell_of_room()

    def arrived(self, data: memoryview, last: bool) -> None:
        if self._receiver is not None and self._writing is not _CLOSED:
            try:
                self._receiver.arrived(self, data, last)
            except Exception:
                logger.exception("bytes beside a call could not be taken")

    def _tell_of_room(self) -> None:
        if self._receiver is not None and self._writing is not _CLOSED:
            try:
                self._receiver.has_room(self)
            except Exception:
                logger.exception("room for bytes beside a call could not be used")

    def for_link(self, link: PipeLink) -> Pipe:
        """The caller's end where the call was sent again, over another link: what the first one had is void."""
        return self if self.link is link else Pipe(link, self._seq, self._receiver, self._flags, 0)

    def close(self) -> Frame | None:
        """The call has ended. Gives the frame that its reply takes along."""
        with self._lock:
            # What was written and not sent is cut off, and must not look whole.
            self._writing = _CLOSED
            with_reply, self._with_reply = self._with_reply, None
            self._pending.clear()
            self._size = 0
            self._gathered.clear()
            self._taken = self._with_turns
            waiters, self._waiters = self._waiters, []
        if self._flags & TO_CALLER:
            self.link.pipes.pop(self._seq, None)
        _wake(waiters)
        return with_reply


def caller_end(call: Any, link: PipeLink) -> Pipe | None:
    """The caller's end of the pipe of a call that is under way on this link, made when it is first needed."""
    found = getattr(call, "pipe", None)
    if found is None:
        return None
    call.pipe = pipe = found.for_link(link) if type(found) is Pipe else Pipe(link, call.message.seq, found, 0, 0)
    return pipe


def _lasting(part: bytes | memoryview) -> memoryview:
    """The same bytes in memory that does not change: the link keeps them until the other end has them."""
    view = memoryview(part)
    return view if type(view.obj) is bytes else memoryview(bytes(view))


def _on_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _in_few(buffers: list[Any], size: int) -> list[Any]:
    """A small frame in one buffer: it takes the place of one in a system call, and the copy is cheaper."""
    return [b"".join(buffers)] if size <= _REST else buffers


def _wake(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, waiter in waiters:
        with contextlib.suppress(RuntimeError):  # a loop that is closed
            loop.call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
