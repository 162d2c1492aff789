"""Streams: values that a call gives one by one, and the generator through which its caller takes them.

A stream has credits: the producer may be so many items ahead of the consumer. Taking items gives credits back in
batches, so a slow reader stops its producer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar, cast

from actorrt.core.calls import State
from actorrt.core.object_state import PRESENT, RAISED, SHARED
from actorrt.types import PROCESS_ID_SIZE, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import UNLIMITED, AnyMessage, Credit

from ..base.loop_bridge import bridge_to
from . import current, references
from .entries import UNMADE, Entry, Gate
from .references import ObjectRef

if TYPE_CHECKING:
    from ..links.link import Link
    from .segments_client import SegmentsClient

T_co = TypeVar("T_co", covariant=True)

Waiter = Callable[["Stream"], object]
# How far a producer may be ahead where the caller did not say.
DEFAULT_WINDOW: Final = 1000


class StreamedValues(Protocol):
    """The objects of the process that takes a stream."""

    def new_entry(self) -> Entry: ...
    def next_items(self) -> int: ...


class Consumer(current.Session, Protocol):
    """The process that takes a stream, as far as a stream asks it."""

    @property
    def objects(self) -> StreamedValues: ...
    @property
    def segments(self) -> SegmentsClient: ...

    def post_soon(self, link: Link, message: AnyMessage) -> None: ...


class StreamingCall(Protocol):
    """The call that gives a stream."""

    @property
    def entry(self) -> Entry: ...
    @property
    def link(self) -> Link | None: ...
    @property
    def message(self) -> Any: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def runtime(self) -> Consumer: ...

    def cancel(self, force: bool) -> None: ...


class Stream:
    """The items of one call that came and were not taken yet."""

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_lock",
        "_taken",
        "_waiters",
        "call",
        "came",
        "ended",
        "items",
        "next_large",
        "window",
    )

    def __init__(self, call: StreamingCall, window: int) -> None:
        self.call = call
        self.window = window
        # One of a few bytes is just those: most are taken as values, and no ref ever names them.
        self.items: deque[Entry | bytes] = deque()
        # How many items have come.
        self.came = 0
        # The number of the next item of the present run that lies in shared memory; 0 before the first run.
        self.next_large = 0
        self.ended = False
        self._abandoned = False
        self._taken = 0
        # Held where credits change hands: a thread takes items while the runtime loop sends the call again.
        self._lock = threading.Lock()
        # A deque, since one thread adds to it while another takes from it.
        self._waiters: deque[Waiter] = deque()

    def add(self, item: Entry | bytes) -> None:
        self.came += 1
        self.items.append(item)
        if self._abandoned:
            self.items.clear()
        self._wake()

    def end(self, error: BaseException | bytes | None) -> None:
        if self.ended:
            return
        if error is not None and not self._abandoned:
            # The error is the last item.
            entry = Entry(ProcessId(bytes(PROCESS_ID_SIZE)), 0)
            entry.settle(RAISED, error)
            self.items.append(entry)
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        waiters = self._waiters
        while waiters:
            try:
                waiter = waiters.popleft()
            except IndexError:
                return
            waiter(self)

    @property
    def done(self) -> bool:
        """True if the next item, or the end, can be taken without waiting."""
        return bool(self.items) or self.ended

    def add_waiter(self, waiter: Waiter) -> bool:
        """Have `waiter(stream)` called once there is an item or the end; False if there is already.

        Several may wait: each looks again, since another may have taken what came.
        """
        self._waiters.append(waiter)
        if self.done:
            self.remove_waiter(waiter)
            return False
        return True

    def remove_waiter(self, waiter: Waiter) -> None:
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def took(self, count: int) -> None:
        """Give credits back, in batches of half a window."""
        if self.window == UNLIMITED or self.ended:
            return
        self._taken += count
        if self._taken * 2 >= self.window:
            with self._lock:
                taken, self._taken = self._taken, 0
                self._grant(taken)

    def push(self, link: Link) -> None:
        """Queue the call, for the first time or again: it starts with credits that reach to where it may be now."""
        message = self.call.message
        with self._lock:
            self._taken = 0
            self.cut_off()
            self.next_large = self.call.runtime.objects.next_items()
            message.first_item = self.next_large
            ahead = UNLIMITED if self.window == UNLIMITED else self.came - len(self.items) + self.window
            message.credits = ahead
            link.push(message)

    def cut_off(self) -> None:
        """No more items come from the present run: what it has laid into shared memory beyond those is nobody's."""
        if self.next_large:
            self.call.runtime.segments.cut_off(self.next_large)

    def open_window(self) -> None:
        """The consumer waits for the end: the producer need not wait for the consumer any more."""
        with self._lock:
            if self.window != UNLIMITED and not self.ended:
                self.window = UNLIMITED
                self._grant(UNLIMITED)

    def _grant(self, count: int) -> None:
        # A call that is not under way starts with it.
        link = self.call.link
        if count and self.call.state is State.AWAY and link is not None and not link.closed:
            self.call.runtime.post_soon(link, Credit(self.call.message.seq, count))

    def drop(self) -> None:
        """Nobody takes the rest: the producer is closed, as a local generator would be."""
        if not self.ended:
            call = self.call
            runtime = current.maybe_runtime()
            if runtime is not None and runtime is call.runtime:
                runtime.thread.release(partial(call.cancel, False))

    def abandon(self) -> None:
        """The same where nobody is left to take what came already: its memory is not to wait for a collection."""
        self.drop()
        self._abandoned = True
        self.items.clear()


