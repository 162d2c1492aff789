"""Fill segments of shared memory with objects, and keep those that are warm for the next ones.

Making pages is nearly the whole cost of a large put: memory that is mapped, with its pages there, takes bytes in at
the speed of memcpy, fresh memory at a fifth of it. So a segment is *kept* after it was handed to the node: when nobody
wants its object any more, the node gives it back and the next object of that size goes there. New segments of 2 MiB
and more are made of huge pages, which costs half as much again as a copy; where the kernel does not do that, and for
smaller ones, `pwrite` fills them, which turns a full memory into an error rather than a signal.

    take or create --> fill --> (Seal is sent) --> adopted --> returned --> take ...
                                                           \\-> recalled: let go of

The calls may come from any thread; none waits for a peer. Which objects live how long is for others to decide.
"""

from __future__ import annotations

import bisect
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from actorrt.exceptions import ObjectStoreFullError
from actorrt.wire.container import pack_header, plan

from .mapping import HUGE_PAGE, WritableMapping
from .segments import Location

# Each kept segment costs a descriptor here and one in the node.
KEEP: Final = 256
# A segment is used for an object that leaves at most this part of it unused, or these few bytes.
_SPARE_PART: Final = 4
_SPARE_BYTES: Final = 64 << 10
# From here on the part that a last huge page leaves unused is small.
_WHOLE_HUGE_PAGES: Final = 8 * HUGE_PAGE
# One write is no longer than this, so that a signal is served meanwhile.
_WRITE_CHUNK: Final = 256 << 20

# Not in Python's os module yet: forbids to execute it, as hardened systems ask for. Linux 6.3.
_MFD_NOEXEC_SEAL: Final = 0x8
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class State(Enum):
    """What this process knows about one of its segments."""

    FILLING = auto()
    # Filled; the node has been told and may not have its own descriptor yet.
    SEALED = auto()
    ADOPTED = auto()
    POOLED = auto()
    CLOSED = auto()


class Segment:
    """A segment that this process created: `size` bytes of memory, whichever object is in it."""

    __slots__ = ("fd", "is_new", "kept", "mapping", "recalled", "serial", "size", "state")

    def __init__(self, serial: int, fd: int, size: int) -> None:
        self.serial = serial
        self.fd = fd
        self.size = size
        self.mapping: WritableMapping | None = None
        self.state = State.FILLING
        self.is_new = True
        self.kept = True
        self.recalled = False


class Sealed(NamedTuple):
    """What the node has to be told: a segment of `size` bytes holds `length` bytes of an object.

    `fd` and `inode` say what it takes over, if the segment is new to it. `kept`: this process holds on to it.
    """

    serial: int
    size: int
    length: int
    kept: bool
    fd: int
    inode: int


