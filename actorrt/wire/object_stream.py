"""The request for an object by another node, and the head of the answer. No I/O.

    GET /objects/<owner>/<number>/<version> with `Range: bytes=<from>-`

The answer is 200 or 206 with the bytes from there on, a `Content-Length`, and a mark of the memory in which the object
was made; 404 where it is not, and 503 where it is not to be had now. Who answers is an HTTP server, and reads any
request that means the same; who asks reads the answer of such a server alone.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from actorrt.exceptions import LinkError
from actorrt.types import ObjectKey, ProcessId

PATH: Final = "/objects/"
MARK: Final = "Actorrt-Mark"
OK: Final = 200
PARTIAL: Final = 206
MISSING: Final = 404
NOT_NOW: Final = 503
# Of an answer, up to the end of its headers.
HEAD_LIMIT: Final = 4096
_REQUEST: Final = b"GET /objects/%b/%d/%d HTTP/1.1\r\nHost: actorrt\r\nRange: bytes=%d-\r\n\r\n"
_PATH: Final = re.compile(r"/objects/([0-9a-f]{16})/([0-9]{1,20})/([0-9]{1,20})", re.ASCII)
_RANGE: Final = re.compile(r"bytes=([0-9]{1,20})-", re.ASCII)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,20})\r\n", re.IGNORECASE)
_MARK: Final = re.compile(rb"\r\nactorrt-mark: *([0-9a-f-]{1,64})\r\n", re.IGNORECASE)


class Wanted(NamedTuple):
    """Which object is asked for, and from which byte on."""

    key: ObjectKey
    version: int
    start: int


class Head(NamedTuple):
    """What an answer begins with: how many bytes follow, and `taken`, how many it took itself."""

    status: int
    length: int
    mark: bytes
    taken: int


def request_for(wanted: Wanted) -> bytes:
    owner, number = wanted.key
    return _REQUEST % (owner.hex().encode(), number, wanted.version, wanted.start)


def wanted_in(path: str, range_of: str) -> Wanted | None:
    """What a request asks for; None if that is no object. `range_of`: its Range, "" if it has none."""
    found = _PATH.fullmatch(path)
    start = _RANGE.fullmatch(range_of or "bytes=0-")
    if found is None or start is None:
        return None
    owner, number, version = found.groups()
    return Wanted((ProcessId(bytes.fromhex(owner)), int(number)), int(version), int(start[1]))


def mark_of(creator: ProcessId, serial: int) -> bytes:
    """The mark of an object that was made in this segment."""
    return f"{creator.hex()}-{serial}".encode()


def head_in(answer: bytes) -> Head | None:
    """The head in what has come of an answer, None until all of it is here. LinkError if it is none."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        if len(answer) > HEAD_LIMIT:
            raise LinkError("the head of an answer does not end")
        return None
    head = answer[: end + 2]
    status = _STATUS.match(head)
    if status is None:
        raise LinkError(f"{head[:80].decode('latin-1')!r} answers no request for an object")
    code = int(status[1])
    if code not in (OK, PARTIAL):
        return Head(code, 0, b"", end + 4)
    length, mark = _LENGTH.search(head), _MARK.search(head)
    if length is None or mark is None:
        raise LinkError("an answer says neither how much comes nor of what")
    return Head(code, int(length[1]), mark[1], end + 4)
