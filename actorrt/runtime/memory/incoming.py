"""Memory into which an object of another node is read: pages that are there before the first byte comes.

The socket's bytes go into it without a copy in between. Nothing here decides when it is made, sealed, or let go of.
"""

from __future__ import annotations

import mmap
import os

from .mapping import WritableMapping
from .segment_writer import memfd, size_for


class IncomingSegment:
    """A memfd for `length` bytes, mapped to be written. Raises OSError if there is no memory. To make one blocks.

    One that comes out of its thread after nobody waits for it any more is closed as garbage.
    """

    fd = -1
    _mapping: WritableMapping | None = None

    def __init__(self, length: int) -> None:
        self.length = length
        self.size = size_for(length)
        self.fd = memfd(self.size)
        try:
            self.inode = os.fstat(self.fd).st_ino
            # Not huge pages: to make those, the kernel waits for each busy core again and again.
            os.posix_fallocate(self.fd, 0, self.size)
            self._mapping = WritableMapping(self.fd, self.size, populate=True)
        except BaseException:
            self.close()
            raise

    def at(self, start: int, most: int) -> memoryview:
        """Where up to `most` of the bytes from `start` on are written. It is not written to after `close`."""
        if self._mapping is None:
            raise ValueError("the segment is closed")
        return self._mapping.view(start, min(most, self.length - start))

    def read(self) -> memoryview:
        """What is there so far, for those who take it from here; it stays as long as somebody looks at it."""
        return memoryview(mmap.mmap(self.fd, self.length, access=mmap.ACCESS_READ))

    def close(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()
