"""One HTTP request between its connection and the backend that answers it.

The connection parses and bounds; the backend gets a request, and answers by `respond`, perhaps after `pass_on`, or by
`lend`. Calls on a request whose client has gone do nothing. Pure: what is done to a client is done by the connection.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ..http.request_head import CLOSE, HEAD, HTTP_1_0
from . import arrival
from .answer import Answer, AnswerEvent, after
from .arrival import Arrival, ArrivalEvent

LONGEST_REQUEST_ID: Final = 200

# Python looks up the members of an enum slowly, and each request asks for these.
WAITED_FOR: Final = Answer.WAITED_FOR
BEGUN: Final = Answer.BEGUN
LENT: Final = Answer.LENT
OVER: Final = Answer.OVER
UNASKED: Final = Arrival.UNASKED
COMES: Final = Arrival.COMES
COMPLETE: Final = Arrival.COMPLETE
HTTP_1_1: Final = b"1.1"

CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, REQUEST_ID, TIMEOUT = range(5)


class Connection(Protocol):
    """What a request needs of the connection that it came on."""

    line: bytes

    def write(self, data: bytes) -> None: ...
    def pass_on(self, data: memoryview) -> bool: ...
    def can_lend(self) -> bool: ...
    def lend(self) -> int: ...
    def is_as_lent(self) -> bool: ...
    def finished(self, request: "HttpRequest", close: bool) -> None: ...
    def abort(self) -> None: ...
    def body_taken(self, request: "HttpRequest") -> None: ...
    def wants_body(self, request: "HttpRequest") -> None: ...


class Backend(Protocol):
    """Answers requests. `handle` must not wait and must not raise."""

    def handle(self, request: "HttpRequest") -> None: ...


class HttpRequest:
    """`fields` holds names, in lower case, and values in turn. `body` is complete if `streams` is false."""

    # What most requests keep from the start and are seldom asked for stands in the class: there are many of them. To
    # read it there takes longer than from the request itself.
    method = b""
    path = b""
    query = b""
    version = HTTP_1_1
    keep_alive = True
    timeout_s: float | None = None
    body = b""
    # How long it is; None if the client has not said.
    length: int | None = None
    # Bytes of the body that nobody has taken yet.
    held = 0
    answer = WAITED_FOR
    started = 0.0
    status = b""
    # The first bytes of a response that is passed on.
    _start = b""
    _end_told = False
    # Called when some of the body has come, and at its end.
    on_body: Callable[[], None] | None = None
    # Called when the client has taken most of what was written, after `pass_on` said that it had not.
    on_drained: Callable[[], None] | None = None
    # Called about once a second while `on_drained` is awaited, or while the client has not taken what was written by
    # another process.
    on_slow: Callable[[], None] | None = None
    # Called once if the client goes before the response is complete, with how far that had come.
    on_gone: Callable[[Answer], None] | None = None

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection
        self.request_id = b""
        # Its body comes in parts, by `take`.
        self.streams = False
        self.arrival = COMES
        # The connection as the request saw it: a server in front of this one may have told of another.
        self.line = connection.line
        self.fields: list[bytes] = []
        self._chunks: list[bytes] = []

    @property
    def has_body(self) -> bool:
        return bool(self.length) or (self.length is None and self.streams)

    def pairs(self) -> Iterable[tuple[bytes, bytes]]:
        """Names and values of the fields."""
        return zip(self.fields[::2], self.fields[1::2], strict=True)

    @property
    def name(self) -> str:
        """Its id as text, for logs and policies."""
        return self.request_id.decode("latin-1")

    @property
    def is_begun(self) -> bool:
        """Some of the response has been written, perhaps by another process, and not all of it."""
        return self.answer is BEGUN or self.answer is LENT

    @property
    def framing(self) -> int:
        made = 0 if self.keep_alive else CLOSE
        if self.method == b"HEAD":
            made |= HEAD
        if self.version is not HTTP_1_1:
            made |= HTTP_1_0
        return made

    # What a backend does.

    def watch_body(self, on_body: Callable[[], None]) -> None:
        """Have `on_body` called when some of the body has come, and at its end."""
        self.on_body = on_body

    def watch_taking(self, on_drained: Callable[[], None], on_slow: Callable[[], None] | None) -> None:
        """The client is slow: have these called when it has taken most of what was written, and until it has."""
        self.on_drained, self.on_slow = on_drained, on_slow

    def taken(self) -> None:
        """Who waited for the client to take what was written does so no more."""
        self.on_drained = None

    def watch_slowness(self, on_slow: Callable[[], None] | None) -> None:
        self.on_slow = on_slow

    def _let_go(self) -> None:
        """Nobody waits for anything of this request. What waits and the request hold each other."""
        self.on_gone = self.on_body = self.on_drained = self.on_slow = None

    def respond(self, data: bytes, close: bool = False) -> None:
        """The whole response, or all the rest of it. The connection stays if neither side wants it closed."""
        connection = self.connection
        answer = self.answer
        if answer is OVER or connection is None:
            return
        self.answer = OVER
        self.on_gone = self.on_body = self.on_drained = self.on_slow = None
        if answer is WAITED_FOR:
            self.status = data[9:12]
            if self.arrival is UNASKED:
                data = self._unasked(data)
        if data:
            connection.write(data)
        connection.finished(self, close)

    def pass_on(self, data: memoryview) -> bool:
        """A part of the response, in memory that is another's once this returns. False: its client is slow to take it.

        What the client takes at once is not copied.
        """
        connection = self.connection
        if self.answer is OVER or connection is None:
            return True
        if self.answer is WAITED_FOR:
            if self.arrival is UNASKED:
                data = memoryview(self._unasked(bytes(data)))
            self.answer = BEGUN
        if len(self._start) < 12:
            self._start += data[: 12 - len(self._start)]
            self.status = self._start[9:]
        return connection.pass_on(data)

    @property
    def can_lend(self) -> bool:
        """Its client's socket is one that another process could write to."""
        return self.connection is not None and self.connection.can_lend()

    def lend(self, status: bytes) -> int:
        """The descriptor of its client's socket, for another process to write the whole response; -1: not now.

        It looks written from then on, since it may be.
        """
        connection = self.connection
        if self.answer is not WAITED_FOR or self.arrival is not COMPLETE or connection is None:
            return -1
        fd = connection.lend()
        if fd >= 0:
            self.answer = after(self.answer, AnswerEvent.LEND)
            self.status = status
        return fd

    def take_back(self) -> bool:
        """True if nothing was written by the process that the socket was lent to, which has gone: others may answer."""
        connection = self.connection
        if self.answer is not LENT or connection is None or not connection.is_as_lent():
            return False
        self.answer = after(self.answer, AnswerEvent.TAKE_BACK)
        self.status = b""
        return True

    def _unasked(self, data: bytes) -> bytes:
        """The beginning of a response. It ends the connection if the client still waits to be asked for the body.

        Nobody could tell that body, which may come or not, from the next request.
        """
        if self.arrival is not UNASKED or not data:
            return data
        self.keep_alive = False
        line, _, rest = data.partition(b"\r\n")
        says_close = b"\r\nconnection: close\r\n" in data.partition(b"\r\n\r\n")[0] + b"\r\n"
        return data if says_close else b"%b\r\nconnection: close\r\n%b" % (line, rest)

    def abort(self) -> None:
        """Cut the connection off: the only way to say that a response that has begun is not complete."""
        connection = self.connection
        if self.answer is not OVER and connection is not None:
            self.answer = after(self.answer, AnswerEvent.END)
            self._let_go()
            connection.abort()

    def take(self, most: int) -> list[bytes]:
        """What is here of the body, in pieces, up to so many bytes together."""
        chunks = self._chunks
        if not chunks:
            if self.arrival is not COMPLETE and self.connection is not None:
                self.connection.wants_body(self)
            return []
        taken: list[bytes] = []
        size = 0
        if self.held <= most:
            taken, self._chunks = chunks, taken
            size = self.held
        else:
            for chunk in chunks:
                if size + len(chunk) > most:
                    break
                taken.append(chunk)
                size += len(chunk)
            del chunks[: len(taken)]
            if size < most:
                taken.append(chunks[0][: most - size])
                chunks[0] = chunks[0][most - size :]
                size = most
        self.held -= size
        if self.connection is not None:
            self.connection.body_taken(self)
        return taken

    def ends_body(self) -> bool:
        """True once, when a body whose length nobody knew has been taken to its end."""
        ends = self.length is None and self.arrival is COMPLETE and not self._chunks and not self._end_told
        self._end_told = self._end_told or ends
        return ends

    # What its connection does.

    def note(self, field: int, value: bytes, inline_bytes: int) -> None:
        """A field of its head that says something of the request. ValueError for a length that is no number."""
        if field == CONTENT_LENGTH:
            self.length = int(value or b"0")
            self.streams = self.length > inline_bytes
        elif field == TRANSFER_ENCODING:
            self.streams = True
        elif field == EXPECT:
            event = ArrivalEvent.EXPECT if value.lower() == b"100-continue" else ArrivalEvent.PROCEED
            self.arrival = arrival.after(self.arrival, event)
        elif field == REQUEST_ID:
            if 0 < len(value) <= LONGEST_REQUEST_ID and value.isascii() and value.decode("ascii").isprintable():
                self.request_id = value
        elif field == TIMEOUT:
            try:
                seconds = float(value)
            except ValueError:
                return
            if 0 < seconds < 1e9:
                self.timeout_s = seconds

    def begins(
        self, method: bytes, path: bytes, query: bytes, version: bytes, keep_alive: bool, request_id: bytes
    ) -> None:
        """Its head is here."""
        self.method, self.path, self.query, self.version = method, path, query, version
        self.keep_alive, self.request_id = keep_alive, request_id
        if self.arrival is UNASKED:
            # What its client waits for is said when somebody asks for the body, so that it is routed without.
            self.streams = version is HTTP_1_1 and self.has_body
            if not self.streams:
                self.arrival = arrival.after(self.arrival, ArrivalEvent.PROCEED)

    def came_from(self, line: bytes) -> None:
        """A server in front of this one has told of another connection."""
        self.line = line

    def began_at(self, started: float) -> None:
        self.started = started

    def is_below(self, path: bytes) -> None:
        """Its path is this one, as applications are to see it."""
        self.path = path

    def continued(self) -> None:
        """Its client was asked for the body."""
        self.arrival = arrival.after(self.arrival, ArrivalEvent.PROCEED)

    def fed(self, data: bytes) -> None:
        self.arrival = COMES
        self._chunks.append(data)
        self.held += len(data)
        self._wake()

    def ended(self, inline_bytes: int = -1) -> None:
        """All of its body is here, and does not stream if no more than this is held of it."""
        self.arrival = COMPLETE
        if self.held <= inline_bytes:
            self.streams = False
        if not self.streams:
            self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self.held = 0
        else:
            self._wake()

    def is_swept(self, left_by_other: bool) -> None:
        """A second has passed. `left_by_other`: the client has not taken all that another process has written."""
        if self.on_slow is not None and (self.on_drained is not None or left_by_other):
            self.on_slow()

    def discard(self) -> None:
        self.on_body = None
        self._chunks.clear()
        self.held = 0

    def gone(self) -> None:
        """The client has disconnected."""
        answer, self.answer = self.answer, OVER
        self.connection = None
        self._wake()
        callback = self.on_gone
        self._let_go()
        if callback is not None:
            callback(answer)

    def _wake(self) -> None:
        if self.on_body is not None:
            self.on_body()
