"""Connections between machines, up to where both sides have proved that they have the cluster's token.

Who listens hands a connection on only then (wire/proof.py says what is said until there): nothing else reads a byte of
it before. What is held of those that have proved nothing is a line each, and so many of them at most; who takes longer
than HELLO_TIMEOUT_S is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

from actorrt.exceptions import LinkError
from actorrt.version import __version__
from actorrt.wire.addresses import Endpoint, is_wildcard
from actorrt.wire.messages import PROTOCOL_VERSION
from actorrt.wire.proof import LINE_LIMIT, NONCE_BYTES, Dialling, Listening

from ..base.descriptors import allow_more_after
from .access import Access, binding_of

logger = logging.getLogger("actorrt")

HELLO_TIMEOUT_S: Final = 10.0
# So many connections that have proved nothing are kept; of more, the oldest ones go.
MOST_UNPROVEN: Final = 128
_BACKLOG: Final = 512
# Where no connection can be accepted, for want of descriptors say, it is tried again after so long.
_ACCEPT_AGAIN_S: Final = 0.2
# Who is refused is told of it in the log, one line in so long.
_COMPLAIN_S: Final = 1.0
_TLS_END_S: Final = 1.0
# An address of nobody (RFC 5737): to look which of its own this machine would speak from.
_NOBODY: Final = ("192.0.2.1", 9)

P = TypeVar("P", bound=asyncio.BaseProtocol)


class RefusedProofError(LinkError):
    """One of the two sides does not want the other: the token, the certificate or the version is another one."""


class _Proving(asyncio.BufferedProtocol):
    """One side of a connection until both have proved that they have the token."""

    def __init__(
        self,
        make_side: Callable[[asyncio.Transport], Listening | Dialling],
        proven: Callable[[asyncio.Transport], None],
    ) -> None:
        self._make_side = make_side
        self._proven = proven
        self._buffer = memoryview(bytearray(LINE_LIMIT))
        # An error is a result: whoever waits may be gone.
        self._done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self._side: Listening | Dialling

    async def done(self) -> None:
        """Wait until both sides have. Raises RefusedProofError and OSError."""
        if (error := await self._done) is not None:
            raise error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._side = self._make_side(self.transport)
        if isinstance(self._side, Dialling):
            self.transport.write(self._side.first())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self._side.room]

    def buffer_updated(self, nbytes: int) -> None:
        side = self._side
        if side.why:
            return
        if answer := side.heard(bytes(self._buffer[:nbytes])):
            self.transport.write(answer)
        if side.is_proven:
            # What comes next is for who takes over, in this very turn.
            self._proven(self.transport)
            self._end(None)
        elif side.why:
            self._end(RefusedProofError(side.why))
            self.transport.close()

    def eof_received(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("the connection ended"))

    def _end(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(error)


class Doors:
    """Accepts connections from other machines, and hands on those that have proved to have the token."""

    def __init__(self, access: Access, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """`factory`: who reads a connection from then on."""
        self._access = access
        self._factory = factory
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._unproven: dict[asyncio.Task[None], None] = {}
        self._complained = 0.0

    async def listen(self, port: int = 0) -> Endpoint:
        """Listen at `port`, or at a free one of those that are allowed; where others reach it. Raises LinkError."""
        access = self._access
        access.check()
        host = await _resolved(access.host)
        sock = self._socket = _bound(host, [port] if port else access.ports)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(sock))
        return Endpoint(_own_address(host) if is_wildcard(host) else host, sock.getsockname()[1])

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(sock)
            except OSError as error:
                if not allow_more_after(error):
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            task = loop.create_task(self._admit(accepted, Endpoint(*peer[:2])))
            self._unproven[task] = None
            task.add_done_callback(lambda done: self._unproven.pop(done, None))
            if len(self._unproven) > MOST_UNPROVEN:
                oldest = next(iter(self._unproven))
                del self._unproven[oldest]
                oldest.cancel()

    async def _admit(self, sock: socket.socket, peer: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        proving = _Proving(self._side, self._hand_on)
        context = self._access.to_listen
        try:
            tune(sock, self._access.silence_s)
            ends_s = None if context is None else _TLS_END_S
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await loop.connect_accepted_socket(lambda: proving, sock, ssl=context, ssl_shutdown_timeout=ends_s)
                await proving.done()
        except RefusedProofError as error:
            self._complain("a connection from %s was refused: %s", peer, error)
        except (OSError, ssl.CertificateError) as error:
            # Without TLS, who looks only whether somebody listens is gone without a word.
            if isinstance(error, ssl.SSLError):
                self._complain("a connection from %s was refused: %s", peer, _trouble_of_tls(error))
            elif context is not None and not isinstance(error, TimeoutError):
                self._complain("a connection from %s was refused, or went away: %s", peer, _WENT_IN_HANDSHAKE)
            self._drop(proving, sock)
        except asyncio.CancelledError:
            self._drop(proving, sock)

    def _side(self, _: asyncio.Transport) -> Listening:
        access = self._access
        return Listening(access.token, PROTOCOL_VERSION, __version__, os.urandom(NONCE_BYTES), access.binding)

    def _hand_on(self, transport: asyncio.Transport) -> None:
        protocol = self._factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    @staticmethod
    def _drop(proving: _Proving, sock: socket.socket) -> None:
        if proving.transport is None:
            sock.close()
        else:
            proving.transport.abort()

    def _complain(self, said: str, *facts: object) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= _COMPLAIN_S or not self._complained:
            self._complained = now
            logger.warning(said, *facts)

    @property
    def unproven(self) -> int:
        """How many connections have proved nothing yet."""
        return len(self._unproven)

    def fileno(self) -> int | None:
        return None if self._socket is None else self._socket.fileno()

    async def close(self) -> None:
        tasks = [*self._unproven, *([] if self._accepting is None else [self._accepting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def connect(access: Access, factory: Callable[[], P], endpoint: Endpoint) -> tuple[asyncio.Transport, P]:
    """Open a connection over which both sides have proved to have the token. Raises RefusedProofError and OSError."""
    loop = asyncio.get_running_loop()
    made: list[tuple[asyncio.Transport, P]] = []

    def side(transport: asyncio.Transport) -> Dialling:
        shown = transport.get_extra_info("ssl_object")
        binding = b"" if shown is None else binding_of(shown.getpeercert(True))
        return Dialling(access.token, PROTOCOL_VERSION, __version__, os.urandom(NONCE_BYTES), binding)

    def proven(transport: asyncio.Transport) -> None:
        protocol = factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        made.append((transport, protocol))

    proving = _Proving(side, proven)
    context = access.to_dial
    ends_s = None if context is None else _TLS_END_S
    try:
        transport, _ = await loop.create_connection(
            lambda: proving, endpoint.host, endpoint.port, ssl=context, ssl_shutdown_timeout=ends_s
        )
        tune(transport.get_extra_info("socket"), access.silence_s)
        await proving.done()
    except RefusedProofError as error:
        raise RefusedProofError(f"{endpoint} and this process do not trust each other: {error}") from None
    except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        # Who listens learns what is wrong with a certificate behind the handshake, and cannot say so any more.
        raise ConnectionResetError(_WENT_BEHIND_HANDSHAKE if context else "the connection ended") from None
    except ssl.SSLError as error:
        raise RefusedProofError(f"no encrypted link to {endpoint} can be opened: {_trouble_of_tls(error)}") from None
    finally:
        if not made and proving.transport is not None:
            proving.transport.abort()
    return made[0]


# ---- sockets


def tune(sock: Any, silence_s: float) -> None:
    """Nothing waits for company, and a peer that is silent for so long is gone: the kernel asks for it meanwhile."""
    step_s = max(1, int(silence_s / 4))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, step_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, step_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))


def _bound(host: str, ports: range | list[int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        for port in random.sample(ports, len(ports)):
            try:
                sock.bind((host, port))
                sock.listen(_BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise LinkError(f"this machine cannot listen at {Endpoint(host, port)}: {error.strerror}") from None
            return sock
    except BaseException:
        sock.close()
        raise
    sock.close()
    if len(ports) == 1:
        raise LinkError(f"{Endpoint(host, ports[0])} is in use: another process listens there")
    raise LinkError(f"all ports from {ports[0]} to {ports[-1]} of {host} are in use: allow more in ACTORRT_PORTS")


async def _resolved(host: str) -> str:
    """An address of this name, so that every process of a machine says the same."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LinkError(f"ACTORRT_HOST={host} is no address of this machine: {error.strerror or error}") from None
    return str(found[0][4][0])


