"""The proxy's protocol on real sockets, with a backend in the same process."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.http.responses import Plain, ResponseBytes, whole
from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.forward import Forwarded
from actorrt.serve.proxy.http_protocol import MOST_DISCARDED, Front, ServeProtocol
from actorrt.serve.proxy.http_request import HttpRequest
from actorrt.serve.proxy.turns import MOST_BEHIND
from actorrt.serve.routing.lending import Lending

from .exchange import ClientDisconnected, read, taken, write

Handler = Callable[[HttpRequest], Awaitable[None]]


class Backend:
    """Runs an async handler for each request, or answers at once with what the request was."""

    def __init__(self, handler: Handler | None) -> None:
        self.handler = handler
        self.seen: list[HttpRequest] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()

    def handle(self, request: HttpRequest) -> None:
        self.seen.append(request)
        if self.handler is None:
            echo(request)
            return
        task = asyncio.ensure_future(self.handler(request))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        def client_gone(_: Answer) -> None:
            self.gone.set()
            task.cancel()

        request.on_gone = client_gone


def echo(request: HttpRequest) -> None:
    body = b" ".join((request.method, request.path, request.query, request.body))
    request.respond(whole(Plain(200, [], body), request.framing, b"x-request-id: %b\r\n" % request.request_id))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        return int(lines[0].split(" ")[1]), fields

    async def answer(self, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        status, fields = await self.head()
        if head_only or status in (204, 304) or status < 200:
            return status, fields, b""
        if "content-length" in fields:
            return status, fields, await self.reader.readexactly(int(fields["content-length"]))
        if fields.get("transfer-encoding") != "chunked":
            return status, fields, await self.reader.read()
        body = b""
        while size := int((await self.reader.readline()).strip(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        assert await self.reader.readline() == b"\r\n"
        return status, fields, body

    async def flood(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send without end until there is an answer; give the answer."""
        answer = asyncio.ensure_future(self.answer())
        while not answer.done():
            self.send(data)
            with suppress(ConnectionError):
                await self.writer.drain()
            await asyncio.sleep(0)
        return await answer

    async def closed(self) -> bool:
        """The server ends the connection, with a FIN or a reset."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


class Server:
    def __init__(self, front: Front, state: ServerState, backend: Backend, port: int) -> None:
        self.front, self.state, self.backend, self.port = front, state, backend, port
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        self.writers.append(writer)
        return Client(reader, writer)


@asynccontextmanager
async def serving(handler: Handler | None = None, **options: Any) -> AsyncGenerator[Server]:
    backend = Backend(handler)
    numbers = iter(range(10**9))
    front = Front(backend, HTTPOptions(**options), lambda: b"made-%d" % next(numbers))
    config = uvicorn.Config(_no_app, log_config=None, lifespan="off", ws="none")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    front.start(loop)
    listener = await loop.create_server(
        functools.partial(ServeProtocol, config, state, {}, front=front), "127.0.0.1", 0
    )
    server = Server(front, state, backend, listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
        for connection in list(front.connections):
            connection.transport.abort()
        front.stop()
        for task in list(backend.tasks):
            task.cancel()
        await asyncio.gather(*backend.tasks, return_exceptions=True)
        await listener.wait_closed()


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request takes the way of ASGI here")


def on_uvloop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The proxy runs on uvloop, and transports of other loops differ just where these tests look."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await test(*args, **kwargs)

        uvloop.run(bounded())

    return run


GET = b"GET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n"


@on_uvloop
async def test_a_request_is_answered_and_the_connection_stays() -> None:
    async with serving() as server:
        client = await server.connect()
        for _ in range(3):
            client.send(GET)
            status, fields, body = await client.answer()
            assert (status, body) == (200, b"GET /a b=c ")
            assert "connection" not in fields


@on_uvloop
@pytest.mark.parametrize("cut", range(1, len(GET)))
async def test_a_request_may_arrive_cut_anywhere(cut: int) -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(GET[:cut])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.send(GET[cut:])
        assert (await client.answer())[2] == b"GET /a b=c "


@on_uvloop
async def test_pipelined_requests_are_answered_in_their_order() -> None:
    first_may_end = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        if request.path == b"/0":
            await first_may_end.wait()
        echo(request)

    async with serving(handler) as server:
        client = await server.connect()
        client.send(*(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(500)))
        await asyncio.sleep(0)
        first_may_end.set()
        for number in range(500):
            assert (await client.answer())[2] == b"GET /%d  " % number
        # And with answers that come within the call.
    async with serving() as server:
        client = await server.connect()
        client.send(*(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(3000)))
        for number in range(3000):
            assert (await client.answer())[2] == b"GET /%d  " % number


@on_uvloop
async def test_a_connection_closes_when_either_side_wants_it() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.closed()
        client = await server.connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.closed()

    async def handler(request: HttpRequest) -> None:
        request.respond(whole(Plain(200, [], b"x"), request.framing), close=True)

    async with serving(handler) as server:
        client = await server.connect()
        client.send(GET, GET)
        await client.answer()
        assert await client.closed()


@on_uvloop
async def test_a_head_request_has_no_body_and_the_next_one_is_answered() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n", GET)
        status, fields, _ = await client.answer(head_only=True)
        assert (status, fields["content-length"]) == (200, "9")
        assert (await client.answer())[2] == b"GET /a b=c "


@on_uvloop
async def test_the_request_id_is_taken_or_made() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(GET, b"GET / HTTP/1.1\r\nhost: x\r\nX-Request-ID: mine\r\n\r\n")
        assert (await client.answer())[1]["x-request-id"] == "made-0"
        assert (await client.answer())[1]["x-request-id"] == "mine"
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\nX-Request-ID: " + b"a" * 300 + b"\r\n\r\n")
        assert (await client.answer())[1]["x-request-id"] == "made-1"


@on_uvloop
async def test_a_small_body_is_there_when_the_backend_is_called_however_it_was_sent() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        await client.writer.drain()
        client.send(b"def")
        assert (await client.answer())[2] == b"POST /p  abcdef"
        head = b"POST /p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        client.send(head, b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nt: v\r\n\r\n")
        assert (await client.answer())[2] == b"POST /p  abcde"
        assert [request.streams for request in server.backend.seen] == [False, False]
        client.send(GET)
        assert (await client.answer())[2] == b"GET /a b=c "


async def count_body(request: HttpRequest) -> None:
    size = len(request.body)
    while data := await read(request):
        size += len(data)
        await asyncio.sleep(0)
    request.respond(whole(Plain(200, [], b"%d" % size), request.framing))


@on_uvloop
async def test_a_large_body_streams_and_never_more_than_the_window_is_held() -> None:
    most = 0

    async def handler(request: HttpRequest) -> None:
        nonlocal most
        size = 0
        while True:
            for _ in range(5):
                await asyncio.sleep(0)
                most = max(most, request.held)
            if not (data := await read(request)):
                break
            size += len(data)
        request.respond(whole(Plain(200, [], b"%d" % size), request.framing))

    async with serving(handler, body_window_bytes=100_000) as server:
        client = await server.connect()
        total = 30_000_000
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % total, bytes(total))
        assert (await client.answer())[2] == b"%d" % total
        # One read of the socket beyond the window.
        assert 0 < most <= 100_000 + 256 * 1024
        client.send(GET)
        assert (await client.answer())[2] == b"0"


class SlowReplica:
    """A router with one replica, which takes a body in steps and answers with its size. It is a call's pipe, too."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.size = self.most_held = self.left = 0
        self.http = self
        self.lender, self.lending = None, Lending.TRIED
        self.tag = None
        self._callback: Any = None
        self._forwarded: Any = None

    def submit(self, forwarded: Any) -> None:
        forwarded.send(self, self)

    def released(self, slots: Any) -> None:
        pass

    def withdraw(self, request: Any) -> bool:
        return False

    def remote_piped(self, forwarded: Any, *args: Any) -> Any:
        self._forwarded = forwarded
        asyncio.get_running_loop().call_soon(self._take_more)
        return self

    def add_done_callback(self, callback: Any, here: bool) -> None:
        self._callback = callback

    def exception(self) -> None:
        return None

    def peek(self) -> bytes:
        return whole(Plain(200, [], b"%d" % self.size), self.request.framing)

    def room(self) -> int:
        return self.left

    def _take_more(self) -> None:
        self.left = 200_000
        self._forwarded.has_room(self)

    def write(self, *parts: bytes, last: bool = False) -> None:
        self.size += sum(map(len, parts))
        self.left -= sum(map(len, parts))
        assert self.left >= 0
        self.most_held = max(self.most_held, self.request.held)
        if self.size == self.request.length:
            asyncio.get_running_loop().call_soon(self._callback, self)
        elif not self.left:
            asyncio.get_running_loop().call_later(0.001, self._take_more)


