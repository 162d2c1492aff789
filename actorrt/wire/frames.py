"""Turn bytes, cut anywhere, into frames, and batches of messages into bytes. Nothing here waits.

A link is one HTTP/1.1 exchange whose request and response bodies both stay open (RFC 9112, section 7.1). One frame is
one chunk, with a chunk size of always eight hexadecimal digits::

    0000002a CR LF  <42 bytes: one msgpack array of messages>  CR LF

A raw frame carries bytes of the pipe beside a call, as they are; its first byte is one that msgpack never uses::

    0000100a CR LF  c1 <flags: 1 byte> <sequence number of the call: 8 bytes>  <4096 bytes>  CR LF

An acknowledgement has the same head, and a position in place of the number: so many bytes of the reader's own frames
have come. It is itself no part of what is counted, kept or sent again::

    0000000a CR LF  c1 04 <position: 8 bytes>  CR LF

A size of zero is the last chunk: the peer says goodbye. The stream stays valid chunked HTTP, but both ends talk to each
other directly: a hop that cuts chunks anew is not supported and is found by the decoder.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER_BYTES: Final = 10
TRAILER: Final = b"\r\n"
GOODBYE: Final = b"00000000\r\n\r\n"
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024

# The flags of a raw frame: it comes from the end that runs the call; nothing comes after it from there.
TO_CALLER: Final = 1
LAST: Final = 2
# It is an acknowledgement.
_COUNT: Final = 4
_RAW: Final = 0xC1
_RAW_HEAD: Final = struct.Struct(">BBQ")
# What a raw frame has around its bytes.
RAW_FRAME_BYTES: Final = HEADER_BYTES + _RAW_HEAD.size + len(TRAILER)
_COUNT_BYTES: Final = RAW_FRAME_BYTES
# What every frame has around its payload.
_LEAST: Final = HEADER_BYTES + len(TRAILER)
# From here on bytes are looked at where they lie; below, a copy costs less than that.
_FEW: Final = 16 * 1024


class FrameError(Exception):
    """The peer sent bytes that are not frames; the link cannot go on."""


class RawPart(NamedTuple):
    """Bytes of a raw frame: all of it, or what has come. `data` may be good only until more bytes are read."""

    seq: int
    to_caller: bool
    data: memoryview
    # Nothing comes behind it on this pipe.
    last: bool


class Acknowledged(NamedTuple):
    """The peer has so many bytes of what was written to it, from the beginning of the link on."""

    position: int


def encode_frame(payload: bytes) -> bytes:
    """One frame around `payload`, ready to be written. Raises FrameError where it is empty or too large."""
    size = len(payload)
    if not 0 < size <= MAX_FRAME_BYTES:
        raise FrameError(f"a frame carries 1 to {MAX_FRAME_BYTES} bytes, not {size}")
    return b"%08x\r\n%b\r\n" % (size, payload)


def raw_head(seq: int, flags: int, size: int) -> bytes:
    """What goes before `size` bytes of a pipe; TRAILER goes behind them."""
    return b"%08x\r\n%b" % (_RAW_HEAD.size + size, _RAW_HEAD.pack(_RAW, flags, seq))


def acknowledgement(position: int) -> bytes:
    """A whole frame that says how many bytes have come."""
    return raw_head(position, _COUNT, 0) + TRAILER


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


def _count_in(frame: bytes) -> Acknowledged:
    _, _, position = _RAW_HEAD.unpack_from(frame, HEADER_BYTES)
    if frame != acknowledgement(position):
        raise FrameError(f"expected an acknowledgement, got {frame!r}")
    return Acknowledged(position)


class FrameParser:
    """Collects bytes and gives back whole frame payloads, and raw bytes as they come, in order.

    `ended` becomes true after the peer's goodbye; bytes behind it are an error. Where the stream breaks off,
    `break_off` makes ready for the bytes from `position` on.
    """

    __slots__ = ("_aside", "_flags", "_have", "_need", "_parts", "_seq", "_suspended", "ended", "fed", "raw_left")

    def __init__(self) -> None:
        # All that was fed and was not dropped since; so much of it was acknowledgements.
        self.fed = 0
        self._aside = 0
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        # What is still to come of a raw frame, its trailer included; 0: none is under way.
        self.raw_left = 0
        # The same of one that was under way where the stream broke off.
        self._suspended = 0
        self._seq = 0
        self._flags = 0
        self.ended = False

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._have

    @property
    def position(self) -> int:
        """How many bytes of the stream have been given out: whole frames, and of a raw one what has come of it."""
        return self.fed - self._have - self._aside

    def break_off(self) -> None:
        """The stream ends in the middle. What is fed next is an acknowledgement, then the bytes from `position` on."""
        self._suspended = self.raw_left or self._suspended
        self.raw_left = 0
        self.fed -= self._have
        self._parts.clear()
        self._have = 0

    def feed(self, data: bytes | memoryview) -> list[bytes | RawPart | Acknowledged]:
        """What `data` completes, and what it brings of raw frames. Raises FrameError at a byte that cannot be right."""
        size = len(data)
        self.fed += size
        if size <= _FEW:
            data = bytes(data)
            # One frame of messages and nothing else, as most that arrive are.
            if (
                not (self._have or self.raw_left or self.ended)
                and size > _LEAST
                and data[:HEADER_BYTES] == b"%08x\r\n" % (size - _LEAST)
                and data[HEADER_BYTES] != _RAW
                and data[-2:] == TRAILER
            ):
                return [data[HEADER_BYTES:-2]]
        frames: list[bytes | RawPart | Acknowledged] = []
        while self._have or self.raw_left:
            if not data:
                return frames
            if self.raw_left:
                data = data[self._take_raw(data, frames) :]
                continue
            missing = self._need - self._have
            self._parts.append(bytes(data[:missing]))
            self._have += len(self._parts[-1])
            data = data[missing:]
            if self._have < self._need:
                return frames
            whole = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
            self._split(whole, frames)
        self._split(data, frames)
        return frames

    def _split(self, data: bytes | memoryview, frames: list[bytes | RawPart | Acknowledged]) -> None:
        """Take all of `data`; what is left of it waits for the rest of its frame."""
        offset = 0
        end = len(data)
        need = HEADER_BYTES + 1
        while end - offset > HEADER_BYTES:
            if self.ended:
                raise FrameError("bytes after the last frame")
            start = offset + HEADER_BYTES
            size = _size_of(bytes(data[offset:start]))
            need = HEADER_BYTES + size + 2
            if size == 0:
                if end - offset < need:
                    break
                self.ended = True
                offset += need
            elif data[start] == _RAW:
                need = HEADER_BYTES + _RAW_HEAD.size
                if end - offset < need:
                    break
                if data[start + 1] & _COUNT:
                    need = _COUNT_BYTES
                    if end - offset < need:
                        break
                    frames.append(_count_in(bytes(data[offset : offset + need])))
                    self._aside += need
                    offset += need
                    if self._suspended:
                        self.raw_left, self._suspended = self._suspended, 0
                        offset += self._take_raw(data[offset:], frames)
                else:
                    self._begin_raw(bytes(data[start : offset + need]), size, frames)
                    offset += need
                    offset += self._take_raw(data[offset:], frames)
            else:
                stop = start + size
                if stop + 2 > end:
                    break
                if data[stop : stop + 2] != TRAILER:
                    raise FrameError("a frame does not end where its header says")
                frames.append(bytes(data[start:stop]))
                offset = stop + 2
            need = HEADER_BYTES + 1
        if offset < end:
            if self.ended:
                raise FrameError("bytes after the last frame")
            self._parts.append(bytes(data[offset:]))
            self._have = end - offset
            self._need = need

    def _begin_raw(self, head: bytes, size: int, frames: list[bytes | RawPart | Acknowledged]) -> None:
        if size < _RAW_HEAD.size:
            raise FrameError(f"a raw frame of {size} bytes has no room for its head")
        _, self._flags, self._seq = _RAW_HEAD.unpack(head)
        self.raw_left = size - _RAW_HEAD.size + 2
        if self.raw_left == 2:
            frames.append(RawPart(self._seq, bool(self._flags & TO_CALLER), memoryview(b""), bool(self._flags & LAST)))

    def _take_raw(self, data: bytes | memoryview, frames: list[bytes | RawPart | Acknowledged]) -> int:
        """How many of these bytes belong to the raw frame that is under way."""
        left = self.raw_left
        taken = min(left, len(data))
        self.raw_left = left - taken
        size = min(taken, left - 2)
        if size > 0:
            last = size == left - 2 and bool(self._flags & LAST)
            frames.append(RawPart(self._seq, bool(self._flags & TO_CALLER), memoryview(data)[:size], last))
        else:
            size = 0
        if taken > size:
            behind = TRAILER if left >= 2 else TRAILER[1:]
            if data[size:taken] != behind[: taken - size]:
                raise FrameError("a raw frame does not end where its header says")
        return taken