def _own_address(wildcard: str) -> str:
    """Under which address other machines most likely reach this one."""
    if ":" not in wildcard:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            # No packet leaves.
            sock.connect(_NOBODY)
            return str(sock.getsockname()[0])
    return socket.gethostname()


# ---- what is wrong with TLS

_WENT_IN_HANDSHAKE: Final = "it may not trust the certificate of this process"
_WENT_BEHIND_HANDSHAKE: Final = (
    "the other side has gone behind the handshake: it may want a certificate of this process, or not trust the one "
    "that it was shown (ACTORRT_TLS_CERT, ACTORRT_TLS_KEY, ACTORRT_TLS_CA)"
)

_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS: give both the same ACTORRT_TLS_* settings",
    "HTTP_REQUEST": "the other side does not speak TLS: give both the same ACTORRT_TLS_* settings",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "it asks for a certificate of this process: set ACTORRT_TLS_CERT and ACTORRT_TLS_KEY"
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other side shows no certificate, and this cluster asks for one",
    "TLSV1_ALERT_UNKNOWN_CA": (
        "the other side does not trust the certificate of this process: let its authority sign it"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side does not accept the certificate of this process",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this process has expired, as the other side sees it",
    "UNSUPPORTED_PROTOCOL": "the other side speaks a version of TLS before 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side does not speak TLS 1.3",
}


def _trouble_of_tls(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the other side is not one to trust ({error.verify_message})"
    reason = str(getattr(error, "reason", None) or error)
    return _REASONS.get(reason, f"TLS says {reason}")