@on_uvloop
async def test_a_body_that_is_forwarded_slower_than_it_comes_is_not_held_beyond_the_window() -> None:
    replicas: list[SlowReplica] = []

    async def handler(request: HttpRequest) -> None:
        loop = asyncio.get_running_loop()
        replica: Any = SlowReplica(request)
        replicas.append(replica)
        Forwarded(request, replica, b"", b"", loop, None).start()

    async with serving(handler, body_window_bytes=300_000) as server:
        client = await server.connect()
        total = 30_000_000
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % total, bytes(total))
        assert (await client.answer())[2] == b"%d" % total
        # One read of the socket beyond the window.
        assert 0 < replicas[0].most_held <= 300_000 + 256 * 1024


@on_uvloop
async def test_request_and_response_may_stream_at_the_same_time() -> None:
    async def handler(request: HttpRequest) -> None:
        made = ResponseBytes(request.framing)
        made.start(200, [])
        while data := await read(request):
            write(request, made.body(data.upper(), more=True))
        request.respond(made.body(b""))

    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(6) == b"1\r\nA\r\n"
        client.send(b"1\r\nb\r\n")
        assert await client.reader.readexactly(6) == b"1\r\nB\r\n"
        client.send(b"0\r\n\r\n")
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nz")
        assert (await client.answer())[0] == 200


