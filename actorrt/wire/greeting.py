"""The first bytes of a link: the dialler's request with its hello, and the answer with the peer's.

Who accepts is an HTTP server, and reads any request that means the same. Who dials reads the answer of such a server
alone, which has a few short headers and one chunk.
"""

from __future__ import annotations

from typing import Final

from actorrt.exceptions import LinkError

HELLO_LIMIT: Final = 4096
# Of an answer, up to the end of its headers.
_HEAD_LIMIT: Final = 4096
_SIZE_LINE_LIMIT: Final = 10
_REQUEST: Final = b"POST /link HTTP/1.1\r\nHost: actorrt\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_NO_HELLO: Final = "the peer did not say hello"


def request_with(hello: bytes) -> bytes:
    """A POST whose body stays open behind its first chunk."""
    return _REQUEST % (len(hello), hello)


def hello_in(answer: bytes) -> bytes | None:
    """The hello in what has come of an answer, None until all of it is here. LinkError if none will come."""
    head, is_whole, body = answer.partition(b"\r\n\r\n")
    if not is_whole:
        if len(answer) > _HEAD_LIMIT:
            raise LinkError(_NO_HELLO)
        return None
    status, _, headers = head.partition(b"\r\n")
    if not status.startswith(b"HTTP/1.1 200"):
        raise LinkError(f"the peer answered {status[:80].decode('latin-1')!r}")
    size_line, is_whole, chunk = body.partition(b"\r\n")
    if b"transfer-encoding: chunked" not in headers.lower() or len(size_line) > _SIZE_LINE_LIMIT:
        raise LinkError(_NO_HELLO)
    if not is_whole:
        return None
    # Only what is hexadecimal: `int` takes signs, blanks and underscores too.
    size = int(size_line, 16) if size_line.isalnum() else 0
    # Behind the hello of who refuses the body ends, and behind another one nothing comes before it is read.
    if not 0 < size <= HELLO_LIMIT or not _LAST_CHUNK.startswith(chunk[size + 2 :]):
        raise LinkError(_NO_HELLO)
    return chunk[:size] if len(chunk) >= size + 2 else None
