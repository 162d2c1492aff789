"""ObjectRef, and the state of an object in this process.

An `Entry` is what this process knows about one object: that it is pending, its value, where that lies, or its error.
Refs to the same object share it. Who computes the value, and how it is counted across processes, is not decided here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import logging
import operator
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from actorrt import exceptions
from actorrt.types import ObjectID
from actorrt.wire import codec

from . import current

if TYPE_CHECKING:
    from .runtime import Runtime

logger = logging.getLogger("actorrt")

T_co = TypeVar("T_co", covariant=True)

_CALLBACK_RAISED: Final = "a callback of a ref raised an error"

# Another process owns the object and has not been asked for it yet.
REMOTE: Final = 0
PENDING: Final = 1
INLINE: Final = 2
# The value lies in a segment (`data` is the Value that says which); `view` is set once it is mapped here.
SEGMENT: Final = 3
ERROR: Final = 4

Waiter = Callable[["Entry"], None]
_running_loop: Final = asyncio._get_running_loop
_waiters_lock = threading.Lock()
# Told of each entry that becomes an error: those who wait for many at once do not wait for the others then. Sets are
# replaced and not changed, so that they can be read without a lock.
_error_watchers: frozenset[Waiter] = frozenset()


def watch_errors(watcher: Waiter) -> None:
    global _error_watchers
    with _waiters_lock:
        _error_watchers |= {watcher}


def unwatch_errors(watcher: Waiter) -> None:
    global _error_watchers
    with _waiters_lock:
        _error_watchers -= {watcher}


class Entry:
    """One object as this process sees it. `data` by state: bytes, Value, or an exception or its pickled form."""

    __slots__ = ("__weakref__", "call", "data", "hold", "owner", "seq", "state", "view", "waiters")

    def __init__(self, owner: bytes, seq: int, state: int = PENDING) -> None:
        self.owner = owner
        self.seq = seq
        self.state = state
        self.data: Any = None
        # What has to live as long as the value: refs inside it, the claim on its segment, a borrow.
        self.hold: Any = None
        # The call that will bring the value, for `cancel`.
        self.call: Any = None
        self.view: memoryview | None = None
        self.waiters: list[Waiter] | None = None

    @property
    def done(self) -> bool:
        return self.state > PENDING

    def settle(self, state: int, data: Any) -> None:
        """The value is known. Everybody who waits is told, once; a second outcome is ignored."""
        if self.state > PENDING:
            return
        self.data = data
        self.state = state
        self.call = None
        if self.waiters is not None:
            with _waiters_lock:
                waiters, self.waiters = self.waiters, None
            for waiter in waiters or ():
                waiter(self)
        if state == ERROR:
            for watcher in _error_watchers:
                watcher(self)

    def add_waiter(self, waiter: Waiter) -> bool:
        """Have `waiter(entry)` called when the value is known; False if it is known already."""
        with _waiters_lock:
            if self.state > PENDING:
                return False
            if self.waiters is None:
                self.waiters = [waiter]
            else:
                self.waiters.append(waiter)
            if self.state > PENDING:
                # It was settled between the look and the append: whoever takes the list calls those in it.
                self.waiters.remove(waiter)
                return False
            return True

    def remove_waiter(self, waiter: Waiter) -> bool:
        """False if it does not wait any more."""
        with _waiters_lock:
            if self.waiters is not None:
                with contextlib.suppress(ValueError):
                    self.waiters.remove(waiter)
                    return True
        return False

    def load(self) -> Any:
        """The value, unpickled anew. Raises the call's error. The entry must be done and its segment mapped."""
        if self.state == INLINE or self.state == SEGMENT:
            data = self.data if self.state == INLINE else self.mapped()
            try:
                return codec.deserialize(data)
            except UNMADE as error:
                raise cannot_be_made(f"object {self.hex()}", error) from error
        raise self.error()

    def mapped(self) -> memoryview:
        """The bytes of a value that lies in a segment. Maps it again if it was given back for want of memory."""
        view = self.view
        return current.session().segments.view_of(self) if view is None else view

    def error(self) -> BaseException:
        error = self.data
        if not isinstance(error, BaseException):
            try:
                error = cast(BaseException, codec.deserialize(error))
            except Exception as raised:
                # Its class is not to be had here, or does not let itself be made again.
                return exceptions.UnserializableException(
                    "an error", f"it cannot be unpickled here: {type(raised).__name__}: {raised}", ""
                )
        else:
            # One of its own for each that it is raised in, else its traceback would keep all that they hold.
            error = copy.copy(error)
        if isinstance(error, exceptions.TaskError):
            return error.as_instanceof_cause()
        return error

    def hex(self) -> str:
        return f"{self.owner.hex()}{self.seq:016x}"


