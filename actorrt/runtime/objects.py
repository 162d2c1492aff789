"""Ownership: which objects this process owns, who borrows them, and what it borrows itself.

The owner of an object keeps its value while anybody holds a ref: its own refs by Python's counting, those of other
processes by Borrow and Unborrow. A borrower asks the owner for the value. Segments are in segments_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import weakref
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from actorrt import exceptions
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    INLINE,
    SEGMENT,
    AnyMessage,
    Borrow,
    GetObject,
    ObjectIs,
    Ping,
    RefsTaken,
    Unborrow,
    Value,
)

from . import references
from .calls import Call, value_of
from .explain import explain_value
from .link import Link
from .references import REMOTE, Entry, ObjectRef

if TYPE_CHECKING:
    from .runtime import Runtime

# Refs that are unpickled while this is set are new borrows of the call that is being set up.
new_borrows: ContextVar[list[bytes] | None] = ContextVar("actorrt_new_borrows", default=None)


class Token:
    """Calls a function on the runtime loop once it is garbage itself."""

    __slots__ = ("_release", "_runtime")

    def __init__(self, runtime: Runtime, release: Any) -> None:
        self._runtime = runtime
        self._release = release

    def __del__(self) -> None:
        self._runtime.release(self._release)


class Objects:
    """All objects that this process owns or borrows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._seq = itertools.count(1)
        self._lock = threading.Lock()
        # Owned objects that other processes may ask for.
        self._exported: weakref.WeakValueDictionary[int, Entry] = weakref.WeakValueDictionary()
        # Owned objects that others borrow: kept, with the count of each borrower.
        self._borrowers: dict[int, tuple[Entry, dict[bytes, int]]] = {}
        self._borrowed: weakref.WeakValueDictionary[tuple[bytes, int], Entry] = weakref.WeakValueDictionary()
        # Pickled outside of any call: nobody will say when the copy is gone.
        self._pinned: dict[tuple[bytes, int], Entry] = {}

    def next_seq(self) -> int:
        return next(self._seq)

    def new_entry(self) -> Entry:
        return Entry(self._runtime.process, next(self._seq))

    # ---- put

    def put(self, value: Any) -> ObjectRef[Any]:
        try:
            serialized = codec.serialize(value)
        except Exception as error:
            raise explain_value("the value that was put", value, error) from error
        return ObjectRef(self.put_serialized(serialized))

    def put_serialized(self, serialized: Serialized) -> Entry:
        if serialized.nbytes > self._runtime.settings.inline_limit:
            return self.put_segment(serialized)
        entry = self.new_entry()
        entry.hold = serialized.refs or None
        entry.settle(references.INLINE, codec.pack(serialized))
        return entry

    def put_segment(self, serialized: Serialized) -> Entry:
        """Lay a value into shared memory; from a user's thread."""
        entry = self.new_entry()
        size = self._runtime.segments.write(entry.owner, entry.seq, serialized)
        value = Value(SEGMENT, b"", entry.owner, entry.seq, size)
        entry.hold = [self._claim(value), *serialized.refs]
        entry.settle(references.SEGMENT, value)
        return entry

    def _claim(self, value: Value) -> Token:
        return Token(self._runtime, partial(self._runtime.segments.free, value.owner, value.seq))

    # ---- outcomes of calls

    def settle(self, entry: Entry, value: Value, call: Call) -> None:
        """A value came as the outcome of a call; runtime loop."""
        holds: list[Any] = []
        if value.refs:
            holds += [self.borrow(owner, seq) for owner, seq in value.refs]
            link: Link | None = call.link
            if link is not None and not link.closed:
                self._runtime.spawn_here(self._take_refs(link, call.message.seq, {r[0] for r in value.refs}))
        if value.kind == SEGMENT:
            if value.owner == entry.owner and value.seq == entry.seq:
                holds.append(self._claim(value))
            entry.hold = holds
            entry.settle(references.SEGMENT, value)
        elif value.kind == INLINE:
            entry.hold = holds or None
            entry.settle(references.INLINE, value.data)
        else:
            entry.settle(references.ERROR, value.data)

    async def _take_refs(self, link: Link, seq: int, owners: set[bytes]) -> None:
        await self.confirm(owners - {link.peer})
        if not link.closed:
            link.send(RefsTaken(seq))

    # ---- refs that travel

    def export(self, entry: Entry, collected: bool) -> None:
        """A ref is being pickled; from any thread."""
        if entry.owner == self._runtime.process:
            with self._lock:
                self._exported[entry.seq] = entry
        if not collected:
            self._pinned[entry.owner, entry.seq] = entry

    def borrow(self, owner: bytes, seq: int) -> ObjectRef[Any]:
        """A ref was unpickled; from any thread."""
        if owner == self._runtime.process:
            with self._lock:
                entry = self._exported.get(seq)
            if entry is None:
                entry = Entry(owner, seq)
                entry.settle(references.ERROR, exceptions.ObjectFreedError(entry.hex(), "its last ref is gone"))
            return ObjectRef(entry)
        key = (owner, seq)
        with self._lock:
            entry = self._borrowed.get(key)
            if entry is not None:
                return ObjectRef(entry)
            entry = self._borrowed[key] = Entry(owner, seq, REMOTE)
        entry.hold = [Token(self._runtime, partial(self.unborrowing, owner, Unborrow(seq)))]
        noted = new_borrows.get()
        if noted is not None:
            noted.append(owner)
        self.borrowing(owner, Borrow(seq))
        return ObjectRef(entry)

    def borrowing(self, owner: bytes, message: AnyMessage) -> None:
        """Tell an owner that something of its own is held here; from any thread."""
        self._runtime.run_soon(partial(self._tell_owner, owner, message))

    def unborrowing(self, owner: bytes, message: AnyMessage) -> None:
        """Tell an owner that it is not held here any more; runtime loop."""
        link = self._runtime.peers.get(owner)
        if link is not None:
            link.send(message)

    def _tell_owner(self, owner: bytes, message: AnyMessage) -> None:
        link = self._runtime.peers.get(owner)
        if link is not None:
            link.send(message)
        elif owner not in self._runtime.peers.dead:
            self._runtime.spawn_here(self._dial_and_tell(owner, message))

    async def _dial_and_tell(self, owner: bytes, message: AnyMessage) -> None:
        with contextlib.suppress(exceptions.LinkError):
            link = await self._runtime.peers.link_to(owner)
            link.send(message)

    async def confirm(self, owners: set[bytes]) -> None:
        """Wait until these owners know what was borrowed from them so far."""
        for owner in owners:
            if owner != self._runtime.process:
                with contextlib.suppress(exceptions.ActorrtError):
                    link = await self._runtime.peers.link_to(owner)
                    await link.ask(Ping())

    # ---- the owner's side

    def borrowed_by(self, borrower: bytes, seq: int, delta: int) -> None:
        kept = self._borrowers.get(seq)
        if kept is None:
            with self._lock:
                entry = self._exported.get(seq)
            if entry is None:
                return
            kept = self._borrowers[seq] = (entry, {})
        counts = kept[1]
        count = counts.get(borrower, 0) + delta
        if count:
            counts[borrower] = count
        else:
            counts.pop(borrower, None)
        if not counts:
            del self._borrowers[seq]

    def peer_lost(self, peer: bytes) -> None:
        for seq, (_, counts) in list(self._borrowers.items()):
            if counts.pop(peer, None) and not counts:
                del self._borrowers[seq]

    async def give(self, seq: int) -> ObjectIs:
        """The answer to GetObject: waits until the value is there."""
        with self._lock:
            entry = self._exported.get(seq)
        if entry is None:
            raise exceptions.ObjectFreedError(f"{self._runtime.process.hex()}{seq:016x}", "its last ref is gone")
        await self.settled(entry)
        return ObjectIs(value_of(entry))

    async def settled(self, entry: Entry) -> None:
        """Wait on the runtime loop until an entry is done."""
        if entry.state == REMOTE:
            self.request(entry)
        if not entry.done:
            loop = self._runtime.loop
            future: asyncio.Future[None] = loop.create_future()
            waiter = partial(references.bridge_to(loop).complete, future)
            if entry.add_waiter(waiter):
                try:
                    await future
                finally:
                    entry.remove_waiter(waiter)

    # ---- the borrower's side

    def request(self, entry: Entry) -> None:
        """Have a borrowed object's value fetched; from any thread, any number of times."""
        with self._lock:
            if entry.state != REMOTE:
                return
            entry.state = references.PENDING
        self._runtime.run_soon(partial(self._spawn_fetch, entry))

    def _spawn_fetch(self, entry: Entry) -> None:
        self._runtime.spawn_here(self._fetch(entry))

    async def _fetch(self, entry: Entry) -> None:
        try:
            link = await self._runtime.peers.link_to(entry.owner)
            answer: ObjectIs = await link.ask(GetObject(entry.seq))
        except exceptions.LinkError:
            cause, _ = await self._runtime.exit_cause(entry.owner)
            entry.settle(references.ERROR, exceptions.OwnerDiedError(entry.hex(), f"its owner ended: {cause}"))
        except exceptions.ActorrtError as error:
            entry.settle(references.ERROR, error)
        else:
            value = answer.value
            if value.kind == INLINE:
                entry.settle(references.INLINE, value.data)
            elif value.kind == SEGMENT:
                entry.settle(references.SEGMENT, value)
            else:
                entry.settle(references.ERROR, value.data)
