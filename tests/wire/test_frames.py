"""The wire parser holds for any cut of the bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.frames import GOODBYE, LAST, TO_CALLER, TRAILER, FrameError, FrameParser, encode_frame, raw_head

# No array of msgpack begins like a raw frame.
PAYLOADS = st.binary(min_size=1, max_size=300).filter(lambda payload: payload[0] != 0xC1)
# A payload, or what a raw frame says: sequence number, flags, bytes. Some are so large that they are not copied.
RAW = st.tuples(
    st.integers(min_value=0, max_value=2**64 - 1),
    st.sampled_from([0, TO_CALLER, LAST, TO_CALLER | LAST]),
    st.binary(max_size=300) | st.sampled_from([bytes(20_000), bytes(16 * 1024), b"x" * 40_000]),
)
Frame = bytes | tuple[int, int, bytes]
FRAMES = st.lists(PAYLOADS | RAW, max_size=8)


def encode(frame: Frame) -> bytes:
    if isinstance(frame, bytes):
        return encode_frame(frame)
    seq, flags, data = frame
    return raw_head(seq, flags, len(data)) + data + TRAILER


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({c % (len(data) + 1) for c in cuts})
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def read(parser: FrameParser, pieces: list[bytes]) -> list[Frame]:
    """What a parser gives for these pieces, which come one after the other in the same memory."""
    got: list[Frame] = []
    memory = bytearray(max(map(len, pieces), default=0))
    for piece in pieces:
        memory[: len(piece)] = piece
        for found in parser.feed(memoryview(memory)[: len(piece)]):
            if isinstance(found, bytes):
                got.append(found)
                continue
            flags = (TO_CALLER if found.to_caller else 0) | (LAST if found.last else 0)
            got.append((found.seq, flags, bytes(found.data)))
    return got


def joined(frames: list[Frame]) -> list[Frame]:
    """Raw frames of one call, right after each other, as one: where they were cut does not count."""
    whole: list[Frame] = []
    for frame in frames:
        last = whole[-1] if whole else b""
        if isinstance(frame, tuple) and isinstance(last, tuple) and last[:2] == (frame[0], frame[1] & TO_CALLER):
            whole[-1] = (frame[0], frame[1], last[2] + frame[2])
        else:
            whole.append(frame)
    return whole


@given(frames=FRAMES, cuts=st.lists(st.integers(min_value=0), max_size=12), goodbye=st.booleans())
def test_any_split_of_the_bytes_gives_the_same_frames(frames: list[Frame], cuts: list[int], goodbye: bool) -> None:
    data = b"".join(encode(f) for f in frames) + (GOODBYE if goodbye else b"")
    parser = FrameParser()
    assert joined(read(parser, cut(data, cuts))) == joined(frames)
    assert parser.ended == goodbye
    assert parser.buffered == parser.raw_left == 0


@given(frames=st.lists(PAYLOADS | RAW, min_size=1, max_size=3))
def test_one_byte_at_a_time_gives_the_same_frames(frames: list[Frame]) -> None:
    small = [frame if isinstance(frame, bytes) else (frame[0], frame[1], frame[2][:200]) for frame in frames]
    parser = FrameParser()
    data = b"".join(encode(f) for f in small)
    assert joined(read(parser, [data[at : at + 1] for at in range(len(data))])) == joined(small)


def test_large_raw_bytes_are_given_where_they_lie() -> None:
    data = memoryview(bytearray(encode((7, TO_CALLER, b"x" * 100_000))))
    (part,) = FrameParser().feed(data)
    assert not isinstance(part, bytes)
    assert part.data.obj is data.obj


@given(junk=st.binary(min_size=10, max_size=100), cuts=st.lists(st.integers(min_value=0), max_size=5))
def test_junk_is_refused_or_waits_for_more_and_never_crashes(junk: bytes, cuts: list[int]) -> None:
    parser = FrameParser()
    try:
        for piece in cut(junk, cuts):
            parser.feed(piece)
    except FrameError:
        pass
    assert parser.buffered <= len(junk)


@pytest.mark.parametrize(
    "data",
    [
        b"zzzzzzzz\r\nxx",
        b"00000001xxab\r\n",
        b"00000001\r\nabcd",
        b"ffffffff\r\nxxx",
        b"00000003\r\n\xc1ab\r\n12345678",
        raw_head(1, 0, 3) + b"abcd\r\n",
        raw_head(1, 0, 30_000) + bytes(30_001) + b"\n",
    ],
)
def test_bytes_that_are_no_frame_are_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameParser().feed(data)


def test_bytes_after_the_goodbye_are_an_error() -> None:
    with pytest.raises(FrameError):
        FrameParser().feed(GOODBYE + b"x")
    parser = FrameParser()
    parser.feed(GOODBYE)
    with pytest.raises(FrameError):
        parser.feed(encode_frame(b"x"))


@pytest.mark.parametrize("payload", [b""])
def test_an_empty_frame_cannot_be_sent(payload: bytes) -> None:
    with pytest.raises(FrameError):
        encode_frame(payload)
