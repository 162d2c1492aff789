import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import actorrt
from actorrt import ObjectRef, remote
from actorrt.exceptions import ActorDiedError
from actorrt.util import ActorPool, Empty, Full, Queue, as_completed, list_named_actors, map_unordered

pytestmark = pytest.mark.usefixtures("node")


@remote
class Doubler:
    def __init__(self) -> None:
        self.seen = 0

    async def double(self, x: int) -> int:
        self.seen += 1
        return 2 * x

    async def fail(self, x: int) -> int:
        raise ValueError(x)

    async def count(self) -> int:
        return self.seen

    @actorrt.method(num_returns=2)
    async def both(self, x: int) -> tuple[int, int]:
        return x, 2 * x

    async def upto(self, x: int) -> AsyncIterator[int]:
        for i in range(x):
            yield i

    @actorrt.method(num_returns=0)
    async def nothing(self, x: int) -> None:
        self.seen += x

    async def after(self, gate: list[ObjectRef[int]]) -> int:
        return await gate[0]


@remote
async def square(x: int) -> int:
    return x * x


@remote
class Gate:
    """Answers `wait` once it was opened."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.noted: list[int] = []
        self.changed = asyncio.Condition()

    async def note(self, x: int) -> int:
        async with self.changed:
            self.noted.append(x)
            self.changed.notify_all()
        return x

    async def wait_for(self, count: int) -> list[int]:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.noted) >= count)
        return self.noted

    async def open(self) -> None:
        self.event.set()

    async def wait(self) -> int:
        await self.event.wait()
        return 7


def double(actor: Any, x: int) -> ObjectRef[int]:
    return actor.double.remote(x)


def test_as_completed_gives_what_is_done_first() -> None:
    gate = Gate.remote()
    slow = gate.wait.remote()
    results = as_completed([slow, square.remote(3), square.remote(2)])
    assert {next(results), next(results)} == {9, 4}
    gate.open.remote()
    assert list(results) == [7]
    assert list(as_completed([slow, slow], yield_obj_refs=True)) == [slow]
    assert list(as_completed([])) == []


def test_map_unordered_takes_items_as_there_is_room() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for x in range(20):
            taken.append(x)
            yield x

    results = map_unordered(square, items(), backpressure_size=3)
    first = next(results)
    assert len(taken) <= 6
    assert sorted([first, *results]) == [x * x for x in range(20)]
    with pytest.raises(ValueError, match="backpressure_size must be at least 1, not 0"):
        map_unordered(square, [1], backpressure_size=0)


def test_map_unordered_makes_its_first_calls_at_once() -> None:
    gate = Gate.remote()
    results = map_unordered(gate.note, range(3), backpressure_size=2)
    assert actorrt.get(gate.wait_for.remote(2), timeout=30) == [0, 1]
    assert sorted(results) == [0, 1, 2]


def test_a_pool_keeps_the_order_or_gives_what_comes_first() -> None:
    pool = ActorPool([Doubler.remote(), Doubler.remote()])
    assert list(pool.map(double, range(10))) == [2 * x for x in range(10)]
    assert sorted(pool.map_unordered(double, range(10))) == [2 * x for x in range(10)]
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()


def test_a_pool_with_no_free_actor_keeps_work_waiting() -> None:
    gate = Gate.remote()
    slow = gate.wait.remote()
    actor = Doubler.remote()
    pool: ActorPool[Any] = ActorPool([actor])
    assert pool.has_free()
    pool.submit(lambda actor, value: actor.after.remote([value]), slow)
    pool.submit(double, 1)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="the actor is in the pool already"):
        pool.push(actor)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0)
    pool.push(Doubler.remote())
    assert pool.get_next_unordered() == 2
    assert pool.has_next()
    gate.open.remote()
    assert pool.get_next() == 7
    assert pool.pop_idle() is not None


def test_work_that_was_given_up_is_not_waited_for_again() -> None:
    gate = Gate.remote()
    pool: ActorPool[Any] = ActorPool([Doubler.remote(), Doubler.remote()])
    pool.submit(lambda actor, value: actor.after.remote([value]), gate.wait.remote())
    pool.submit(double, 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0, ignore_if_timedout=True)
    assert pool.get_next() == 2
    assert not pool.has_next()
    gate.open.remote()


def test_an_error_of_the_work_is_raised_in_its_turn() -> None:
    pool: ActorPool[Any] = ActorPool([Doubler.remote()])
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="1"):
        pool.get_next()
    assert pool.get_next() == 4


def invert(actor: Any, x: int) -> ObjectRef[int]:
    return actor.double.remote(1 // x)


def test_work_that_cannot_be_started_is_given_up_and_its_actor_stays_in_the_pool() -> None:
    pool: ActorPool[Any] = ActorPool([Doubler.remote()])
    with pytest.raises(ZeroDivisionError):
        pool.submit(invert, 0)
    assert not pool.has_next()
    assert pool.has_free()
    pool.submit(invert, 1)
    # These wait for the actor.
    pool.submit(invert, 0)
    pool.submit(double, 2)
    assert pool.get_next(timeout=30) == 2
    with pytest.raises(ZeroDivisionError):
        pool.get_next(timeout=30)
    assert pool.get_next(timeout=30) == 4
    assert not pool.has_next()
    assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]


def note(actor: Any, x: int) -> ObjectRef[int]:
    return actor.note.remote(x)


@pytest.mark.parametrize("way", ["map", "map_unordered"])
def test_the_work_of_a_map_starts_before_its_results_are_asked_for(way: str) -> None:
    gates = [Gate.remote(), Gate.remote()]
    pool: ActorPool[Any] = ActorPool(gates)
    results = getattr(pool, way)(note, [1, 2, 3])
    assert [actorrt.get(gate.wait_for.remote(1), timeout=30) for gate in gates] == [[1], [2]]
    assert sorted(results) == [1, 2, 3]
    assert not pool.has_next()


@pytest.mark.parametrize("way", ["map", "map_unordered"])
def test_a_map_gives_the_results_of_its_own_values_alone(way: str) -> None:
    pool: ActorPool[Any] = ActorPool([Doubler.remote(), Doubler.remote()])
    pool.submit(double, 100)
    first, second = getattr(pool, way)(double, range(5)), getattr(pool, way)(double, range(10, 15))
    assert sorted(second) == [20, 22, 24, 26, 28]
    assert sorted(first) == [0, 2, 4, 6, 8]
    assert pool.has_next()
    assert pool.get_next(timeout=30) == 200
    assert not pool.has_next()


@pytest.mark.parametrize("way", ["map", "map_unordered"])
def test_what_a_map_had_left_when_it_ended_early_is_nobodys(way: str) -> None:
    actor = Doubler.remote()
    pool: ActorPool[Any] = ActorPool([actor])
    broken = getattr(pool, way)(invert, [1, 0, 1, 1])
    assert next(broken) == 2
    with pytest.raises(ZeroDivisionError):
        next(broken)
    assert list(getattr(pool, way)(double, [10])) == [20]
    left = getattr(pool, way)(double, range(100))
    assert next(left) == 0
    left.close()
    assert list(getattr(pool, way)(double, [20])) == [40]
    # What had not started by then was given up.
    assert actorrt.get(actor.count.remote(), timeout=30) < 20


@pytest.mark.parametrize("way", ["map", "map_unordered"])
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_a_map_whose_results_were_never_asked_for_is_given_up_with_its_iterator(way: str, end: str) -> None:
    actor = Doubler.remote()
    pool: ActorPool[Any] = ActorPool([actor])
    left = getattr(pool, way)(double, range(100))
    if end == "closed":
        left.close()
    del left
    assert not pool._batches
    assert list(getattr(pool, way)(double, [20])) == [40]
    assert actorrt.get(actor.count.remote(), timeout=30) < 20


def test_work_with_several_returns_or_a_stream_gives_a_list() -> None:
    pool: ActorPool[Any] = ActorPool([Doubler.remote()])
    pool.submit(lambda actor, value: actor.both.remote(value), 1)
    pool.submit(lambda actor, value: actor.upto.remote(value), 3)
    pool.submit(lambda actor, value: actor.nothing.remote(value), 3)
    assert pool.get_next(timeout=30) == [1, 2]
    assert pool.get_next(timeout=30) == [0, 1, 2]
    assert pool.get_next(timeout=30) is None
    pairs = pool.map(lambda actor, value: actor.both.remote(value), range(3))
    assert list(pairs) == [[0, 0], [1, 2], [2, 4]]
    with pytest.raises(TypeError, match="must give the ref of its call, not int"):
        pool.submit(lambda _, value: value, 1)
    assert pool.has_free()


def test_a_pool_without_actors_says_so_and_goes_on_with_the_first_that_it_gets() -> None:
    pool: ActorPool[Any] = ActorPool([])
    pool.submit(double, 1)
    results = pool.map(double, [2, 3])
    for timeout in (None, 5):
        with pytest.raises(RuntimeError, match=r"no actor for the work that waits: push\(\) one"):
            pool.get_next(timeout=timeout)
    pool.push(Doubler.remote())
    assert pool.get_next(timeout=30) == 2
    assert list(results) == [4, 6]


def test_an_actor_that_died_gets_no_further_work() -> None:
    dead, alive = Doubler.remote(), Doubler.remote()
    pool: ActorPool[Any] = ActorPool([dead, alive])
    actorrt.kill(dead)
    outcomes: list[Any] = []
    for x in range(6):
        pool.submit(double, x)
    while pool.has_next():
        try:
            outcomes.append(pool.get_next(timeout=30))
        except ActorDiedError:
            outcomes.append(None)
    assert outcomes == [None, 2, 4, 6, 8, 10]
    assert list(pool.map(double, range(6))) == [0, 2, 4, 6, 8, 10]


def test_a_queue_is_first_in_first_out_and_bounded() -> None:
    queue: Queue[int] = Queue(maxsize=3)
    queue.put(1)
    queue.put_nowait_batch([2, 3])
    assert queue.full()
    assert (len(queue), queue.size(), queue.qsize(), queue.empty()) == (3, 3, 3, False)
    with pytest.raises(Full):
        queue.put_nowait(4)
    with pytest.raises(Full):
        queue.put(4, timeout=0)
    assert queue.get() == 1
    with pytest.raises(Empty):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [2, 3]
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0)
    with pytest.raises(ValueError, match="timeout must be None or at least 0"):
        queue.get(timeout=-1)
    queue.shutdown()


async def test_a_waiting_taker_gets_what_another_process_puts() -> None:
    queue: Queue[int] = Queue()

    @remote
    async def fill(queue: Queue[int]) -> None:
        for x in range(3):
            await queue.put_async(x)

    taking = [asyncio.create_task(queue.get_async()) for _ in range(3)]
    await fill.remote(queue)
    assert sorted(await asyncio.gather(*taking)) == [0, 1, 2]
    assert await asyncio.to_thread(queue.empty)
    await asyncio.to_thread(queue.shutdown, force=True)


async def test_what_a_cancelled_taker_was_about_to_get_is_not_lost() -> None:
    queue: Queue[int] = Queue()
    for turns in range(4):
        taking = asyncio.create_task(queue.get_async())
        for _ in range(turns):
            await asyncio.sleep(0)
        # Whether the item or the cancellation comes first is open.
        putting = asyncio.create_task(queue.put_async(turns))
        await asyncio.sleep(0)
        taking.cancel()
        await putting
        taken = await asyncio.gather(taking, return_exceptions=True)
        if taken != [turns]:
            assert await queue.get_async() == turns


def test_named_actors_are_listed() -> None:
    one = Doubler.options(name="one").remote()
    actorrt.get(one.__ray_ready__.remote())
    assert list_named_actors() == ["one"]
    del one
