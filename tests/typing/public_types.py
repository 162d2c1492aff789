"""What a type checker must know of the public API. Nothing here runs: test_public_types.py gives it to pyright.

A line that is wrong on purpose says which rule must find it; if the rule does not, the comment is itself an error.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import actorrt
from actorrt import Actor, ActorHandle, ObjectRef, ObjectRefGenerator, method, remote, util


@remote
async def f(x: int) -> str:
    return str(x)


@remote
def both(x: int, y: str = "", *, z: float = 0.0) -> list[int]:
    return [x]


@remote(num_cpus=2, max_retries=0)
def with_options(x: int) -> int:
    return x


@remote(num_returns=2)
def pair() -> tuple[int, str]:
    return 1, "a"


@remote(num_returns=0)
def nothing() -> None: ...


@remote
async def async_stream(x: int) -> AsyncIterator[str]:
    yield str(x)


@remote
def stream(x: int) -> Iterator[str]:
    yield str(x)


@remote
def anything(x: Any) -> Any:
    return x


async def a_task_knows_its_result_and_its_arguments(number: ObjectRef[int], text: ObjectRef[str]) -> None:
    assert_type(f.remote(1), ObjectRef[str])
    assert_type(await f.remote(1), str)
    f.remote("a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    f.remote()  # pyright: ignore[reportCallIssue]
    f.remote(1, 2)  # pyright: ignore[reportCallIssue]
    f.remote(y=1)  # pyright: ignore[reportCallIssue]
    f(1)  # it is the run time that says what to do instead

    assert_type(both.remote(1), ObjectRef[list[int]])
    assert_type(both.remote(1, y="a", z=1.5), ObjectRef[list[int]])
    assert_type(both.remote(x=1), ObjectRef[list[int]])
    both.remote(1, y=2)  # pyright: ignore[reportCallIssue, reportArgumentType]
    both.remote(1, "a", w=1)  # pyright: ignore[reportCallIssue]


async def a_ref_may_stand_for_an_argument(number: ObjectRef[int], text: ObjectRef[str]) -> None:
    assert_type(await f.remote(number), str)
    assert_type(await f.remote(with_options.remote(1)), str)
    assert_type(await both.remote(number), list[int])
    assert_type(await both.remote(number, text), list[int])
    assert_type(await both.remote(1, text, z=1.5), list[int])
    assert_type(await both.remote(number, y="a"), list[int])
    f.remote(text)  # pyright: ignore[reportCallIssue, reportArgumentType]
    both.remote(number, number)  # pyright: ignore[reportCallIssue, reportArgumentType]
    both.remote(number, y=2)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def options_keep_the_types_and_are_known(number: ObjectRef[int]) -> None:
    assert_type(await with_options.remote(1), int)
    assert_type(await f.options(num_cpus=1, name="n").remote(number), str)
    assert_type(await anything.remote(number), Any)
    assert_type(pair.remote(), list[ObjectRef[Any]])
    assert_type(f.options(num_returns=2).remote(1), list[ObjectRef[Any]])
    assert_type(nothing.remote(), None)
    f.options(num_cpu=1)  # pyright: ignore[reportCallIssue]
    f.options(num_cpus="1")  # pyright: ignore[reportArgumentType]
    remote(num_cpu=1)  # pyright: ignore[reportCallIssue]


async def a_generator_gives_refs_one_by_one() -> None:
    assert_type(stream.remote(1), ObjectRefGenerator[str])
    assert_type(async_stream.remote(1), ObjectRefGenerator[str])
    for ref in stream.remote(1):
        assert_type(ref, ObjectRef[str])
    async for ref in async_stream.remote(1):
        assert_type(await ref, str)
    async for value in async_stream.remote(1).values():
        assert_type(value, str)


@remote
class Plain:
    def __init__(self, start: int, *, step: int = 1) -> None:
        self.n = start

    async def incr(self, by: int) -> int:
        return by


@remote(num_cpus=1, concurrency_groups={"io": 2})
class WithOptions:
    @method(concurrency_group="io")
    async def read(self) -> bytes:
        return b""


async def a_constructor_knows_its_arguments(number: ObjectRef[int], text: ObjectRef[str]) -> None:
    handle = Plain.remote(1, step=2)
    # The class that was decorated cannot be named any more, so that its handle's type is shown, not written.
    same: ActorHandle[Any] = handle
    assert_type(await handle.incr.remote(1), Any)
    assert_type(await handle.incr.options(num_returns=1).remote(1), Any)
    assert_type(await same.anything.remote(1), Any)
    Plain.remote(number)
    Plain.remote("a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    Plain.remote(text)  # pyright: ignore[reportCallIssue, reportArgumentType]
    Plain.remote()  # pyright: ignore[reportCallIssue]
    Plain.options(name="n", lifetime="detached").remote(1)
    Plain.options(lifetime="forever")  # pyright: ignore[reportArgumentType]
    WithOptions.remote(1)  # pyright: ignore[reportCallIssue]


class Counter(Actor):
    def __init__(self, start: int) -> None:
        self.n = start

    @method
    async def incr(self, by: int = 1) -> int:
        self.n += by
        return self.n

    @method(thread=True)
    def slow(self, text: str) -> bytes:
        return text.encode()

    @method
    async def follow(self) -> AsyncIterator[int]:
        yield self.n

    @method(num_returns=2)
    def split(self) -> tuple[int, int]:
        return self.n, self.n

    @method
    async def twice(self) -> int:
        # At home it is the method that it looks like.
        assert_type(await self.incr(1), int)
        return await self.incr(1)

    def not_offered(self) -> int:
        return self.n


CounterClass = remote(Counter)
IsolatedCounter = remote(isolated=True)(Counter)


async def an_actor_that_derives_from_actor_knows_its_methods(number: ObjectRef[int], text: ObjectRef[str]) -> None:
    counter = CounterClass.remote(0)
    assert_type(await counter.incr.remote(), int)
    assert_type(await counter.incr.remote(1), int)
    assert_type(await counter.incr.remote(by=1), int)
    assert_type(await counter.incr.remote(number), int)
    assert_type(await counter.slow.remote("a"), bytes)
    assert_type(counter.follow.remote(), ObjectRefGenerator[int])
    assert_type(counter.split.remote(), list[ObjectRef[Any]])
    assert_type(await counter.incr.options(name="n").remote(1), int)
    assert_type(await IsolatedCounter.remote(0).twice.remote(), int)
    counter.incr.remote("a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    counter.incr.remote(text)  # pyright: ignore[reportCallIssue, reportArgumentType]
    counter.incr.remote(1, 2)  # pyright: ignore[reportCallIssue]
    counter.incr.options(thread=True)  # pyright: ignore[reportCallIssue]
    counter.not_offered.remote()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    counter.incremnet.remote()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    CounterClass.remote("a")  # pyright: ignore[reportCallIssue, reportArgumentType]


def sync_code_gets_what_the_refs_hold(number: ObjectRef[int], numbers: list[ObjectRef[int]]) -> None:
    assert_type(actorrt.get(number), int)
    assert_type(actorrt.get(numbers), list[int])
    assert_type(actorrt.get(f.remote(1), timeout=1.0), str)
    assert_type(actorrt.put(1), ObjectRef[int])
    assert_type(actorrt.wait(numbers, num_returns=1), tuple[list[ObjectRef[int]], list[ObjectRef[int]]])
    actorrt.get(1)  # pyright: ignore[reportCallIssue, reportArgumentType]
    actorrt.kill(Plain.remote(1))
    actorrt.kill(CounterClass.remote(1), no_restart=False)
    actorrt.kill(number)  # pyright: ignore[reportArgumentType]


def tools_keep_the_types(numbers: list[ObjectRef[int]]) -> None:
    assert_type(list(util.as_completed(numbers)), list[int])
    assert_type(list(util.as_completed(numbers, yield_obj_refs=True)), list[ObjectRef[int]])
    assert_type(list(util.map_unordered(f, [1, 2])), list[str])
    assert_type(list(util.map_unordered(CounterClass.remote(0).incr, [1, 2])), list[int])
    util.map_unordered(f, ["a"])  # pyright: ignore[reportArgumentType]
    queue: util.Queue[int] = util.Queue(3)
    assert_type(queue.get(), int)
