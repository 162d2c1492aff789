"""A container gives back what was put in, wherever it lies, and refuses what is not one."""

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.container import ALIGNMENT, CONTAINER_MAGIC, LARGE, PAGE, pack_header, pack_into, parse, plan

LENGTHS = st.lists(st.integers(0, 2**48) | st.integers(0, 2 * LARGE), max_size=10)
BUFFERS = st.lists(st.binary(max_size=200), max_size=6)


def packed(data: bytes, buffers: list[bytes], filler: int = 0) -> bytearray:
    layout = plan(len(data), [len(b) for b in buffers])
    target = bytearray([filler]) * layout.total
    pack_into(layout, data, [memoryview(b) for b in buffers], memoryview(target))
    return target


@given(data=st.binary(max_size=300), buffers=BUFFERS, filler=st.integers(0, 255), more=st.binary(max_size=100))
def test_what_was_packed_is_parsed_whatever_lies_between_and_behind(
    data: bytes, buffers: list[bytes], filler: int, more: bytes
) -> None:
    found_data, found = parse(memoryview(packed(data, buffers, filler) + more))
    assert bytes(found_data) == data
    assert [bytes(b) for b in found] == buffers


@given(data_len=st.integers(0, 2**48), lengths=LENGTHS)
def test_buffers_are_aligned_and_follow_each_other_without_more_waste_than_that(
    data_len: int, lengths: list[int]
) -> None:
    layout = plan(data_len, lengths)
    end = layout.data_offset + data_len
    assert len(pack_header(data_len, lengths)) == layout.data_offset
    for start, length in zip(layout.offsets, lengths, strict=True):
        alignment = ALIGNMENT if length < LARGE else PAGE
        assert start % alignment == 0
        assert end <= start < end + alignment
        end = start + length
    assert layout.total == end


@given(data=st.binary(max_size=100), buffers=BUFFERS, cut=st.integers(0, 2000))
def test_a_container_that_was_cut_is_refused(data: bytes, buffers: list[bytes], cut: int) -> None:
    whole = packed(data, buffers)
    part = whole[: cut % len(whole)]
    with pytest.raises(ValueError, match="not a"):
        parse(memoryview(part))


@given(noise=st.binary(max_size=200))
def test_noise_is_refused_or_parsed_within_its_bounds(noise: bytes) -> None:
    try:
        data, buffers = parse(memoryview(noise))
    except ValueError:
        return
    assert data.nbytes + sum(b.nbytes for b in buffers) <= len(noise)


def test_lengths_that_would_run_over_the_end_are_refused() -> None:
    huge = struct.pack("<B3xIQ", CONTAINER_MAGIC, 1, 0) + struct.pack("<Q", 2**63)
    with pytest.raises(ValueError, match="not a whole container"):
        parse(memoryview(huge))
    many = struct.pack("<B3xIQ", CONTAINER_MAGIC, 2**32 - 1, 0)
    with pytest.raises(ValueError, match="lengths of 4294967295 buffers"):
        parse(memoryview(many))


def test_a_pickle_is_not_a_container() -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        dumped = pickle.dumps({"a": 1}, protocol)
        assert dumped[0] != CONTAINER_MAGIC
        with pytest.raises(ValueError, match="not a container"):
            parse(memoryview(dumped + bytes(16)))


def test_a_pickle_that_is_too_long_for_the_header_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a container"):
        pack_header(2**64, [])


def test_views_are_as_read_only_as_what_they_view_and_share_its_memory() -> None:
    target = packed(b"pickle", [b"x" * 10])
    _, [writable] = parse(memoryview(target))
    writable[0] = ord("y")
    _, [read_only] = parse(memoryview(target).toreadonly())
    assert bytes(read_only) == b"y" + b"x" * 9
    assert read_only.readonly


def test_numpy_arrays_come_back_as_views() -> None:
    value = {
        "a": np.arange(1000, dtype=np.float64).reshape(10, 100),
        "empty": np.empty(0),
        "b": np.asfortranarray([[1, 2]]),
    }
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    raws = [b.raw() for b in buffers]
    layout = plan(len(data), [b.nbytes for b in raws])
    target = bytearray(layout.total)
    pack_into(layout, data, raws, memoryview(target))
    found_data, found = parse(memoryview(target).toreadonly())
    loaded = pickle.loads(found_data, buffers=found)
    assert all(np.array_equal(value[key], loaded[key]) for key in value)
    assert np.shares_memory(loaded["a"], np.frombuffer(target, np.uint8))
    assert not loaded["a"].flags.writeable
