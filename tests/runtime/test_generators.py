"""Generators as in plain Python: what runs when, how they are closed, and what counts where they fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import actorrt


@pytest.fixture(scope="module", params=["processes", "local"], autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with (
        actorrt.init(local_mode=True)
        if request.param == "local"
        else actorrt.init(num_cpus=2, preload_modules=["pytest"])
    ):
        yield request.param


@actorrt.remote
class Note:
    """What others tell it, and a way to wait for that."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.changed = asyncio.Condition()

    async def tell(self, what: Any) -> None:
        async with self.changed:
            self.told.append(what)
            self.changed.notify_all()

    async def all(self) -> list[Any]:
        return self.told

    async def wait_for(self, what: Any) -> list[Any]:
        async with self.changed:
            await self.changed.wait_for(lambda: what in self.told)
        return self.told


async def steps_async(note: Any, upto: int) -> AsyncGenerator[int]:
    try:
        for i in range(upto):
            await note.tell.remote(i)
            yield i
        await note.tell.remote("end")
    finally:
        await note.tell.remote("closed")


def steps(note: Any, upto: int) -> Iterator[int]:
    try:
        for i in range(upto):
            actorrt.get(note.tell.remote(i))
            yield i
        actorrt.get(note.tell.remote("end"))
    finally:
        actorrt.get(note.tell.remote("closed"))


async def fails_async(after: int) -> AsyncIterator[Any]:
    for i in range(after):
        yield i if i % 2 else np.full(50_000, i)
    raise ValueError("no more")


def fails(after: int) -> Iterator[Any]:
    for i in range(after):
        yield i if i % 2 else np.full(50_000, i)
    raise ValueError("no more")


async def upto_async(count: int) -> AsyncIterator[int]:
    for i in range(count):
        yield i


def upto(count: int) -> Iterator[int]:
    yield from range(count)


class Sync:
    def steps(self, note: Any, upto: int) -> Iterator[int]:
        return steps(note, upto)

    def fails(self, after: int) -> Iterator[Any]:
        return fails(after)

    def upto(self, count: int) -> Iterator[int]:
        return upto(count)


class Async:
    async def steps(self, note: Any, upto: int) -> AsyncIterator[int]:
        # Otherwise the loop closes the inner one, and some time after the outer: as in plain Python.
        async with contextlib.aclosing(steps_async(note, upto)) as values:
            async for value in values:
                yield value

    async def fails(self, after: int) -> AsyncIterator[Any]:
        async for value in fails_async(after):
            yield value

    async def upto(self, count: int) -> AsyncIterator[int]:
        for i in range(count):
            yield i


class Threads:
    async def _(self) -> None: ...

    @actorrt.method(thread=True)
    def steps(self, note: Any, upto: int) -> Iterator[int]:
        return steps(note, upto)

    @actorrt.method(thread=True)
    def fails(self, after: int) -> Iterator[Any]:
        return fails(after)

    @actorrt.method(thread=True)
    def upto(self, count: int) -> Iterator[int]:
        return upto(count)


class Functions:
    """Tasks, called as methods are."""

    def __init__(self, suffix: str) -> None:
        for name in ("steps", "fails", "upto"):
            setattr(self, name, actorrt.remote(globals()[name + suffix]))


def maker(kind: str) -> Any:
    if kind in ("task", "async-task"):
        return Functions("_async" if kind == "async-task" else "")
    cls = {"sync": Sync, "async": Async, "threads": Threads, "pool": Sync}[kind]
    return actorrt.remote(cls).options(max_concurrency=2 if kind == "pool" else None).remote()


KINDS = ["task", "async-task", "sync", "async", "threads", "pool"]
ON_A_LOOP = ["async-task", "async"]


def streams(session: str, kind: str) -> None:
    """In local mode plain code has one loop, and cannot wait on it for others."""
    if session == "local" and kind not in ON_A_LOOP:
        pytest.skip("its code cannot tell anybody anything in local mode")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, 3])
async def test_the_code_behind_a_yield_waits_until_there_is_room(session: str, kind: str, window: int) -> None:
    streams(session, kind)
    note = Note.remote()
    stream = maker(kind).steps.options(num_returns="streaming", generator_backpressure=window).remote(note, 5)
    assert await note.wait_for.remote(window - 1) == list(range(window))
    for _ in range(window):
        await anext(stream)
    # Of the first so many, all were taken before the code behind the last of them ran.
    assert (await note.wait_for.remote(window))[: window + 1] == list(range(window + 1))
    assert [await ref async for ref in stream] == list(range(window, 5))
    assert await note.wait_for.remote("closed") == [0, 1, 2, 3, 4, "end", "closed"]


async def test_the_code_behind_a_yield_does_not_run_while_nobody_takes(session: str) -> None:
    note = Note.remote()
    stream = actorrt.remote(steps_async).options(generator_backpressure=2).remote(note, 5)
    assert await note.wait_for.remote(1) == [0, 1]
    other = actorrt.remote(steps_async).remote(note, 8)
    await note.wait_for.remote("closed")
    assert (await note.all.remote()).count(2) == 1
    await stream.aclose()
    assert (await note.all.remote()).count("closed") == 2
    assert len([ref async for ref in other]) == 8