class ObjectRefGenerator(Generic[T_co]):
    """The refs of a streaming call, in order: `for ref in gen`, `async for ref in gen`.

    An error of the producer is raised by the last ref; then the iteration ends. Dropping the generator before its
    end closes the producer, as with a generator at home.
    """

    __slots__ = ("__weakref__", "_call", "_stream")

    def __init__(self, call: StreamingCall, stream: Stream) -> None:
        self._call = call
        self._stream = stream

    @property
    def stream(self) -> Stream:
        return self._stream

    def __iter__(self) -> Iterator[ObjectRef[T_co]]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        return self._next_sync(None)

    def _next_sync(self, timeout: float | None) -> ObjectRef[T_co]:
        stream = self._stream
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            if not stream.done:
                gate = Gate(1)
                left = None if until is None else max(0.0, until - time.monotonic())
                try:
                    if stream.add_waiter(gate.arrive):
                        runtime = current.session()
                        runtime.check_mine(stream)
                        runtime.wait_blocked(gate, left, "the next item")
                finally:
                    stream.remove_waiter(gate.arrive)
            ref = self._pop()
            if ref is not None:
                return ref
            if self.is_finished():
                raise StopIteration

    def _pop(self) -> ObjectRef[T_co] | None:
        try:
            item = self._stream.items.popleft()
        except IndexError:
            return None
        self._stream.took(1)
        return ObjectRef(self._entry_of(item) if type(item) is bytes else cast("Entry", item))

    def _entry_of(self, data: bytes) -> Entry:
        entry = self._call.runtime.objects.new_entry()
        entry.settle(PRESENT, data)
        return entry

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return _AsyncFor(self)

    async def __anext__(self) -> ObjectRef[T_co]:
        while True:
            if not self._stream.done:
                await self._ready()
            ref = self._pop()
            if ref is not None:
                return ref
            if self.is_finished():
                raise StopAsyncIteration

    async def _ready(self) -> None:
        """Wait until there is an item, or the end."""
        stream = self._stream
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter: Waiter = partial(bridge_to(loop).complete, future)
        if stream.add_waiter(waiter):
            try:
                runtime = current.session()
                runtime.check_mine(stream)
                runtime.flush()
                await future
            except BaseException:
                stream.remove_waiter(waiter)
                raise

    async def next_values(self) -> list[T_co]:
        """All values that are there, at least one; `[]` at the end. Raises the producer's error in its turn.

        A waiter that is cancelled here loses nothing: the values can still be taken.
        """
        items = self._stream.items
        mapped: Entry | None = None
        while not (values := self._take(mapped)):
            if items:
                # What is small is taken as it lies.
                mapped = cast("Entry", items[0])
                await self._map(mapped)
            elif self._stream.ended:
                break
            else:
                await self._ready()
        return values

    def _take(self, mapped: Entry | None) -> list[T_co]:
        """The values at the front that can be had without waiting; that of `mapped` is one."""
        items = self._stream.items
        values: list[T_co] = []
        while items:
            item = items[0]
            if type(item) is bytes:
                items.popleft()
                values.append(self._loaded(item))
                continue
            entry = cast("Entry", item)
            if entry.state == SHARED:
                if entry.view is None and entry is not mapped:
                    break
            elif entry.state == RAISED and values:
                break
            items.popleft()
            values.append(entry.load())
        if values:
            self._stream.took(len(values))
        return values

    def _loaded(self, data: bytes) -> Any:
        try:
            return codec.deserialize(data)
        except UNMADE:
            return self._entry_of(data).load()

    async def _map(self, entry: Entry) -> None:
        """Map the first item, which stays in its place. One that cannot be had is taken: its error is raised."""
        try:
            await references.until_local(entry)
        except Exception:
            items = self._stream.items
            if items and items[0] is entry:
                self._pop()
            raise

    def values(self) -> AsyncIterator[T_co]:
        """The values themselves, without a ref each. Its `aclose` closes the producer too."""
        return _Values(self)

    @property
    def end(self) -> ObjectRef[None]:
        """A ref of the end, which does not lift the limit on items ahead."""
        return ObjectRef(self._call.entry)

    def add_done_callback(
        self,
        callback: Callable[[ObjectRefGenerator[T_co]], object],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        here: bool = False,
    ) -> None:
        """Have `callback(generator)` called once the producer has ended; where: see `ObjectRef.add_done_callback`."""
        waiter = references.callback_waiter(partial(callback, self), loop, here)
        entry = self._call.entry
        if not entry.done:
            current.session().check_mine(entry)
        if not entry.add_waiter(waiter):
            waiter(entry)

    def completed(self) -> ObjectRef[None]:
        """A ref of the end: done when the producer has ended. Waiting for it lifts the limit on items ahead."""
        self._stream.open_window()
        return ObjectRef(self._call.entry)

    def next_ready(self) -> bool:
        """True if there is a next item that can be taken without waiting; at the end there is none."""
        return bool(self._stream.items)

    def is_finished(self) -> bool:
        """True if the producer has ended and every item was taken."""
        return self._stream.ended and not self._stream.items

    def __reduce__(self) -> NoReturn:
        raise TypeError("a generator cannot be sent to another process: send the refs that it gives")

    def close(self) -> None:
        """End the producer; what it has already sent can still be taken. Waits for nothing."""
        self._stream.drop()

    async def aclose(self) -> None:
        """End the producer, wait until it has cleaned up, and give nothing more, as any asynchronous generator."""
        stream = self._stream
        stream.abandon()
        while not stream.ended and current.maybe_runtime() is self._call.runtime:
            await self._ready()

    def remove_done_callback(self, callback: Callable[[ObjectRefGenerator[T_co]], object]) -> int:
        """Take back what `add_done_callback` was given; how often it was."""
        return references.remove_callbacks(self._call.entry, callback, self)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self._stream.abandon()


class _Loop(Generic[T_co]):
    """What one `async for` iterates over: it goes when that loop is left.

    If its task is being cancelled then, nobody will take the rest: the generator may live on in a variable, a traceback
    or a task that was not looked at.
    """

    __slots__ = ("_generator",)

    def __init__(self, generator: ObjectRefGenerator[T_co]) -> None:
        self._generator = generator

    async def aclose(self) -> None:
        await self._generator.aclose()

    def __del__(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is not None and task.cancelling():
            self._generator.close()


class _AsyncFor(_Loop[T_co]):
    """The refs of a generator."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, ObjectRef[T_co]]:
        return self._generator.__anext__()


class _Values(_Loop[T_co]):
    """The values of a generator."""

    __slots__ = ("_batch",)

    def __init__(self, generator: ObjectRefGenerator[T_co]) -> None:
        super().__init__(generator)
        self._batch: deque[T_co] = deque()

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        if not self._batch:
            try:
                self._batch.extend(await self._generator.next_values())
            except asyncio.CancelledError:
                # The traceback of this step keeps the iterator.
                self._generator.close()
                raise
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.popleft()

    async def aclose(self) -> None:
        self._batch.clear()
        await super().aclose()