@on_uvloop
@pytest.mark.parametrize("framing", [b"content-length: 3", b"content-length: 100000", b"transfer-encoding: chunked"])
async def test_expect_continue_is_answered_when_somebody_asks_for_the_body(framing: bytes) -> None:
    asks = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await asks.wait()
        await count_body(request)

    async with serving(handler, request_read_timeout_s=0.2) as server:
        client = await server.connect()
        head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n%b\r\n\r\n" % framing
        client.send(head)
        while not server.backend.seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # It does not have to send a body before it was asked, and nothing was said to it yet.
        connection: Any = next(iter(server.front.connections))
        connection.sweep(server.front.clock() + 1000)
        asks.set()
        assert (await client.answer())[0] == 100
        body = b"3\r\nabc\r\n0\r\n\r\n" if b"chunked" in framing else bytes(int(framing.split()[1]))
        client.send(body)
        assert (await client.answer())[0] == 200
        # A client that does not wait is asked for nothing.
        client.send(head + body)
        assert (await client.answer())[0] == 200


@on_uvloop
@pytest.mark.parametrize("framing", [b"content-length: 3", b"content-length: 100000", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_request_that_is_refused_by_its_head_is_not_asked_for_its_body(framing: bytes, streams: bool) -> None:
    async def handler(request: HttpRequest) -> None:
        if streams:
            made = ResponseBytes(request.framing)
            made.start(401, [])
            write(request, made.body(b"who are", more=True))
            request.respond(made.body(b" you?"))
        else:
            request.respond(whole(Plain(401, [], b"who are you?"), request.framing))

    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n%b\r\n\r\n" % framing)
        status, fields, body = await client.answer()
        assert (status, fields["connection"], body) == (401, "close", b"who are you?")
        assert await client.closed()


@on_uvloop
async def test_http_1_0_and_a_request_without_a_body_are_asked_for_nothing() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\r\n")
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n")
        client.send(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc")
        assert [(await client.answer())[::2] for _ in range(3)] == [
            (200, b"GET /  "),
            (200, b"POST /  "),
            (200, b"POST /  abc"),
        ]


@on_uvloop
async def test_an_answer_before_the_end_of_the_request_leaves_the_connection_usable() -> None:
    async def handler(request: HttpRequest) -> None:
        request.respond(whole(Plain(200, [], b"early"), request.framing))

    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert (await client.answer())[2] == b"early"
        client.send(bytes(1_000_000), GET)
        assert (await client.answer())[2] == b"early"
        assert len(server.backend.seen) == 2


@on_uvloop
async def test_an_endless_chunked_request_that_was_answered_is_cut_off_and_raises_nothing() -> None:
    async def handler(request: HttpRequest) -> None:
        request.respond(whole(Plain(200, [], b"early"), request.framing))

    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        assert (await client.answer())[2] == b"early"
        with suppress(ConnectionError):
            for _ in range(2 * MOST_DISCARDED // 1_000_000 + 2):
                client.send(b"f4240\r\n", bytes(1_000_000), b"\r\n")
                await client.writer.drain()
        assert await client.closed()
    assert raised == []


@on_uvloop
async def test_an_answer_before_the_end_of_an_endless_request_ends_the_connection() -> None:
    async def handler(request: HttpRequest) -> None:
        request.respond(whole(Plain(200, [], b"early"), request.framing))

    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        assert (await client.answer())[2] == b"early"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.flood(bytes(1_000_000))


@on_uvloop
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: b\nc\r\n d\r\n\r\n\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        # RFC 9112, 3.2: exactly one Host field, and one that has the form of one.
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x, y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x:port\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_told_so_and_the_next_client_is_served(request_bytes: bytes) -> None:
    async with serving(count_body) as server:
        client = await server.connect()
        client.send(request_bytes)
        status, fields, _ = await client.answer()
        assert (status, fields["connection"]) == (400, "close")
        assert await client.closed()
        client = await server.connect()
        client.send(GET)
        assert (await client.answer())[0] == 200


@on_uvloop
async def test_any_host_that_has_the_form_of_one_is_taken() -> None:
    async with serving() as server:
        client = await server.connect()
        hosts = (
            b"x",
            b"",
            b"a_b.example:8000",
            b"127.0.0.1:80",
            b"[::1]:8000",
            b"[fe80::1]",
            b"xn--bcher-kva.example",
            b"x \t",
        )
        for host in (*hosts, *hosts):
            client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            assert (await client.answer())[0] == 200
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[0] == 200


@on_uvloop
async def test_what_came_before_a_malformed_request_is_answered_first() -> None:
    may_end = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await may_end.wait()
        echo(request)

    async with serving(handler) as server:
        client = await server.connect()
        client.send(GET, GET, b"nonsense\r\n\r\n")
        await asyncio.sleep(0.01)
        may_end.set()
        assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 400]
        assert await client.closed()


@on_uvloop
@pytest.mark.parametrize("shape", ["many fields", "one field", "the target", "slowly"])
async def test_a_head_that_is_too_large_is_refused(shape: str) -> None:
    async with serving() as server:
        client = await server.connect()
        match shape:
            case "many fields":
                client.send(b"GET / HTTP/1.1\r\n", b"".join(b"h%d: v\r\n" % n for n in range(10_000)), b"\r\n")
            case "one field":
                client.send(b"GET / HTTP/1.1\r\nh: ", b"x" * 70_000, b"\r\n\r\n")
            case "the target":
                client.send(b"GET /", b"x" * 70_000, b" HTTP/1.1\r\n\r\n")
            case _:
                client.send(b"GET / HTTP/1.1\r\nh: ")
                assert (await client.flood(b"x" * 1000))[0] == 431
                return
        assert (await client.answer())[0] == 431
        assert await client.closed()


@on_uvloop
async def test_a_head_of_almost_the_limit_is_fine_also_behind_a_body_in_the_same_read() -> None:
    async with serving() as server:
        client = await server.connect()
        large = b"GET / HTTP/1.1\r\nhost: x\r\nh: " + b"x" * 60_000 + b"\r\n\r\n"
        body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n" + bytes(60_000)
        client.send(body, large[:50_000])
        await client.writer.drain()
        await asyncio.sleep(0.01)
        client.send(large[50_000:], large)
        assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 200]


@on_uvloop
async def test_trailers_and_chunk_extensions_without_end_are_refused() -> None:
    start = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    for endless in (b"3;ext=", b"3\r\nabc\r\n0\r\nt: "):
        async with serving(count_body) as server:
            client = await server.connect()
            client.send(start, endless)
            assert (await client.flood(b"x" * 10_000))[0] == 400


HALVES = {
    "a byte": b"G",
    "half a head": b"GET / HTTP/1.1\r\nhost:",
    "half a small body": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc",
    "half a large body": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nabc",
    "half a chunk": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc",
}


@on_uvloop
@pytest.mark.parametrize("half", HALVES)
async def test_half_a_request_is_answered_408(half: str) -> None:
    async with serving(count_body, request_read_timeout_s=0.1) as server:
        client = await server.connect()
        client.send(GET)
        assert (await client.answer())[0] == 200
        client.send(HALVES[half])
        status, fields, _ = await client.answer()
        assert (status, fields["connection"]) == (408, "close")
        assert await client.closed()


@on_uvloop
async def test_a_head_that_drips_is_answered_408_too() -> None:
    async with serving(request_read_timeout_s=0.2) as server:
        client = await server.connect()
        answer = asyncio.ensure_future(client.answer())
        client.send(b"GET / HTTP/1.1\r\n")
        while not answer.done():
            client.send(b"a: b\r\n")
            await asyncio.wait([answer], timeout=0.03)
        assert (await answer)[0] == 408


@on_uvloop
async def test_the_time_in_which_the_backend_keeps_the_client_waiting_does_not_count() -> None:
    may_read = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await may_read.wait()
        await count_body(request)

    async with serving(handler, request_read_timeout_s=0.1, body_window_bytes=1000) as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n", bytes(1_000_000))
        await asyncio.sleep(0.4)
        may_read.set()
        assert (await client.answer())[2] == b"1000000"


@on_uvloop
async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    cut_off = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        try:
            while True:
                if not write(request, bytes(1_000_000)):
                    await taken(request)
        finally:
            cut_off.set()

    async with serving(handler, stalled_client_timeout_s=0.2) as server:
        client = await server.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET)
        await cut_off.wait()
        assert server.backend.gone.is_set()
        assert not server.front.connections


@on_uvloop
async def test_a_client_that_reads_nothing_of_a_finished_response_is_cut_off_too() -> None:
    async def handler(request: HttpRequest) -> None:
        request.respond(whole(Plain(200, [], bytes(30_000_000)), request.framing))

    async with serving(handler, stalled_client_timeout_s=0.2) as server:
        client = await server.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET)
        while not server.backend.seen or server.front.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@on_uvloop