def size_for(length: int) -> int:
    """The memory that a new segment for so many bytes takes: what has to be reserved."""
    unit = HUGE_PAGE if length >= _WHOLE_HUGE_PAGES else mmap.PAGESIZE
    return -(-length // unit) * unit


class SegmentWriter:
    """The segments that this process created and still holds. `limit` is the node's, for the text of errors."""

    def __init__(self, limit: int, *, keep: int = KEEP) -> None:
        self._limit = limit
        self._keep = keep
        self._lock = threading.Lock()
        self._closed = False
        self._serial = 0
        # In the order in which they were filled last.
        self._held: dict[int, Segment] = {}
        self._pool: list[tuple[int, int]] = []

    # -- from the thread that puts

    def take(self, length: int) -> Segment | None:
        """A segment of the pool that suits `length` bytes, for the caller to fill; it needs no reservation."""
        most = max(length + length // _SPARE_PART, length + _SPARE_BYTES)
        with self._lock:
            place = bisect.bisect_left(self._pool, (length, 0))
            if place == len(self._pool) or self._pool[place][0] > most:
                return None
            segment = self._held[self._pool.pop(place)[1]]
            segment.state = State.FILLING
            return segment

    def create(self, length: int) -> Segment:
        """A new segment for `length` bytes, for the caller to fill. Raises ObjectStoreFullError."""
        size = size_for(length)
        try:
            fd = _memfd(size)
        except OSError as error:
            raise self._full(length, error) from error
        with self._lock:
            self._serial += 1
            segment = self._held[self._serial] = Segment(self._serial, fd, size)
        return segment

    def fill(self, segment: Segment, data: bytes | memoryview, buffers: Sequence[memoryview]) -> Sealed:
        """Write an object: the pickle alone if it has no buffers, else a container (see wire/container.py).

        Raises ObjectStoreFullError; the segment has been given back then. The node is to be told of what is returned,
        and then `adopted` or `refused` to be called.
        """
        parts, length = _parts(data, buffers)
        try:
            self._write(segment, parts)
            inode = os.fstat(segment.fd).st_ino
        except BaseException as error:
            self.abandon(segment)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise self._full(length, error) from error
            raise
        with self._lock:
            segment.state = State.SEALED
            segment.kept = not segment.recalled and not self._closed
            del self._held[segment.serial]
            self._held[segment.serial] = segment
            return Sealed(segment.serial, segment.size, length, segment.kept, segment.fd, inode)

    def abandon(self, segment: Segment) -> list[int]:
        """Nothing was put into a segment that was taken or created. Like all below, says what was let go of."""
        with self._lock:
            if segment.is_new:
                self._let_go(segment)
                return []
            return self._pooled(segment)

    # -- as the node answers; each returns the serials of segments that the node is to be told were let go of

    def adopted(self, serial: int) -> list[int]:
        """The node has its own descriptor of a segment that was sealed."""
        with self._lock:
            segment = self._held.get(serial)
            if segment is None or segment.state is not State.SEALED:
                return []
            segment.state = State.ADOPTED
            segment.is_new = False
            if not segment.kept:
                self._let_go(segment)
                return []
            if segment.recalled:
                self._let_go(segment)
                return [serial]
            return self._let_go_of_surplus()

    def refused(self, serial: int) -> None:
        """The node did not take a segment that was sealed; what was put into it is lost."""
        with self._lock:
            segment = self._held.get(serial)
            if segment is not None and segment.state is State.SEALED:
                self._let_go(segment)

    def returned(self, serial: int) -> list[int]:
        """Nobody uses the object in a segment any more."""
        with self._lock:
            segment = self._held.get(serial)
            # It may have been let go of meanwhile.
            if segment is None or segment.state is not State.ADOPTED:
                return []
            return self._pooled(segment)

    def recalled(self, serial: int) -> list[int]:
        """The node needs the memory. What is being filled or not adopted yet is let go of afterwards."""
        with self._lock:
            segment = self._held.get(serial)
            if segment is None:
                return []
            segment.recalled = True
            if segment.state in (State.FILLING, State.SEALED):
                return []
            self._let_go(segment)
            return [serial]

    def locate(self, serial: int, length: int) -> Location | None:
        """Where this process itself may read a segment that it still holds, without asking the node where it is.

        The node has to be told of the reader before the owner can free the object: see `Ledger.opened`.
        """
        with self._lock:
            segment = self._held.get(serial)
            if segment is None or segment.state is State.FILLING:
                return None
            return Location(f"/proc/self/fd/{segment.fd}", os.fstat(segment.fd).st_ino, length)

    def close(self) -> None:
        """Give everything back. What is being filled in another thread goes when that is done."""
        with self._lock:
            self._closed = True
            for segment in tuple(self._held.values()):
                if segment.state is not State.FILLING:
                    self._let_go(segment)

    def statistics(self) -> dict[str, int]:
        """Segments and bytes that are held, and how many of these are free to be filled."""
        with self._lock:
            return {
                "segments": len(self._held),
                "bytes": sum(segment.size for segment in self._held.values()),
                "pooled": len(self._pool),
                "pooled_bytes": sum(size for size, _ in self._pool),
            }

    # -- with the lock held

    def _pooled(self, segment: Segment) -> list[int]:
        if segment.recalled or self._closed:
            self._let_go(segment)
            return [segment.serial]
        segment.state = State.POOLED
        bisect.insort(self._pool, (segment.size, segment.serial))
        return []

    def _let_go_of_surplus(self) -> list[int]:
        """The oldest go first; those in the pool before those with an object, which may be back soon."""
        gone: list[int] = []
        while len(self._held) - len(gone) > self._keep:
            able = (
                segment
                for state in (State.POOLED, State.ADOPTED)
                for segment in self._held.values()
                if segment.state is state
            )
            segment = next(able, None)
            if segment is None:
                break
            self._let_go(segment)
            gone.append(segment.serial)
        return gone

    def _let_go(self, segment: Segment) -> None:
        if segment.state is State.POOLED:
            self._pool.remove((segment.size, segment.serial))
        segment.state = State.CLOSED
        del self._held[segment.serial]
        if segment.mapping is not None:
            segment.mapping.close()
        os.close(segment.fd)

    # -- without it

    def _write(self, segment: Segment, parts: list[tuple[int, memoryview]]) -> None:
        mapping = segment.mapping
        if mapping is None:
            mapping = _map(segment)
        if mapping is None:
            for offset, part in parts:
                _pwrite(segment.fd, offset, part)
            return
        segment.mapping = mapping
        for offset, part in parts:
            mapping.write(offset, part)

    def _full(self, length: int, error: OSError) -> ObjectStoreFullError:
        return ObjectStoreFullError(length, self._limit, error.strerror or str(error))


def _parts(data: bytes | memoryview, buffers: Sequence[memoryview]) -> tuple[list[tuple[int, memoryview]], int]:
    whole = memoryview(data)
    if not buffers:
        return [(0, whole)], whole.nbytes
    sizes = [buffer.nbytes for buffer in buffers]
    layout = plan(whole.nbytes, sizes)
    parts = [(0, memoryview(pack_header(whole.nbytes, sizes))), (layout.data_offset, whole)]
    parts += [(start, buffer) for start, buffer in zip(layout.offsets, buffers, strict=True) if buffer.nbytes]
    return parts, layout.total


def _map(segment: Segment) -> WritableMapping | None:
    """A mapping whose pages are all there, if it is worth while; else the segment is written by `pwrite`."""
    if segment.is_new:
        if segment.size < HUGE_PAGE:
            return None
        mapping = WritableMapping(segment.fd, segment.size)
        if mapping.allocate(segment.fd):
            return mapping
        mapping.close()
        return None
    return WritableMapping(segment.fd, segment.size, populate=True)


def _pwrite(fd: int, offset: int, part: memoryview) -> None:
    done = 0
    while done < part.nbytes:
        done += os.pwrite(fd, part[done : done + _WRITE_CHUNK], offset + done)


def _memfd(size: int) -> int:
    """A memfd of `size` bytes, all a hole, that nobody can make shorter or longer: else its readers could be killed."""
    try:
        fd = os.memfd_create("actorrt-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("actorrt-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd
