"""Fill segments of shared memory with objects, and keep those that are warm for the next ones.

Making pages is nearly the whole cost of a large put: memory that is mapped, with its pages there, takes bytes in at
the speed of memcpy, fresh memory at a fifth of it. So a segment is *kept* after it was handed to the node: when nobody
wants its object any more, the node gives it back and the next object of that size goes there. New segments of 8 MiB
and more are made of huge pages, which costs as much again as a copy; where the kernel does not do that, and for
smaller ones, `pwrite` fills them, which turns a full memory into an error rather than a signal.

    take or create --> fill --> (Seal is sent) --> adopted --> returned --> take ...
                                                           \\-> recalled: let go of

The calls may come from any thread; none waits for a peer. Which objects live how long is for others to decide.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from actorrt.core.own_segment import ADOPTED, FILLED, LET_GO, POOL, RETURNED, TAKEN, Event, OwnSegmentLife
from actorrt.exceptions import ObjectStoreFullError
from actorrt.wire.container import pack_header, plan

from ..base.descriptors import allow_more_after
from .mapping import HUGE_PAGE, WritableMapping
from .segments import Location

# Each kept segment costs a descriptor here and one in the node.
KEEP: Final = 256
# A segment is used for an object that leaves at most this part of it unused, or these few bytes.
_SPARE_PART: Final = 4
_SPARE_BYTES: Final = 64 << 10
# To make huge pages waits once for every core, which takes milliseconds where all are busy: worth it from here on.
_HUGE_FROM: Final = 4 * HUGE_PAGE
# From here on the part that a last huge page leaves unused is small.
_WHOLE_HUGE_PAGES: Final = 8 * HUGE_PAGE
# One write is no longer than this, so that a signal is served meanwhile.
_WRITE_CHUNK: Final = 256 << 20

# Not in Python's os module yet: forbids to execute it, as hardened systems ask for. Linux 6.3.
_MFD_NOEXEC_SEAL: Final = 0x8
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class OwnSegment(OwnSegmentLife):
    """A segment that this process created: `size` bytes of memory, whichever object is in it."""

    __slots__ = ("fd", "inode", "mapping", "serial", "size", "work")

    def __init__(self, serial: int, fd: int, size: int, work: object) -> None:
        super().__init__()
        # What it is filled for, or was last.
        self.work = work
        self.serial = serial
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self.size = size
        self.mapping: WritableMapping | None = None


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


class WriterStatistics(NamedTuple):
    """The segments that a process has created and holds, at one moment."""

    segments: int
    bytes: int
    # Of those, without an object: free to be filled.
    pooled: int
    pooled_bytes: int


class SegmentWriter:
    """The segments that this process created and still holds, at most `keep` of them for long.

    `let_go(serial)` is called when the node has to be told that one is held no more; it must not call back in here.
    `limit` is the node's, for the text of errors.
    """

    def __init__(self, limit: int, let_go: Callable[[int], object], *, keep: int = KEEP) -> None:
        self._limit = limit
        self._report = let_go
        self._keep = keep
        self._lock = threading.Lock()
        self._closed = False
        self._serial = 0
        # Those that were filled longest ago come first.
        self._held: dict[int, OwnSegment] = {}
        # (size, serial), in order.
        self._pool: list[tuple[int, int]] = []

    @staticmethod
    def size_for(length: int) -> int:
        return size_for(length)

    # -- from the thread that puts

    def take(self, length: int, work: object = None) -> OwnSegment | None:
        """A segment of the pool that suits `length` bytes, for the caller to fill; it needs no reservation.

        `work` stands for what it is filled for, to `give_up`.
        """
        most = max(length + length // _SPARE_PART, length + _SPARE_BYTES)
        with self._lock:
            place = bisect.bisect_left(self._pool, (length, 0))
            if place == len(self._pool) or self._pool[place][0] > most:
                return None
            segment = self._held[self._pool[place][1]]
            segment.work = work
            segment.on(TAKEN)
            # Nothing is called in between that could be interrupted.
            del self._pool[place]
            return segment

    def create(self, length: int, work: object = None) -> OwnSegment:
        """A new segment for `length` bytes, for the caller to fill. Raises ObjectStoreFullError."""
        size = size_for(length)
        try:
            fd = memfd(size)
        except OSError as error:
            if not allow_more_after(error):
                raise self._full(length, error) from error
            return self.create(length, work)
        with self._lock:
            self._serial += 1
            segment = self._held[self._serial] = OwnSegment(self._serial, fd, size, work)
        return segment

    def fill(self, segment: OwnSegment, data: bytes | memoryview, buffers: Sequence[memoryview]) -> Sealed:
        """Write an object: the pickle alone if it has no buffers, else a container (see wire/container.py).

        The node is to be told of what is returned, and then `adopted` or `give_up` to be called. Raises
        ObjectStoreFullError, or RuntimeError after `close`; the segment has been abandoned then.
        """
        parts, length = _parts(data, buffers)
        try:
            if length > segment.size:
                raise ValueError(f"an object of {length} bytes does not fit a segment of {segment.size}")
            _write(segment, parts)
        except BaseException as error:
            self.abandon(segment)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise self._full(length, error) from error
            raise
        with self._lock:
            if not self._closed:
                segment.on(FILLED)
                del self._held[segment.serial]
                self._held[segment.serial] = segment
                return Sealed(segment.serial, segment.size, length, segment.kept, segment.fd, segment.inode)
        self.abandon(segment)
        raise RuntimeError("the process is shutting down")

    def abandon(self, segment: OwnSegment) -> None:
        """Nothing was put into a segment that was taken or created."""
        with self._lock:
            gone = self._happens(segment, Event.ABANDONED)
        self._dispose(gone)

    def give_up(self, work: object) -> None:
        """The thread that filled a segment for this was interrupted, wherever it was, or the node refuses what it has
        put there: nothing of that is to stay, unless the node has it."""
        with self._lock:
            mine = [segment for segment in self._held.values() if segment.work is work]
            gone = [one for segment in mine for one in self._happens(segment, Event.GIVEN_UP)]
        self._dispose(gone)

    # -- as the node answers

    def adopted(self, serial: int) -> None:
        """The node has its own descriptor of a segment that was sealed."""
        with self._lock:
            gone = self._happens(self._held.get(serial), ADOPTED)
            if len(self._held) > self._keep:
                for one in list(self._held.values()):
                    if crowded_out := self._happens(one, Event.CROWDED_OUT):
                        gone += crowded_out
                        break
        self._dispose(gone)

    def returned(self, serial: int) -> None:
        """Nobody uses the object in a segment any more."""
        with self._lock:
            # It may have been let go of meanwhile.
            gone = self._happens(self._held.get(serial), RETURNED)
        self._dispose(gone)

    def recalled(self, serial: int) -> None:
        """The node needs the memory. What is being filled, or not adopted yet, is let go of afterwards."""
        with self._lock:
            gone = self._happens(self._held.get(serial), Event.RECALLED)
        self._dispose(gone)

    def locate(self, serial: int, length: int) -> Location | None:
        """Where this process itself may read a segment that it still holds, without asking the node where it is.

        The node has to be told of the reader before the owner can free the object: see `Ledger.opened`.
        """
        with self._lock:
            segment = self._held.get(serial)
            if segment is None or not segment.is_readable:
                return None
            return Location(f"/proc/self/fd/{segment.fd}", segment.inode, length)

    def close(self) -> None:
        """Give everything back, without telling the node. What is being filled goes when that is done."""
        with self._lock:
            self._closed = True
            gone = [one for held in tuple(self._held.values()) for one in self._happens(held, Event.CLOSED)]
        for segment in gone:
            _close(segment)

    @property
    def may_come_back(self) -> bool:
        """True if it holds segments that are not in the pool."""
        return len(self._held) > len(self._pool)

    def statistics(self) -> WriterStatistics:
        """What is held, and how much of it is free to be filled; from any thread."""
        with self._lock:
            return WriterStatistics(
                len(self._held),
                sum(segment.size for segment in self._held.values()),
                len(self._pool),
                sum(size for size, _ in self._pool),
            )

    # -- with the lock held; what is to be disposed of afterwards

    def _happens(self, segment: OwnSegment | None, event: Event) -> list[OwnSegment]:
        if segment is None:
            return []
        action = segment.on(event)
        if action is POOL:
            bisect.insort(self._pool, (segment.size, segment.serial))
        elif action is LET_GO:
            del self._held[segment.serial]
            self._out_of_pool(segment)
            return [segment]
        return []

    def _out_of_pool(self, segment: OwnSegment) -> None:
        place = bisect.bisect_left(self._pool, (segment.size, segment.serial))
        if self._pool[place : place + 1] == [(segment.size, segment.serial)]:
            del self._pool[place]

    # -- without it, since to unmap takes a while

    def _dispose(self, gone: Iterable[OwnSegment]) -> None:
        for segment in gone:
            _close(segment)
            if segment.is_missed:
                self._report(segment.serial)

    def _full(self, length: int, error: OSError) -> ObjectStoreFullError:
        return ObjectStoreFullError(length, self._limit, error.strerror or str(error))


def _close(segment: OwnSegment) -> None:
    if segment.mapping is not None:
        segment.mapping.close()
    os.close(segment.fd)


def _write(segment: OwnSegment, parts: list[tuple[int, memoryview]]) -> None:
    if segment.mapping is None:
        segment.mapping = _map(segment)
    if segment.mapping is not None:
        for offset, part in parts:
            segment.mapping.write(offset, part)
        return
    end = 0
    for offset, part in parts:
        _pwrite(segment.fd, offset, part)
        end = offset + part.nbytes
    # No hole is left for the next object to be copied into.
    end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
    if segment.is_new and end < segment.size:
        os.posix_fallocate(segment.fd, end, segment.size - end)


def _parts(data: bytes | memoryview, buffers: Sequence[memoryview]) -> tuple[list[tuple[int, memoryview]], int]:
    whole = memoryview(data)
    if not buffers:
        return [(0, whole)], whole.nbytes
    sizes = [buffer.nbytes for buffer in buffers]
    layout = plan(whole.nbytes, sizes)
    parts = [(0, memoryview(pack_header(whole.nbytes, sizes))), (layout.data_offset, whole)]
    parts += [(start, buffer) for start, buffer in zip(layout.offsets, buffers, strict=True) if buffer.nbytes]
    return parts, layout.total


def _map(segment: OwnSegment) -> WritableMapping | None:
    """A mapping whose pages are all there, if it is to be had; else the segment is written by `pwrite`."""
    if segment.is_new and segment.size < _HUGE_FROM:
        return None
    try:
        mapping = WritableMapping(segment.fd, segment.size, populate=not segment.is_new)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if not segment.is_new or mapping.allocate(segment.fd):
            return mapping
    mapping.close()
    return None


def _pwrite(fd: int, offset: int, part: memoryview) -> None:
    done = 0
    while done < part.nbytes:
        done += os.pwrite(fd, part[done : done + _WRITE_CHUNK], offset + done)


def memfd(size: int) -> int:
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
