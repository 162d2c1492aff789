"""A connection on which a node takes an object from another one: its bytes go from the socket into the segment.

Nothing here decides: what comes, and that it ends, is reported.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

from actorrt.exceptions import LinkError
from actorrt.wire.object_stream import HEAD_LIMIT, Head, Wanted, head_in, request_for

# As much as one read takes.
PIECE: Final = 1 << 20


class Target(Protocol):
    """Memory that is written."""

    def at(self, start: int, most: int) -> memoryview: ...


class Taker(Protocol):
    """Who is told what comes; none of it once the reading was stopped."""

    def begins(self, reading: Reading, head: Head) -> None:
        """The source has answered. The bytes follow, if nobody stops."""
        ...

    def came(self, reading: Reading, nbytes: int) -> None: ...
    def ended(self, reading: Reading) -> None:
        """The connection is lost, or was never there."""
        ...


class Reading(asyncio.BufferedProtocol):
    """One request and its answer. `start`: the first byte that is asked for."""

    def __init__(self, taker: Taker, wanted: Wanted, target: Target) -> None:
        self._taker = taker
        self._wanted = wanted
        self._target = target
        self.start = self._at = wanted.start
        self._head = memoryview(bytearray(HEAD_LIMIT + 1))
        self._of_head = 0
        self._reads_head = True
        self._transport: asyncio.Transport | None = None
        self.stopped = False
        # Whether something has come since somebody looked.
        self.is_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)
        if self.stopped:
            opened.abort()
            return
        self._transport = opened
        opened.write(request_for(self._wanted))

    def stop(self) -> None:
        """Nothing is written to the memory, and nothing reported, from now on."""
        self.stopped = True
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reads_head or self.stopped:
            return self._head[0 if self.stopped else self._of_head :]
        return self._target.at(self._at, PIECE)

    def buffer_updated(self, nbytes: int) -> None:
        if self.stopped:
            return
        self.is_alive = True
        if not self._reads_head:
            self._came(nbytes)
            return
        self._of_head += nbytes
        try:
            head = head_in(bytes(self._head[: self._of_head]))
        except LinkError:
            self._end()
            return
        if head is not None:
            self._reads_head = False
            self._taker.begins(self, head)
            self._begin(self._of_head - head.taken, head.taken)

    def _begin(self, nbytes: int, at: int) -> None:
        """What came with the head."""
        if nbytes and not self.stopped:
            self._target.at(self._at, nbytes)[:] = self._head[at : at + nbytes]
            self._came(nbytes)

    def _came(self, nbytes: int) -> None:
        self._at += nbytes
        self._taker.came(self, nbytes)

    def _end(self) -> None:
        if not self.stopped:
            self.stop()
            self._taker.ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
