"""Lend a client's socket to a replica for one large response, so that its bytes do not pass through the proxy.

A proxy and a replica on one machine have a channel: a pair of Unix sockets. A replica that has a large response claims
the socket of its request's client. The proxy grants it, with a descriptor, or refuses, and the response goes by the
pipe of its call. The replica writes, closes its descriptor and ends its call: the socket is the proxy's again. All else
that makes a connection (keep-alive, limits, the log, its end) never leaves the proxy.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

# A shorter body is written by the proxy: to claim and grant costs more than it saves.
LEAST_LENT: Final = 256 * 1024
# Which request, and the status of its response.
_CLAIM: Final = Struct("=Q3s")
# Which request, with a descriptor or without.
_GRANT: Final = Struct("=Q")
# So many claims have no answer yet: fewer messages than a Unix socket holds (278), so that there is room for each.
MOST_CLAIMED: Final = 64
# A request's `framing` has the number of its proxy's channel above its own bits.
CHANNEL_SHIFT: Final = 8
FRAMING: Final = (1 << CHANNEL_SHIFT) - 1

NOT_LENT: Final = -1


class Owner(Protocol):
    """A request in the proxy, as the channel sees it."""

    def lend(self, status: bytes) -> int:
        """The descriptor of its client's socket, which another writes from now on; NOT_LENT if that cannot be."""
        ...

    def not_lent(self) -> None:
        """It was not sent after all."""


class Lender:
    """The proxy's end of a channel."""

    def __init__(self, channel: socket.socket, number: int, on_closed: Callable[[], None]) -> None:
        """`number` is what the replica knows the channel by."""
        channel.setblocking(False)
        self.framing = number << CHANNEL_SHIFT
        # Requests that the replica has, by their keys.
        self.requests: dict[int, Owner] = {}
        # How often a socket was lent.
        self.lent = 0
        self._channel = channel
        # The other end was closed before this one.
        self._ended = False
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._claimed)

    def _claimed(self) -> None:
        try:
            claim = self._channel.recv(_CLAIM.size)
        except BlockingIOError:
            return
        except OSError:
            claim = b""
        if not claim:
            self.close()
            return
        key, status = _CLAIM.unpack(claim)
        grant = _GRANT.pack(key)
        owner = self.requests.get(key)
        if owner is not None and (fd := owner.lend(status)) != NOT_LENT:
            try:
                self._channel.sendmsg([grant], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
                self.lent += 1
                return
            except OSError:
                # Too many descriptors are on their way, to this process or others of the user.
                owner.not_lent()
        try:
            self._channel.send(grant)
        except OSError:
            self.close()  # which is an answer to all claims

    def borrower_has_gone(self) -> bool:
        """The process at the other end has ended: nobody writes to what it was lent."""
        if self._channel.fileno() < 0:
            return self._ended
        poll = select.poll()
        poll.register(self._channel, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._channel.fileno() >= 0:
            self._ended = self.borrower_has_gone()
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._on_closed()


class Borrower:
    """The replica's end of a channel."""

    def __init__(self, channel: socket.socket, on_closed: Callable[[], object]) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._on_closed = on_closed
        self._claims: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._granted)

    async def claim(self, key: int, status: bytes) -> int:
        """A descriptor of the socket of this request's client, for the caller to close; or NOT_LENT."""
        if len(self._claims) >= MOST_CLAIMED:
            return NOT_LENT
        try:
            self._channel.send(_CLAIM.pack(key, status))
        except OSError:
            return NOT_LENT
        granted = self._claims[key] = self._loop.create_future()
        try:
            return await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                _close(granted.result())
            raise
        finally:
            del self._claims[key]

    def _granted(self) -> None:
        try:
            # By recvmsg: socket.recv_fds would let the children of this process inherit it.
            grant, controls, _, _ = self._channel.recvmsg(
                _GRANT.size, socket.CMSG_LEN(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            grant, controls = b"", []
        if not grant:
            self.close()
            return
        fd = NOT_LENT
        for level, kind, data in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                (fd,) = array.array("i", data)
        granted = self._claims.get(_GRANT.unpack(grant)[0])
        if granted is None or granted.done():
            _close(fd)  # it was cancelled meanwhile
        else:
            granted.set_result(fd)

    def close(self) -> None:
        """The proxy has ended, or lends no more."""
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._on_closed()
        for granted in self._claims.values():
            if not granted.done():
                granted.set_result(NOT_LENT)


class Writing:
    """Bytes that leave by a borrowed socket."""

    def __init__(self, fd: int, *parts: bytes) -> None:
        self._fd = fd
        self._left = [memoryview(part) for part in parts if part]
        self._ended: asyncio.Future[None] | None = None

    async def done(self) -> None:
        """Return when the kernel has all of them; OSError if the client has gone. The descriptor is closed then."""
        try:
            if self._write():
                return
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_writer(self._fd, self._go_on)
            try:
                await self._ended
            finally:
                loop.remove_writer(self._fd)
        finally:
            os.close(self._fd)

    def _go_on(self) -> None:
        assert self._ended is not None
        if self._ended.done():
            return
        try:
            if self._write():
                self._ended.set_result(None)
        except OSError as error:
            self._ended.set_exception(error)

    def _write(self) -> bool:
        left = self._left
        try:
            sent = os.writev(self._fd, left)
        except BlockingIOError:
            return False
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]
        return not left


def _close(fd: int) -> None:
    if fd != NOT_LENT:
        with contextlib.suppress(OSError):
            os.close(fd)
