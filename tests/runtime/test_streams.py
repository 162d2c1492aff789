"""Values that a method or task gives one by one: order, credits, and what happens when one of the two sides ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
class Note:
    """What others tell it, and a way to wait for that."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.changed = asyncio.Event()

    async def tell(self, what: Any) -> None:
        self.told.append(what)
        self.changed.set()

    async def wait_for(self, what: Any) -> list[Any]:
        while what not in self.told:
            self.changed.clear()
            await self.changed.wait()
        return self.told

    async def all(self) -> list[Any]:
        return self.told


@actorrt.remote
class Async:
    async def count(self, upto: int, note: Any = None) -> AsyncIterator[int]:
        try:
            for i in range(upto):
                if note is not None:
                    await note.tell.remote(i)
                yield i
        finally:
            if note is not None:
                await note.tell.remote("closed")

    async def fail(self, after: int) -> AsyncIterator[int]:
        for i in range(after):
            yield i
        raise ValueError("no more")

    def plain(self, upto: int) -> Iterator[int]:
        yield from range(upto)

    async def returns_iterable(self, upto: int) -> list[int]:
        return list(range(upto))

    async def endless(self, note: Any) -> AsyncIterator[Any]:
        try:
            yield os.getpid()
            await asyncio.Event().wait()
        finally:
            await note.tell.remote("closed")

    async def large(self, count: int) -> AsyncIterator[Any]:
        for i in range(count):
            yield np.full(50_000, i)

    async def small_and_large(self, count: int, note: Any) -> AsyncIterator[Any]:
        for i in range(count):
            await note.tell.remote(i)
            yield np.full(50_000, i) if i % 2 else i

    async def large_forever(self, note: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield np.zeros(50_000)
        finally:
            await note.tell.remote("closed")

    async def exits(self) -> AsyncIterator[int]:
        yield 1
        actorrt.exit_actor()


@actorrt.remote
class Sync:
    def count(self, upto: int, note: Any = None) -> Iterator[int]:
        try:
            for i in range(upto):
                if note is not None:
                    actorrt.get(note.tell.remote(i))
                yield i
        finally:
            if note is not None:
                actorrt.get(note.tell.remote("closed"))

    def fail(self, after: int) -> Iterator[int]:
        yield from range(after)
        raise ValueError("no more")

    def pid(self) -> int:
        return os.getpid()


@actorrt.remote
def task_count(upto: int) -> Iterator[int]:
    yield from range(upto)


@actorrt.remote
async def async_task_count(upto: int) -> AsyncIterator[int]:
    for i in range(upto):
        yield i


KINDS = pytest.mark.parametrize("cls", [Async, Sync])


def values_of(generator: Any) -> list[Any]:
    return [actorrt.get(ref) for ref in generator]


# ---- taking


def test_every_kind_of_generator_gives_its_values_in_order() -> None:
    actor, sync = Async.remote(), Sync.remote()
    generators = [
        actor.count.remote(10),
        actor.plain.remote(10),
        actor.returns_iterable.options(num_returns="streaming").remote(10),
        sync.count.remote(10),
        task_count.remote(10),
        async_task_count.remote(10),
    ]
    for generator in generators:
        assert values_of(generator) == list(range(10))
        assert generator.is_finished()
        with pytest.raises(StopIteration):
            next(generator)
    assert values_of(actor.count.remote(0)) == []


def test_they_are_taken_on_a_loop_one_by_one_or_all_that_are_there() -> None:
    async def main() -> None:
        actor = Async.remote()
        assert [await ref async for ref in actor.count.remote(5)] == [0, 1, 2, 3, 4]
        assert [value async for value in actor.count.remote(5).values()] == [0, 1, 2, 3, 4]
        generator = actor.count.remote(500)
        taken: list[int] = []
        while batch := await generator.next_values():
            taken += batch
        assert taken == list(range(500))
        assert await generator.next_values() == []
        with pytest.raises(StopAsyncIteration):
            await generator.__anext__()

    asyncio.run(main())


def test_who_is_cancelled_while_taking_values_loses_none_and_the_producer_gets_its_credits() -> None:
    async def main() -> None:
        note = Note.remote()
        options = {"num_returns": "streaming", "generator_backpressure": 4}
        generator = Async.remote().small_and_large.options(**options).remote(12, note)
        # As far as the producer may go without being read.
        await note.wait_for.remote(3)
        taken: list[int] = []
        cancelled = 0
        while not generator.is_finished():
            task = asyncio.create_task(generator.next_values())
            # It begins, and is stopped where it has to wait for something, if it has to.
            await asyncio.sleep(0)
            task.cancel()
            try:
                batch = await task
            except asyncio.CancelledError:
                cancelled += 1
                batch = await generator.next_values()
            taken += [int(np.max(value)) for value in batch]
        assert taken == list(range(12))
        assert cancelled

    asyncio.run(main())


def test_several_may_take_from_one_generator() -> None:
    generator = Async.remote().count.remote(600)
    taken: list[list[int]] = [[] for _ in range(3)]

    def take(mine: list[int]) -> None:
        mine += values_of(generator)

    async def take_here() -> list[int]:
        return [await ref async for ref in generator]

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    here = asyncio.run(take_here())
    for thread in threads:
        thread.join(30)
    together = [value for mine in (*taken, here) for value in mine]
    assert sorted(together) == list(range(600))
    assert all(mine == sorted(mine) for mine in (*taken, here))


def test_who_stops_waiting_for_an_item_takes_none() -> None:
    async def main() -> None:
        note = Note.remote()
        generator = Async.remote().endless.remote(note)
        assert await (await generator.__anext__()) > 0
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await generator.__anext__()
        with pytest.raises(exceptions.GetTimeoutError):
            await asyncio.to_thread(generator._next_sync, 0.01)
        assert not generator.next_ready()
        generator.close()
        assert "closed" in await note.wait_for.remote("closed")

    asyncio.run(main())


def test_wait_takes_generators_beside_refs() -> None:
    note = Note.remote()
    endless, short = Async.remote().endless.remote(note), note.all.remote()
    done, rest = actorrt.wait([endless, short], num_returns=2, timeout=30)
    assert (done, rest) == ([endless, short], [])
    next(endless)
    assert actorrt.wait([endless, short], num_returns=2, timeout=0.01) == ([short], [endless])


# ---- errors


@KINDS
def test_an_error_is_the_last_item(cls: Any) -> None:
    generator = cls.remote().fail.remote(3)
    assert [actorrt.get(next(generator)) for _ in range(3)] == [0, 1, 2]
    last = next(generator)
    with pytest.raises(ValueError, match="no more"):
        actorrt.get(last)
    with pytest.raises(StopIteration):
        next(generator)
    with pytest.raises(ValueError, match="no more"):
        actorrt.get(generator.completed())


def test_the_values_before_an_error_are_given_before_it() -> None:
    async def main() -> None:
        generator = Async.remote().fail.remote(3)
        taken: list[int] = []
        with contextlib.suppress(ValueError):
            while batch := await generator.next_values():
                taken += batch
        assert taken == [0, 1, 2]
        with pytest.raises(ValueError, match="no more"):
            await generator.completed()

    asyncio.run(main())


def test_what_is_no_generator_cannot_stream() -> None:
    generator = Async.remote().returns_iterable.options(num_returns="streaming").remote("x")
    with pytest.raises(TypeError):
        values_of(generator)
    note = Note.remote()
    with pytest.raises(TypeError, match="is no generator"):
        values_of(note.tell.options(num_returns="streaming").remote(1))


def test_a_generator_cannot_be_sent() -> None:
    generator = Async.remote().count.remote(1)
    with pytest.raises(TypeError, match="a generator cannot be sent"):
        pickle.dumps(generator)
    with pytest.raises(exceptions.NotSerializableError, match="a generator cannot be sent"):
        Note.remote().tell.remote(generator)


# ---- credits


@KINDS
@pytest.mark.parametrize("window", [1, 2, 7])
def test_a_producer_is_not_further_ahead_than_allowed(cls: Any, window: int) -> None:
    note = Note.remote()
    generator = cls.remote().count.options(generator_backpressure=window).remote(40, note)
    for i in range(40):
        assert actorrt.get(next(generator)) == i
        # It may be working on one more than it may send, and credits come back in halves of the window.
        assert len(actorrt.get(note.all.remote())) <= i + 1 + window + 1 + (window + 1) // 2
    assert list(generator) == []
    assert actorrt.get(note.all.remote())[-1] == "closed"


@KINDS
def test_who_waits_for_the_end_lifts_the_limit(cls: Any) -> None:
    # At once, so that the wish may be there before the stream, before the actor even.
    generator = cls.remote().count.options(generator_backpressure=2).remote(500)
    assert actorrt.get(generator.completed()) is None
    assert values_of(generator) == list(range(500))


def test_the_limit_is_lifted_while_the_call_waits_for_its_turn() -> None:
    actor = Async.options(max_concurrency=1).remote()
    note = Note.remote()
    first = actor.endless.remote(note)
    next(first)
    second = actor.count.options(generator_backpressure=2).remote(100)
    end = second.completed()
    first.close()
    assert actorrt.get(end) is None
    assert values_of(second) == list(range(100))


@actorrt.remote
class Blocking:
    """It takes of a stream on the loop of its process, which it then blocks in the same turn."""

    async def take_and_block(self, producer: Any, note: Any, take: int) -> list[Any]:
        runtime = current.maybe_runtime()
        assert runtime is not None
        # Of a loop that is stuck the runtime's thread sends in a while what is ready, which would come to the same.
        runtime.program.runner.flush_from_outside = lambda: None
        generator = producer.count.options(generator_backpressure=1).remote(take + 1, note)
        for _ in range(take):
            await generator.next_values()
        # This one is made by the credit of the last that was taken, and by nothing else.
        told = actorrt.get(note.wait_for.remote(take), timeout=20)
        generator.close()
        return told


@pytest.mark.parametrize("take", [1, 2, 7])
def test_credits_leave_before_the_loop_that_gave_them_is_blocked(take: int) -> None:
    note = Note.options(isolated=True).remote()
    told = Blocking.remote().take_and_block.remote(Sync.remote(), note, take)
    assert actorrt.get(told)[: take + 1] == list(range(take + 1))


def test_a_slow_reader_of_large_values_stops_the_producer() -> None:
    generator = Async.remote().large.options(generator_backpressure=2).remote(10)
    for i, ref in enumerate(generator):
        assert (actorrt.get(ref) == i).all()


# ---- ends


@KINDS
def test_closing_a_generator_closes_its_producer(cls: Any) -> None:
    note = Note.remote()
    generator = cls.remote().count.options(generator_backpressure=1).remote(10**9, note)
    assert actorrt.get(next(generator)) == 0
    generator.close()
    assert "closed" in actorrt.get(note.wait_for.remote("closed"))
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(generator.completed())


def test_a_stream_is_closed_while_a_large_value_is_being_written() -> None:
    for _ in range(10):
        note = Note.remote()
        generator = Async.remote().large_forever.options(generator_backpressure=20).remote(note)
        for _ in range(3):
            actorrt.get(next(generator))
        generator.close()
        assert "closed" in actorrt.get(note.wait_for.remote("closed"))


@KINDS
def test_dropping_a_generator_closes_its_producer(cls: Any) -> None:
    note = Note.remote()
    generator = cls.remote().count.options(generator_backpressure=1).remote(10**9, note)
    assert actorrt.get(next(generator)) == 0
    del generator
    gc.collect()
    assert "closed" in actorrt.get(note.wait_for.remote("closed"))


def test_cancel_takes_a_generator() -> None:
    note = Note.remote()
    generator = Async.remote().endless.remote(note)
    next(generator)
    actorrt.cancel(generator)
    assert "closed" in actorrt.get(note.wait_for.remote("closed"))
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(next(generator))


def test_a_consumer_that_dies_closes_its_producer() -> None:
    @actorrt.remote(max_restarts=0)
    class Consumer:
        def take(self, producer: Any, note: Any) -> None:
            self.generator = producer.endless.remote(note)
            next(self.generator)
            os.kill(os.getpid(), signal.SIGKILL)

    producer, note = Async.remote(), Note.remote()
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(Consumer.remote().take.remote(producer, note))
    assert "closed" in actorrt.get(note.wait_for.remote("closed"))


@KINDS
def test_a_producer_that_dies_is_an_error_after_what_it_gave(cls: Any) -> None:
    actor = cls.options(isolated=True).remote()
    note = Note.remote()
    if cls is Async:
        generator = actor.endless.remote(note)
        pid = actorrt.get(next(generator))
    else:
        pid = actorrt.get(actor.pid.remote())
        generator = actor.count.options(generator_backpressure=1).remote(10**9)
        next(generator)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        values_of(generator)


def test_an_actor_that_exits_within_a_stream() -> None:
    generator = Async.remote().exits.remote()
    assert actorrt.get(next(generator)) == 1
    with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
        actorrt.get(next(generator))


def test_a_stream_that_is_repeated_gives_each_item_once() -> None:
    @actorrt.remote(max_restarts=1, max_task_retries=1)
    class Dies:
        def count(self, upto: int, path: str) -> Iterator[int]:
            for i in range(upto):
                if i == upto // 2 and not os.path.exists(path):
                    open(path, "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield i

    path = os.path.join(actorrt.get_runtime_context().get_temp_dir(), "died")
    generator = Dies.remote().count.options(generator_backpressure=3).remote(20, path)
    assert values_of(generator) == list(range(20))
    os.unlink(path)


def test_an_ending_program_leaves_no_thread_waiting_for_an_item(run_program: Any) -> None:
    ran = run_program(
        """
import actorrt, threading, asyncio
@actorrt.remote
class A:
    async def endless(self):
        yield 1
        await asyncio.Event().wait()
actorrt.init(num_cpus=1)
gen = A.remote().endless.remote()
print(actorrt.get(next(gen)))
def wait():
    try: actorrt.get(next(gen))
    except actorrt.exceptions.ActorrtError as error: print(error)
thread = threading.Thread(target=wait); thread.start()
actorrt.shutdown()
thread.join()
"""
    )
    assert (ran.returncode, ran.stdout) == (0, "1\nactorrt was shut down\n"), ran.stderr
