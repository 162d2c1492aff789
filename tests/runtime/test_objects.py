"""Large values end to end, with real processes: every way in and out, views without a copy, and all given back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

import actorrt
from actorrt.runtime.owner import current
from actorrt.wire.messages import Query

pytestmark = pytest.mark.usefixtures("node")

Array = npt.NDArray[np.int64]
LENGTH: Final = 100_000
NBYTES: Final = LENGTH * 8
DEADLINE_S: Final = 10.0


def array(first: int = 0) -> Array:
    return np.arange(first, first + LENGTH)


def store() -> dict[str, int]:
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.node.ask(Query("store"))).data


def wait_for(wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Ask the node until it is so; each question is behind all that this process has told it."""
    deadline = time.monotonic() + DEADLINE_S
    while not wanted(facts := store()):
        assert time.monotonic() < deadline, facts
    return facts


@pytest.fixture(autouse=True)
def _all_is_given_back() -> Iterator[None]:
    yield
    wait_for(lambda facts: facts["bytes"] == facts["reserved_bytes"] == facts["spilled_bytes"] == 0)


@actorrt.remote
def total(*arrays: Any, **named: Any) -> int:
    return sum(int(one.sum()) for one in (*arrays, *named.values()))


@actorrt.remote
def total_inside(refs: list[Any]) -> int:
    return sum(int(one.sum()) for one in actorrt.get(refs))


@actorrt.remote
async def async_total(*arrays: Any, **named: Any) -> int:
    return sum(int(one.sum()) for one in (*arrays, *named.values()))


@actorrt.remote
async def async_total_inside(refs: list[Any]) -> int:
    return sum([int((await one).sum()) for one in refs])


@actorrt.remote
class Coroutines:
    """On a shared worker."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    async def total(self, *arrays: Any, **named: Any) -> int:
        return sum(int(one.sum()) for one in (*arrays, *named.values()))

    async def total_inside(self, refs: list[Any]) -> int:
        return sum([int((await one).sum()) for one in refs])

    async def make(self, first: int) -> Array:
        return array(first)

    async def kept_value(self) -> Any:
        return self.kept

    async def some(self, count: int) -> AsyncIterator[Array]:
        for number in range(count):
            yield array(number)

    def plain_some(self, count: int) -> Iterator[Array]:
        for number in range(count):
            yield array(number)

    async def keep(self, value: Any) -> int:
        self.kept = value
        return int(value.sum())


@actorrt.remote
class Process:
    """In a process of its own."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    def total(self, *arrays: Any, **named: Any) -> int:
        return sum(int(one.sum()) for one in (*arrays, *named.values()))

    def total_inside(self, refs: list[Any]) -> int:
        return sum(int(one.sum()) for one in actorrt.get(refs))

    def make(self, first: int) -> Array:
        return array(first)

    def some(self, count: int) -> Iterator[Array]:
        for number in range(count):
            yield array(number)

    def keep(self, value: Any) -> int:
        self.kept = value
        return int(value.sum())

    def total_kept(self) -> int:
        return int(self.kept.sum())

    def put(self, first: int) -> list[Any]:
        return [actorrt.put(array(first))]


@pytest.fixture(scope="module")
def coroutines(node: None) -> Any:
    return Coroutines.remote()


@pytest.fixture(scope="module")
def process(node: None) -> Iterator[Any]:
    actor = Process.remote()
    yield actor
    actorrt.kill(actor)


@pytest.fixture(params=["task", "async task", "coroutine actor", "process actor"])
def callee(request: pytest.FixtureRequest, coroutines: Any, process: Any) -> tuple[Any, Any]:
    return {
        "task": (total, total_inside),
        "async task": (async_total, async_total_inside),
        "coroutine actor": (coroutines.total, coroutines.total_inside),
        "process actor": (process.total, process.total_inside),
    }[request.param]


# ---- in


