"""One connection of a link: its transport, and a descriptor of our own to write to from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from actorrt.wire.link import Buffer, behind
from actorrt.wire.outlet import MOST_BUFFERS

# What the socket takes at once, so that a piece of a pipe leaves in one go. The system may allow less.
SEND_BUFFER_BYTES: Final = 512 * 1024


class Connection:
    """For the runtime loop, but for `out`, which is written to under the link's lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._loop = loop
        sock = transport.get_extra_info("socket")
        # A descriptor of our own: uvloop does not let others watch the one that its transport reads.
        self.out = socket.socket(fileno=os.dup(sock.fileno()))
        self.out.setblocking(False)
        self.out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.over = asyncio.Event()

    def await_room(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever the socket takes bytes."""
        self._loop.add_writer(self.out.fileno(), tell)

    def stop_awaiting_room(self) -> None:
        self._loop.remove_writer(self.out.fileno())

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

    def close(self) -> None:
        self.out.close()
        self.transport.abort()
        self.over.set()

    def abandon(self) -> None:
        """Close the sockets that a fork has inherited; the connection itself is its parent's."""
        let_go(self.transport.get_extra_info("socket").fileno())
        self.out.close()


def let_go(fd: int) -> None:
    """Have a descriptor that a fork has inherited lead nowhere; whoever has its number may still close it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
