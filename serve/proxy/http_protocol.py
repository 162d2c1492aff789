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
import socket
import sys
import termios
import time
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
from .head_rules import MALFORMED, MALFORMED_BODY, TOO_LARGE, complaint, is_host
from .http_front import Front
from .http_request import (
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
from .patience import Due, Look, Watch
from .turns import Refusal, Step, Turns

logger = logging.getLogger("actorrt.serve.http")
access = logging.getLogger("actorrt.serve.access")

# Of these the connection itself takes notice, the request of those before them.
HOST, FORWARDED = range(TIMEOUT + 1, TIMEOUT + 3)
# Python looks up the members of an enum slowly, and each request asks for these.
BODIES: Final = Phase.BODIES
IN_HEAD: Final = Phase.HEAD
LINGERING: Final = Phase.LINGERING
NO_UPGRADE: Final = Upgrade.NONE
ENTER: Final = Step.ENTER
NOTHING: Final = Step.NOTHING
REST: Final = Step.REST
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
# After a refusal what the client still sends is thrown away for this long, so that it can read why: a connection closed
# with unread bytes is reset, and the answer with it.
LINGER_S: Final = 2.0
# And only so much of it. The same for the rest of a request that was answered before its end.
MOST_DISCARDED: Final = 16 * 1024 * 1024

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
        "_body_came",
        "_body_left",
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
        "_options",
        "_phase",
        "_quiet_bytes",
        "_refusal",
        "_target",
        "_turns",
        "_upgrade_asked",
        "_watch",
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
        self._turns = Turns[HttpRequest]()
        self._phase = BODIES
        self._advancing = False
        # What is written once all before it is answered; then the connection ends.
        self._refusal = (0, "")
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
        self._watch = Watch(front.options)

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
        self._watch.forget()
        for request in self._turns.drop():
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
        elif self._turns.reading is not None:
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
                if not self._turns.is_refused:
                    self._refuse(*MALFORMED)
                return
            else:
                break
        reading = self._turns.reading
        if reading is None:
            return
        if self._phase is IN_HEAD:
            if max(self._fed_in_head, self._head_bytes) > self._options.max_header_bytes:
                self._refuse(*TOO_LARGE)
            elif not in_head:
                self._deadline = self._front.clock() + self._options.request_read_timeout_s
            return
        # Chunk extensions and trailers are no body, but they are held by the parser.
        if self._quiet_bytes > self._options.max_header_bytes:
            self._refuse(*MALFORMED_BODY)
            return
        self._enter_early(self._options.body_window_bytes)
        if reading.length is not None and reading.streams and self._turns.reading is reading:
            self._body_left = reading.length - self._body_came
            self._pause_while_held()
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
            self._enter_early(self._options.body_window_bytes)
            self._pause_while_held()
        return data[left:]

    def _pause_while_held(self) -> None:
        # What cannot be passed on at once waits in the client's socket, not here, but for one read and a first window.
        if self._turns.holds_up(self.flow.write_paused):
            self.flow.pause_reading()

    def _read_on(self) -> None:
        """Read what follows a head that asked for another protocol, where the parser stops for good."""
        self._upgrade_asked = NO_UPGRADE
        request = self._turns.reading
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
        if self._turns.is_empty:
            self.transport.close()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._turns.begin(HttpRequest(self))
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
        request = self._turns.reading
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
                if is_host(value):
                    self._host = value
                else:
                    self._hosts += 1  # as wrong as two of them
        elif self._forwarded is not None:
            self._forwarded.append((name, value))

    def on_headers_complete(self) -> None:
        request = self._turns.reading
        if request is None:
            return
        self._phase = BODIES
        parser = self.parser
        spoken = parser.get_http_version()
        version = HTTP_1_1
        limit = self._options.max_header_bytes
        if spoken != "1.1" or self._hosts != 1 or self._head_bytes > limit:
            if (wrong := complaint(self._head_bytes, limit, spoken, self._hosts)) is not None:
                self._refuse(*wrong)
                raise _Refused
            version = spoken.encode("ascii")
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
        request = self._turns.reading
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
        turns = self._turns
        request = turns.reading
        if request is None:
            return
        if self._upgrade_asked is not NO_UPGRADE and (request.has_body or self._is_websocket(request)):
            return  # the parser stops behind the head
        self._deadline = 0.0
        # A short body of unknown length does not stream, if the backend has not begun with it.
        inline_bytes = self._options.inline_body_bytes if request is not turns.current else -1
        step = turns.read(self.flow.write_paused)
        request.ended(inline_bytes)
        if step is ENTER:
            self._enter(request)
        elif step is not NOTHING:
            self._take(step)

    # Towards the backend.

    def _take(self, step: Step) -> None:
        match step:
            case Step.ADVANCE:
                self._advance()
            case Step.HOLD:
                self.flow.pause_reading()
            case Step.TOO_MANY:
                self._refuse(429, "too many requests at once on one connection")
                raise _Refused
            case Step.DISCARD:
                self._discarded = 0
                self._deadline = self._front.clock() + self._options.request_read_timeout_s
                self.flow.resume_reading()
            case Step.SAY:
                self._say_refusal()
            case Step.REST:
                self.flow.resume_reading()
                self._idle_since = self._front.clock()
            case Step.END:
                self.transport.close()
            case Step.LINGER:
                self._linger()
            case Step.ENTER | Step.NOTHING:
                pass

    def resume_writing(self) -> None:
        super().resume_writing()
        current = self._turns.current
        if current is None:
            self._advance()
        elif current.on_drained is not None:
            current.on_drained()

    def _enter(self, request: HttpRequest) -> None:
        try:
            self._handle(request)
        except Exception:
            logger.exception("the backend failed on a request")
            request.respond(error_page(500, "Internal Server Error", request.framing | CLOSE), close=True)

    def _enter_early(self, window: int) -> None:
        if self._turns.begins_early(window, self.flow.write_paused):
            assert self._turns.current is not None
            self._enter(self._turns.current)

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
        step = self._turns.answered(request, close or self._front.draining)
        if step is REST:
            self.flow.resume_reading()
            self._idle_since = self._front.clock()
            return
        if step is Step.DISCARD:
            request.discard()
        self._take(step)

    def _advance(self) -> None:
        """The next request, if one waits. Answers may come within the call, so this is a loop and does not nest."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.transport.is_closing():
                in_head = self._phase is IN_HEAD
                window = self._options.body_window_bytes
                step = self._turns.next(is_slow=self.flow.write_paused, in_head=in_head, window=window)
                if step is not ENTER:
                    self._take(step)
                    return
                assert self._turns.current is not None
                self._enter(self._turns.current)
        finally:
            self._advancing = False

    def wants_body(self, request: HttpRequest) -> None:
        if request.arrival is UNASKED:
            self._continue(request)
        self.flow.resume_reading()

    def body_taken(self, request: HttpRequest) -> None:
        if self._turns.may_read(request, self._options.body_window_bytes):
            if self.flow.read_paused and request is self._turns.reading:
                self._deadline = self._front.clock() + self._options.request_read_timeout_s
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

    def _refuse(self, status: int, text: str) -> None:
        """Answer what came before, then say what is wrong, then close. Nothing where that is under way already."""
        if self._phase is LINGERING:
            return
        self._refusal = (status, text)
        self._phase = after(self._phase, PhaseEvent.REFUSED)
        self._deadline = 0.0
        how, gone = self._turns.refuse()
        if gone is not None:
            gone.gone()
        match how:
            case Refusal.NOW:
                self._say_refusal()
            case Refusal.IN_TURN:
                self.flow.pause_reading()
            case Refusal.LINGER:
                self._linger()
            case Refusal.ABORT:
                self.abort()

    def _say_refusal(self) -> None:
        status, text = self._refusal
        logger.debug("refused a client: %s %s", status, text)
        self.transport.write(error_page(status, text, CLOSE))
        self._linger()

    def _linger(self) -> None:
        self._phase = after(self._phase, PhaseEvent.LINGER)
        self._discarded = 0
        for request in self._turns.drop():
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
        current, reading = self._turns.current, self._turns.reading
        left_by_other = self._not_taken() if current is not None and current.answer is LENT else 0
        if self._watch.is_stalled(now, buffered or left_by_other, self._has_taken):
            logger.debug("cut off a client that reads nothing")
            transport.abort()
            return
        if current is not None:
            current.is_swept(bool(left_by_other))
        idle_since = self._idle_since if current is None and not buffered else None
        look = Look(now, self._deadline, self._phase, reading, self.flow.read_paused, idle_since, self._body_came)
        match self._watch.due(look):
            case Due.CUT_OFF:
                transport.abort()
            case Due.CLOSE:
                transport.close()
            case Due.LINGER:
                self._linger()
            case Due.REFUSE:
                self._refuse(408, "the request was not complete in time")
            case Due.TOO_SLOW:
                least = self._options.least_body_rate
                self._refuse(408, f"the body of the request came at less than {least} bytes a second")
            case Due.ENTER:
                self._enter_early(window=0)
            case _:
                pass

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
        self._front.loses(self)
        if self._turns.reading is None or not self._turns.is_free(is_slow=False):
            self.transport.close()
            return
        self._turns.drop()
        self.url = self._target
        self.scope = cast(Any, {"method": self.parser.get_method().decode("ascii"), "headers": self.headers})
        self.handle_websocket_upgrade()
        self.parser = None  # it and this hold each other
