"""A first-in, first-out queue that any number of tasks, actors and drivers share: an asyncio queue inside an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from queue import Empty, Full
from typing import Any, Generic, TypeVar

from actorrt import Actor, ObjectRef, cancel, get, kill, method, remote
from actorrt.exceptions import ActorError, GetTimeoutError

__all__ = ["Empty", "Full", "Queue"]

T = TypeVar("T")

# Takers that wait must never keep putters out, nor either of them a question about the size: each has its own group.
_GROUPS = {"put": 100_000, "get": 100_000}


class _Items(Actor):
    """The actor behind a Queue."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    @method(concurrency_group="put")
    async def put(self, item: Any, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._items.put(item)
        except TimeoutError:
            raise Full from None

    @method(concurrency_group="get")
    async def get(self, timeout: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await self._items.get()
        except TimeoutError:
            raise Empty from None

    @method
    def put_nowait(self, items: list[Any]) -> None:
        """All of them or none."""
        if self._items.maxsize > 0 and self._items.qsize() + len(items) > self._items.maxsize:
            raise Full(f"{len(items)} do not fit: {self._items.qsize()} of {self._items.maxsize} places are taken")
        for item in items:
            self._items.put_nowait(item)

    @method
    def get_nowait(self, count: int) -> list[Any]:
        """So many or none."""
        if self._items.qsize() < count:
            raise Empty(f"{count} are asked for and {self._items.qsize()} there")
        return [self._items.get_nowait() for _ in range(count)]

    @method
    def size(self) -> int:
        return self._items.qsize()


_Remote = remote(concurrency_groups=_GROUPS)(_Items)


class Queue(Generic[T]):
    """A queue of at most `maxsize` items (0: any number). It travels to tasks and actors and is the same there.

    Blocking methods are for sync code, `put_async` and `get_async` for coroutines. Times are seconds. An item that is
    on its way to a taker who is cancelled is lost.
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
        if block:
            return get(self.actor.get.remote(_checked(timeout)))
        return get(self.actor.get_nowait.remote(1))[0]

    async def put_async(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines."""
        if block:
            await _or_cancel(self.actor.put.remote(item, _checked(timeout)))
        else:
            await self.actor.put_nowait.remote([item])

    async def get_async(self, block: bool = True, timeout: float | None = None) -> T:
        """`get` for coroutines."""
        if block:
            return await _or_cancel(self.actor.get.remote(_checked(timeout)))
        return (await self.actor.get_nowait.remote(1))[0]

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
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout}")
    return timeout


async def _or_cancel(ref: ObjectRef[T]) -> T:
    try:
        return await ref
    except asyncio.CancelledError:
        cancel(ref)
        raise