async def test_a_client_that_asks_and_reads_nothing_gets_no_more_answers_than_fit_its_socket() -> None:
    size, count = 256 * 1024, 150

    async with serving() as server:

        def large(request: HttpRequest) -> None:
            server.backend.seen.append(request)
            request.respond(whole(Plain(200, [], bytes(size)), request.framing))

        server.backend.handle = large  # type: ignore[method-assign]
        client = await server.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET * count)
        while not server.front.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (connection,) = server.front.connections
        while not connection.flow.read_paused:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() < 2 * size
        assert len(server.backend.seen) < count
        # Once it reads it gets the others, also the one whose body comes only then.
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n", bytes(100_000), GET)
        assert {len((await client.answer())[2]) for _ in range(count + 2)} == {size}
        assert len(server.backend.seen) == count + 2


@on_uvloop
async def test_of_the_requests_that_come_in_one_read_only_so_many_wait() -> None:
    may_end = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await may_end.wait()
        echo(request)

    async with serving(handler) as server:
        client = await server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * (MOST_BEHIND + 100))
        while not server.backend.seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
        may_end.set()
        statuses = [(await client.answer())[0] for _ in range(MOST_BEHIND + 3)]
        # The one that was being answered, those behind it, and the one that was too much.
        assert statuses == [200] * (MOST_BEHIND + 2) + [429]
        assert await client.closed()


