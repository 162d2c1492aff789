"""Turn what user code returns into the bytes of an HTTP/1.1 response.

`coerce` says what a returned value is as a response; `ResponseBytes` frames any response, whole or in parts. Nothing
here sends, and nothing here knows the time: the caller gives the lines that it wants in each head.
"""

import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from http import HTTPStatus
from math import isfinite
from typing import Any, Final, NamedTuple, cast

import msgspec

from .request_head import CLOSE, HEAD, HTTP_1_0
from .retry import retry_headers

PHRASES: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
STATUS_LINES: Final = {
    code: f"HTTP/1.1 {code} {PHRASES.get(code, '')}".rstrip().encode() + b"\r\n" for code in range(100, 1000)
}
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
OCTETS: Final = (b"content-type", b"application/octet-stream")
JSON: Final = (b"content-type", b"application/json")
BAD_NAME: Final = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\"/\[\]?={}]')
BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


_OK: Final = STATUS_LINES[200] + b"content-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"

# Of the lines that every response has, an application's own take the place of ours.
OWN_LINES: Final = frozenset({b"date", b"x-request-id"})


class Plain(NamedTuple):
    """A response whose body is there."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


# A response with a longer body is not made into one piece: its bytes leave from where they lie.
LARGEST_WHOLE: Final = 64 * 1024


class Large(NamedTuple):
    """The bytes of a response whose body is there and large: its beginning, its body, its end."""

    head: bytes
    body: bytes
    tail: bytes
    # The connection ends after it.
    close: bool


def coerce(value: object) -> Plain:
    """str is text/plain, bytes are octets, anything else is JSON. TypeError or ValueError for what is none of these."""
    kind, body = _typed_body(value)
    return Plain(200, [kind], body)


def _typed_body(value: object) -> tuple[tuple[bytes, bytes], bytes]:
    if isinstance(value, str):
        return TEXT, value.encode("utf-8")
    if isinstance(value, bytes):
        return OCTETS, value
    if isinstance(value, bytearray | memoryview):
        return OCTETS, bytes(cast(bytearray, value))
    return JSON, to_json(value)


def ok(value: object, framing: int, each: bytes = b"") -> bytes | Large:
    """The same as `whole_or_large(coerce(value), ...)`, by the short way that most requests take."""
    kind, body = _typed_body(value)
    if framing or len(body) > LARGEST_WHOLE:
        return whole_or_large(Plain(200, [kind], body), framing, each)
    return _OK % (kind[1], len(body), each, body)


def to_json(value: object) -> bytes:
    """JSON of builtin types, dataclasses, enums, dates, UUIDs, sets, pydantic models, NumPy arrays and scalars.

    TypeError names what has no JSON form, ValueError says where a nan or an infinity is: JSON has no such numbers.
    """
    try:
        made = msgspec.json.encode(value, enc_hook=_to_builtin)
    except TypeError as error:
        raise TypeError(f"what was returned is no response and cannot be JSON: {error}") from None
    # The encoder writes those numbers as null. Most values hold neither them nor None.
    if b"null" in made and value is not None and _may_hold_a_number_that_is_none(value):
        found = _not_a_number(msgspec.to_builtins(value, enc_hook=_to_builtin, str_keys=True), "")
        if found:
            raise ValueError(f"what was returned cannot be JSON, which has no nan and no infinity: {found}")
    return made


def _may_hold_a_number_that_is_none(value: object) -> bool:
    """False if it surely holds no nan or infinity. As quick as the encoding; a walk in Python would not be."""
    try:
        packed = msgspec.msgpack.encode(value, enc_hook=_to_builtin)
    except Exception:  # an int of more than 64 bits, which JSON can have
        return True
    # A double whose exponent has its highest bits set: one of those, a very large number, or other data by chance.
    return b"\xcb\x7f" in packed or b"\xcb\xff" in packed


def _not_a_number(value: object, where: str) -> str:
    """The first nan or infinity in builtin types, and where it is; "" if there is none."""
    if isinstance(value, float):
        return "" if isfinite(value) else f"{value} at {where}" if where else str(value)
    if isinstance(value, dict):
        parts: Iterable[tuple[str, object]] = (
            (f"{where}[{key!r}]", each) for key, each in cast("dict[str, object]", value).items()
        )
    elif isinstance(value, list | tuple | set | frozenset):
        parts = ((f"{where}[{index}]", each) for index, each in enumerate(cast("Iterable[object]", value)))
    else:
        return ""
    return next(filter(None, (_not_a_number(each, inner) for inner, each in parts)), "")


def _to_builtin(value: Any) -> object:
    # By what they can do and not by their types: neither pydantic nor NumPy is imported for this.
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    raise TypeError(f"a {type(value).__name__} has no JSON form")


class ResponseError(RuntimeError):
    """The application broke the rules of HTTP or ASGI: a bad header, a body that is longer than it said."""


class Made(Enum):
    """How much of a response has been made."""

    NOTHING = "NOTHING"
    HEAD = "HEAD"  # and perhaps parts of its body
    ALL = "ALL"


# Python looks up the members of an enum slowly, and each response asks for these.
NOTHING_MADE: Final = Made.NOTHING
HAS_HEAD: Final = Made.HEAD
ALL_MADE: Final = Made.ALL


class ResponseBytes:
    """The bytes of one response: `start` once, then `body` until `more` is false.

    `each` is what the caller wants in every head, as finished lines. `close` says, once started, whether the connection
    has to end after it.
    """

    __slots__ = ("_chunked", "_each", "_framing", "_head", "_left", "_so_far", "close")

    def __init__(self, framing: int, each: bytes = b"") -> None:
        self._framing = framing
        self._each = each
        self._head = b""
        self._chunked = False
        # How much of the promised length is still to come; None: no length was promised.
        self._left: int | None = None
        self.close = bool(framing & (CLOSE | HTTP_1_0))
        self._so_far = NOTHING_MADE

    @property
    def complete(self) -> bool:
        return self._so_far is ALL_MADE

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Nothing is given out yet: head and first part of the body leave in one piece."""
        if self._so_far is not NOTHING_MADE:
            raise ResponseError("the response was started twice")
        if status not in STATUS_LINES:
            raise ResponseError(f"{status!r} is no HTTP status")
        lines = [STATUS_LINES[status]]
        each = self._each
        says_close = False
        for name, value in headers:
            if BAD_NAME.search(name) or BAD_VALUE.search(value) or not name:
                raise ResponseError(f"bad response header {name!r}: {value!r}")
            name = name.lower()
            if name == b"content-length":
                self._left = _length(value)
            elif name == b"transfer-encoding":
                continue  # how it is framed is decided here
            elif name == b"connection":
                says_close = says_close or b"close" in value.lower()
                continue
            elif name in OWN_LINES:
                each = _without(each, name)
            lines += (name, b": ", value, b"\r\n")
        self.close = self.close or says_close
        if is_bodiless(status):
            self._left = 0
        elif self._left is None:
            if self._framing & HTTP_1_0:
                self.close = True
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if self.close:
            lines.append(b"connection: close\r\n")
        lines += (each, b"\r\n")
        self._head = b"".join(lines)
        self._so_far = HAS_HEAD
        if self._framing & HEAD:
            self._chunked, self._left = False, None

    def body(self, data: bytes, more: bool = False) -> bytes:
        """What is to be sent now. ResponseError if the body does not have the length that was promised."""
        if self._so_far is not HAS_HEAD:
            raise ResponseError("a part of a body before the start of its response or after its end")
        if self._left is not None and not self._framing & HEAD:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise ResponseError("the body does not have the length that content-length said")
        if not more:
            self._so_far = ALL_MADE
        head, self._head = self._head, b""
        if self._framing & HEAD:
            return head
        if self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            return b"%b%x\r\n%b\r\n%b" % (head, len(data), data, end) if data else head + end
        return head + data if head else data

    def last(self, data: bytes) -> bytes | Large:
        """The same as `body(data)` without a copy of what is large."""
        if len(data) <= LARGEST_WHOLE or self._framing & HEAD:
            return self.body(data)
        if self._chunked and self._so_far is HAS_HEAD:
            self._so_far = ALL_MADE
            return Large(b"%b%x\r\n" % (self._head, len(data)), data, b"\r\n0\r\n\r\n", self.close)
        head, self._head = self._head, b""
        return Large(head, self.body(data), b"", self.close)


