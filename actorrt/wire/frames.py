"""Turn bytes, cut anywhere, into frames, and batches of messages into bytes. Nothing here waits.

A link is one HTTP/1.1 exchange whose request and response bodies both stay open (RFC 9112, section 7.1). One frame is
one chunk, with a chunk size of always eight hexadecimal digits::

    0000002a CR LF  <42 bytes: one msgpack array of messages>  CR LF

A size of zero is the last chunk: the peer says goodbye. The stream stays valid chunked HTTP, but both ends talk to each
other directly: a hop that cuts chunks anew is not supported and is found by the decoder.
"""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 10
TRAILER: Final = b"\r\n"
GOODBYE: Final = b"00000000\r\n\r\n"
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024


class FrameError(Exception):
    """The peer sent bytes that are not frames; the link cannot go on."""


def encode_frame(payload: bytes) -> bytes:
    """One frame around `payload`, ready to be written. Raises FrameError where it is empty or too large."""
    size = len(payload)
    if not 0 < size <= MAX_FRAME_BYTES:
        raise FrameError(f"a frame carries 1 to {MAX_FRAME_BYTES} bytes, not {size}")
    return b"%08x\r\n%b\r\n" % (size, payload)


def _size_of(header: bytes) -> int:
    if header[8:] != TRAILER:
        raise FrameError(f"expected a chunk header, got {header!r}")
    try:
        size = int(header[:8], 16)
    except ValueError:
        raise FrameError(f"expected eight hexadecimal digits, got {header[:8]!r}") from None
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}")
    return size


class FrameParser:
    """Collects bytes and gives back whole frame payloads, in order.

    `ended` becomes true after the peer's goodbye; bytes behind it are an error.
    """

    __slots__ = ("_have", "_need", "_parts", "ended")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER_BYTES
        self.ended = False

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._have

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of all frames that `data` completes. Raises FrameError at a byte that cannot be right."""
        if self._have:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
        frames: list[bytes] = []
        offset = 0
        end = len(data)
        while end - offset >= HEADER_BYTES:
            if self.ended:
                raise FrameError("bytes after the last frame")
            size = _size_of(data[offset : offset + HEADER_BYTES])
            if size == 0:
                if end - offset < HEADER_BYTES + 2:
                    break
                self.ended = True
                offset += HEADER_BYTES + 2
                continue
            stop = offset + HEADER_BYTES + size
            if stop + 2 > end:
                break
            if data[stop : stop + 2] != TRAILER:
                raise FrameError("a frame does not end where its header says")
            frames.append(data[offset + HEADER_BYTES : stop])
            offset = stop + 2
        if offset < end:
            if self.ended:
                raise FrameError("bytes after the last frame")
            rest = data[offset:] if offset else data
            self._parts.append(rest)
            self._have = len(rest)
            self._need = HEADER_BYTES
            if self._have >= HEADER_BYTES:
                self._need = HEADER_BYTES + _size_of(rest[:HEADER_BYTES]) + 2
        return frames
