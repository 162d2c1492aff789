"""The wire parser holds for any cut of the bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.frames import GOODBYE, FrameError, FrameParser, encode_frame

FRAMES = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({c % (len(data) + 1) for c in cuts})
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(frames=FRAMES, cuts=st.lists(st.integers(min_value=0), max_size=12), goodbye=st.booleans())
def test_any_split_of_the_bytes_gives_the_same_frames(frames: list[bytes], cuts: list[int], goodbye: bool) -> None:
    data = b"".join(encode_frame(f) for f in frames) + (GOODBYE if goodbye else b"")
    parser = FrameParser()
    got: list[bytes] = []
    for piece in cut(data, cuts):
        got += parser.feed(piece)
    assert got == frames
    assert parser.ended == goodbye
    assert parser.buffered == 0


@given(frames=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=3))
def test_one_byte_at_a_time_gives_the_same_frames(frames: list[bytes]) -> None:
    parser = FrameParser()
    got: list[bytes] = []
    for byte in b"".join(encode_frame(f) for f in frames):
        got += parser.feed(bytes([byte]))
    assert got == frames


@given(junk=st.binary(min_size=10, max_size=100), cuts=st.lists(st.integers(min_value=0), max_size=5))
def test_junk_is_refused_or_waits_for_more_and_never_crashes(junk: bytes, cuts: list[int]) -> None:
    parser = FrameParser()
    try:
        for piece in cut(junk, cuts):
            parser.feed(piece)
    except FrameError:
        pass
    assert parser.buffered <= len(junk)


@pytest.mark.parametrize("data", [b"zzzzzzzz\r\nxx", b"00000001xxab\r\n", b"00000001\r\nabcd", b"ffffffff\r\nxxx"])
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
