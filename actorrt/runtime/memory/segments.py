"""Segments of shared memory as the node holds them and as others read them. Nothing here decides, or waits for a peer.

A segment is a memfd, or, once spilled, a file without a name: the kernel frees both when the last process that holds
them ends, whatever ends it. The node holds a descriptor of each; others reach it as /proc/<node's pid>/fd/<n>. What
writes them is in segment_writer.py; when they go, the ledger in core/storage.py says.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

# The most that one sendfile is asked for, so that a spill that is not wanted any more ends soon.
_COPY_CHUNK: Final = 64 << 20


class SegmentGoneError(Exception):
    """There is no such segment at that place, or it is another one by now."""


class Location(NamedTuple):
    """Where the bytes of an object lie: a path to open, the inode that it leads to, and how many bytes to map."""

    path: str
    inode: int
    length: int


def _open_at(location: Location) -> int:
    try:
        fd = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        raise SegmentGoneError(f"{location.path}: {error.strerror}") from error
    found = os.fstat(fd)
    # A descriptor's number is used again once it is closed, so the path alone may lead to something else.
    if found.st_ino != location.inode or found.st_size < location.length:
        os.close(fd)
        raise SegmentGoneError(f"{location.path} is another segment by now")
    return fd


class SegmentReader:
    """Maps segments to be read, each once at a time however often it is opened.

    A view keeps its mapping alive, and so does each array that was made from it. `release` of an `open` is called
    exactly once: when all of them are gone, or at once if the object was mapped already. It may be called on any
    thread, in the middle of anything, so it must not wait or take a lock: append to a deque.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[Hashable, weakref.ref[mmap.mmap]] = {}
        # A weak reference that is gone itself calls nobody back.
        self._references: set[weakref.ref[mmap.mmap]] = set()

    def find(self, key: Hashable) -> memoryview | None:
        """The bytes of the object if they are mapped already; read-only."""
        reference = self._live.get(key)
        mapping = None if reference is None else reference()
        return None if mapping is None else memoryview(mapping)

    def open(self, key: Hashable, location: Location, release: Callable[[], object]) -> memoryview:
        """The bytes of the object `key`, read-only. Raises SegmentGoneError, or OSError if no descriptor is left.

        If it raises, `release` was not called and will not be.
        """
        with self._lock:
            found = self.find(key)
            if found is None:
                mapping = _map_for_reading(location)
                reference = weakref.ref(mapping, lambda gone: self._gone(key, gone, release))
                self._references.add(reference)
                self._live[key] = reference
                return memoryview(mapping)
        release()
        return found

    def _gone(self, key: Hashable, reference: weakref.ref[mmap.mmap], release: Callable[[], object]) -> None:
        self._references.discard(reference)
        if self._live.get(key) is reference:
            del self._live[key]
        release()

    def __len__(self) -> int:
        """How many mappings there are."""
        return len(self._references)


def _map_for_reading(location: Location) -> mmap.mmap:
    fd = _open_at(location)
    try:
        if sys.version_info >= (3, 13):
            return mmap.mmap(fd, location.length, access=mmap.ACCESS_READ, trackfd=False)
        return mmap.mmap(fd, location.length, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


class SegmentHolder:
    """The node's descriptors of segments, by their ids. `directory` is where it spills to, made when it is needed.

    All methods belong to one thread, but for `spill`, which blocks and may run in another.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._memory: dict[Hashable, int] = {}
        self._files: dict[Hashable, int] = {}
        # Between the end of a spill in its thread and `close`.
        self._lock = threading.Lock()
        self._closed = False

    def __contains__(self, segment: Hashable) -> bool:
        return segment in self._memory or segment in self._files

    def adopt(self, segment: Hashable, pid: int, fd: int, inode: int, size: int, most: int = sys.maxsize) -> None:
        """Take a memfd over from process `pid`, where it is `fd`. Nothing happens if it is here already.

        Raises SegmentGoneError if it is not what is claimed, and OSError if no descriptor below `most` is left.
        """
        if segment in self._memory:
            return
        own = _open_at(Location(f"/proc/{pid}/fd/{fd}", inode, size))
        # The lowest that is free is given: all below are taken.
        if own >= most:
            os.close(own)
            raise OSError(
                errno.EMFILE,
                f"it holds {len(self._memory) + len(self._files)} objects, each takes a descriptor, and {most} are for "
                "objects: raise the limit of open files (ulimit -Hn)",
            )
        # A file could be shortened under its readers, which kills them; a segment is sealed against it.
        if not os.readlink(f"/proc/self/fd/{own}").startswith("/memfd:"):
            os.close(own)
            raise SegmentGoneError(f"descriptor {fd} of process {pid} is not a segment")
        self._memory[segment] = own

    def locate(self, segment: Hashable, length: int) -> Location:
        """Where to map the first `length` bytes: from memory as long as they are there. Raises KeyError."""
        fd = self._memory[segment] if segment in self._memory else self._files[segment]
        return Location(f"/proc/{os.getpid()}/fd/{fd}", os.fstat(fd).st_ino, length)

    def is_in_memory(self, segment: Hashable) -> bool:
        return segment in self._memory

    def spill(self, segment: Hashable, length: int) -> None:
        """Copy the first `length` bytes to a file; the memory stays until `drop_memory`. Blocks.

        Raises OSError if the disk is full or fails; nothing is left of the file then.
        """
        # A descriptor of its own: `close` may come meanwhile.
        source = os.dup(self._memory[segment])
        try:
            target = _nameless_file(self._directory)
            try:
                space = os.fstatvfs(target)
                if space.f_bavail * space.f_frsize < length:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._directory)
                done = 0
                while done < length and not self._closed:
                    copied = os.sendfile(target, source, done, min(_COPY_CHUNK, length - done))
                    if not copied:
                        raise OSError(errno.EIO, f"the segment ends after {done} of {length} bytes")
                    done += copied
                with self._lock:
                    if self._closed:
                        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), self._directory)
                    self._files[segment] = target
            except BaseException:
                os.close(target)
                raise
        finally:
            os.close(source)

    def drop_memory(self, segment: Hashable) -> None:
        os.close(self._memory.pop(segment))

    def drop_file(self, segment: Hashable) -> None:
        os.close(self._files.pop(segment))

    def close(self) -> None:
        """Give everything back. Mappings of others live on until they are gone."""
        with self._lock:
            self._closed = True
            held = [*self._memory.values(), *self._files.values()]
            self._memory.clear()
            self._files.clear()
        for fd in held:
            os.close(fd)


def _nameless_file(directory: str) -> int:
    """A new file, mode 0600, that no name leads to. Raises OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
    # Not all file systems can do that; a name that lasts for a moment can be done everywhere.
    path = f"{directory}/{os.getpid()}-{threading.get_ident()}.spill"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return fd
