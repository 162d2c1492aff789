"""uvicorn's HTTP/1.1 protocol with two changes: it hands requests to a backend, and it bounds bad clients.

A plain request costs no task, event or ASGI message here: the backend is called from the parser and its answer is one
write. A websocket takes uvicorn's ordinary way through the ASGI application. What each limit is for is told in
`HTTPOptions`; the clock is looked at by a sweep over all connections, not by a timer for each request.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import socket
import sys
import termios
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ..http.forwarded_headers import forwarded
from ..http.request_head import CLOSE, connection_line
from ..http.responses import error_page
from .connection_phase import Phase, PhaseEvent, Upgrade, after
from .http_front import Front
from .http_request import (
    COMPLETE,
    CONTENT_LENGTH,
    EXPECT,
    HTTP_1_1,
    LENT,
    OVER,
    REQUEST_ID,
    TIMEOUT,
    TRANSFER_ENCODING,
    UNASKED,
    HttpRequest,
)
from .patience import Due, Pace, Rate, due, pace, stalled_since
from .turns import Refusal, Turn, refusal, turn

logger = logging.getLogger("actorrt.serve.http")
access = logging.getLogger("actorrt.serve.access")

# Of these the connection itself takes notice, the request of those before them.
HOST, FORWARDED = range(TIMEOUT + 1, TIMEOUT + 3)
# Python looks up the members of an enum slowly, and each request asks for these.
BODIES: Final = Phase.BODIES
IN_HEAD: Final = Phase.HEAD
LINGERING: Final = Phase.LINGERING
NO_UPGRADE: Final = Upgrade.NONE
SPECIAL: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"expect": EXPECT,
    b"x-request-id": REQUEST_ID,
    b"x-request-timeout-seconds": TIMEOUT,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
}
HASH: Final = ord("#")
# RFC 9110, 7.2: a name or an address, and perhaps a port. Empty where a target has no authority.
HOST_FORM: Final = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:~!$&'()*+,;=-]+\])(?::[0-9]*)?")
# After a refusal what the client still sends is thrown away for this long, so that it can read why: a connection closed
# with unread bytes is reset, and the answer with it.
LINGER_S: Final = 2.0
# And only so much of it. The same for the rest of a request that was answered before its end.
MOST_DISCARDED: Final = 16 * 1024 * 1024
# One read of the socket may bring many requests. More than these do not wait behind the one that is answered.
MOST_BEHIND: Final = 1000


FRAMING: Final = (CONTENT_LENGTH, TRANSFER_ENCODING)
# Of Linux's struct tcp_info: tcpi_bytes_acked, the bytes that the other side's kernel has taken.
BYTES_ACKED: Final = slice(120, 128)


def _parser(callbacks: object) -> Any:
    parser = httptools.HttpRequestParser(callbacks)
    # As uvicorn's: what comes behind a request that ends the connection is thrown away.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _bytes_acked(transport: asyncio.Transport) -> int:
    """OSError if the transport is not of TCP."""
    info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED.stop)
    return int.from_bytes(info[BYTES_ACKED], sys.byteorder)


def _acknowledged(transport: asyncio.Transport) -> int:
    try:
        return _bytes_acked(transport)
    except OSError:
        return -transport.get_write_buffer_size()


class _Following:
    """The callbacks of a parser that is given a head a second time, for the body that follows it."""

    def __init__(self, protocol: ServeProtocol) -> None:
        self._protocol = protocol
        self._in_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def head_over(self) -> None:
        """What comes now is new."""
        self._in_head = False

    def on_message_begin(self) -> None:
        if not self._in_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._in_head:
            self._protocol.on_headers_complete()


class _Refused(Exception):
    """Leaves the parser in the middle of its input."""


class ServeProtocol(HttpToolsProtocol):
    """One connection of a client. Requests are answered in the order in which they came."""

    # Beside the base's attributes they are too many for Python to keep them where it finds them at once.
    __slots__ = (
        "_acknowledged",
        "_advancing",
        "_behind",
        "_body_came",
        "_body_left",
        "_current",
        "_deadline",
        "_discarded",
        "_fd",
        "_fed_in_head",
        "_forwarded",
        "_front",
        "_handle",
        "_head_bytes",
        "_host",
        "_hosts",
        "_idle_since",
        "_measured",
        "_options",
        "_phase",
        "_quiet_bytes",
        "_rate",
        "_reading",
        "_refusal",
        "_stalled_since",
        "_target",
        "_upgrade_asked",
        "_written_when_lent",
        "line",
    )

    parser: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        front: Front,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._front = front
        self._options = front.options
        self._handle = front.backend.handle
        self.line = b""
        # The request whose head or body is being read.
        self._reading: HttpRequest | None = None
        self._phase = BODIES
        # The one the backend has, and those that wait behind it.
        self._current: HttpRequest | None = None
        self._behind: deque[HttpRequest] = deque()
        self._advancing = False
        # What is written once all before it is answered; then the connection ends.
        self._refusal: tuple[int, str] | None = None
        self._fed_in_head = 0
        self._head_bytes = 0
        self._quiet_bytes = 0
        self._body_came = 0
        # Of a body whose length is known: what is still to come, past the parser.
        self._body_left = 0
        self._discarded = 0
        self._target = b""
        self._hosts = 0
        # What servers in front of this one say of where the request that is read comes from; None: not believed.
        self._forwarded: list[tuple[bytes, bytes]] | None = None
        self._upgrade_asked = NO_UPGRADE
        # What a response is written to where that needs no transport; 0: not known yet.
        self._fd = 0
        # What had been written to it when it was lent last; -1: it never was.
        self._written_when_lent = -1
        # The last one that has the form of one: most connections say the same each time.
        self._host: bytes = b""
        # Times of the loop's clock; 0: not running.
        self._deadline = 0.0
        self._idle_since = front.clock()
        self._acknowledged = 0
        self._stalled_since = 0.0
        # The body whose rate is measured, and by what.
        self._measured: HttpRequest | None = None
        self._rate: Rate | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._front.has(self)
        self.line = connection_line(self.scheme or "http", self.client, self.server)
        if self._front.trusts(self.client):
            self._forwarded = []

    def connection_lost(self, exc: Exception | None) -> None:
        if self._written_when_lent >= 0:
            self._shut_down()
        self.connections.discard(self)
        self._front.loses(self)
        self.flow.resume_writing()
        gone = [self._current, self._reading, *self._behind]
        self._current = self._reading = self._measured = None
        self._behind.clear()
        for request in dict.fromkeys(gone):
            if request is not None:
                request.gone()
        self.parser = None  # it and this hold each other

    def data_received(self, data: bytes) -> None:
        if self._phase is LINGERING:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.transport.abort()
            return
        if self.parser is None:
            return
        if self._body_left:
            data = self._take_body(data)
            if not data:
                return
        in_head = self._phase is IN_HEAD
        if in_head:
            self._fed_in_head += len(data)
        elif self._reading is not None:
            self._quiet_bytes += len(data)
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if self._upgrade_asked is not Upgrade.IGNORED:
                    self._upgrade()
                    return
                self._read_on()
                data = data[stopped.args[0] :]
            except httptools.HttpParserError:
                if self._refusal is None:
                    self._refuse(400, "malformed request")
                return
            else:
                break
        reading = self._reading
        if reading is None:
            return
        if self._phase is IN_HEAD:
            if max(self._fed_in_head, self._head_bytes) > self._options.max_header_bytes:
                self._refuse(431, "the head of the request is too large")
            elif not in_head:
                self._deadline = self._front.clock() + self._options.request_read_timeout_s
            return
        # Chunk extensions and trailers are no body, but they are held by the parser.
        if self._quiet_bytes > self._options.max_header_bytes:
            self._refuse(400, "malformed request body")
            return
        if reading.streams and self._may_enter() and self._has_window(reading):
            self._enter(reading)
        if reading.length is not None and reading.streams and self._reading is reading:
            self._body_left = reading.length - self._body_came
            self._pause_while_held(reading)
        if in_head or reading.streams or not self._deadline:
            self._deadline = self._front.clock() + self._options.request_read_timeout_s

    def _take_body(self, data: bytes) -> bytes:
        """Take what belongs to the body, and give what comes behind it. There is nothing to parse in it."""
        left = self._body_left
        self._body_left = max(0, left - len(data))
        try:
            self.on_body(data if len(data) <= left else data[:left])
            if not self._body_left:
                # The old one still waits for this body.
                self.parser = _parser(self)
                self.on_message_complete()
        except _Refused:
            return b""
        if self._body_left:
            self._deadline = self._front.clock() + self._options.request_read_timeout_s
            reading = self._reading
            if reading is not None and reading is not self._current and self._may_enter() and self._has_window(reading):
                self._enter(reading)
            self._pause_while_held(self._reading)
        return data[left:]

    def _pause_while_held(self, request: HttpRequest | None) -> None:
        # What cannot be passed on at once waits in the client's socket, not here, but for one read and a first window.
        if request is not None and request.held and (request is self._current or not self._may_enter()):
            self.flow.pause_reading()

    def _read_on(self) -> None:
        """Read what follows a head that asked for another protocol, where the parser stops for good."""
        self._upgrade_asked = NO_UPGRADE
        request = self._reading
        if request is None:
            self.parser = _parser(self)
            return
        following = _Following(self)
        self.parser = _parser(following)
        framing = [b"%b: %b\r\n" % each for each in request.pairs() if SPECIAL.get(each[0]) in FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        following.head_over()

    def eof_received(self) -> None:
        """A client that has closed its half wants no answer: from here it looks like one that has gone."""

    def shutdown(self) -> None:
        """The server ends: no request after those that are here."""
        self._front.drain()
        if self._current is None and not self._behind and self._reading is None:
            self.transport.close()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._reading = HttpRequest(self)
        self._phase = IN_HEAD
        self._fed_in_head = self._head_bytes = self._quiet_bytes = self._body_came = 0
        self._target = b""
        self._hosts = 0
        self.expect_100_continue = False
        self._deadline = 0.0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._reading
        self._head_bytes += len(name) + len(value) + 4
        if request is None or self._phase is not IN_HEAD:
            return  # a trailer
        name = name.lower()
        if (special := SPECIAL.get(name)) is not None:
            if special < HOST:
                request.note(special, value, self._options.inline_body_bytes)
            else:
                self._note(special, name, value)
        request.fields.extend((name, value))

    def _note(self, special: int, name: bytes, value: bytes) -> None:
        if special == HOST:
            self._hosts += 1
            if value != self._host:
                if HOST_FORM.fullmatch(value.strip()) is None:
                    self._hosts += 1  # as wrong as two of them
                else:
                    self._host = value
        elif self._forwarded is not None:
            self._forwarded.append((name, value))

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        self._phase = BODIES
        if self._head_bytes > self._options.max_header_bytes:
            self._refuse(431, "the head of the request is too large")
            raise _Refused
        parser = self.parser
        spoken = parser.get_http_version()
        version = HTTP_1_1
        if spoken != "1.1":
            version = spoken.encode("ascii")
            if spoken != "1.0":
                self._refuse(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
                raise _Refused
        if self._hosts != 1 and (self._hosts or version is HTTP_1_1):
            self._refuse(400, "a request has one Host field, with a name or an address")
            raise _Refused
        if parser.should_upgrade():
            if self._is_websocket(request):
                self._upgrade_asked = Upgrade.WEBSOCKET
                return
            # RFC 9110, 7.8: a request as any other.
            self._upgrade_asked = Upgrade.IGNORED
        target = self._target
        if target[:1] != b"/" and target != b"*":
            parsed = httptools.parse_url(target)
            target = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        # By its number: Python looks for bytes only once an error has told it that they are none.
        if HASH in target:
            target = target.partition(b"#")[0]
        path, _, query = target.partition(b"?")
        if self._forwarded:
            fields, self._forwarded = self._forwarded, []
            scheme, client = forwarded(self._front.trusted, self.scheme or "http", self.client, fields)
            request.came_from(connection_line(scheme, client, self.server))
        if self._options.access_log:
            request.began_at(time.perf_counter())
        request.begins(
            parser.get_method(),
            path,
            query,
            version,
            version is HTTP_1_1 and parser.should_keep_alive(),
            request.request_id or self._front.new_request_id(),
        )

    def _continue(self, request: HttpRequest) -> None:
        request.continued()
        self._deadline = self._front.clock() + self._options.request_read_timeout_s
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            return
        self._quiet_bytes = 0
        self._body_came += len(body)
        if request.answer is OVER:
            self._discarded += len(body)
            if self._discarded > MOST_DISCARDED:
                self._linger()
                raise _Refused
            return
        request.fed(body)
        if request.held > self._options.body_window_bytes:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        if self._upgrade_asked is not NO_UPGRADE and (request.has_body or self._is_websocket(request)):
            return  # the parser stops behind the head
        self._reading = None
        self._deadline = 0.0
        if request.streams and request is not self._current and request.held <= self._options.inline_body_bytes:
            request.is_all_here()
        request.ended()
        if request is self._current:
            if request.answer is OVER:
                self._current = None
                self._advance()
        elif request not in self._behind:
            if self._may_enter():
                self._enter(request)
                return
            self._behind.append(request)
            self.flow.pause_reading()
            if len(self._behind) > MOST_BEHIND:
                self._refuse(429, "too many requests at once on one connection")
                raise _Refused

    # Towards the backend.

    def _may_enter(self) -> bool:
        # A client that does not take its answers gets no more of them: they would be held here.
        return self._current is None and not self._behind and not self.flow.write_paused

    def _has_window(self, request: HttpRequest) -> bool:
        """Has so much of a body come that it is worth a replica's place? One without a length may answer its answer."""
        length = request.length
        return (
            length is None or request.arrival is UNASKED or request.held >= min(length, self._options.body_window_bytes)
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._current is not None and (on_drained := self._current.on_drained) is not None:
            on_drained()
        if self._current is None and self._phase is not LINGERING:
            self._advance()

    def _enter(self, request: HttpRequest) -> None:
        self._current = request
        try:
            self._handle(request)
        except Exception:
            logger.exception("the backend failed on a request")
            request.respond(error_page(500, "Internal Server Error", request.framing | CLOSE), close=True)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def pass_on(self, data: memoryview) -> bool:
        """Write what is another's memory in a moment. False once more is held here than a client should leave."""
        transport = self.transport
        if not self._fd:
            self._find_fd()
        if self._fd > 0 and not transport.get_write_buffer_size() and not transport.is_closing():
            try:
                sent = os.write(self._fd, data)
            except OSError:
                sent = 0  # it takes nothing now, or it is broken, which the transport finds
            if sent == len(data):
                return True
            data = data[sent:]
        transport.write(bytes(data))
        return not self.flow.write_paused

    def _find_fd(self) -> None:
        # Bytes that are to be encrypted go through the transport.
        plain = self.transport.get_extra_info("sslcontext") is None
        self._fd = self.transport.get_extra_info("socket").fileno() if plain else -1

    def can_lend(self) -> bool:
        if not self._fd:
            self._find_fd()
        return self._fd > 0

    def lend(self) -> int:
        """The descriptor of the socket, if the kernel has all that was written here, and nothing is encrypted."""
        if not self.can_lend() or self.transport.get_write_buffer_size() or self.transport.is_closing():
            return -1
        try:
            self._written_when_lent = self._written()
        except OSError:
            return -1  # it is not of TCP
        return self._fd

    def is_as_lent(self) -> bool:
        """Nobody has written anything to the socket since it was lent."""
        return not self.transport.get_write_buffer_size() and self._written() == self._written_when_lent

    def _written(self) -> int:
        """What was written to the socket so far, by whomever."""
        while True:
            acked = _bytes_acked(self.transport)
            written = acked + self._not_taken()
            if _bytes_acked(self.transport) == acked:
                return written

    def _not_taken(self) -> int:
        """Bytes that the kernel has and the client's kernel has not."""
        return int.from_bytes(fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def _shut_down(self) -> None:
        """End the connection in fact: to close this process's descriptor ends nothing while there is a duplicate."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    def finished(self, request: HttpRequest, close: bool) -> None:
        self.server_state.total_requests += 1
        if self._options.access_log:
            self._log(request)
        if close or not request.keep_alive or self._front.draining:
            if request.arrival is COMPLETE:
                self._end()
            else:
                self._linger()
        elif request.arrival is COMPLETE:
            self._current = None
            if self._behind or self._reading is not None or self._refusal is not None:
                self._advance()
            else:
                self._rest()
        else:
            # The rest of its body is read and thrown away before the next request can begin.
            request.discard()
            self._discarded = 0
            self._deadline = self._front.clock() + self._options.request_read_timeout_s
            self.flow.resume_reading()

    def _advance(self) -> None:
        """The next request, if one waits. Answers may come within the call, so this is a loop and does not nest."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._current is None and not self.transport.is_closing():
                reading = self._reading if self._phase is not IN_HEAD else None
                is_ready = reading is not None and reading.streams and self._has_window(reading)
                refused, is_slow = self._refusal is not None, self.flow.write_paused
                match turn(waiting=len(self._behind), refused=refused, is_slow=is_slow, is_ready=is_ready):
                    case Turn.REFUSAL:
                        self._refuse_now()
                        return
                    case Turn.NEXT:
                        self._enter(self._behind.popleft())
                    case Turn.READING if reading is not None:
                        self._enter(reading)
                    case _:
                        break
        finally:
            self._advancing = False
        if not self._behind:
            self._rest()

    def _rest(self) -> None:
        """Nothing waits to be answered."""
        self.flow.resume_reading()
        self._idle_since = self._front.clock()

    async def drain(self) -> None:
        if self.flow.write_paused:
            await self.flow.drain()

    def wants_body(self, request: HttpRequest) -> None:
        if request.arrival is UNASKED:
            self._continue(request)
        self.flow.resume_reading()

    def body_taken(self, request: HttpRequest) -> None:
        if request.held > self._options.body_window_bytes:
            return
        if request is self._reading:
            if self.flow.read_paused:
                self._deadline = self._front.clock() + self._options.request_read_timeout_s
            self.flow.resume_reading()
        elif not self._behind:
            self.flow.resume_reading()

    def abort(self) -> None:
        self.transport.abort()

    def _log(self, request: HttpRequest) -> None:
        access.info(
            '%s - "%s %s" %s %.1fms',
            request.line.split(b"\t")[1].decode("latin-1") or "-",
            request.method.decode("latin-1"),
            request.path.decode("latin-1"),
            request.status.decode("latin-1"),
            (time.perf_counter() - request.started) * 1e3,
        )

    # The end of a connection.

    def _end(self) -> None:
        self._reading = self._current = None
        self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        """Answer what came before, then say what is wrong, then close. Nothing where that is under way already."""
        if self._phase is LINGERING:
            return
        self._refusal = (status, text)
        reading, self._reading = self._reading, None
        self._phase = after(self._phase, PhaseEvent.REFUSED)
        self._deadline = 0.0
        answer = None
        if reading is not None and reading is self._current:
            self._current = None
            answer = reading.answer
            reading.gone()
        match refusal(answer, others=self._current is not None or bool(self._behind)):
            case Refusal.NOW:
                self._refuse_now()
            case Refusal.IN_TURN:
                self.flow.pause_reading()
            case Refusal.LINGER:
                self._linger()
            case Refusal.ABORT:
                self.abort()

    def _refuse_now(self) -> None:
        assert self._refusal is not None
        status, text = self._refusal
        logger.debug("refused a client: %s %s", status, text)
        self.transport.write(error_page(status, text, CLOSE))
        self._linger()

    def _linger(self) -> None:
        self._phase = after(self._phase, PhaseEvent.LINGER)
        self._discarded = 0
        dropped = dict.fromkeys((self._reading, self._current))
        self._reading = self._current = None
        for request in dropped:
            if request is not None:
                # Whoever still reads its body would wait for ever.
                request.gone()
        self._deadline = self._front.clock() + LINGER_S
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def sweep(self, now: float) -> None:
        """End what takes too long. Called about once a second."""
        transport = self.transport
        buffered = transport.get_write_buffer_size()
        current = self._current
        left_by_other = self._not_taken() if current is not None and current.answer is LENT else 0
        left = buffered or left_by_other
        self._stalled_since = stalled_since(self._stalled_since, now, left, self._has_taken)
        if self._stalled_since and now - self._stalled_since >= self._options.stalled_client_timeout_s:
            logger.debug("cut off a client that reads nothing")
            transport.abort()
            return
        if current is not None and current.on_slow is not None and (current.on_drained is not None or left_by_other):
            current.on_slow()
        reading = self._reading
        if reading is None:
            self._measured = None
        match self._due(reading, now, buffered):
            case Due.CUT_OFF:
                transport.abort()
            case Due.CLOSE:
                transport.close()
            case Due.LINGER:
                self._linger()
            case Due.REFUSE:
                self._refuse(408, "the request was not complete in time")
            case Due.MEASURE if reading is not None:
                self._sweep_body(reading, now)
            case Due.MEASURE_ANEW:
                self._measured = None
            case _:
                pass

    def _due(self, reading: HttpRequest | None, now: float, buffered: int) -> Due:
        return due(
            now,
            self._deadline,
            self._phase,
            reads=reading is not None,
            # While reading is paused it is the backend that keeps the client waiting.
            is_held_up=self.flow.read_paused or (reading is not None and reading.arrival is UNASKED),
            is_answered=reading is not None and reading.answer is OVER,
            streams=reading is not None and reading.streams and not reading.is_begun,
            idle_since=self._idle_since if self._current is None and not buffered else None,
            keep_alive_s=self._options.keep_alive_timeout_s,
        )

    def _sweep_body(self, reading: HttpRequest, now: float) -> None:
        """A body comes at the least rate that is allowed, or it is refused."""
        least = self._options.least_body_rate
        rate = self._rate if self._measured is reading else None
        self._measured = reading
        self._rate, found = pace(rate, now, self._body_came, self._options.request_read_timeout_s, least)
        if found is Pace.TOO_SLOW:
            self._refuse(408, f"the body of the request came at less than {least} bytes a second")
        elif found is Pace.ENTER and reading is not self._current and self._may_enter():
            self._enter(reading)

    def _has_taken(self) -> bool:
        """Has the client taken a byte since this was asked last? Most of what is on its way is held by the kernel."""
        acknowledged = _acknowledged(self.transport)
        taken, self._acknowledged = acknowledged != self._acknowledged, acknowledged
        return taken

    # Websockets take uvicorn's own way.

    def _is_websocket(self, request: HttpRequest) -> bool:
        self.headers = cast(Any, list(request.pairs()))
        if self._get_upgrade() != b"websocket":
            return False
        self.ws_protocol_class = cast(Any, self._front.websocket_protocol())
        return self.ws_protocol_class is not None

    def _upgrade(self) -> None:
        request, self._reading = self._reading, None
        self._front.loses(self)
        if request is None or self._current is not None or self._behind:
            self.transport.close()
            return
        self.url = self._target
        self.scope = cast(Any, {"method": self.parser.get_method().decode("ascii"), "headers": self.headers})
        self.handle_websocket_upgrade()
        self.parser = None  # it and this hold each other
