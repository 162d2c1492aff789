"""One end of the pipe of a call: what may be written, in which pieces it leaves, and who is told. Nothing here waits.

An end has room for so many bytes as the other end has granted. What is written beyond that waits here; what there is
room for leaves in pieces, each of them one frame, when the link gives this end its turn. For one thread at a time; what
is written with a turn of the method's loop is gathered by its thread alone.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, Final, NamedTuple

from .frames import LAST, TRAILER, raw_head

# A little more than a power of two, so that a body of such a size and its head are no piece more.
PIECE: Final = 260 * 1024
# The rest of what was written goes with the piece before it if it is so small: the end of a body is not worth a frame
# of its own, or the wait for more room.
_REST: Final = 4 * 1024
# A piece is written by one system call, which takes only so many buffers.
_MOST_BUFFERS: Final = 256


class Writing(enum.Enum):
    """What may still be written."""

    OPEN = "anything"
    LAST = "nothing more: the last bytes are here and have not gone"
    CLOSED = "nothing: the call has ended"


# Bound here, since looking up a member of an Enum takes long.
_OPEN: Final = Writing.OPEN
_LAST: Final = Writing.LAST
_CLOSED: Final = Writing.CLOSED


class Frame(NamedTuple):
    """A frame in pieces, as one system call writes them."""

    buffers: list[bytes]
    size: int


class Tells(enum.Enum):
    """Who has to hear that all that was written has gone."""

    NOBODY = "nobody"
    WAITERS = "those that wait for it"
    WRITER = "those, and who writes: nothing could be written before"


class PipeEnd:
    """What one end has and may send."""

    __slots__ = (
        "_gathered",
        "_pending",
        "_queued",
        "_room",
        "_size",
        "_stuck",
        "_taken",
        "_with_reply",
        "_with_turns",
        "_writing",
        "flags",
        "seq",
    )

    def __init__(self, seq: int, flags: int, room: int) -> None:
        """`seq`: the number of the call. `flags`: TO_CALLER for the method's end."""
        self.seq = seq
        self.flags = flags
        # What was written and is not sent yet.
        self._pending: deque[memoryview] = deque()
        self._size = 0
        # What was written with its turn, by the method's thread alone, and is not among that yet; how many bytes were
        # written so in all, and how many of them were taken from here.
        self._gathered: deque[bytes] = deque()
        self._with_turns = self._taken = 0
        self._room = room
        self._writing = _OPEN
        # It waits for its turn at the link.
        self._queued = False
        # Something was left by the last write: who writes is told when all of it has gone.
        self._stuck = False
        # A frame that the reply of the call takes along.
        self._with_reply: Frame | None = None

    @property
    def is_closed(self) -> bool:
        """The call has ended."""
        return self._writing is _CLOSED

    # ---- writing

    @property
    def free(self) -> int:
        """So many bytes may be written now, as far as the other end is concerned."""
        return 0 if self._pending else self._room

    @property
    def held(self) -> int:
        """Bytes that were written and are not on their way."""
        return self._size + self._with_turns - self._taken

    def add(self, parts: tuple[bytes | memoryview, ...], last: bool) -> bool:
        """Bytes are written, and nothing behind them if they are the `last`. True if it is to have a turn now."""
        if self._writing is _CLOSED:
            return False
        self.take_gathered()
        for part in parts:
            if size := len(part):
                self._pending.append(_lasting(part))
                self._size += size
        if last:
            self._writing = _LAST
        return self._takes_a_turn()

    def written(self) -> None:
        """What could leave of the last write has left."""
        self._stuck = bool(self._pending)

    def gather(self, data: bytes) -> tuple[bool, bool]:
        """A little is written with its turn: whether it is so much that it leaves at once, else whether it is the first
        since the last turn."""
        gathered = self._gathered
        gathered.append(data)
        self._with_turns += len(data)
        return self._with_turns - self._taken >= PIECE, len(gathered) == 1

    def turn(self) -> bool:
        """The turn of its loop is over: what was gathered leaves. True if it is to have a turn now."""
        self.take_gathered()
        return self._writing is not _CLOSED and self._takes_a_turn()

    def take_gathered(self) -> None:
        gathered = self._gathered
        if not gathered:
            return
        parts = [gathered.popleft() for _ in range(len(gathered))]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._taken += len(data)
        self._pending.append(memoryview(data))
        self._size += len(data)

    def keep_for_reply(self, parts: tuple[bytes, ...]) -> bool:
        """Keep the last bytes, behind what waits, for the frame that the reply takes along. False: they cannot be."""
        self.take_gathered()
        size = self._size + sum(map(len, parts))
        if self._writing is _CLOSED or self._with_reply is not None or not 0 < size <= min(PIECE, self._room):
            return False
        if self._pending:
            parts = (b"".join(self._pending), *parts)
            self._pending.clear()
            self._size = 0
        self._room -= size
        head = raw_head(self.seq, self.flags | LAST, size)
        self._with_reply = Frame(_in_few([head, *parts, TRAILER], size), len(head) + size + len(TRAILER))
        return True

    @property
    def drains(self) -> bool:
        """Something that was written is not on its way, and will be."""
        return self._writing is not _CLOSED and bool(self._pending)

    # ---- its turns at the link

    def _takes_a_turn(self) -> bool:
        # An end without bytes needs no room.
        takes = not self._queued and (self._room > 0 if self._pending else self._writing is _LAST)
        self._queued = self._queued or takes
        return takes

    def take_piece(self) -> tuple[list[bytes | memoryview], int, bool]:
        """The buffers of one frame, their length, and whether another one could follow."""
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
        buffers[0] = head = raw_head(self.seq, self.flags | LAST if last else self.flags, size)
        buffers.append(TRAILER)
        return _in_few(buffers, size), len(head) + size + len(TRAILER), self._queued

    def gone(self, awaited: bool) -> Tells:
        """What was taken last has gone, or goes before all else; `awaited`: somebody waits for that."""
        if self._pending:
            return Tells.NOBODY
        stuck, self._stuck = self._stuck, False
        return Tells.WRITER if stuck else Tells.WAITERS if awaited else Tells.NOBODY

    def has_more_room(self, count: int) -> tuple[bool, bool]:
        """The other end has room for more: whether this end is to have a turn, else whether it is told of the room."""
        self._room += count
        queue = self._takes_a_turn()
        return queue, not queue and not self._pending

    # ---- the end

    def cut_off(self) -> Frame | None:
        """The call has ended. Gives the frame that its reply takes along."""
        # What was written and not sent is cut off, and must not look whole.
        self._writing = _CLOSED
        with_reply, self._with_reply = self._with_reply, None
        self._pending.clear()
        self._size = 0
        self._gathered.clear()
        self._taken = self._with_turns
        return with_reply


def _lasting(part: bytes | memoryview) -> memoryview:
    """The same bytes in memory that does not change: the link keeps them until the other end has them."""
    view = memoryview(part)
    return view if type(view.obj) is bytes else memoryview(bytes(view))


def _in_few(buffers: list[Any], size: int) -> list[Any]:
    """A small frame in one buffer: it takes the place of one in a system call, and the copy is cheaper."""
    return [b"".join(buffers)] if size <= _REST else buffers
