"""A first-in, first-out queue that any number of tasks, actors and drivers share: an asyncio queue inside an actor."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from queue import Empty, Full
from typing import Any, Generic, TypeVar

from actorrt import Actor, ObjectRef, cancel, get, kill, method, remote
from actorrt.core import option_checks as check
from actorrt.exceptions import ActorError, GetTimeoutError

__all__ = ["Empty", "Full", "Queue"]

T = TypeVar("T")

# Takers that wait must never keep putters out, nor either of them a question about the size: each has its own group.
_GROUPS = {"put": 100_000, "get": 100_000}


class _Items(Actor):
    """The actor behind a Queue."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)
        # Items that had left already: they are the oldest. Nobody waits while there are any.
        self._given_back: deque[Any] = deque()

    @method(concurrency_group="put")
    async def put(self, item: Any, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._items.put(item)
        except TimeoutError:
            raise Full from None

    @method(concurrency_group="get")
    async def get(self, timeout: float | None) -> Any:
        if self._given_back:
            return self._given_back.popleft()
        try:
            async with asyncio.timeout(timeout):
                return await self._items.get()
        except TimeoutError:
            raise Empty from None

    @method
    def give_back(self, item: Any) -> None:
        if self._items.empty():
            self._items.put_nowait(item)
        else:
            self._given_back.append(item)

    @method
    def put_nowait(self, items: list[Any]) -> None:
        """All of them or none."""
        maxsize, size = self._items.maxsize, self.size()
        if 0 < maxsize < size + len(items):
            raise Full(f"{len(items)} do not fit: {size} of {maxsize} places are taken")
        for item in items:
            self._items.put_nowait(item)

    @method
    def get_nowait(self, count: int) -> list[Any]:
        """So many or none."""
        if self.size() < count:
            raise Empty(f"{count} are asked for and {self.size()} there")
        first = [self._given_back.popleft() for _ in range(min(count, len(self._given_back)))]
        return first + [self._items.get_nowait() for _ in range(count - len(first))]

    @method
    def size(self) -> int:
        return self._items.qsize() + len(self._given_back)


_Remote = remote(concurrency_groups=_GROUPS)(_Items)


class Queue(Generic[T]):
    """A queue of at most `maxsize` items (0: any number). It travels to tasks and actors and is the same there.

    Blocking methods are for sync code, `put_async` and `get_async` for coroutines. Times are seconds. An item that is
    on its way to a taker that is cancelled goes back to the front.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor = _Remote.options(**dict(actor_options or {})).remote(maxsize)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; Full if there is no room within `timeout`, or at once if not `block`."""
        if block:
            get(self.actor.put.remote(item, _checked(timeout)))
        else:
            get(self.actor.put_nowait.remote([item]))

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest item; Empty if there is none within `timeout`, or at once if not `block`."""
        if not block:
            return get(self.actor.get_nowait.remote(1))[0]
        ref = self.actor.get.remote(_checked(timeout))
        try:
            return get(ref)
        except KeyboardInterrupt:
            cancel(ref)
            ref.add_done_callback(self._give_back, here=True)
            raise

    async def put_async(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines."""
        if block:
            ref = self.actor.put.remote(item, _checked(timeout))
            try:
                await ref
            except asyncio.CancelledError:
                cancel(ref)
                raise
        else:
            await self.actor.put_nowait.remote([item])

    async def get_async(self, block: bool = True, timeout: float | None = None) -> T:
        """`get` for coroutines."""
        if block:
            ref = self.actor.get.remote(_checked(timeout))
            try:
                return await ref
            except asyncio.CancelledError:
                cancel(ref)
                ref.add_done_callback(self._give_back)
                raise
        return (await self.actor.get_nowait.remote(1))[0]

    def _give_back(self, ref: ObjectRef[Any]) -> None:
        # Without a value nothing was taken.
        with suppress(Exception):
            self.actor.give_back.remote(ref.peek())

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> T:
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[T]) -> None:
        """Add all of them; Full, and none is added, if they do not fit."""
        get(self.actor.put_nowait.remote(list(items)))

    def get_nowait_batch(self, num_items: int) -> list[T]:
        """Take so many; Empty, and none is taken, if there are fewer."""
        if num_items < 0:
            raise ValueError(f"num_items must not be negative, it is {num_items}")
        return get(self.actor.get_nowait.remote(num_items))

    def qsize(self) -> int:
        return get(self.actor.size.remote())

    def size(self) -> int:
        return self.qsize()

    def __len__(self) -> int:
        return self.qsize()

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.qsize()

    def shutdown(self, force: bool = False, grace_period_s: float = 5.0) -> None:
        """End the queue. What was called before is answered first, for at most `grace_period_s`, unless `force`."""
        if not force:
            with suppress(ActorError, GetTimeoutError):
                get(self.actor.__ray_terminate__.remote(), timeout=grace_period_s)
        kill(self.actor)


def _checked(timeout: float | None) -> float | None:
    return check.seconds("timeout", timeout)