@pytest.mark.parametrize("kind", KINDS)
async def test_aclosing_ends_with_the_producer_closed(session: str, kind: str) -> None:
    streams(session, kind)
    note = Note.remote()
    call = maker(kind).steps.options(num_returns="streaming", generator_backpressure=2)
    async with contextlib.aclosing(call.remote(note, 100)) as stream:
        async for ref in stream:
            assert await ref == 0
            break
    assert (await note.all.remote())[-1] == "closed"
    assert stream.is_finished()
    assert not stream.next_ready()
    assert [ref async for ref in stream] == []
    await stream.aclose()
    unread = call.remote(note, 100)
    await unread.aclose()
    assert unread.is_finished()


@pytest.mark.parametrize("kind", ["task", "async"])
@pytest.mark.parametrize("where", ["step", "body", "values", "timeout"])
async def test_a_consumer_that_is_cancelled_closes_its_producer(session: str, kind: str, where: str) -> None:
    streams(session, kind)
    note = Note.remote()
    stream = maker(kind).steps.options(num_returns="streaming", generator_backpressure=1).remote(note, 100)
    reached = asyncio.Event()

    async def consume() -> None:
        async for _ in stream.values() if where == "values" else stream:
            if where == "body":
                reached.set()
                await asyncio.Event().wait()
            if len(await note.all.remote()) > 3:
                reached.set()

    async def within() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                task = asyncio.ensure_future(reached.wait())
                task.add_done_callback(lambda _: limit.reschedule(0))
                await consume()

    consumer = asyncio.ensure_future(within() if where == "timeout" else consume())
    await reached.wait()
    if where != "timeout":
        consumer.cancel()
    # Nobody asks for its outcome, and the generator is held here.
    await asyncio.wait([consumer])
    assert (await note.wait_for.remote("closed"))[-1] == "closed"


async def test_who_leaves_the_loop_in_order_may_go_on_with_the_generator() -> None:
    stream = actorrt.remote(upto_async).options(generator_backpressure=1).remote(6)
    seen: list[int] = []
    for _ in range(3):
        async for ref in stream:
            seen.append(await ref)
            break
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.sleep(1)
    assert seen + [await ref async for ref in stream] == [0, 1, 2, 3, 4, 5]


def test_a_generator_is_closed_as_any_other(session: str) -> None:
    note = Note.remote()
    with contextlib.closing(actorrt.remote(steps_async).options(generator_backpressure=1).remote(note, 100)) as stream:
        assert actorrt.get(next(stream)) == 0
    assert actorrt.get(note.wait_for.remote("closed"), timeout=30)[-1] == "closed"
    other = Note.remote()
    for ref in actorrt.remote(steps_async).options(generator_backpressure=1).remote(other, 100):
        actorrt.get(ref)
        break
    del ref
    assert actorrt.get(other.wait_for.remote("closed"), timeout=30)[-1] == "closed"


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_end_there_is_no_next(kind: str) -> None:
    stream = maker(kind).upto.options(num_returns="streaming").remote(3)
    seen: list[int] = []
    while not stream.is_finished():
        ready, _ = actorrt.wait([stream], timeout=30)
        assert ready == [stream]
        while stream.next_ready():
            seen.append(actorrt.get(next(stream)))
    assert seen == [0, 1, 2]
    assert (stream.next_ready(), stream.is_finished()) == (False, True)
    with pytest.raises(StopIteration):
        next(stream)
    assert (stream.next_ready(), stream.is_finished()) == (False, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_with_so_many_returns_gives_its_values(kind: str) -> None:
    one = maker(kind)
    for returns in (0, 1, 3):
        refs = one.upto.options(num_returns=returns).remote(returns)
        if returns:
            assert actorrt.get(refs, timeout=30) == (0 if returns == 1 else [0, 1, 2])
    for returns in (1, 3):
        refs = one.upto.options(num_returns=returns).remote(4)
        for ref in refs if returns > 1 else [refs]:
            with pytest.raises(ValueError, match=f"num_returns={returns} and yielded more values"):
                actorrt.get(ref, timeout=30)
    with pytest.raises(ValueError, match="num_returns=1 and yielded 0 values"):
        actorrt.get(one.upto.options(num_returns=1).remote(0), timeout=30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retries", [False, True])
def test_the_values_in_front_of_an_error_count(kind: str, retries: bool) -> None:
    options: dict[str, Any] = {"num_returns": 4, "retry_exceptions": retries}
    if retries:
        options["max_retries" if "task" in kind else "max_task_retries"] = 1
    called = maker(kind)
    large, one, other, last = called.fails.options(**options).remote(3)
    with pytest.raises(ValueError, match="no more"):
        actorrt.get(last, timeout=30)
    assert actorrt.get(one, timeout=30) == 1
    only = called.fails.options(num_returns=1).remote(1)
    with pytest.raises(ValueError, match="no more"):
        actorrt.get(called.fails.options(num_returns=1).remote(0), timeout=30)
    few = called.upto.options(num_returns=3).remote(2)
    assert actorrt.get(few[:2], timeout=30) == [0, 1]
    with pytest.raises(ValueError, match="num_returns=3 and yielded 2 values"):
        actorrt.get(few[2], timeout=30)
    # They are the caller's, and need not the one who made them.
    del called
    assert [int(actorrt.get(ref, timeout=30).sum()) for ref in (large, other, only)] == [0, 100_000, 0]
