"""A process's part in shared memory: values are written into segments, and mapped to be read.

The node is asked for room before a new segment is made, and takes it over; a segment that it has already is filled
again without asking anybody. Which objects are wanted, objects.py knows.
"""

from __future__ import annotations

import asyncio
import errno
import threading
import weakref
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from actorrt import exceptions
from actorrt.core.object_write import Action, Event, ObjectWrite, State
from actorrt.types import NO_PROCESS, ObjectKey, ProcessId
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    CloseSegment,
    FreeItems,
    FreeSegment,
    LetGo,
    OpenSegment,
    Ping,
    Reserve,
    Seal,
    SegmentAt,
    Unreserve,
    Value,
)

from ..base.descriptors import allow_more_after
from ..links.link import Link
from ..memory.segments import Location, SegmentGoneError, SegmentReader
from . import current
from .entries import Entry
from .exits import Exits
from .membership import Membership

if TYPE_CHECKING:
    from ..memory.segment_writer import Sealed, SegmentWriter, WriterStatistics

# From here on it takes milliseconds to make a new segment.
WORTH_A_QUESTION: Final = 8 << 20


class Surroundings(current.Session, Protocol):
    """What is asked of the process."""

    process: ProcessId

    @property
    def node(self) -> Link: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def exits(self) -> Exits: ...


class _Write(ObjectWrite):
    """One object on its way into shared memory."""

    __slots__ = ("owner", "reserved", "sealed", "seq")

    def __init__(self, owner: ProcessId, seq: int) -> None:
        super().__init__()
        self.owner = owner
        self.seq = seq
        self.sealed: Sealed | None = None
        # Bytes that the node holds for it.
        self.reserved = 0

    def has_room(self, size: int) -> tuple[Action, ...]:
        """The node has reserved so many bytes for it."""
        self.reserved = size
        return self.on(Event.RESERVED)

    def lies_in(self, sealed: Sealed) -> Sealed:
        """It was filled into this segment."""
        self.sealed = sealed
        self.on(Event.FILLED)
        return sealed

    def seal(self) -> Seal:
        """What the node is told of it."""
        sealed = self.sealed
        assert sealed is not None
        return Seal(
            self.owner, self.seq, sealed.serial, sealed.size, sealed.length, sealed.kept, sealed.fd, sealed.inode
        )


class SegmentsStatistics(NamedTuple):
    """A process's part in shared memory at one moment."""

    # Its own objects that it has written and that are wanted.
    own: int
    # Objects that it has mapped for refs.
    viewed: int
    # None before the first write.
    writer: WriterStatistics | None