def test_a_value_that_was_put_is_read_without_a_copy_and_cannot_be_written() -> None:
    ref = actorrt.put({"a": array(), "b": [array(7)]})
    assert ref.done()
    first, second = actorrt.get([ref, ref])
    assert np.array_equal(first["a"], array())
    assert np.array_equal(first["b"][0], array(7))
    assert not first["a"].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        first["a"][0] = 1
    assert np.shares_memory(first["a"], second["a"])


def test_a_view_outlives_its_ref() -> None:
    ref = actorrt.put(array(3))
    view = actorrt.get(ref)[10:]
    del ref
    assert store()["bytes"] >= NBYTES
    again = actorrt.get(actorrt.put(array(4)))
    assert np.array_equal(view, array(3)[10:])
    assert np.array_equal(again, array(4))
    del view, again
    wait_for(lambda facts: facts["bytes"] == 0)


@pytest.mark.parametrize("value", [b"x" * 1_000_000, "y" * 1_000_000, list(range(100_000)), bytearray(1_000_000)])
def test_large_values_without_buffers(value: Any) -> None:
    assert actorrt.get(actorrt.put(value)) == value
    assert actorrt.get(total_of_lengths.remote(value, actorrt.put(value))) == 2 * len(value)


@actorrt.remote
def total_of_lengths(*values: Any) -> int:
    return sum(map(len, values))


def test_memory_that_was_given_back_is_filled_again() -> None:
    actorrt.put(array())
    segments = wait_for(lambda facts: facts["bytes"] == 0)["segments"]
    for number in range(20):
        assert actorrt.get(actorrt.put(array(number)))[0] == number
        wait_for(lambda facts: facts["bytes"] == 0)
    assert store()["segments"] <= segments + 1


def test_a_put_goes_where_what_was_just_dropped_has_been() -> None:
    large = np.zeros(2 << 20)
    actorrt.put(large)
    segments = wait_for(lambda facts: facts["bytes"] == 0)["segments"]
    for _ in range(10):
        actorrt.put(large)
    assert store()["segments"] <= segments


def test_many_threads_put_at_once() -> None:
    refs: list[Any] = []

    def put(number: int) -> None:
        refs.extend(actorrt.put(array(number)) for _ in range(5))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(value[0] for value in actorrt.get(refs)) == sorted(list(range(8)) * 5)


def test_a_ref_inside_a_large_value_stays_alive_with_it() -> None:
    inner = actorrt.put(array(5))
    outer = actorrt.put([array(), inner])
    del inner
    assert actorrt.get(actorrt.get(outer)[1])[0] == 5


async def test_awaiting_gives_views_too() -> None:
    ref = actorrt.put(array(2))
    first, second = await asyncio.gather(ref, ref)
    assert np.shares_memory(first, second)
    assert (await asyncio.wrap_future(ref.future()))[0] == 2


def test_a_ref_that_is_done_is_looked_at_without_waiting() -> None:
    ref = actorrt.put(array(2))
    assert ref.peek()[0] == 2
    assert actorrt.wait([ref], timeout=0) == ([ref], [])


# ---- as arguments


def test_an_argument_by_reference(callee: tuple[Any, Any]) -> None:
    ref = actorrt.put(array())
    assert actorrt.get(callee[0].remote(ref)) == array().sum()


def test_one_ref_in_two_places(callee: tuple[Any, Any]) -> None:
    ref = actorrt.put(array())
    assert actorrt.get(callee[0].remote(ref, ref, named=ref)) == 3 * array().sum()


def test_a_ref_inside_an_argument(callee: tuple[Any, Any]) -> None:
    refs = [actorrt.put(array()), actorrt.put(array(1))]
    assert actorrt.get(callee[1].remote(refs)) == array().sum() + array(1).sum()


def test_a_ref_that_only_the_call_holds(callee: tuple[Any, Any]) -> None:
    assert actorrt.get(callee[0].remote(actorrt.put(array(1)))) == array(1).sum()
    assert actorrt.get(callee[1].remote([actorrt.put(array(2))])) == array(2).sum()


def test_a_large_argument_itself(callee: tuple[Any, Any]) -> None:
    assert actorrt.get(callee[0].remote(array(), named=array(1))) == array().sum() + array(1).sum()


