"""What asyncio, and threads with futures, do with refs as they do with futures of their own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import actorrt
from actorrt import exceptions


@pytest.fixture(scope="module", params=["processes", "local"], autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with (
        actorrt.init(local_mode=True)
        if request.param == "local"
        else actorrt.init(num_cpus=2, preload_modules=["pytest"])
    ):
        yield request.param


@actorrt.remote
def plain(x: int) -> int:
    return x


@actorrt.remote
async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x


@actorrt.remote
async def fails() -> int:
    raise ValueError("no")


@actorrt.remote
class Gate:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.cancelled = 0
        self.left = asyncio.Event()

    async def wait(self) -> int:
        try:
            await self.event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self.left.set()
            raise
        return 7

    async def until_cancelled(self) -> int:
        await self.left.wait()
        return self.cancelled

    async def open(self) -> int:
        self.event.set()
        return self.cancelled


async def test_asyncio_waits_for_refs() -> None:
    refs = [plain.remote(1), later.remote(2)]
    done, pending = await asyncio.wait(refs, timeout=30)
    assert (sorted([ref.result() for ref in done]), pending) == ([1, 2], set())
    gate = Gate.remote()
    held = gate.wait.remote()
    done, pending = await asyncio.wait([held, later.remote(3)], return_when=asyncio.FIRST_COMPLETED)
    assert ([await ref for ref in done], pending) == ([3], {held})
    assert not held.cancelled()
    done, pending = await asyncio.wait([held, fails.remote()], return_when=asyncio.FIRST_EXCEPTION)
    assert [isinstance(ref.exception(), ValueError) for ref in done] == [True]
    done, pending = await asyncio.wait([held], timeout=0.01)
    assert (done, pending) == (set(), {held})
    # What waited for it has left nothing behind.
    assert not held._entry.waiters
    assert held.cancel()
    with pytest.raises(exceptions.TaskCancelledError):
        await held
    assert held.cancelled()
    assert not held.cancel()
    assert await gate.open.remote() == 1


async def test_every_way_to_wait_on_a_loop_takes_refs() -> None:
    assert await asyncio.gather(plain.remote(1), later.remote(2)) == [1, 2]
    assert await asyncio.wait_for(later.remote(3), 30) == 3
    assert await asyncio.shield(later.remote(4)) == 4
    assert sorted([await each for each in asyncio.as_completed([later.remote(i) for i in range(3)])]) == [0, 1, 2]
    assert await asyncio.ensure_future(later.remote(5)) == 5
    assert await asyncio.wrap_future(later.remote(6).future()) == 6
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(later.remote(i))) for i in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]


async def _awaited(ref: Any) -> Any:
    return await ref


async def test_who_stops_waiting_for_a_ref_leaves_its_call_alone() -> None:
    gate = Gate.remote()
    ref = gate.wait.remote()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ref, 0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ref), 0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.gather(ref, ref)
    waiting = asyncio.ensure_future(ref)
    future = asyncio.wrap_future(ref.future())
    await asyncio.sleep(0)
    waiting.cancel()
    future.cancel()
    assert await gate.open.remote() == 0
    assert await ref == 7


async def test_a_callback_that_was_taken_back_is_not_called() -> None:
    gate = Gate.remote()
    ref = gate.wait.remote()
    called: list[Any] = []
    again = asyncio.Event()

    def note(ref: Any) -> None:
        called.append(ref)

    def last(ref: Any) -> None:
        called.append("last")
        again.set()

    for _ in range(2):
        ref.add_done_callback(note)
    ref.add_done_callback(note, here=True)
    ref.add_done_callback(last)
    assert ref.remove_done_callback(note) == 3
    assert ref.remove_done_callback(note) == 0
    await gate.open.remote()
    await again.wait()
    assert called == ["last"]


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_a_callback_that_looks_at_a_cancelled_future_or_leaves_keeps_nobody_from_being_told(
    here: bool, error: type[BaseException]
) -> None:
    gate = Gate.remote()
    refs = [gate.wait.remote() for _ in range(5)]
    told: SimpleQueue[Any] = SimpleQueue()

    def raises(_: Any) -> None:
        raise error

    refs[0].add_done_callback(raises, here=here)
    refs[0].add_done_callback(told.put, here=here)
    gate.open.remote()
    assert actorrt.get(refs, timeout=20) == [7] * 5
    assert told.get(timeout=20) is refs[0]
    # The runtime's own thread goes on.
    assert actorrt.get(large.remote(), timeout=20) == bytes(1_000_000)


@actorrt.remote
def large() -> bytes:
    return bytes(1_000_000)


@pytest.mark.parametrize("here", [True, False])
def test_a_callback_on_the_runtimes_own_thread_may_look_at_a_value_in_shared_memory(here: bool) -> None:
    seen: SimpleQueue[Any] = SimpleQueue()

    def look(ref: Any) -> None:
        try:
            seen.put(len(ref.peek()))
        except Exception as error:
            seen.put(error)

    large.remote().add_done_callback(look, here=here)
    assert seen.get(timeout=30) == 1_000_000


def test_a_loop_runs_until_a_ref_is_there() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(later.remote(1)) == 1
        assert loop.run_until_complete(asyncio.wait_for(later.remote(2), 30)) == 2
    finally:
        loop.close()


def test_a_thread_waits_for_futures_of_refs() -> None:
    assert plain.remote(1).future().result() == 1
    assert later.remote(2).future().result(timeout=30) == 2
    error = fails.remote().future().exception(timeout=30)
    assert isinstance(error, ValueError)
    gate = Gate.remote()
    held = gate.wait.remote().future()
    done, pending = concurrent.futures.wait(
        [held, later.remote(3).future()], timeout=30, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert ([each.result() for each in done], pending) == ([3], {held})
    assert concurrent.futures.wait([held], timeout=0.01).done == set()
    with pytest.raises(TimeoutError):
        held.result(timeout=0.01)
    futures = [later.remote(i).future() for i in range(5)]
    assert sorted(each.result() for each in concurrent.futures.as_completed(futures, timeout=30)) == [0, 1, 2, 3, 4]
    actorrt.get(gate.open.remote())
    assert held.result(timeout=30) == 7
    for future in concurrent.futures.as_completed([held], timeout=30):
        assert future.result() == 7


async def test_a_blocked_thread_gets_a_future_while_the_loop_goes_on(session: str) -> None:
    gate = Gate.remote()
    future = gate.wait.remote().future()
    waiting = asyncio.ensure_future(asyncio.to_thread(future.result, 30))
    await gate.open.remote()
    assert await waiting == 7


async def test_a_future_that_would_stop_the_only_loop_is_refused(session: str) -> None:
    if session == "local":
        future = later.remote(1).future()
        with pytest.raises(RuntimeError, match="use `await` instead"):
            future.result()
        assert await asyncio.wrap_future(future) == 1
    else:
        # The loop of the values is another one.
        assert later.remote(1).future().result(30) == 1


async def test_a_tree_that_is_cancelled_while_it_waits_in_any_way_leaves_nothing_waiting() -> None:
    gate = Gate.remote()
    ref = gate.wait.remote()
    for wait in (asyncio.wait, asyncio.gather, asyncio.wait_for, asyncio.shield):
        arguments: Any = {asyncio.wait: [[ref]], asyncio.wait_for: [ref, 30]}.get(wait, [ref])
        task: asyncio.Task[Any] = asyncio.ensure_future(_call(wait, arguments))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await gate.open.remote()
    assert await ref == 7


async def _call(wait: Any, arguments: Any) -> Any:
    return await wait(*arguments)
