"""Streamed items in shared memory are their caller's: they outlive their producer. Nothing of a cut stream stays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current
from actorrt.wire.messages import Query

NBYTES: Final = 150_000
COUNT: Final = 4
DEADLINE_S: Final = 20.0


@pytest.fixture(scope="module", autouse=True)
def _two_cpus() -> Iterator[None]:
    with actorrt.init(num_cpus=2, log_to_driver=False, preload_modules=["pytest"]):
        yield


def items(count: int, then_wait: bool) -> Iterator[Any]:
    for index in range(count):
        yield os.getpid(), bytes([index % 256]) * NBYTES
    if then_wait:
        time.sleep(60)


@actorrt.remote(max_retries=0)
def task(count: int, then_wait: bool) -> Iterator[Any]:
    yield from items(count, then_wait)


@actorrt.remote(max_retries=0, max_calls=1)
def last_task(count: int) -> Iterator[Any]:
    yield from items(count, False)


class Plain:
    def stream(self, count: int, then_wait: bool) -> Iterator[Any]:
        yield from items(count, then_wait)

    def leave(self) -> None:
        actorrt.exit_actor()


class Coroutine:
    async def stream(self, count: int, then_wait: bool) -> AsyncIterator[Any]:
        for item in items(count, then_wait):
            yield item

    async def leave(self) -> None:
        actorrt.exit_actor()


class Threaded(Coroutine):
    @actorrt.method(thread=True)
    def stream(self, count: int, then_wait: bool) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from items(count, then_wait)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def stored() -> int:
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.node.ask(Query("store"))).data["bytes"]


def wait_until_nothing_is_stored() -> None:
    until(lambda: not stored())


def wait_until_it_is_gone(pid: int) -> None:
    until(lambda: not Path(f"/proc/{pid}").exists())


ACTORS: dict[str, Any] = {
    "sync actor": actorrt.remote(Plain),
    "threads": actorrt.remote(Plain).options(max_concurrency=2),
    "coroutine actor": actorrt.remote(Coroutine).options(isolated=True),
    "threaded method": actorrt.remote(Threaded).options(isolated=True),
}
KINDS: Final = ("task", *ACTORS)


def start(kind: str, count: int = COUNT, then_wait: bool = False) -> tuple[Any, Any]:
    """The actor, if it is one, and its stream."""
    if kind == "task":
        return None, task.remote(count, then_wait)
    actor = ACTORS[kind].remote()
    return actor, actor.stream.remote(count, then_wait)


@actorrt.remote(num_cpus=0)
def size_of(refs: list[Any]) -> int:
    return sum(len(value[1]) for value in actorrt.get(refs))


def look_at(refs: list[Any]) -> None:
    """All items are there, here and elsewhere; and nothing is once they are dropped."""
    assert [value[1] for value in actorrt.get(refs)] == [bytes([index]) * NBYTES for index in range(COUNT)]
    assert actorrt.get(size_of.remote(refs)) == COUNT * NBYTES
    refs.clear()
    wait_until_nothing_is_stored()


@pytest.mark.parametrize("kind", KINDS)
def test_items_can_be_taken_after_their_producer_has_ended_and_was_killed(kind: str) -> None:
    actor, stream = start(kind)
    refs = [next(stream)]
    actorrt.get(stream.end)
    pid = actorrt.get(refs[0])[0]
    os.kill(pid, signal.SIGKILL)
    wait_until_it_is_gone(pid)
    refs += stream
    del actor
    look_at(refs)


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_came_outlive_a_producer_that_is_killed_amid_its_work(kind: str) -> None:
    actor, stream = start(kind, then_wait=True)
    refs = [next(stream)]
    until(lambda: stream.stream.came == COUNT)
    os.kill(actorrt.get(refs[0])[0], signal.SIGKILL)
    refs += [next(stream) for _ in range(COUNT - 1)]
    with pytest.raises((exceptions.ActorDiedError, exceptions.WorkerCrashedError)):
        actorrt.get(next(stream))
    assert next(stream, None) is None
    del actor
    look_at(refs)


@pytest.mark.parametrize("how", ["kill", "exit_actor"])
@pytest.mark.parametrize("kind", ["sync actor", "coroutine actor"])
def test_items_outlive_an_actor_that_leaves(kind: str, how: str) -> None:
    actor, stream = start(kind)
    refs = [next(stream)]
    actorrt.get(stream.end)
    if how == "kill":
        actorrt.kill(actor)
    else:
        actor.leave.remote()
    wait_until_it_is_gone(actorrt.get(refs[0])[0])
    refs += stream
    look_at(refs)


def test_items_outlive_a_worker_that_has_run_its_max_calls() -> None:
    stream = last_task.remote(COUNT)
    refs = [next(stream)]
    actorrt.get(stream.end)
    # Nor is it kept for them.
    wait_until_it_is_gone(actorrt.get(refs[0])[0])
    refs += stream
    look_at(refs)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_a_stream_that_was_closed_or_dropped_goes(kind: str) -> None:
    for close in (True, False):
        actor, stream = start(kind, 200)
        first = next(stream)
        if close:
            stream.close()
        del stream
        assert len(actorrt.get(first)[1]) == NBYTES
        del first
        wait_until_nothing_is_stored()
        del actor


@actorrt.remote(max_retries=1)
def repeated(path: str) -> Iterator[Any]:
    first = not os.path.exists(path)
    with open(path, "w", encoding="utf-8"):
        yield from items(COUNT - 1, first)
    yield os.getpid(), bytes([COUNT - 1]) * NBYTES


def test_a_stream_that_is_repeated_gives_each_item_once_and_keeps_those_that_came(tmp_path: Any) -> None:
    stream = repeated.remote(str(tmp_path / "file"))
    refs = [next(stream) for _ in range(COUNT - 1)]
    first = actorrt.get(refs[0])[0]
    os.kill(first, signal.SIGKILL)
    refs += stream
    pids = [value[0] for value in actorrt.get(refs)]
    assert pids[:-1] == [first] * (COUNT - 1)
    assert pids[-1] != first
    look_at(refs)


@actorrt.remote(max_retries=1, retry_exceptions=True)
def fails_once(path: str) -> Iterator[Any]:
    yield from items(COUNT - 1, False)
    if not os.path.exists(path):
        with open(path, "w", encoding="utf-8"):
            raise ValueError("once")
    yield os.getpid(), bytes([COUNT - 1]) * NBYTES


def test_a_stream_that_is_repeated_since_it_failed_gives_each_item_once(tmp_path: Any) -> None:
    look_at(list(fails_once.remote(str(tmp_path / "file"))))


@actorrt.remote(max_retries=0)
def mixed(count: int) -> Iterator[Any]:
    for index in range(count):
        yield index, b"x" * (NBYTES if index % 3 else 10)
    raise ValueError("the end")


def test_small_and_large_items_come_in_their_order_and_the_error_behind_them() -> None:
    refs = list(mixed.remote(20))
    with pytest.raises(ValueError, match="the end"):
        actorrt.get(refs.pop())
    assert [value[0] for value in actorrt.get(refs)] == list(range(20))
    del refs
    wait_until_nothing_is_stored()


@actorrt.remote(max_retries=0)
def with_refs() -> Iterator[Any]:
    for index in range(3):
        yield [actorrt.put(index), b"x" * NBYTES]


def test_refs_inside_large_items_are_kept_as_long_as_the_items() -> None:
    refs = list(with_refs.remote())
    assert [actorrt.get(value[0]) for value in actorrt.get(refs)] == [0, 1, 2]
    del refs
    wait_until_nothing_is_stored()


@actorrt.remote(max_retries=0, num_cpus=0)
def consume(wait: bool) -> int:
    _, stream = start("sync actor", 50)
    # The generator lives as long as this frame.
    kept = [next(stream) for _ in range(3)]
    assert len(actorrt.get(kept[0])[1]) == NBYTES
    if wait:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.mark.parametrize("dies", [False, True])
def test_nothing_stays_of_what_a_consumer_held_that_ends(dies: bool) -> None:
    ref = consume.remote(dies)
    if dies:
        with pytest.raises(exceptions.WorkerCrashedError):
            actorrt.get(ref)
    else:
        actorrt.get(ref)
    wait_until_nothing_is_stored()


def test_a_producer_that_is_killed_amid_its_items_leaves_nothing() -> None:
    for kind in ("sync actor", "coroutine actor"):
        actor, stream = start(kind, 100_000)
        next(stream)
        actorrt.kill(actor)
        refs = list(stream)
        with pytest.raises(exceptions.ActorDiedError):
            actorrt.get(refs.pop())
        assert all(len(value[1]) == NBYTES for value in actorrt.get(refs))
        del stream, refs, actor
    wait_until_nothing_is_stored()
