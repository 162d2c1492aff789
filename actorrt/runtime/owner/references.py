"""ObjectRef: how a program holds an object, awaits it and is told of it. What is known of the object is its Entry."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import operator
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from actorrt import exceptions
from actorrt.core.object_state import PENDING, PRESENT, RAISED, REMOTE, SHARED
from actorrt.types import ObjectID, ProcessId, owned
from actorrt.wire import codec

from ..base.loop_bridge import CALLBACK_ERRORS, CALLBACK_RAISED, bridge_to
from . import current
from .entries import Entry, Waiter

logger = logging.getLogger("actorrt")

# What a callback may raise where whoever settles the value calls it: there is nothing there that it could leave.
_HERE: Final = (*CALLBACK_ERRORS, SystemExit)

T_co = TypeVar("T_co", covariant=True)


class ObjectRef(Generic[T_co]):
    """A value that is, or will be, somewhere: `await` it, `get` it, or pass it on to another call.

    It can be awaited from any event loop in any thread, any number of times; each time the value is unpickled anew
    (large arrays are views of shared memory, read-only). Refs are equal when they name the same object. Dropping a ref
    cancels nothing.
    """

    __slots__ = ("__weakref__", "_entry")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __await__(self) -> Generator[Any, None, T_co]:
        entry = self._entry
        if entry.state < PRESENT or (entry.state == SHARED and entry.view is None):
            yield from until_local(entry).__await__()
        return entry.load()

    def done(self) -> bool:
        """True once the value, or the error, is known to this process."""
        return self._entry.state > PENDING

    def peek(self) -> T_co:
        """The value of a ref that is done, without waiting. Raises its error, or GetTimeoutError if it is not done."""
        entry = self._entry
        if entry.state <= PENDING:
            raise exceptions.GetTimeoutError(f"object {entry.hex()}", 0.0)
        if entry.state == SHARED and entry.view is None:
            current.session().get([self], None)
        return entry.load()

    def exception(self) -> BaseException | None:
        """The error of a ref that is done, or None; its value is not looked at. GetTimeoutError if it is not done."""
        entry = self._entry
        if entry.state <= PENDING:
            raise exceptions.GetTimeoutError(f"object {entry.hex()}", 0.0)
        return entry.error() if entry.state == RAISED else None

    def add_done_callback(
        self,
        callback: Callable[[ObjectRef[T_co]], object],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        here: bool = False,
    ) -> None:
        """Have `callback(ref)` called once the value is there.

        It runs on `loop`, or on the caller's running loop if there is one. Without either, with `here=True`, or where
        that loop is closed by then, it runs on the runtime's own thread, or, for a call between actors of one worker,
        on the loop that they share, and must not block. All that is due on one loop after one batch of messages shares
        one wake-up.
        """
        waiter = partial(_run_here, callback, self) if here else callback_waiter(partial(callback, self), loop, here)
        entry = self._entry
        if entry.state <= PENDING:
            runtime = current.session()
            if entry.state == REMOTE:
                runtime.request(entry)
            runtime.check_mine(entry)
        if not entry.add_waiter(waiter):
            waiter(entry)

    def remove_done_callback(self, callback: Callable[[ObjectRef[T_co]], object]) -> int:
        """Take back what `add_done_callback` was given; how often it was. What is due to run already runs."""
        return remove_callbacks(self._entry, callback, self)

    # As asyncio's futures have them, for `asyncio.wait` and those who use what it gives.

    def result(self) -> T_co:
        """The same as `peek`."""
        return self.peek()

    def cancelled(self) -> bool:
        """True if the call that should bring the value was cancelled."""
        entry = self._entry
        return entry.state == RAISED and isinstance(entry.error(), exceptions.TaskCancelledError)

    def cancel(self) -> bool:
        """Cancel the call that brings the value, as `actorrt.cancel` does. False: it is done already."""
        if self._entry.state > PENDING:
            return False
        current.session().cancel(self._entry, False, True)
        return True

    def future(self) -> concurrent.futures.Future[T_co]:
        """A concurrent future of the value, for threads. To cancel it does not cancel the call."""
        runtime = current.session()
        result: concurrent.futures.Future[T_co] = runtime.thread.new_future()
        entry = self._entry
        if entry.state > PENDING and (entry.state != SHARED or entry.view is not None):
            # It ends in its first step.
            with contextlib.suppress(StopIteration):
                self._fill(result).send(None)
        else:
            runtime.thread.spawn(self._fill(result))
        return result

    async def _fill(self, result: concurrent.futures.Future[Any]) -> None:
        try:
            value = await self
        except BaseException as error:
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
        else:
            if result.set_running_or_notify_cancel():
                result.set_result(value)

    def __hash__(self) -> int:
        return hash((self._entry.owner, self._entry.seq))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectRef):
            return NotImplemented
        mine, theirs = self._entry, cast("ObjectRef[Any]", other)._entry
        return mine is theirs or (mine.seq == theirs.seq and mine.owner == theirs.owner)

    def __repr__(self) -> str:
        return f"ObjectRef({self._entry.hex()})"

    def hex(self) -> str:
        return self._entry.hex()

    def binary(self) -> bytes:
        return owned(self._entry.owner, self._entry.seq)

    def object_id(self) -> ObjectID:
        return ObjectID(self.binary())

    def is_nil(self) -> bool:
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        runtime = current.maybe_runtime()
        if runtime is None:
            raise RuntimeError("a ref cannot be pickled where no runtime runs")
        entry = self._entry
        runtime.export(entry, collected=codec.note_ref(self))
        return _rebuild, (entry.owner, entry.seq)


def callback_waiter(run: Callable[[], object], loop: asyncio.AbstractEventLoop | None, here: bool) -> Waiter:
    """A waiter that calls `run` where `add_done_callback` says."""
    if here:
        return _ignoring(run)
    if loop is None:
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
    return _ignoring(run) if loop is None else partial(bridge_to(loop).call, run)


def remove_callbacks(entry: Entry, callback: Callable[..., object], given: object) -> int:
    """Take waiters away that `callback_waiter` has made of `partial(callback, given)`."""
    wanted = partial(callback, given)
    mine = [waiter for waiter in entry.waiters or () if _calls(waiter, wanted)]
    return sum(map(entry.remove_waiter, mine))


def _calls(waiter: Any, wanted: partial[object]) -> bool:
    if type(waiter) is not partial or not waiter.args:  # pyright: ignore[reportUnknownMemberType]
        return False
    run: Any = partial(*waiter.args) if waiter.func is _run_here else waiter.args[0]  # pyright: ignore[reportUnknownMemberType]
    return type(run) is partial and _same_call(cast("partial[object]", run), wanted)


def _same_call(one: partial[object], other: partial[object]) -> bool:
    """A callback that is a partial function itself has become one with its argument: both are compared by parts."""
    return one.func == other.func and len(one.args) == len(other.args) and all(map(operator.is_, one.args, other.args))


def _ignoring(run: Callable[[], object]) -> Waiter:
    return partial(_run_safely, run)


def _run_here(callback: Callable[[Any], object], ref: object, entry: Entry) -> None:
    if entry.state == SHARED and entry.view is None:
        _run_safely(partial(callback, ref), entry)
        return
    try:
        callback(ref)
    except _HERE:
        logger.exception(CALLBACK_RAISED)


def _run_safely(run: Callable[[], object], entry: Entry) -> None:
    if entry.state == SHARED and entry.view is None and (runtime := current.maybe_runtime()) is not None:
        # It may look at the value, for which the runtime's own thread cannot wait.
        runtime.thread.spawn(_run_once_local(run, entry))
    else:
        _call_here(run)


def _call_here(run: Callable[[], object]) -> None:
    try:
        run()
    except _HERE:
        logger.exception(CALLBACK_RAISED)


async def _run_once_local(run: Callable[[], object], entry: Entry) -> None:
    with contextlib.suppress(Exception):
        # Whoever looks at the value hears what is wrong with it.
        await until_local(entry)
    _call_here(run)


def _rebuild(owner: ProcessId, seq: int) -> ObjectRef[Any]:
    return current.session().borrow(owner, seq)


async def until_local(entry: Entry) -> None:
    """Wait, on whatever loop runs here, until the value can be loaded."""
    runtime = current.session()
    loop = asyncio.get_running_loop()
    if entry.state == REMOTE:
        runtime.request(entry)
    if entry.state == PENDING:
        runtime.check_mine(entry)
        future: asyncio.Future[None] = loop.create_future()
        waiter: Waiter = partial(bridge_to(loop).complete, future)
        if entry.add_waiter(waiter):
            runtime.flush()
            try:
                await future
            except asyncio.CancelledError:
                entry.remove_waiter(waiter)
                raise
    if entry.state == SHARED and entry.view is None:
        await runtime.map_segment(entry)
