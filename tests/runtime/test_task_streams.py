"""Tasks that stream: items as they come, back-pressure, errors, cancellation, and the death of the producer."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@actorrt.remote
async def numbers_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def note(path: str) -> int:
    """One more item was made."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("x")
    return os.path.getsize(path)


@actorrt.remote
def counted(path: str, end: str) -> Iterator[int]:
    try:
        while True:
            yield note(path)
    finally:
        Path(end).write_text("closed", encoding="utf-8")


@actorrt.remote
async def counted_async(path: str, end: str) -> AsyncIterator[int]:
    try:
        while True:
            yield note(path)
    finally:
        await asyncio.shield(asyncio.to_thread(Path(end).write_text, "closed"))


def take_all(stream: Any, taken: list[Any]) -> None:
    taken.extend(actorrt.get(ref) for ref in stream)


KINDS = pytest.mark.parametrize("kind", [numbers, numbers_async])
COUNTED = pytest.mark.parametrize("kind", [counted, counted_async])


@KINDS
def test_items_come_in_order_and_the_end_is_known(kind: Any) -> None:
    stream = kind.remote(2500)
    assert [actorrt.get(ref) for ref in stream] == list(range(2500))
    assert actorrt.get(stream.completed()) is None
    with pytest.raises(StopIteration):
        next(stream)


@KINDS
async def test_items_are_awaited_too(kind: Any) -> None:
    assert [await ref async for ref in kind.remote(50)] == list(range(50))
    assert [value async for value in kind.remote(50).values()] == list(range(50))


def test_an_error_comes_behind_the_items() -> None:
    @actorrt.remote
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("after one")

    stream = iter(fails.remote())
    assert actorrt.get(next(stream)) == 1
    with pytest.raises(ValueError, match="after one"):
        actorrt.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


@COUNTED
@pytest.mark.parametrize("window", [1, 7])
def test_a_producer_is_never_further_ahead_than_it_may(tmp_path: Path, kind: Any, window: int) -> None:
    path, end = tmp_path / "made", tmp_path / "end"
    os.mkfifo(end)
    stream = kind.options(generator_backpressure=window).remote(str(path), str(end))
    for taken in range(1, 40):
        assert actorrt.get(next(stream)) == taken
        # It may be making one more than it has credits for: it waits before it sends.
        assert path.stat().st_size <= taken + window + 1
    actorrt.cancel(stream)
    assert end.read_text(encoding="utf-8") == "closed"
    made = path.stat().st_size
    assert made <= 40 + window
    with pytest.raises(exceptions.TaskCancelledError):
        take_all(stream, [])


@COUNTED
def test_dropping_the_generator_closes_the_producer(tmp_path: Path, kind: Any) -> None:
    end = tmp_path / "end"
    os.mkfifo(end)
    stream = kind.options(generator_backpressure=3).remote(str(tmp_path / "made"), str(end))
    next(stream)
    del stream
    gc.collect()
    assert end.read_text(encoding="utf-8") == "closed"


def test_a_producer_that_is_held_back_leaves_its_cpu_to_others(tmp_path: Path) -> None:
    end = tmp_path / "end"
    os.mkfifo(end)
    stream = counted.options(generator_backpressure=1, num_cpus=2).remote(str(tmp_path / "made"), str(end))
    assert actorrt.get(next(stream)) == 1
    assert [actorrt.get(ref) for ref in numbers.options(num_cpus=2).remote(3)] == [0, 1, 2]
    actorrt.cancel(stream)
    assert end.read_text(encoding="utf-8") == "closed"


def test_large_items_are_read_from_shared_memory() -> None:
    @actorrt.remote
    def large() -> Iterator[bytes]:
        for index in range(5):
            yield bytes([index]) * 300_000

    for index, ref in enumerate(large.remote()):
        assert actorrt.get(ref) == bytes([index]) * 300_000


def test_after_the_death_of_the_producer_the_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    once = str(tmp_path / "died")

    @actorrt.remote(max_retries=1, generator_backpressure=4)
    def dies_once(once: str) -> Iterator[int]:
        for number in range(200):
            if number == 100 and not os.path.exists(once):
                Path(once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    assert [actorrt.get(ref) for ref in dies_once.remote(once)] == list(range(200))


def fails_twice(tries: str) -> Iterator[Any]:
    with open(tries, "a") as file:
        file.write("x")
    for number in range(20):
        if number == 10 and len(Path(tries).read_text()) < 3:
            raise ValueError("not yet")
        yield number


async def fails_twice_async(tries: str) -> AsyncIterator[Any]:
    for number in fails_twice(tries):
        yield number


@pytest.mark.parametrize("kind", [fails_twice, fails_twice_async])
def test_a_stream_of_a_task_that_fails_is_repeated(tmp_path: Path, kind: Any) -> None:
    function = actorrt.remote(kind)
    for window in (-1, 4):
        tries = tmp_path / f"tries{window}"
        stream = function.options(retry_exceptions=[ValueError], generator_backpressure=window).remote(str(tries))
        assert [actorrt.get(ref, timeout=30) for ref in stream] == list(range(20))
        assert tries.read_text() == "xxx"
    stream = function.options(retry_exceptions=[KeyError]).remote(str(tmp_path / "once"))
    with pytest.raises(ValueError, match="not yet"):
        take_all(stream, [])
    assert (tmp_path / "once").read_text() == "x"


def test_a_producer_without_retries_ends_the_stream_with_its_death(tmp_path: Path) -> None:
    @actorrt.remote(max_retries=0)
    def dies() -> Iterator[int]:
        yield 1
        os._exit(7)

    stream = dies.remote()
    seen: list[int] = []
    with pytest.raises(exceptions.WorkerCrashedError, match="exit code 7"):
        take_all(stream, seen)
    assert seen in ([], [1])
    with pytest.raises(exceptions.WorkerCrashedError):
        actorrt.get(stream.completed())


def test_what_is_no_generator_and_should_stream_is_an_error() -> None:
    @actorrt.remote(num_returns="streaming")
    def seven() -> int:
        return 7

    stream: Any = seven.remote()
    with pytest.raises(TypeError, match="is no generator"):
        actorrt.get(next(stream))
