"""The channel by which a proxy lends its clients' sockets, and what a connection sees to while it is lent."""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from actorrt.serve.http.loan import MOST_CLAIMED, NOT_LENT, Borrower, Lender, Writing
from actorrt.serve.proxy.http_request import HttpRequest

from . import exchange
from .test_http_protocol import GET, Server, on_uvloop
from .test_http_protocol import serving as protocol
from .test_slow_clients import only, until

BODY = os.urandom(3_000_000)
HEAD = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n" % len(BODY)


class Request:
    """Lends one end of a pipe of its own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.statuses: list[bytes] = []
        self.kept = 0

    def lend(self, status: bytes) -> int:
        self.statuses.append(status)
        return self.fd

    def not_lent(self) -> None:
        self.kept += 1


@contextmanager
def channel() -> Generator[tuple[Lender, Borrower, list[str]]]:
    closed: list[str] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lender = Lender(ours, 1, lambda: closed.append("lender"))
    borrower = Borrower(theirs, lambda: closed.append("borrower"))
    try:
        yield lender, borrower, closed
    finally:
        lender.close()
        borrower.close()


@contextmanager
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@on_uvloop
async def test_a_claim_gets_the_socket_of_its_request_and_no_other() -> None:
    with channel() as (lender, borrower, _), pair() as (first, its_client), pair() as (second, _):
        lender.requests[1], lender.requests[2] = Request(first.fileno()), Request(second.fileno())
        fd = await borrower.claim(1, b"201")
        assert not os.get_inheritable(fd)
        os.write(fd, b"hello")
        os.close(fd)
        assert its_client.recv(10) == b"hello"
        # Of a request that has ended, or that another replica has.
        assert await borrower.claim(3, b"200") == NOT_LENT


@on_uvloop
async def test_a_request_that_cannot_be_lent_is_an_answer_too() -> None:
    with channel() as (lender, borrower, _):
        request = lender.requests[1] = Request(NOT_LENT)
        assert await borrower.claim(1, b"404") == NOT_LENT
        assert request.statuses == [b"404"]


@on_uvloop
async def test_a_descriptor_that_cannot_be_sent_is_not_lent() -> None:
    with channel() as (lender, borrower, _):
        request = lender.requests[1] = Request(1_000_000)  # there is no such descriptor
        assert await borrower.claim(1, b"200") == NOT_LENT
        assert request.kept == 1


@on_uvloop
async def test_a_process_that_can_have_no_more_descriptors_gets_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with channel() as (lender, borrower, _), pair() as (ours, _):
        lender.requests[1] = Request(ours.fileno())
        lowest_free = os.dup(ours.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            assert await borrower.claim(1, b"200") == NOT_LENT
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert lender.lent == 1


@on_uvloop
async def test_only_so_many_claims_wait_at_once_and_each_is_answered() -> None:
    with channel() as (lender, borrower, _), pair() as (ours, _):
        for key in range(2 * MOST_CLAIMED):
            lender.requests[key] = Request(ours.fileno())
        answers = await asyncio.gather(*(borrower.claim(key, b"200") for key in range(2 * MOST_CLAIMED)))
        assert [answer == NOT_LENT for answer in answers] == [False] * MOST_CLAIMED + [True] * MOST_CLAIMED
        for fd in answers[:MOST_CLAIMED]:
            os.close(fd)
        fd = await borrower.claim(1, b"200")
        assert fd != NOT_LENT
        os.close(fd)


@on_uvloop
@pytest.mark.parametrize("turn", range(1, 7))
async def test_a_claim_that_is_cancelled_in_any_turn_keeps_no_descriptor(turn: int) -> None:
    with channel() as (lender, borrower, _), pair() as (ours, _):
        lender.requests[1] = Request(ours.fileno())
        await turns()
        before = descriptors()
        claim = asyncio.ensure_future(borrower.claim(1, b"200"))
        await turns(turn)
        if claim.cancel():
            with suppress(asyncio.CancelledError):
                await claim
        else:
            os.close(claim.result())
        await until(lambda: lender.requests[1].statuses)  # type: ignore[attr-defined]
        await turns()
        assert descriptors() == before


@on_uvloop
@pytest.mark.parametrize("end", ["lender", "borrower"])
async def test_when_one_end_goes_the_other_closes_and_all_claims_are_answered(end: str) -> None:
    with channel() as (lender, borrower, closed):
        claim = asyncio.ensure_future(borrower.claim(1, b"200"))
        await asyncio.sleep(0)
        assert not lender.borrower_has_gone()
        borrower.close() if end == "borrower" else lender.close()
        assert await claim == NOT_LENT
        assert lender.borrower_has_gone() == (end == "borrower")
        await until(lambda: len(closed) == 2)
        assert await borrower.claim(2, b"200") == NOT_LENT


@on_uvloop
async def test_what_is_written_to_a_slow_socket_arrives_and_its_descriptor_is_closed() -> None:
    with pair() as (ours, client):
        before = descriptors()
        writing = asyncio.ensure_future(Writing(os.dup(ours.fileno()), HEAD, BODY, b"").done())
        got = b""
        while len(got) < len(HEAD) + len(BODY):
            got += await asyncio.get_running_loop().sock_recv(client, 100_000)
        await writing
        assert got == HEAD + BODY
        assert descriptors() == before


@on_uvloop
@pytest.mark.parametrize("how", ["cancelled", "client gone"])
async def test_writing_that_ends_early_closes_its_descriptor(how: str) -> None:
    with pair() as (ours, client):
        before = descriptors()
        writing = asyncio.ensure_future(Writing(os.dup(ours.fileno()), BODY).done())
        await turns()
        if how == "cancelled":
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        else:
            client.close()
            before -= 1
            with pytest.raises(OSError, match=r"pipe|reset"):
                await writing
        assert descriptors() == before


# A connection that is lent.


class Lending:
    """What has the requests of a server: lends the socket of each, and answers when it is told to."""

    def __init__(self) -> None:
        self.request: Any = None
        self.fd = NOT_LENT
        self.done = asyncio.Event()
        self.close = False

    async def __call__(self, request: HttpRequest) -> None:
        self.request = request
        fd = request.lend(b"201")
        self.fd = os.dup(fd) if fd >= 0 else NOT_LENT
        await self.done.wait()
        request.respond(b"", self.close)


@asynccontextmanager
async def lent(**options: Any) -> AsyncGenerator[tuple[Server, Lending, socket.socket]]:
    """A server, what has its request, and its client. Nothing is swept but by the test."""
    lending = Lending()
    async with protocol(lending, **options) as server:
        with socket.socket() as client:
            loop = asyncio.get_running_loop()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            await loop.sock_sendall(client, GET)
            await until(lambda: lending.request)
            server.front.stop()
            try:
                yield server, lending, client
            finally:
                with suppress(OSError):
                    os.close(lending.fd)


async def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := await asyncio.get_running_loop().sock_recv(client, size - len(data))):
        data += part
    return data


def fill(fd: int) -> int:
    """Write what the socket takes."""
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += os.write(fd, BODY)
    return sent


@on_uvloop
async def test_a_lent_response_is_logged_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "actorrt.serve.access"):
        async with lent(access_log=True) as (server, lending, client):
            writing = asyncio.ensure_future(Writing(lending.fd, HEAD, BODY).done())
            assert await read(client, len(HEAD) + len(BODY)) == HEAD + BODY
            await writing
            lending.done.set()
            await until(lambda: caplog.records)
            assert '"GET /a" 201 ' in caplog.records[0].getMessage()
            # The next request, while this one's response is in the client's hands.
            lending.done.clear()
            lending.request = None
            await asyncio.get_running_loop().sock_sendall(client, GET)
            await until(lambda: lending.request)
            os.write(lending.fd, b"again")
            assert await read(client, 5) == b"again"
            assert not only(server).transport.is_closing()


@on_uvloop
async def test_a_socket_is_not_lent_while_bytes_wait_in_the_proxy_or_the_request_is_not_complete() -> None:
    lends: list[int] = []

    async def handler(request: HttpRequest) -> None:
        lends.append(request.lend(b"200"))
        if request.method == b"POST":
            await exchange.read(request)
            await exchange.read(request)
            lends.append(request.lend(b"200"))
            lends.append(request.lend(b"200"))  # it has begun
        request.respond(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        lends.append(request.lend(b"200"))  # it was answered

    async with protocol(handler, inline_body_bytes=1) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nfirst"[:-1])
        await until(lambda: lends)
        client.send(b"t")
        await client.answer()
        assert [fd >= 0 for fd in lends] == [False, True, False, False]
        lends.clear()
        only(server).transport.write(bytes(20_000_000))
        only(server).flow.resume_writing()
        client.send(GET)
        await until(lambda: lends)
        assert [fd >= 0 for fd in lends] == [False, False]


@on_uvloop
@pytest.mark.parametrize("written", [0, 1])
async def test_it_is_known_whether_a_borrower_that_has_gone_wrote_a_byte(written: int) -> None:
    async with lent() as (_, lending, client):
        os.write(lending.fd, b"x" * written)
        if written:
            await read(client, 1)
        assert lending.request.take_back() == (not written)
        assert lending.request.is_begun == bool(written)


@on_uvloop
async def test_what_was_written_before_is_not_taken_for_the_borrowers() -> None:
    sent = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        if request.path != b"/a":
            request.respond(HEAD + BODY[:1000])
            return
        assert request.lend(b"200") >= 0
        assert request.take_back()
        assert not request.is_begun
        sent.set()
        request.respond(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with protocol(handler) as server:
        client = await server.connect()
        for _ in range(20):
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", GET)
        await sent.wait()


@on_uvloop
@pytest.mark.parametrize("end", ["abort", "client"])
async def test_whoever_ends_a_lent_connection_wakes_the_borrower(end: str) -> None:
    async with lent() as (server, lending, client):
        fill(lending.fd)
        connection = only(server)
        writing = asyncio.ensure_future(Writing(os.dup(lending.fd), BODY).done())
        await turns()
        if end == "client":
            client.close()
        else:
            lending.request.abort()
        with pytest.raises(OSError) as raised:
            await writing
        assert raised.value.errno in (errno.EPIPE, errno.ECONNRESET)
        await until(lambda: connection not in server.front.connections)


@on_uvloop
async def test_a_connection_ends_though_a_child_of_the_borrower_has_its_socket() -> None:
    async with lent() as (_, lending, client):
        child = os.dup(lending.fd)
        await Writing(os.dup(lending.fd), b"all").done()
        lending.close = True
        lending.done.set()
        assert await read(client, 100) == b"all"
        os.close(child)


@on_uvloop
async def test_a_client_that_reads_nothing_of_a_lent_response_is_cut_off() -> None:
    async with lent(stalled_client_timeout_s=60) as (server, lending, client):
        connection = only(server)
        now = server.front.clock()
        # While the replica has written nothing the client owes nothing.
        for _ in range(5):
            connection.sweep(now := now + 50)
        filled = fill(lending.fd)
        connection.sweep(now := now + 1)
        taken = 0
        for _ in range(5):
            acknowledged = connection._acknowledged
            while connection._acknowledged == acknowledged:
                taken += len(await read(client, 4096))
                connection._has_taken()
            connection._acknowledged = acknowledged
            connection.sweep(now := now + 50)
            assert not connection.transport.is_closing()
        assert taken < filled
        await turns()
        connection.sweep(now := now + 1)
        connection.sweep(now + 62)
        assert connection.transport.is_closing()


@on_uvloop
async def test_a_request_hears_that_only_its_client_keeps_a_lent_response() -> None:
    async with lent() as (server, lending, client):
        told: list[None] = []
        lending.request.on_slow = lambda: told.append(None)
        only(server).sweep(server.front.clock())
        assert told == []
        filled = fill(lending.fd)
        only(server).sweep(server.front.clock())
        assert told == [None]
        await read(client, filled)
        await until(lambda: only(server)._not_taken() == 0)
        only(server).sweep(server.front.clock())
        assert told == [None]
