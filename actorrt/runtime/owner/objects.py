"""Ownership: which objects this process owns, who borrows them, and what it borrows itself.

The owner of an object keeps its value while anybody holds a ref: its own refs by Python's counting, those of other
processes by Borrow and Unborrow, by the rules of core/ownership.py. A borrower asks the owner for the value. Segments
are in segments_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from msgspec import structs

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.item_numbers import first_item
from actorrt.core.object_state import PRESENT, RAISED, REMOTE, SHARED, State
from actorrt.core.ownership import BE_GONE, BORROW, KEEP, LET_GO, PIN, SHOW, Action, Book, Borrows, Outbox, Tell
from actorrt.types import ActorKey, ObjectKey, ProcessId, owner_of
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    ACTOR,
    ERROR,
    INLINE,
    SEGMENT,
    AnyMessage,
    Borrow,
    GetObject,
    ObjectIs,
    Ping,
    RefsTaken,
    Unborrow,
    UnborrowActor,
    Value,
    ValueKind,
)

from ..base.explain import explain_value
from ..base.loop_bridge import bridge_to
from ..links.link import Link
from ..links.peers import Peers
from . import current
from .calls import Call, value_of
from .entries import Entry
from .exits import Exits
from .membership import Membership
from .references import ObjectRef
from .segments_client import SegmentsClient
from .snapshots import take_snapshot
from .token import Token

# The owners of what is unpickled while this is set: they have to know of the borrow before the call is answered.
new_borrows: ContextVar[list[ProcessId] | None] = ContextVar("actorrt_new_borrows", default=None)

# The state of an object whose value has come so.
_CAME: Final[Mapping[ValueKind, State]] = {INLINE: PRESENT, SEGMENT: SHARED, ERROR: RAISED}


class Surroundings(current.Session, Protocol):
    """What is asked of the process."""

    process: ProcessId
    settings: Settings

    @property
    def membership(self) -> Membership: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def exits(self) -> Exits: ...
    @property
    def segments(self) -> SegmentsClient: ...


class ObjectsStatistics(NamedTuple):
    """What a process owns for others and borrows from them, at one moment."""

    # Own objects that other processes may ask for.
    exported: int
    # Of those, borrowed by others; and how many processes borrow one, summed up.
    lent: int
    borrowers: int
    # Own objects whose copies nobody counts: kept as long as the process lives.
    pinned: int
    # Objects of others.
    borrowed: int
    # Messages to owners whose links are being opened.
    unsent: int


class Objects:
    """All objects that this process owns or borrows."""

    def __init__(self, surroundings: Surroundings, hold_actor: Callable[[ActorKey], object]) -> None:
        """`hold_actor` keeps an actor whose handle came inside of a value, as long as what it gives is kept."""
        self._process = surroundings
        self._thread = surroundings.thread
        self._hold_actor = hold_actor
        self._seq = itertools.count(1)
        # Each call needs one: no step of Python's more than that.
        self.next_seq: Callable[[], int] = self._seq.__next__
        self._runs = itertools.count(1)
        self._lock = threading.Lock()
        # Own objects that other processes may ask for, and those that are borrowed, as far as they live.
        self._known: weakref.WeakValueDictionary[ObjectKey, Entry] = weakref.WeakValueDictionary()
        # How they stand, and the own ones that others borrow.
        self._book = Book(surroundings.process)
        self._lent: dict[int, Entry] = {}
        self._pinned: dict[ObjectKey, Entry] = {}
        # Changed under the lock.
        self._borrows = Borrows()
        self._outbox: Outbox[AnyMessage] = Outbox()

    def next_seqs(self, count: int) -> int:
        """The first of so many numbers in a row, at least one; from any thread."""
        # In one step: between two of its own, Python may let another thread take a number.
        first, *_ = itertools.islice(self._seq, max(1, count))
        return first

    def next_items(self) -> int:
        """The number of the first large item of another run of a streaming call."""
        return first_item(next(self._runs))

    def new_entry(self) -> Entry:
        return Entry(self._process.process, next(self._seq))

    # ---- put

    def put(self, value: Any) -> ObjectRef[Any]:
        try:
            serialized = codec.serialize(value)
        except Exception as error:
            raise explain_value("the value that was put", value, error) from error
        return ObjectRef(self.put_serialized(serialized))

    def put_serialized(self, serialized: Serialized) -> Entry:
        if serialized.nbytes > self._process.settings.inline_limit:
            return self.put_segment(serialized)
        entry = self.new_entry()
        entry.hold = serialized.refs or None
        entry.settle(PRESENT, codec.pack(serialized))
        return entry

    def put_segment(self, serialized: Serialized) -> Entry:
        """Lay a value into shared memory; from any thread.

        On the runtime's own thread, which must not wait, the entry is not done yet; it is settled with what goes wrong.
        """
        entry = self.new_entry()
        value = Value(SEGMENT, b"", entry.owner, entry.seq, serialized.nbytes, None, self._process.membership.node_id)
        entry.hold = [self._claim(value), *serialized.refs]
        if self._thread.on_own_thread():
            take_snapshot(serialized)
            self._thread.spawn_here(self._write_aside(entry, value, serialized))
        else:
            self._process.segments.write(entry.owner, entry.seq, serialized)
            entry.settle(SHARED, value)
        return entry

    async def _write_aside(self, entry: Entry, value: Value, serialized: Serialized) -> None:
        write = self._process.segments.write
        try:
            await self._thread.loop.run_in_executor(None, write, entry.owner, entry.seq, serialized)
        except asyncio.CancelledError:
            entry.settle(RAISED, exceptions.ObjectLostError(entry.hex(), "actorrt was shut down"))
            raise
        except Exception as error:
            entry.settle(RAISED, error)
        else:
            entry.settle(SHARED, value)

    def _claim(self, value: Value) -> Token:
        return Token(self._process, partial(self._process.segments.free, value.owner, value.seq, value.node))

    # ---- outcomes of calls

    def settle(self, entry: Entry, value: Value, call: Call, index: int = 0) -> None:
        """A value came as the outcome of a call, or as item `index` of a stream; runtime loop."""
        holds: list[Any] = []
        if value.refs:
            holds += [self._hold(held, seq) for held, seq in value.refs]
            link: Link | None = call.link
            if link is not None and not link.closed:
                owners = {owner_of(held) for held, _ in value.refs}
                self._thread.spawn_here(self._take_refs(link, call.message.seq, index, owners))
        if value.kind == SEGMENT and (value.owner, value.seq) == (entry.owner, entry.seq):
            if value.node != (home := self._process.membership.node_id):
                value = structs.replace(value, home=home)
            holds.append(self._claim(value))
        entry.hold = holds or None
        _settle(entry, value)

    def _hold(self, held: bytes, seq: int) -> Any:
        """Keep what is named inside a value that came, whether or not the value is ever looked at."""
        return self._hold_actor(ActorKey(held)) if seq == ACTOR else self.borrow(ProcessId(held), seq)

    async def _take_refs(self, link: Link, seq: int, index: int, owners: set[ProcessId]) -> None:
        await self.confirm(owners - {link.peer})
        if not link.closed:
            link.send(RefsTaken(seq, index))

    # ---- refs that travel

    def export(self, entry: Entry, collected: bool) -> None:
        """A ref is being pickled; from any thread."""
        key = (entry.owner, entry.seq)
        for action in self._book.exported(key, collected):
            if action is SHOW:
                with self._lock:
                    self._known[key] = entry
            elif action is PIN:
                self._pinned[key] = entry

    def borrow(self, owner: ProcessId, seq: int) -> ObjectRef[Any]:
        """A ref was unpickled; from any thread."""
        key = (owner, seq)
        entry = self._known.get(key)
        if entry is not None:
            # One that is here needs nothing: of 10,000 refs in a value each comes this way.
            self.note(owner)
            return ObjectRef(entry)
        with self._lock:
            entry = self._known.get(key)
            actions = self._book.unpickled(key, entry is not None)
            if entry is None:
                entry = Entry(owner, seq, REMOTE)
            if BORROW in actions:
                self._known[key] = entry
                self._borrows.told(owner)
        for action in actions:
            if action is BORROW:
                entry.hold = [Token(self._process, partial(self.unborrowing, owner, Unborrow(seq)))]
                self._post(owner, Borrow(seq))
            elif action is BE_GONE:
                entry.settle(RAISED, exceptions.ObjectFreedError(entry.hex(), "its last ref is gone"))
        self.note(owner)
        return ObjectRef(entry)

    def borrowing(self, owner: ProcessId, message: AnyMessage) -> None:
        """Tell an owner that something of its own is held here; from any thread."""
        with self._lock:
            self._borrows.told(owner)
        self._post(owner, message)
        self.note(owner)

    def _post(self, owner: ProcessId, message: AnyMessage) -> None:
        # Queued before this returns, so that whatever is sent to the owner later arrives later: it may be the reply
        # after which the owner would forget what was borrowed.
        link = self._process.peers.get(owner)
        if link is not None:
            link.post(message)
        else:
            self._thread.run_soon(partial(self.tell, owner, message))

    def note(self, owner: ProcessId) -> None:
        """Something of this owner's was unpickled: whoever answers a call has to see that the owner knows of it."""
        noted = new_borrows.get()
        if noted is not None and self._borrows.is_unsure(owner):
            noted.append(owner)

    def unborrowing(self, owner: ProcessId, message: AnyMessage) -> None:
        """Tell an owner that it is not held here any more; runtime loop."""
        with self._lock:
            others = self._borrows.before_dropping(owner)
        if others:
            self._thread.spawn_here(self._unborrow_after(others, owner, message))
        else:
            self.tell(owner, message)

    async def _unborrow_after(self, others: set[ProcessId], owner: ProcessId, message: AnyMessage) -> None:
        await self.confirm(others)
        self.tell(owner, message)

    def tell(self, owner: ProcessId, message: AnyMessage) -> None:
        """Send to an owner, in order also while the link to it is being opened; runtime loop."""
        peers = self._process.peers
        link = peers.get(owner)
        held = not isinstance(message, Unborrow | UnborrowActor)
        match self._outbox.tell(owner, message, held, link is not None, owner in peers.dead):
            case Tell.SEND if link is not None:
                link.send(message)
            case Tell.DIAL:
                self._thread.spawn_here(self._dial(owner))
            case _:
                pass

    async def _dial(self, owner: ProcessId) -> None:
        with contextlib.suppress(exceptions.LinkError):
            await self._process.peers.link_to(owner)
        self._deliver(owner)

    def _deliver(self, owner: ProcessId) -> None:
        messages = self._outbox.take(owner)
        link = self._process.peers.get(owner)
        if link is not None:
            for message in messages:
                link.send(message)

    async def confirm(self, owners: Iterable[ProcessId]) -> None:
        """Wait until these owners know what was borrowed from them so far."""
        for owner in owners:
            with self._lock:
                question = self._borrows.ask(owner)
            if question is not None:
                # Of an owner that cannot be reached nothing is held any more.
                with contextlib.suppress(exceptions.ActorrtError):
                    link = await self._process.peers.link_to(owner)
                    self._deliver(owner)
                    await link.ask(Ping())
                self._borrows.sure(question)

    # ---- the owner's side

    def borrowed_by(self, borrower: ProcessId, seq: int, delta: int) -> None:
        """Another process says that it holds an own object once more, or once less; runtime loop."""
        entry = self._find(seq)
        happens = self._book.lent if delta > 0 else self._book.returned
        self._perform(seq, entry, happens(seq, borrower, entry is not None))

    def _find(self, seq: int) -> Entry | None:
        """An own object that others may ask for."""
        with self._lock:
            return self._known.get((self._process.process, seq))

    def _perform(self, seq: int, entry: Entry | None, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if action is KEEP and entry is not None:
                self._lent[seq] = entry
            elif action is LET_GO:
                del self._lent[seq]

    def cancel(self, seq: int, force: bool, recursive: bool) -> None:
        """A borrower wants the call that makes an object cancelled."""
        entry = self._find(seq)
        if entry is not None:
            self._process.cancel(entry, force, recursive)

    @property
    def is_borrowed(self) -> bool:
        """True while other processes hold refs to objects that this one owns."""
        return self._book.lends

    @property
    def is_lending(self) -> bool:
        """True while other processes hold, or may come to hold, refs to objects that this one owns."""
        return self._book.lends or bool(self._pinned)

    def borrowers_of(self, entry: Entry) -> Mapping[ProcessId, int]:
        """The other processes that hold an own object, and how often; runtime loop."""
        return self._book.borrowers(entry.seq)

    def is_pinned(self, entry: Entry) -> bool:
        """Whether it is kept as long as this process lives."""
        return (entry.owner, entry.seq) in self._pinned

    def statistics(self) -> ObjectsStatistics:
        """How much of each kind there is; runtime loop."""
        with self._lock:
            owners = [owner for owner, _ in self._known]
        exported = owners.count(self._process.process)
        lent, borrowers = self._book.loans
        return ObjectsStatistics(
            exported, lent, borrowers, len(self._pinned), len(owners) - exported, len(self._outbox)
        )

    def peer_lost(self, peer: ProcessId) -> None:
        """The link to a process is gone: nothing is on its way there any more."""
        self._outbox.take(peer)
        with self._lock:
            self._borrows.lost(peer)

    def borrower_ended(self, peer: ProcessId) -> None:
        """A process has ended: it borrows nothing any more."""
        for seq, actions in self._book.ended(peer):
            self._perform(seq, None, actions)

    async def give(self, seq: int) -> ObjectIs:
        """The answer to GetObject: waits until the value is there."""
        entry = self._find(seq)
        if entry is None:
            raise exceptions.ObjectFreedError(f"{self._process.process.hex()}{seq:016x}", "its last ref is gone")
        await self.settled(entry)
        return ObjectIs(value_of(entry))

    async def settled(self, entry: Entry) -> None:
        """Wait on the runtime loop until an entry is done."""
        if entry.state == REMOTE:
            self.request(entry)
        if not entry.done:
            loop = self._thread.loop
            future: asyncio.Future[None] = loop.create_future()
            waiter = partial(bridge_to(loop).complete, future)
            if entry.add_waiter(waiter):
                try:
                    await future
                finally:
                    entry.remove_waiter(waiter)

    # ---- the borrower's side

    def request(self, entry: Entry) -> None:
        """Have a borrowed object's value fetched; from any thread, any number of times."""
        if entry.asked_for():
            self._thread.run_soon(partial(self._spawn_fetch, entry))

    def _spawn_fetch(self, entry: Entry) -> None:
        self._thread.spawn_here(self._fetch(entry))

    async def _fetch(self, entry: Entry) -> None:
        try:
            answer: ObjectIs = await self._process.peers.ask(entry.owner, GetObject(entry.seq))
        except exceptions.LinkError:
            cause, _ = await self._process.exits.cause(entry.owner)
            entry.settle(RAISED, exceptions.OwnerDiedError(entry.hex(), f"its owner ended: {cause}"))
        except exceptions.ActorrtError as error:
            entry.settle(RAISED, error)
        except asyncio.CancelledError:
            # This runtime ends: whoever waits in another thread has to know.
            entry.settle(RAISED, exceptions.ObjectLostError(entry.hex(), "actorrt was shut down"))
            raise
        else:
            _settle(entry, answer.value)


def _settle(entry: Entry, value: Value) -> None:
    """A value came, in whichever form."""
    state = _CAME[value.kind]
    entry.settle(state, value if state is SHARED else value.data)
