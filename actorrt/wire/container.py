"""Lay a pickle and its out-of-band buffers out as one run of bytes, and find them again without a copy.

    byte 0        0x01, which no pickle starts with (protocol 2 and later start with 0x80)
    bytes 4-7     number of buffers, n          (little endian, as all of it)
    bytes 8-15    length of the pickle
    then 8 n      length of each buffer
    then          the pickle
    then          each buffer at the next multiple of 64 from the start, of 4096 if it has 128 KiB or more

The bytes between the parts mean nothing: in shared memory that is used again they are what was there before. The run
may be followed by others; a parser is told the length by the lengths alone. Nothing here pickles, and nothing here
knows whether the bytes travel in a message or lie in a segment.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

CONTAINER_MAGIC: Final = 0x01
# A cache line, and the widest vector register: what NumPy and friends align to at best.
ALIGNMENT: Final = 64
# Large arrays start a few bytes behind a page's start, as malloc has it. A copy to a place slightly further behind a
# page's start runs at a quarter of the speed, since each load seems to depend on the store before it (4K aliasing).
PAGE: Final = 4096
LARGE: Final = 128 << 10

_HEAD: Final = struct.Struct("<B3xIQ")
_LENGTH_SIZE: Final = 8


class Plan(NamedTuple):
    """Where the parts lie, from the start of the container, and the bytes up to the end of the last one."""

    data_offset: int
    offsets: tuple[int, ...]
    total: int


def plan(data_len: int, buffer_lens: Sequence[int]) -> Plan:
    """The layout for a pickle of `data_len` bytes and buffers of these lengths."""
    data_offset = _HEAD.size + _LENGTH_SIZE * len(buffer_lens)
    end = data_offset + data_len
    offsets: list[int] = []
    for length in buffer_lens:
        alignment = ALIGNMENT if length < LARGE else PAGE
        start = -(-end // alignment) * alignment
        offsets.append(start)
        end = start + length
    return Plan(data_offset, tuple(offsets), end)


def pack_header(data_len: int, buffer_lens: Sequence[int]) -> bytes:
    """The bytes in front of the pickle. Raises ValueError for more than 2**32 - 1 buffers."""
    count = len(buffer_lens)
    try:
        return _HEAD.pack(CONTAINER_MAGIC, count, data_len) + struct.pack(f"<{count}Q", *buffer_lens)
    except struct.error as error:
        raise ValueError(f"{count} buffers and a pickle of {data_len} bytes do not fit a container") from error


def pack_into(layout: Plan, data: bytes | memoryview, buffers: Sequence[memoryview], target: memoryview) -> None:
    """Write the whole container into `target`, which has at least `layout.total` bytes.

    The buffers are contiguous bytes, as `PickleBuffer.raw()` gives them.
    """
    header = pack_header(len(data), [buffer.nbytes for buffer in buffers])
    target[: len(header)] = header
    target[layout.data_offset : layout.data_offset + len(data)] = data
    for start, buffer in zip(layout.offsets, buffers, strict=True):
        target[start : start + buffer.nbytes] = buffer


def parse(view: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle and the buffers, as views of `view`: read-only where it is, valid as long as what it views.

    Raises ValueError if `view` does not hold a whole container.
    """
    size = view.nbytes
    if size < _HEAD.size or view[0] != CONTAINER_MAGIC:
        raise ValueError("not a container: it does not start with a container's head")
    _, count, data_len = _HEAD.unpack_from(view)
    if _HEAD.size + _LENGTH_SIZE * count > size:
        raise ValueError(f"not a whole container: lengths of {count} buffers do not fit in {size} bytes")
    lengths: tuple[int, ...] = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    data_offset, offsets, total = plan(data_len, lengths)
    if total > size:
        raise ValueError(f"not a whole container: it has {total} bytes, of which {size} are here")
    data = view[data_offset : data_offset + data_len]
    return data, [view[start : start + length] for start, length in zip(offsets, lengths, strict=True)]