def test_a_large_and_a_small_result_as_an_argument(callee: tuple[Any, Any]) -> None:
    made, few = make.remote(4), make_few.remote()
    assert actorrt.get(callee[0].remote(made, few)) == array(4).sum() + 3


@pytest.mark.parametrize("kind", [Coroutines, Process])
def test_an_argument_of_an_actors_constructor(kind: Any) -> None:
    by_ref, itself = kind.remote(actorrt.put(array(1))), kind.remote(array(2))
    assert actorrt.get([by_ref.total.remote(), itself.total.remote()]) == [0, 0]
    actorrt.kill(by_ref)
    actorrt.kill(itself)


# ---- out


@actorrt.remote
def make(first: int) -> Array:
    return array(first)


@actorrt.remote
def make_few() -> Array:
    return np.array([1, 2])


@actorrt.remote
async def async_make(first: int) -> Array:
    return array(first)


@actorrt.remote(num_returns=3)
def make_three() -> tuple[Array, int, Array]:
    return array(1), 2, array(3)


@actorrt.remote(num_returns=3)
async def async_make_three() -> tuple[Array, int, Array]:
    return array(1), 2, array(3)


@actorrt.remote
def some(count: int) -> Iterator[Array]:
    for number in range(count):
        yield array(number)


@actorrt.remote
async def async_some(count: int) -> AsyncIterator[Array]:
    for number in range(count):
        yield array(number)


def test_a_large_result(coroutines: Any, process: Any) -> None:
    for function in (make, async_make, coroutines.make, process.make):
        ref = function.remote(9)
        value = actorrt.get(ref)
        assert np.array_equal(value, array(9))
        assert not value.flags.writeable


@pytest.mark.parametrize("function", [make_three, async_make_three])
def test_large_and_small_results_of_one_call(function: Any) -> None:
    refs = function.remote()
    first, second, third = actorrt.get(refs)
    assert (first[0], second, third[0]) == (1, 2, 3)
    del refs[0], first
    # One is given back and the other is not.
    wait_for(lambda facts: NBYTES <= facts["bytes"] < 2 * NBYTES)
    assert third[-1] == 3 + LENGTH - 1


def test_large_items_of_a_stream(coroutines: Any, process: Any) -> None:
    streams = [
        some.remote(3),
        async_some.remote(3),
        coroutines.some.remote(3),
        coroutines.plain_some.remote(3),
        process.some.remote(3),
    ]
    for stream in streams:
        assert [actorrt.get(ref)[0] for ref in stream] == [0, 1, 2]


async def test_large_items_of_a_stream_by_value(coroutines: Any) -> None:
    assert [value[0] async for value in coroutines.some.remote(3).values()] == [0, 1, 2]


def test_a_stream_that_nobody_reads_to_its_end_is_given_back(coroutines: Any, process: Any) -> None:
    for function in (coroutines.some, process.some):
        stream = function.remote(6)
        assert actorrt.get(next(stream))[0] == 0
        stream.close()
        del stream
        wait_for(lambda facts: facts["bytes"] == 0)


def test_a_result_that_nobody_looks_at_is_given_back(coroutines: Any) -> None:
    for function in (make, coroutines.make):
        actorrt.wait([function.remote(1)])
        wait_for(lambda facts: facts["bytes"] == 0)
    ref = make.remote(1)
    del ref
    actorrt.get(make_few.remote())


def test_what_another_process_put(process: Any) -> None:
    (ref,) = actorrt.get(process.put.remote(8))
    assert actorrt.get(ref)[0] == 8
    assert actorrt.get(total.remote(ref)) == array(8).sum()


# ---- shared


def test_processes_read_one_object_at_once(coroutines: Any, process: Any) -> None:
    wait_for(lambda facts: facts["bytes"] == 0)
    ref = actorrt.put(array(6))
    held = store()["bytes"]
    mine = actorrt.get(ref)
    assert actorrt.get([coroutines.keep.remote(ref), process.keep.remote(ref)]) == [array(6).sum()] * 2
    assert store()["bytes"] == held
    del ref
    # They hold the memory, whatever the owner thinks.
    assert actorrt.get(process.total.remote(mine)) == array(6).sum()
    assert store()["bytes"] >= held
    del mine
    actorrt.get([coroutines.keep.remote(np.array([0])), process.keep.remote(np.array([0]))])