@on_uvloop
@pytest.mark.parametrize("how", ["the connection ends", "its body is not complete in time", "the client goes"])
async def test_a_request_that_was_answered_early_is_let_go_of_with_its_connection(how: str) -> None:
    async def count_nothing(request: HttpRequest) -> None:
        request.respond(whole(Plain(401, [], b"no"), request.framing))

    async with serving(count_nothing, request_read_timeout_s=0.1 if "time" in how else 10.0) as server:
        client = await server.connect()
        close = b"connection: close\r\n" if how == "the connection ends" else b""
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\n", close, b"transfer-encoding: chunked\r\n\r\n")
        assert (await client.answer())[0] == 401
        if how == "the client goes":
            client.writer.close()
        while server.backend.seen[0].connection is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)


@on_uvloop
async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with serving(keep_alive_timeout_s=0.1) as server:
        fresh, used = await server.connect(), await server.connect()
        used.send(GET)
        assert (await used.answer())[0] == 200
        assert await fresh.closed()
        assert await used.closed()


@on_uvloop
@pytest.mark.parametrize("when", ["before the answer", "within the answer", "within the request"])
async def test_a_client_that_goes_is_noticed_at_once(when: str) -> None:
    began = asyncio.Event()
    errors: list[BaseException] = []

    async def handler(request: HttpRequest) -> None:
        began.set()
        try:
            if when == "within the request":
                while await read(request):
                    pass
            if when == "within the answer":
                write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            await asyncio.Event().wait()
        except (asyncio.CancelledError, ClientDisconnected) as error:
            errors.append(error)
            raise

    async with serving(handler) as server:
        client = await server.connect()
        client.send(GET if when != "within the request" else HALVES["half a large body"])
        await began.wait()
        client.writer.close()
        await server.backend.gone.wait()
        while server.backend.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert len(errors) == 1


