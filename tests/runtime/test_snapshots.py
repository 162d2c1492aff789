"""What is written later is copied first, unless nobody can change it."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actorrt.runtime.owner.snapshots import take_snapshot
from actorrt.wire import codec

SIZE = 20_000
KEPT = np.ones(SIZE)
HOLDER = {"kept": KEPT}
WEAK: list[Any] = []


def weakly_held() -> Any:
    array = np.ones(SIZE)
    WEAK.append(weakref.ref(array))
    return array


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def mapped_to_be_read() -> Any:
    memory = mmap.mmap(-1, SIZE * 8, access=mmap.ACCESS_READ)
    return np.frombuffer(memory)


def twice() -> Any:
    return [np.ones(SIZE)] * 2


def copied(make: Callable[[], Any]) -> list[bool]:
    """For each buffer of the value whether it was copied."""
    box = [make()]
    serialized = codec.serialize(box[0])
    before = list(serialized.buffers)
    contents = [bytes(view) for view in before]
    take_snapshot(serialized, box)
    assert [bytes(view) for view in serialized.buffers] == contents
    return [new is not old for new, old in zip(serialized.buffers, before, strict=True)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(SIZE),
        lambda: (np.ones(SIZE), np.zeros(SIZE), 1),
        lambda: {"a": [np.ones(SIZE)], "b": np.zeros(SIZE)},
        lambda: np.frombuffer(bytes(SIZE * 8)),
        lambda: np.frombuffer(bytes(SIZE * 8))[8:],
        lambda: np.frombuffer(memoryview(bytes(SIZE * 8))),
        mapped_to_be_read,
    ],
)
def test_what_nobody_can_change_any_more_is_not_copied(make: Callable[[], Any]) -> None:
    assert not any(copied(make))


@pytest.mark.parametrize(
    "make",
    [
        lambda: KEPT,
        lambda: KEPT[100:],
        lambda: HOLDER,
        lambda: [HOLDER],
        lambda: (np.ones(SIZE), KEPT),
        lambda: np.ones(SIZE)[100:],
        lambda: np.frombuffer(bytearray(SIZE * 8)),
        lambda: np.frombuffer(memoryview(bytearray(SIZE * 8)).toreadonly()),
        lambda: read_only(np.ones(SIZE)[100:]),
        lambda: [[[[np.ones(SIZE)]]]],
        lambda: [*range(100), np.ones(SIZE)],
        weakly_held,
        twice,
    ],
)
def test_what_somebody_may_change_is_copied(make: Callable[[], Any]) -> None:
    assert all(copied(make))


def test_a_copy_of_huge_pages_is_a_copy_like_any_other() -> None:
    array = np.arange(40 << 17, dtype=np.float64)
    serialized = codec.serialize(array)
    take_snapshot(serialized)
    array[:] = 0
    assert np.array_equal(codec.deserialize(codec.pack(serialized)), np.arange(40 << 17, dtype=np.float64))