# What pickle raises, and classes whose constructor or module is another here than there. What a ref or handle inside
# of the value raises is about the session.
UNMADE: Final = (
    TypeError,
    AttributeError,
    ImportError,
    LookupError,
    ValueError,
    ArithmeticError,
    AssertionError,
    NameError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


def cannot_be_made(what: str, error: Exception) -> exceptions.NotSerializableError:
    """The error for a value whose class does not let itself be made again from what was pickled."""
    said = f"{type(error).__name__}: {exceptions.text_of(error)}"
    return exceptions.NotSerializableError(what, "", f"it was pickled and cannot be unpickled here: {said}")


class Token:
    """Calls a function on the runtime loop once it is garbage itself. In a fork of its process it does nothing."""

    __slots__ = ("_release", "_runtime")

    def __init__(self, runtime: Runtime, release: Callable[[], None]) -> None:
        self._runtime = runtime
        self._release = release

    def __del__(self) -> None:
        if current.maybe_runtime() is self._runtime:
            self._runtime.thread.release(self._release)


class LoopBridge:
    """Completes futures of a loop from other threads, with one wake-up for all that are due."""

    __slots__ = ("_due", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[Callable[[], object]] = deque()
        self._woken = False

    def call(self, callback: Callable[[], object], _: object = None) -> None:
        self._due.append(callback)
        if not self._woken:
            self._woken = True
            try:
                # Asked each time, since a loop may be run by one thread after the other.
                if _running_loop() is self._loop:
                    self._loop.call_soon(self._run)
                else:
                    self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:
                # The loop is closed: what is due is done here.
                self._run()
        elif self._loop.is_closed():
            # It was closed before it came to what was due.
            self._run()

    def complete(self, future: asyncio.Future[None], _: object = None) -> None:
        if _running_loop() is self._loop:
            # Who waits for it goes on in a turn of its own.
            complete(future)
        else:
            self.call(partial(complete, future))

    def _run(self) -> None:
        self._woken = False
        due = self._due
        while due:
            try:
                callback = due.popleft()
            except IndexError:
                return
            _call_safely(callback)


def _call_safely(callback: Callable[[], object]) -> None:
    """Call what a user wrote where an error of his must not keep others from being told."""
    try:
        callback()
    except Exception:
        logger.exception(_CALLBACK_RAISED)


def complete(future: asyncio.Future[None]) -> None:
    # A future of a loop that is closed has nobody left who waits.
    if not future.done() and not future.get_loop().is_closed():
        future.set_result(None)


_bridges: dict[asyncio.AbstractEventLoop, LoopBridge] = {}


def bridge_to(loop: asyncio.AbstractEventLoop) -> LoopBridge:
    bridge = _bridges.get(loop)
    if bridge is None:
        # A program may use one loop after the other.
        for other in list(_bridges):
            if other.is_closed():
                _bridges.pop(other, None)
        bridge = _bridges.setdefault(loop, LoopBridge(loop))
    return bridge


class Gate:
    """Holds a thread until `count` entries are done."""

    __slots__ = ("_arrived", "_count", "_lock")

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived: list[object] = []
        self._lock = threading.Lock()
        self._lock.acquire()

    def arrive(self, entry: object) -> None:
        self._arrived.append(entry)
        if len(self._arrived) >= self._count:
            self.open()

    def open(self) -> None:
        # Two threads may both see the last arrival.
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))


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
        if entry.state < INLINE or (entry.state == SEGMENT and entry.view is None):
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
        if entry.state == SEGMENT and entry.view is None:
            current.session().get([self], None)
        return entry.load()

    def exception(self) -> BaseException | None:
        """The error of a ref that is done, or None; its value is not looked at. GetTimeoutError if it is not done."""
        entry = self._entry
        if entry.state <= PENDING:
            raise exceptions.GetTimeoutError(f"object {entry.hex()}", 0.0)
        return entry.error() if entry.state == ERROR else None

    def add_done_callback(
        self,
        callback: Callable[[ObjectRef[T_co]], object],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        here: bool = False,
    ) -> None:
        """Have `callback(ref)` called once the value is there.

        It runs on `loop`, or on the caller's running loop if there is one. Without either, with `here=True`, or where
        that loop is closed by then, it runs on the runtime's own thread and must not block. All that is due on one loop
        after one batch of messages shares one wake-up.
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
        return entry.state == ERROR and isinstance(entry.error(), exceptions.TaskCancelledError)

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
        if entry.state > PENDING and (entry.state != SEGMENT or entry.view is not None):
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
        return self._entry.owner + self._entry.seq.to_bytes(8, "big")

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
    if entry.state == SEGMENT and entry.view is None:
        _run_safely(partial(callback, ref), entry)
        return
    try:
        callback(ref)
    except Exception:
        logger.exception(_CALLBACK_RAISED)


def _run_safely(run: Callable[[], object], entry: Entry) -> None:
    if entry.state == SEGMENT and entry.view is None and (runtime := current.maybe_runtime()) is not None:
        # It may look at the value, for which the runtime's own thread cannot wait.
        runtime.thread.spawn(_run_once_local(run, entry))
    else:
        _call_safely(run)


async def _run_once_local(run: Callable[[], object], entry: Entry) -> None:
    with contextlib.suppress(Exception):
        # Whoever looks at the value hears what is wrong with it.
        await until_local(entry)
    _call_safely(run)


def _rebuild(owner: bytes, seq: int) -> ObjectRef[Any]:
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
    if entry.state == SEGMENT and entry.view is None:
        await runtime.map_segment(entry)
