"""Each call's value is what it was when its code returned, whatever the next calls do with the same objects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

import actorrt

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("node")

LARGE = 50_000
CALLS = 24


class TalliedError(Exception):
    def __init__(self, seen: list[int]) -> None:
        super().__init__(seen)
        self.seen = seen


class Sums:
    """Keeps a list and a large array, changes both in place in each call, and returns them."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.array = np.zeros(LARGE)
        self.state = {"array": self.array, "items": self.items}
        self.given = 0

    def step(self) -> None:
        self.items.append(len(self.items))
        self.array += 1

    async def list_and_count(self) -> tuple[list[int], int]:
        self.step()
        return self.items, len(self.items)

    async def large(self) -> Any:
        self.step()
        return self.array

    async def view(self) -> Any:
        self.step()
        return self.array[10:]

    async def inside(self) -> Any:
        self.step()
        return self.state

    async def after_an_await(self) -> Any:
        await asyncio.sleep(0)
        self.step()
        return self.array

    async def two_large(self) -> tuple[Any, Any]:
        self.step()
        return self.array, [self.array]

    def plain(self) -> Any:
        self.step()
        return self.array

    async def fails(self) -> None:
        self.step()
        raise TalliedError(self.items)

    async def stream(self, items: int) -> AsyncIterator[Any]:
        for _ in range(items):
            self.step()
            self.given += 1
            yield self.state

    def plain_stream(self, items: int) -> Iterator[Any]:
        for _ in range(items):
            self.step()
            self.given += 1
            yield self.state

    async def has_given(self, items: int) -> None:
        while self.given < items:  # noqa: ASYNC110  each look is a turn of the loop
            await asyncio.sleep(0)

    async def change(self) -> None:
        self.step()


def state_of(value: Any) -> tuple[float, float]:
    """The least and the largest of what should be equal."""
    array = value["array"] if isinstance(value, dict) else value[0] if isinstance(value, list) else value
    return float(array.min()), float(array.max())


@pytest.mark.parametrize("method", ["large", "view", "inside", "after_an_await", "plain"])
def test_a_large_value_is_what_it_was_at_its_return(method: str) -> None:
    sums = actorrt.remote(Sums).remote()
    values = actorrt.get([getattr(sums, method).remote() for _ in range(CALLS)])
    assert [state_of(value) for value in values] == [(n, n) for n in range(1, CALLS + 1)]


@pytest.mark.parametrize("method", ["list_and_count", "two_large"])
def test_each_of_several_values_is_what_it_was_at_its_return(method: str) -> None:
    sums = actorrt.remote(Sums).remote()
    call = getattr(sums, method).options(num_returns=2)
    values = [actorrt.get(pair) for pair in [call.remote() for _ in range(CALLS)]]
    if method == "two_large":
        assert [(state_of(a), state_of(b)) for a, b in values] == [((n, n), (n, n)) for n in range(1, CALLS + 1)]
    else:
        assert [(len(items), count) for items, count in values] == [(n, n) for n in range(1, CALLS + 1)]


def test_an_error_is_what_it_was_when_it_was_raised() -> None:
    sums = actorrt.remote(Sums).remote()
    refs = [sums.fails.remote() for _ in range(CALLS)]
    for n, ref in enumerate(refs, 1):
        with pytest.raises(TalliedError) as raised:
            actorrt.get(ref)
        assert len(raised.value.seen) == n


@pytest.mark.parametrize("method", ["stream", "plain_stream"])
def test_an_item_that_waits_for_its_consumer_is_what_it_was_when_it_was_given(method: str) -> None:
    sums = actorrt.remote(Sums).remote()
    stream = getattr(sums, method).options(num_returns="streaming", generator_backpressure=1)
    items = stream.remote(2)
    # The first waits until it is taken, and with it the code of the second.
    actorrt.get(sums.has_given.remote(1))
    actorrt.get([sums.change.remote() for _ in range(5)])
    values = actorrt.get(list(items))
    assert [(state_of(value), len(value["items"])) for value in values] == [((1, 1), 1), ((7, 7), 7)]


@pytest.mark.parametrize("method", ["stream", "plain_stream"])
def test_large_items_are_what_they_were_when_they_were_given(method: str) -> None:
    sums = actorrt.remote(Sums).remote()
    items = getattr(sums, method).options(num_returns="streaming").remote(CALLS)
    changes = [sums.change.remote() for _ in range(CALLS)]
    values = actorrt.get(list(items))
    actorrt.get(changes)
    for value in values:
        least, most = state_of(value)
        assert least == most == len(value["items"])


def test_what_a_call_is_given_is_what_it_was_then() -> None:
    @actorrt.remote
    class Caller:
        """On the runtime's own loop, nothing large can be written at once."""

        async def call(self, sums: Any) -> list[tuple[float, float]]:
            array = np.zeros(LARGE)
            refs: list[Any] = []
            for _ in range(CALLS):
                array += 1
                refs += [sums.echo.remote(array), actorrt.put(array)]
            return [state_of(value) for value in await asyncio.gather(*refs)]

    @actorrt.remote
    class Echo:
        async def echo(self, value: Any) -> Any:
            return value

    for options in ({"isolated": True}, {"on_runtime_loop": True}):
        seen = actorrt.get(Caller.options(**options).remote().call.remote(Echo.remote()))
        assert seen == [(n, n) for n in range(1, CALLS + 1) for _ in range(2)]


def test_a_method_in_a_thread_returns_what_it_had() -> None:
    @actorrt.remote
    class Changing:
        def __init__(self) -> None:
            self.array = np.zeros(LARGE)

        @actorrt.method(thread=True)
        def threaded(self) -> Any:
            self.array += 1
            return self.array

        async def on_the_loop(self) -> None: ...

    changing = Changing.options(max_concurrency=1).remote()
    values = actorrt.get([changing.threaded.remote() for _ in range(CALLS)])
    assert [state_of(value) for value in values] == [(n, n) for n in range(1, CALLS + 1)]