def test_a_value_that_a_process_keeps_is_read_after_it_was_freed(process: Any) -> None:
    actorrt.get(process.keep.remote(actorrt.put(array(1))))
    for number in range(3):
        actorrt.put(array(number))
    assert actorrt.get(process.total_kept.remote()) == array(1).sum()
    actorrt.get(process.keep.remote(np.array([0])))


# ---- on the runtime's own loop


@actorrt.remote(on_runtime_loop=True)
class OnRuntimeLoop:
    """Must not block, whatever it does."""

    async def pass_on(self, actor: Any, first: int) -> Any:
        itself = actor.total.remote(array(first), named=array(first))
        by_ref = actor.total.remote(actorrt.put(array(first)))
        return await itself + await by_ref

    async def put(self, first: int) -> list[Any]:
        ref = actorrt.put(array(first))
        assert (await ref)[0] == first
        return [ref]

    async def make(self, first: int) -> Array:
        return array(first)

    async def construct(self, first: int) -> int:
        actor = Coroutines.remote(array(first))
        return int((await actor.kept_value.remote()).sum())


def test_on_the_runtimes_own_loop_nothing_blocks(process: Any) -> None:
    actor = OnRuntimeLoop.remote()
    for first in range(5):
        assert actorrt.get(actor.pass_on.remote(process, first)) == 3 * array(first).sum()
        assert actorrt.get(actorrt.get(actor.put.remote(first))[0])[0] == first
        assert actorrt.get(actor.make.remote(first))[0] == first
        assert actorrt.get(actor.construct.remote(first)) == array(first).sum()
    actorrt.kill(actor)


# ---- what is no array


class Text(str):
    """A str of the user's."""

    __slots__ = ()


LARGE_ATOMS: Final[list[Any]] = [
    b"x" * NBYTES,
    "x" * NBYTES,
    bytearray(NBYTES),
    Text("x" * NBYTES),
    (b"x" * NBYTES, {"text": "x" * NBYTES}),
    10**NBYTES,
]


@actorrt.remote
class Gate:
    """Takes a call, and answers it once it is let go."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.held: asyncio.Future[None] | None = None

    async def hold(self, value: Any, *, named: Any = None) -> Any:
        await self.future()
        return value or named

    async def let_go(self) -> None:
        self.future().set_result(None)

    async def kept(self) -> Any:
        return self.value

    def future(self) -> asyncio.Future[None]:
        if self.held is None:
            self.held = asyncio.get_running_loop().create_future()
        return self.held


@pytest.mark.parametrize("value", LARGE_ATOMS, ids=lambda value: type(value).__name__)
def test_the_inline_limit_holds_for_bytes_and_text_as_for_all_else(value: Any) -> None:
    gate, made_of_it = Gate.remote(), Gate.remote(value)
    refs = [gate.hold.remote(value), gate.hold.remote(None, named=value)]
    # It lies in shared memory while the calls are under way; and so does what they return.
    wait_for(lambda facts: facts["bytes"] >= 2 * (NBYTES // 3))
    assert store()["bytes"] >= 2 * (NBYTES // 3)
    actorrt.get(gate.let_go.remote())
    assert actorrt.get([*refs, made_of_it.kept.remote()]) == [value] * 3
    wait_for(lambda facts: facts["bytes"] >= 2 * (NBYTES // 3))


def test_many_small_arguments_are_a_large_one_together() -> None:
    gate = Gate.remote()
    pieces = [bytes([i]) * 10_000 for i in range(50)]
    ref = gate_of_many.remote(gate, *pieces)
    wait_for(lambda facts: facts["bytes"] >= 500_000)
    actorrt.get(gate.let_go.remote())
    assert actorrt.get(ref) == 50


@actorrt.remote
async def gate_of_many(gate: Any, *pieces: bytes) -> int:
    await gate.hold.remote(1)
    return len(pieces)
