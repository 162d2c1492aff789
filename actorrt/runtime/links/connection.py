"""One connection of a link: its transport, and what is written to: a descriptor of our own, from any thread.

An encrypted connection is written to on the runtime loop alone, since whoever encrypts has a state; another thread
finds it full, and leaves it to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from actorrt.wire.link import Buffer, behind
from actorrt.wire.outlet import MOST_BUFFERS

# What the socket takes at once, so that a piece of a pipe leaves in one go. The system may allow less.
SEND_BUFFER_BYTES: Final = 512 * 1024


# So much may wait to be encrypted or sent; room is told of where so much is left.
_ENCRYPTED_HIGH: Final = 512 * 1024
_ENCRYPTED_LOW: Final = 128 * 1024


class Connection:
    """For the runtime loop, but for `out`, which is written to under the link's lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._loop = loop
        sock = transport.get_extra_info("socket")
        # The peer may be on another machine: the kernel knows nothing of its process.
        self.is_remote = sock.family != socket.AF_UNIX
        self.out: Any = self._way_out(sock)
        self.over = asyncio.Event()

    def _way_out(self, sock: Any) -> Any:
        # A descriptor of our own: uvloop does not let others watch the one that its transport reads.
        out = socket.socket(fileno=os.dup(sock.fileno()))
        out.setblocking(False)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return out

    def await_room(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever the socket takes bytes."""
        self._loop.add_writer(self.out.fileno(), tell)

    def stop_awaiting_room(self) -> None:
        self._loop.remove_writer(self.out.fileno())

    def has_room(self) -> None:
        """The transport takes bytes again."""

    async def write_all(self, buffers: Sequence[Buffer]) -> None:
        """Write all of it. Raises OSError."""
        left = list(buffers)
        while left:
            try:
                left = behind(left, self.out.sendmsg(left[:MOST_BUFFERS]))
            except BlockingIOError:
                room = asyncio.Event()
                self.await_room(room.set)
                try:
                    await room.wait()
                finally:
                    self.stop_awaiting_room()

    def end_writing(self) -> None:
        """Nothing more can be written: the peer reads the end, and closes its own direction."""
        with contextlib.suppress(OSError):
            self.out.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """It is no link's: the transport stays as it is."""
        self.out.close()

    def close(self) -> None:
        self.out.close()
        self.transport.abort()
        self.over.set()

    def abandon(self) -> None:
        """Close the sockets that a fork has inherited; the connection itself is its parent's."""
        let_go(self.transport.get_extra_info("socket").fileno())
        self.out.close()


class _Encrypting:
    """Writes as a socket does to a transport that encrypts."""

    def __init__(self, transport: asyncio.Transport, sock: Any) -> None:
        self._transport = transport
        self._socket = sock
        self._thread = threading.get_ident()

    def send(self, data: bytes | memoryview) -> int:
        """How much was taken. Raises BlockingIOError where that is nothing, and OSError."""
        if threading.get_ident() != self._thread:
            raise BlockingIOError
        transport = self._transport
        if transport.is_closing():
            raise BrokenPipeError
        room = _ENCRYPTED_HIGH - transport.get_write_buffer_size()
        if room <= 0:
            raise BlockingIOError
        taken = memoryview(data)[: max(room, SEND_BUFFER_BYTES)]
        transport.write(taken)
        return len(taken)

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        return self.send(b"".join(buffers))

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()


class EncryptedConnection(Connection):
    """The same where what is written is encrypted."""

    _tell: Callable[[], None] | None = None
    _looks = False

    def _way_out(self, sock: Any) -> Any:
        self.transport.set_write_buffer_limits(_ENCRYPTED_HIGH, _ENCRYPTED_LOW)
        return _Encrypting(self.transport, socket.socket(fileno=os.dup(sock.fileno())))

    def await_room(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self.has_room()

    def stop_awaiting_room(self) -> None:
        self._tell = None

    def has_room(self) -> None:
        if self._tell is not None and not self._looks:
            self._looks = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looks = False
        if self._tell is not None and self.transport.get_write_buffer_size() < _ENCRYPTED_HIGH:
            self._tell()
            # Like a socket that is watched: as long as there is room.
            self.has_room()

    def close(self) -> None:
        self.out.close()
        # What was taken is sent, a goodbye maybe.
        self.transport.close()
        self.over.set()


def connection_over(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> Connection:
    """A connection whose hellos were said over this transport."""
    if transport.get_extra_info("ssl_object") is not None:
        return EncryptedConnection(loop, transport)
    return Connection(loop, transport)


def let_go(fd: int) -> None:
    """Have a descriptor that a fork has inherited lead nowhere; whoever has its number may still close it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