@on_uvloop
async def test_what_is_written_for_a_client_that_has_gone_is_dropped() -> None:
    async with serving() as server:
        kept: list[HttpRequest] = []
        server.backend.handle = kept.append  # type: ignore[method-assign]
        client = await server.connect()
        client.send(GET)
        while not kept:  # noqa: ASYNC110
            await asyncio.sleep(0)
        client.writer.close()
        while kept[0].connection is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        write(kept[0], b"x")
        kept[0].respond(b"x")
        kept[0].abort()


@on_uvloop
async def test_a_response_that_breaks_off_is_not_mistaken_for_a_whole_one() -> None:
    async def handler(request: HttpRequest) -> None:
        made = ResponseBytes(request.framing)
        made.start(200, [])
        write(request, made.body(b"part", more=True))
        await asyncio.sleep(0.01)
        request.abort()

    async with serving(handler) as server:
        client = await server.connect()
        client.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await client.answer()


@on_uvloop
async def test_a_backend_that_raises_is_a_500_and_the_server_goes_on() -> None:
    async with serving() as server:

        def broken(request: HttpRequest) -> None:
            raise RuntimeError("an error of ours")

        working, server.backend.handle = server.backend.handle, broken  # type: ignore[method-assign]
        client = await server.connect()
        client.send(GET)
        status, _, body = await client.answer()
        assert (status, body) == (500, b"Internal Server Error")
        server.backend.handle = working  # type: ignore[method-assign]
        client = await server.connect()
        client.send(GET)
        assert (await client.answer())[0] == 200


@on_uvloop
async def test_an_upgrade_that_is_not_granted_is_a_plain_request() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"GET /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        assert (await client.answer())[::2] == (200, b"GET /u  ")
        client.send(GET)
        assert (await client.answer())[0] == 200


UPGRADE = b"host: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"


@on_uvloop
@pytest.mark.parametrize("cut", [0, 1, 7, 100])
@pytest.mark.parametrize("size", [0, 5, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_offers_another_protocol_keeps_its_body(cut: int, size: int, chunked: bool) -> None:
    body = b"x" * size
    if chunked:
        sent = b"transfer-encoding: chunked\r\n\r\n" + (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
    else:
        sent = b"content-length: %d\r\n\r\n" % size + body
    request = b"POST /u HTTP/1.1\r\n" + UPGRADE + sent

    async with serving(count_body) as server:
        client = await server.connect()
        # Behind each other, offers and others, and then cut so that the body comes in other reads.
        client.send((request + GET) * 3)
        for _ in range(3):
            assert (await client.answer())[::2] == (200, b"%d" % size)
            assert (await client.answer())[::2] == (200, b"0")
        connection: Any = next(iter(server.front.connections))
        end = request.index(b"\r\n\r\n") + 4 + cut
        connection.data_received(request[:end])
        for each in range(end, len(request), 20_000):
            connection.data_received(request[each : each + 20_000])
        assert (await client.answer())[::2] == (200, b"%d" % size)
        client.send(GET)
        assert (await client.answer())[::2] == (200, b"0")


@on_uvloop
async def test_absolute_targets_and_asterisks_are_understood() -> None:
    async with serving() as server:
        client = await server.connect()
        client.send(b"GET http://host/p?q=1 HTTP/1.1\r\nhost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.answer())[2] == b"GET /p q=1 "
        assert (await client.answer())[2] == b"OPTIONS *  "
        client.send(b"CONNECT host:80 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.answer())[0] in (200, 400)


@on_uvloop
async def test_a_server_that_ends_closes_idle_connections_and_lets_the_others_finish() -> None:
    may_end = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        if request.path == b"/slow":
            await may_end.wait()
        echo(request)

    async with serving(handler) as server:
        idle, busy = await server.connect(), await server.connect()
        idle.send(GET)
        await idle.answer()
        busy.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        while len(server.backend.seen) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for connection in list(server.state.connections):
            connection.shutdown()
        assert await idle.closed()
        may_end.set()
        assert (await busy.answer())[0] == 200
        assert await busy.closed()
