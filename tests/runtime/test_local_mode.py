"""The same programs in one process: tasks, actors, streams, waiting, errors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import actorrt
from actorrt import exceptions


@pytest.fixture(autouse=True)
def local() -> Iterator[None]:
    actorrt.init(local_mode=True, namespace="here")
    yield
    actorrt.shutdown()


@actorrt.remote
def add(a: int, b: int = 1) -> int:
    return a + b


@actorrt.remote
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


@actorrt.remote
def nested(depth: int) -> int:
    return 0 if depth == 0 else 1 + actorrt.get(nested.remote(depth - 1))


@actorrt.remote
def count(to: int) -> Iterator[int]:
    yield from range(to)


@actorrt.remote
async def acount(to: int) -> AsyncIterator[int]:
    for i in range(to):
        yield i


@actorrt.remote
def fails() -> None:
    raise ValueError("bad")


@actorrt.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, n: int) -> int:
        self.n += n
        return self.n

    def where(self) -> tuple[int, int]:
        return os.getpid(), threading.get_ident()


@actorrt.remote
class Sleeper:
    def __init__(self) -> None:
        self.cleaned = 0
        self.asleep = False

    async def sleep(self) -> None:
        try:
            self.asleep = True
            await asyncio.sleep(1000)
        finally:
            self.cleaned += 1

    async def sleeping(self) -> bool:
        return self.asleep

    async def tidy(self) -> int:
        return self.cleaned

    async def leave(self) -> None:
        actorrt.exit_actor()

    async def leave_in_group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.leave())


@actorrt.remote
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no model")

    def work(self) -> None: ...


def test_tasks_take_values_and_refs() -> None:
    assert actorrt.get(add.remote(add.remote(1), b=later.remote(3))) == 5
    assert actorrt.get([later.remote(i) for i in range(3)]) == [0, 1, 2]
    assert actorrt.get(nested.remote(5)) == 5


def test_everything_runs_in_this_process_and_thread() -> None:
    counter = Counter.remote(2)
    assert actorrt.get(counter.where.remote()) == (os.getpid(), threading.get_ident())


def test_an_actor_keeps_its_state_and_the_order_of_its_calls() -> None:
    counter = Counter.remote(1)
    slow = later.remote(10)
    assert actorrt.get([counter.add.remote(slow), counter.add.remote(1)]) == [11, 12]


def test_values_are_copies() -> None:
    given = [1]
    ref = actorrt.put(given)
    given.append(2)
    assert actorrt.get(ref) == [1]


def test_both_kinds_of_generator_stream() -> None:
    assert [actorrt.get(ref) for ref in count.remote(3)] == [0, 1, 2]
    assert [actorrt.get(ref) for ref in acount.remote(3)] == [0, 1, 2]


def test_errors_are_the_users_own() -> None:
    with pytest.raises(ValueError, match="bad"):
        actorrt.get(fails.remote())


def test_an_actor_whose_constructor_raises_is_dead() -> None:
    broken = Broken.remote()
    with pytest.raises(exceptions.ActorDiedError, match="no model"):
        actorrt.get(broken.work.remote())


def test_names_are_found_until_the_actor_is_killed() -> None:
    counter = Counter.options(name="c").remote(5)
    assert actorrt.get(actorrt.get_actor("c").add.remote(1)) == 6
    with pytest.raises(ValueError, match="exists"):
        Counter.options(name="c").remote()
    actorrt.kill(counter)
    with pytest.raises(ValueError, match="no actor"):
        actorrt.get_actor("c")
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(counter.add.remote(1))


def test_a_cancelled_call_cleans_up() -> None:
    async def main() -> None:
        sleeper = Sleeper.remote()
        ref = sleeper.sleep.remote()
        await asyncio.sleep(0)
        actorrt.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            await ref
        assert await sleeper.tidy.remote() == 1

    asyncio.run(main())


def test_a_cancellation_reaches_the_children_and_is_not_answered_with_a_value() -> None:
    class Swallows:
        async def call(self, sleeper: Any) -> str:
            try:
                await sleeper.sleep.remote()
            except (asyncio.CancelledError, exceptions.TaskCancelledError):
                return "value"
            return "never"

        async def stream(self, sleeper: Any) -> AsyncIterator[str]:
            yield await self.call(sleeper)

    async def main() -> None:
        swallows = actorrt.remote(Swallows).remote()
        streaming = swallows.stream.options(num_returns="streaming")
        for call in (swallows.call, streaming):
            sleeper = Sleeper.remote()
            ref = call.remote(sleeper)
            while not await sleeper.sleeping.remote():  # noqa: ASYNC110  each look is a turn of the loop
                await asyncio.sleep(0)
            actorrt.cancel(ref)
            with pytest.raises(exceptions.TaskCancelledError):
                await (ref.completed() if call is streaming else ref)
            assert await sleeper.tidy.remote() == 1

    asyncio.run(main())


@pytest.mark.parametrize("how", ["leave", "leave_in_group"])
def test_an_actor_can_leave(how: str) -> None:
    sleeper = Sleeper.remote()
    with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
        actorrt.get(getattr(sleeper, how).remote())


def test_waiting_says_what_is_done_and_times_out() -> None:
    sleeper = Sleeper.remote()
    quick, slow = later.remote(1), sleeper.sleep.remote()
    assert actorrt.wait([slow, quick]) == ([quick], [slow])
    with pytest.raises(exceptions.GetTimeoutError):
        actorrt.get(slow, timeout=0.01)


def test_a_get_that_would_stop_the_only_loop_is_refused() -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="await"):
            actorrt.get(later.remote(1))
        assert await later.remote(2) == 2

    asyncio.run(main())


def test_a_group_cancels_the_siblings_of_a_failure() -> None:
    async def main() -> int:
        sleeper = Sleeper.remote()

        async def both() -> None:
            async with actorrt.TaskGroup() as group:
                group.start(sleeper.sleep.remote())
                await asyncio.sleep(0)
                group.start(fails.remote())

        with pytest.raises(ExceptionGroup) as raised:
            await both()
        assert isinstance(raised.value.exceptions[0], ValueError)
        return await sleeper.tidy.remote()

    assert asyncio.run(main()) == 1


def test_the_cluster_is_this_machine() -> None:
    assert actorrt.cluster_resources()["CPU"] >= 1
    assert len(actorrt.nodes()) == 1
    assert actorrt.statistics() == {"node": {}, "processes": []}
    assert actorrt.get_runtime_context().namespace == "here"


def test_a_task_does_not_end_its_program() -> None:
    @actorrt.remote
    def careless() -> int:
        with pytest.warns(RuntimeWarning, match="does nothing"):
            actorrt.shutdown()
        return len(actorrt.init())

    assert actorrt.get(careless.remote()) == 5
    assert actorrt.is_initialized()
    with pytest.raises(RuntimeError, match="initialized already"):
        actorrt.init()


def test_a_stream_that_fails_is_repeated() -> None:
    tries: list[int] = []

    @actorrt.remote
    class Fails:
        def count(self, upto: int) -> Iterator[int]:
            tries.append(upto)
            for i in range(upto):
                if i == 2 and len(tries) < 3:
                    raise ValueError("not yet")
                yield i

    method = Fails.remote().count
    stream = method.options(max_task_retries=2, retry_exceptions=True).remote(4)
    assert [actorrt.get(ref) for ref in stream] == [0, 1, 2, 3]
    assert tries == [4, 4, 4]


async def test_a_coroutine_keeps_to_its_limit_and_is_cancelled() -> None:
    class Sleeper:
        async def sleep(self) -> None:
            await asyncio.sleep(60)

    actor = actorrt.remote(Sleeper).remote()
    with pytest.raises(exceptions.CallTimeoutError, match="its timeout_s of 0"):
        await actor.sleep.options(timeout_s=0.05).remote()
    assert await later.options(timeout_s=60, start_timeout_s=60).remote(3) == 3
    actorrt.kill(actor)


async def test_a_coroutine_pauses_before_it_is_repeated() -> None:
    loop = asyncio.get_running_loop()

    @actorrt.remote(max_retries=2, retry_exceptions=True, retry_policy=actorrt.RetryPolicy(pause_s=0.05, jitter=0.0))
    async def raises() -> None:
        raise ValueError

    began = loop.time()
    with pytest.raises(ValueError):
        await raises.remote()
    assert loop.time() - began >= 0.05 + 0.1
    late = raises.options(timeout_s=0.05, retry_policy=actorrt.RetryPolicy(pause_s=60.0)).remote()
    with pytest.raises(exceptions.CallTimeoutError):
        await late