def _without(each: bytes, name: bytes) -> bytes:
    """An application that sets one of the lines that every head has means its own."""
    return b"".join(line for line in each.splitlines(keepends=True) if not line.startswith(name + b":"))


def is_bodiless(status: int) -> bool:
    return status < 200 or status in (204, 304)


def _length(value: bytes) -> int:
    if not value.isdigit():
        raise ResponseError(f"bad content-length {value!r}")
    return int(value)


def whole(plain: Plain, framing: int, each: bytes = b"") -> bytes:
    """The bytes of a response whose body is there; content-length is added."""
    return _started(plain, framing, each).body(b"" if is_bodiless(plain.status) else plain.body)


def whole_or_large(plain: Plain, framing: int, each: bytes = b"") -> bytes | Large:
    """The same without a copy of a body that is large."""
    return _started(plain, framing, each).last(b"" if is_bodiless(plain.status) else plain.body)


def _started(plain: Plain, framing: int, each: bytes) -> ResponseBytes:
    made = ResponseBytes(framing, each)
    headers = [header for header in plain.headers if header[0] != b"content-length"]
    if not is_bodiless(plain.status):
        headers.append((b"content-length", b"%d" % len(plain.body)))
    made.start(plain.status, headers)
    return made


def queue_line(queue_ms: int) -> bytes:
    """The line of a head that says how long a request has waited for its place in a capacity queue."""
    return b"x-actorrt-queue-ms: %d\r\n" % queue_ms


def error_page(
    status: int, text: str, framing: int, each: bytes = b"", retry_after_s: float | None = None, ticket: str = ""
) -> bytes:
    """A response of our own: one line of text."""
    headers: list[tuple[bytes, bytes]] = [TEXT, *retry_headers(retry_after_s, ticket)]
    return whole(Plain(status, headers, text.encode("utf-8", "replace")), framing, each)
