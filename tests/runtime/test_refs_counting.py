"""An object lives as long as anybody, in whatever process, holds a ref to it, and no longer."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.base.process_watch import watch_pid
from actorrt.wire import codec

pytestmark = pytest.mark.usefixtures("node")

# Larger than what travels inside a message.
LARGE = 200_000


@actorrt.remote
class Signal:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self.event.wait()
        return value

    async def send(self) -> None:
        self.event.set()


@actorrt.remote
class Keeper:
    """Holds what it is given, in a process of its own, and hands it on."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, value: Any) -> None:
        self.kept[name] = value

    def give(self, name: str) -> Any:
        return self.kept[name]

    def pid(self) -> int:
        return os.getpid()

    def load(self, name: str) -> Any:
        return actorrt.get(self.kept[name])

    def drop(self, name: str) -> None:
        del self.kept[name]

    def put(self, name: str, value: Any) -> None:
        self.kept[name] = [actorrt.put(value)]

    def hand_on(self, name: str, other: Any) -> None:
        actorrt.get(other.keep.remote(name, self.kept[name]))

    def stream(self, values: list[Any]) -> Any:
        for value in values:
            yield [actorrt.put(value)]

    def large_stream(self, count: int) -> Any:
        for i in range(count):
            yield np.full(LARGE // 8, i)


@pytest.fixture(scope="module")
def keepers(node: None) -> list[Any]:
    return [Keeper.remote() for _ in range(2)]


def freed(ref: Any) -> threading.Event:
    """Set when this process knows nothing more of the object."""
    event = threading.Event()
    weakref.finalize(ref._entry, event.set)
    return event


VALUES = pytest.mark.parametrize("value", ["small", np.arange(LARGE // 8)], ids=["inline", "in shared memory"])


def wait_for_end(pid: int) -> None:
    async def until_gone() -> None:
        await asyncio.wait_for(watch_pid(pid), 30)

    asyncio.run(until_gone())


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other))


# ---- two processes


@VALUES
def test_an_object_is_freed_with_its_last_ref(value: Any) -> None:
    ref = actorrt.put(value)
    gone = freed(ref)
    assert same(actorrt.get(ref), value)
    del ref
    assert gone.wait(30)


@VALUES
def test_a_borrower_keeps_it_and_its_drop_frees_it(value: Any, keepers: list[Any]) -> None:
    ref = actorrt.put(value)
    gone = freed(ref)
    actorrt.get(keepers[0].keep.remote("x", [ref]))
    del ref
    assert same(actorrt.get(keepers[0].load.remote("x"))[0], value)
    assert not gone.is_set()
    actorrt.get(keepers[0].drop.remote("x"))
    assert gone.wait(30)


def test_the_result_of_a_call_is_freed_too(keepers: list[Any]) -> None:
    ref = Signal.remote().send.remote()
    gone = freed(ref)
    actorrt.get(ref)
    del ref
    assert gone.wait(30)


@VALUES
def test_what_was_only_passed_to_a_call_is_freed_after_it(value: Any) -> None:
    @actorrt.remote
    def look(nested: list[Any]) -> Any:
        return actorrt.get(nested[0])

    ref = actorrt.put(value)
    gone = freed(ref)
    result = look.remote([ref])
    del ref
    assert same(actorrt.get(result), value)
    assert gone.wait(30)


def test_a_ref_that_comes_home_is_the_object_itself(keepers: list[Any]) -> None:
    ref = actorrt.put("home")
    entry = ref._entry
    actorrt.get(keepers[0].keep.remote("x", [ref]))
    back = actorrt.get(keepers[0].give.remote("x"))[0]
    assert back == ref
    assert back._entry is entry
    actorrt.get(keepers[0].drop.remote("x"))
    gone = freed(ref)
    del ref, back, entry
    assert gone.wait(30)


# ---- three processes


@VALUES
def test_a_third_party_keeps_what_it_was_handed(value: Any, keepers: list[Any]) -> None:
    one, two = keepers
    ref = actorrt.put(value)
    gone = freed(ref)
    actorrt.get(one.keep.remote("x", [ref]))
    actorrt.get(one.hand_on.remote("x", two))
    del ref
    actorrt.get(one.drop.remote("x"))
    assert same(actorrt.get(two.load.remote("x"))[0], value)
    assert not gone.is_set()
    actorrt.get(two.drop.remote("x"))
    assert gone.wait(30)


def test_no_hand_over_loses_an_object(keepers: list[Any]) -> None:
    one, two = keepers
    for i in range(100):
        actorrt.get(one.keep.remote("x", [actorrt.put(i)]))
        # The giver forgets it at once: the taker's borrow has to be there first.
        actorrt.get(one.hand_on.remote("x", two))
        dropped = one.drop.remote("x")
        assert actorrt.get(two.load.remote("x")) == [i]
        actorrt.get([dropped, two.drop.remote("x")])


def test_what_lies_inside_a_borrowed_object_outlives_the_drop_of_the_outer(keepers: list[Any]) -> None:
    one, two = keepers
    for _ in range(50):
        # `one` owns the inner, this process the outer that names it.
        actorrt.get(one.put.remote("inner", "treasure"))
        outer = actorrt.put(actorrt.get(one.give.remote("inner")))
        actorrt.get(one.drop.remote("inner"))
        actorrt.get(two.keep.remote("outer", [outer]))
        del outer
        [inner] = actorrt.get(two.load.remote("outer"))[0]
        # From here on only `two`'s outer, and soon only this ref, keep the inner.
        dropped = two.drop.remote("outer")
        assert actorrt.get(inner) == "treasure"
        actorrt.get(dropped)
        assert actorrt.get(inner) == "treasure"


def test_a_ref_in_a_ref_in_a_ref(keepers: list[Any]) -> None:
    innermost = actorrt.put("core")
    gone = freed(innermost)
    outer = actorrt.put([actorrt.put([innermost])])
    del innermost
    actorrt.get(keepers[0].keep.remote("x", [outer]))
    del outer
    outer = actorrt.get(keepers[0].give.remote("x"))[0]
    actorrt.get(keepers[0].drop.remote("x"))
    middle = actorrt.get(outer)[0]
    del outer
    assert actorrt.get(actorrt.get(middle)[0]) == "core"
    assert not gone.is_set()
    del middle
    assert gone.wait(30)


# ---- results


def test_refs_inside_a_result_live_as_long_as_the_result(keepers: list[Any]) -> None:
    one = keepers[0]
    actorrt.get(one.put.remote("x", "made there"))
    result = one.give.remote("x")
    actorrt.wait([result])
    actorrt.get(one.drop.remote("x"))
    # Nobody has looked at the result yet.
    assert actorrt.get(actorrt.get(result)[0]) == "made there"
    [inner] = actorrt.get(result)
    del result
    assert actorrt.get(inner) == "made there"


def test_refs_and_large_values_inside_several_returns(keepers: list[Any]) -> None:
    @actorrt.remote(num_returns=3)
    def three() -> tuple[Any, Any, Any]:
        return [actorrt.put("one")], np.arange(LARGE // 8), {"two": actorrt.put("two")}

    refs = three.remote()
    actorrt.wait(refs, num_returns=3)
    first, array, last = actorrt.get(refs)
    del refs
    assert actorrt.get([first[0], last["two"]]) == ["one", "two"]
    assert array.sum() == np.arange(LARGE // 8).sum()


def test_a_failure_after_the_first_return_leaves_nothing_behind(keepers: list[Any]) -> None:
    @actorrt.remote(num_returns=2)
    def half() -> tuple[Any, Any]:
        return [np.arange(LARGE // 8), actorrt.put("x")], threading.Lock()

    for ref in half.remote():
        with pytest.raises(exceptions.NotSerializableError, match="the result of half"):
            actorrt.get(ref)


def test_every_item_of_a_stream_keeps_what_it_names(keepers: list[Any]) -> None:
    # The items are taken late: what was registered for the first must not free the others.
    generator = keepers[0].stream.remote(list(range(50)))
    actorrt.get(generator.completed())
    items = [actorrt.get(ref) for ref in generator]
    assert [actorrt.get(inner) for [inner] in items] == list(range(50))


def test_large_items_of_a_stream_arrive_whole(keepers: list[Any]) -> None:
    generator = keepers[0].large_stream.remote(8)
    actorrt.get(generator.completed())
    refs = list(generator)
    for i, ref in enumerate(refs):
        assert (actorrt.get(ref) == i).all()


def test_items_that_nobody_takes_are_freed(keepers: list[Any]) -> None:
    generator = keepers[0].large_stream.options(generator_backpressure=2).remote(100)
    first = next(generator)
    gone = freed(first)
    del generator, first
    gc.collect()
    assert gone.wait(30)


# ---- what is gone


def test_a_ref_to_a_freed_object_says_so() -> None:
    @actorrt.remote
    def look(pickled: bytes) -> Any:
        return actorrt.get(codec.deserialize(pickled))

    ref = actorrt.put("short lived")
    pickled = codec.pack(codec.serialize(ref))
    gone = freed(ref)
    del ref
    assert gone.wait(30)
    with pytest.raises(exceptions.ObjectFreedError, match="its last ref is gone"):
        actorrt.get(codec.deserialize(pickled))
    with pytest.raises(exceptions.ObjectFreedError, match="its last ref is gone"):
        actorrt.get(look.remote(pickled))


def test_what_its_owner_holds_is_lost_with_the_owner() -> None:
    for value in ("small", np.arange(LARGE // 8)):
        owner = Keeper.remote()
        actorrt.get([owner.put.remote("x", value), owner.put.remote("y", value)])
        [known], [unknown] = actorrt.get([owner.give.remote("x"), owner.give.remote("y")])
        assert same(actorrt.get(known), value)
        pid = actorrt.get(owner.pid.remote())
        actorrt.kill(owner)
        wait_for_end(pid)
        with pytest.raises(exceptions.OwnerDiedError, match=r"its owner ended: it was killed by actorrt\.kill"):
            actorrt.get(unknown)


def test_who_waits_for_an_object_is_told_when_its_owner_dies() -> None:
    @actorrt.remote
    class Owner:
        def start(self, signal: Any) -> Any:
            return [signal.wait.remote()]

    owner, signal = Owner.remote(), Signal.remote()
    [ref] = actorrt.get(owner.start.remote(signal))
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            actorrt.get(ref)
        except exceptions.ActorrtError as error:
            caught.append(error)

    async def wait_on_a_loop() -> None:
        with pytest.raises(exceptions.OwnerDiedError):
            await ref

    thread = threading.Thread(target=wait)
    thread.start()

    async def main() -> None:
        waiting = asyncio.create_task(wait_on_a_loop())
        await asyncio.sleep(0)
        await asyncio.to_thread(actorrt.kill, owner)
        await waiting

    asyncio.run(main())
    thread.join(30)
    assert [type(error) for error in caught] == [exceptions.OwnerDiedError]


def test_a_borrower_can_cancel_what_another_process_called() -> None:
    @actorrt.remote
    class Owner:
        def start(self, signal: Any) -> Any:
            return [signal.wait.remote()]

    owner, signal = Owner.remote(), Signal.remote()
    [ref] = actorrt.get(owner.start.remote(signal))
    actorrt.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(ref)


def test_a_ref_pickled_outside_of_a_call_pins_its_object() -> None:
    ref = actorrt.put("pinned")
    stored = pickle.dumps(ref)
    del ref
    gc.collect()
    assert actorrt.get(pickle.loads(stored)) == "pinned"