class SegmentsClient:
    """The segments of one process."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        self._lock = threading.Lock()
        self._writer: SegmentWriter | None = None
        self._reader = SegmentReader()
        # What this process owns and wrote itself: serial and length by sequence number.
        self._own: dict[int, tuple[int, int]] = {}
        # Entries that have a view, as far as they live.
        self._viewed: weakref.WeakSet[Entry] = weakref.WeakSet()

    # ---- writing, from a user's thread

    def write(self, owner: ProcessId, seq: int, serialized: Serialized) -> int:
        """Lay a value into shared memory; the bytes that it takes. Blocks while room is made for it.

        Whatever this process says about the object from then on, the node knows it already, or hears of it before.
        Raises ObjectStoreFullError, or NodeDiedError.
        """
        process = self._process
        if process.node.closed:
            raise process.exits.node_died()
        writer = self._writer or self._make_writer()
        work = _Write(owner, seq)
        try:
            self._write(writer, work, serialized)
        except BaseException as error:
            self._thread.run_soon(partial(self._apply, work, Event.GIVEN_UP))
            if isinstance(error, exceptions.LinkError):
                raise process.exits.node_died() from None
            raise
        return serialized.nbytes

    def _write(self, writer: SegmentWriter, work: _Write, serialized: Serialized) -> None:
        process = self._process
        segment = writer.take(serialized.nbytes, work)
        if segment is None and serialized.nbytes >= WORTH_A_QUESTION and writer.may_come_back:
            # What was dropped a moment ago is on its way back, and comes before the answer.
            self._thread.call_sync(process.node.ask(Ping()))
            segment = writer.take(serialized.nbytes, work)
        if segment is None:
            self._thread.call_sync(self._reserve(work, writer.size_for(serialized.nbytes)))
            segment = writer.create(serialized.nbytes, work)
        sealed = work.lies_in(writer.fill(segment, serialized.data, serialized.buffers))
        is_own = work.owner == process.process
        if is_own:
            self._own[work.seq] = sealed.serial, sealed.length
        if is_own and not segment.is_new:
            # The node has the segment, so that it cannot refuse; and what it is told later comes later. To write to the
            # socket from here would cost more than the copy: meanwhile the other thread takes over.
            work.on(Event.TOLD)
            process.node.push(work.seal())
            process.node.post_flush()
            writer.adopted(sealed.serial)
        else:
            self._thread.call_sync(self._seal(writer, work, sealed))

    def _make_writer(self) -> SegmentWriter:
        # ctypes takes milliseconds to load, and most processes write nothing large.
        from ..memory.segment_writer import SegmentWriter

        with self._lock:
            if self._writer is None:
                self._writer = SegmentWriter(self._process.membership.store_limit, self._let_go)
            return self._writer

    def _let_go(self, serial: int) -> None:
        self._process.node.post(LetGo(serial))

    # ---- the same on the runtime loop

    async def _reserve(self, work: _Write, size: int) -> None:
        await _to_its_end(self._reserved(work, size))

    async def _reserved(self, work: _Write, size: int) -> exceptions.ActorrtError | None:
        try:
            await self._process.node.ask(Reserve(size))
        except exceptions.ActorrtError as error:
            return error
        self._perform(work, work.has_room(size))
        return None

    async def _seal(self, writer: SegmentWriter, work: _Write, sealed: Sealed) -> None:
        # It may have been given up before this step.
        if work.state is State.FILLED:
            await _to_its_end(self._asked(writer, work, sealed))

    async def _asked(self, writer: SegmentWriter, work: _Write, sealed: Sealed) -> exceptions.ActorrtError | None:
        work.on(Event.ASKED)
        try:
            await self._process.node.ask(work.seal())
        except exceptions.ActorrtError as error:
            self._apply(work, Event.REFUSED)
            return error
        writer.adopted(sealed.serial)
        self._apply(work, Event.ACCEPTED)
        return None

    def _apply(self, work: _Write, event: Event) -> None:
        self._perform(work, work.on(event))

    def _perform(self, work: _Write, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Action.EMPTY if self._writer is not None:
                    self._writer.give_up(work)
                case Action.UNRESERVE if work.reserved:
                    self._send(Unreserve(work.reserved))
                case Action.FREE:
                    self.free(work.owner, work.seq)
                case _:
                    pass

    def _send(self, message: Unreserve | FreeSegment | FreeItems | CloseSegment | OpenSegment) -> None:
        if not self._process.node.closed:
            self._process.node.post(message)

    def free(self, owner: ProcessId, seq: int, node: ProcessId = NO_PROCESS) -> None:
        """Nobody wants the object any more, which lies on `node`; from any thread."""
        if owner == self._process.process:
            self._own.pop(seq, None)
        is_here = not node or node == self._process.membership.node_id
        self._send(FreeSegment(owner, seq) if is_here else FreeSegment(owner, seq, node))

    def cut_off(self, item: int) -> None:
        """Item `item` of a stream never came here, and none behind it will; from any thread."""
        self._send(FreeItems(item))

    def back(self, serial: int, reuse: bool) -> None:
        """The node says what becomes of a segment that this process created."""
        if self._writer is not None:
            if reuse:
                self._writer.returned(serial)
            else:
                self._writer.recalled(serial)

    # ---- reading

    async def map(self, entry: Entry) -> None:
        """Map an object, read-only, as the entry's `view`. Runtime loop. Raises ObjectLostError or NodeDiedError.

        The mapping lasts as long as the view, and whatever was made from it.
        """
        owner, seq = key = entry.data.owner, entry.data.seq
        view = self._reader.find(key)
        if view is None and owner == self._process.process:
            view = self._open_own(seq)
        if view is None:
            try:
                place: SegmentAt = await self._process.node.ask(self._question(entry.data))
                view = self._open(entry, place)
            except exceptions.LinkError:
                raise self._process.exits.node_died() from None
        entry.view = view
        self._viewed.add(entry)

    def _question(self, value: Value) -> OpenSegment:
        if value.node in (NO_PROCESS, self._process.membership.node_id):
            return OpenSegment(value.owner, value.seq)
        return OpenSegment(value.owner, value.seq, value.size, value.home or value.node)

    def view_of(self, entry: Entry) -> memoryview:
        """The same from a user's thread, for a look. Blocks, unless somebody has it mapped."""
        view = self._reader.find((entry.data.owner, entry.data.seq))
        while view is None:
            self._thread.call_sync(self.map(entry))
            view = entry.view
        return view

    def drop_views(self) -> None:
        """Unmap what is mapped for refs alone; runtime loop."""
        for entry in tuple(self._viewed):
            entry.view = None
        self._viewed.clear()

    def _open_own(self, seq: int) -> memoryview | None:
        """What this process wrote itself it finds without asking, if it still holds the segment."""
        serial, length = self._own.get(seq, (0, 0))
        location = None if self._writer is None else self._writer.locate(serial, length)
        if location is None:
            return None
        owner = self._process.process
        self._send(OpenSegment(owner, seq))
        release = partial(self._released, CloseSegment(owner, serial))
        try:
            return self._map((owner, seq), location, release)
        except (OSError, SegmentGoneError):
            release()
            return None

    def _open(self, entry: Entry, place: SegmentAt) -> memoryview:
        key = entry.data.owner, entry.data.seq
        release = partial(self._released, CloseSegment(place.creator, place.serial))
        try:
            return self._map(key, Location(place.path, place.inode, place.length), release)
        except (OSError, SegmentGoneError) as error:
            release()
            if self._process.node.closed:
                raise self._process.exits.node_died() from None
            raise exceptions.ObjectLostError(entry.hex(), f"it could not be mapped: {error}") from error

    def _map(self, key: ObjectKey, location: Location, release: partial[None]) -> memoryview:
        try:
            return self._reader.open(key, location, release)
        except OSError as error:
            if not allow_more_after(error):
                if error.errno != errno.EMFILE or not self._viewed:
                    raise
                # Each mapping has a descriptor.
                self.drop_views()
            return self._reader.open(key, location, release)

    def _released(self, message: CloseSegment) -> None:
        """A mapping is gone. On any thread, in the middle of anything; nothing in a fork or after the end."""
        if current.maybe_runtime() is self._process:
            self._process.node.post(message)

    def statistics(self) -> SegmentsStatistics:
        """What this process holds of shared memory; from any thread."""
        writer = None if self._writer is None else self._writer.statistics()
        return SegmentsStatistics(len(self._own), len(self._viewed), writer)

    def close(self) -> None:
        """Give back what this process holds to fill it again. What it has mapped stays while somebody looks at it."""
        self.drop_views()
        if self._writer is not None:
            self._writer.close()


async def _to_its_end(question: Coroutine[Any, Any, exceptions.ActorrtError | None]) -> None:
    """Wait for what the node answers, and raise it if it is an error. It is heard though nobody waits any more."""
    error = await asyncio.shield(asyncio.ensure_future(question))
    if error is not None:
        raise error
