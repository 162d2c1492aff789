"""The node's part in objects that lie on several nodes: messages and bytes in, the decisions of core performed.

core/copies.py decides as the home of an object, core/transfers.py as the node that fetches one. Large values never
share a link: each copy comes by a GET of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import mmap
import os
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.copies import FREED, OWNER_ENDED, AskOwner, Copies, Free, Name
from actorrt.core.copies import Action as HomeAction
from actorrt.core.storage import UnknownObjectError
from actorrt.core.transfers import SILENT_S, Action, Fetch, Fetches, Serving, State, Step
from actorrt.types import ObjectKey, ProcessId, SegmentId
from actorrt.wire.messages import CopyAt, DropCopy, FreeCopy, GetObject, HaveCopy, ObjectIs, WantCopy
from actorrt.wire.object_stream import MARK, MISSING, NOT_NOW, OK, PARTIAL, Head, Wanted, mark_of, wanted_in

from ..links.peers import Peers
from ..memory.segments import Location
from .object_reading import Reading

if TYPE_CHECKING:
    from aiohttp import web

    from ..memory.incoming import IncomingSegment

logger = logging.getLogger("actorrt")

CopyMessage = WantCopy | CopyAt | HaveCopy | DropCopy | FreeCopy
# As much as one write takes, so that no gigabyte holds up the loop.
PIECE: Final = 1 << 20
_ERRORS: Final = {FREED: exceptions.ObjectFreedError, OWNER_ENDED: exceptions.OwnerDiedError}


class Store(Protocol):
    """The node's own shared memory."""

    async def reserve_for_copy(self, length: int) -> None:
        """Wait for room. Raises ObjectStoreFullError."""
        ...

    def unreserve_copy(self, length: int) -> None: ...
    def adopt_copy(self, serial: int, incoming: IncomingSegment) -> None:
        """Hold a descriptor of it. Raises OSError if none is left."""
        ...

    def drop_copy(self, serial: int) -> None:
        """Close that again."""
        ...

    def seal_copy(self, key: ObjectKey, serial: int, size: int, length: int) -> None: ...
    def free(self, key: ObjectKey) -> None: ...
    def has(self, key: ObjectKey) -> bool: ...
    def open_here(self, key: ObjectKey) -> tuple[SegmentId, Location, bool]:
        """Where an object lies, and whether in memory; until `close_here`. Raises UnknownObjectError."""
        ...

    def close_here(self, segment: SegmentId) -> None: ...


class _Work:
    """What this process does for one copy."""

    __slots__ = ("error", "incoming", "moved", "reading", "room", "serial")

    def __init__(self) -> None:
        # Waits for room.
        self.room: asyncio.Task[None] | None = None
        self.incoming: IncomingSegment | None = None
        self.serial = 0
        self.reading: Reading | None = None
        self.error: exceptions.ActorrtError | None = None
        # Set, and replaced, when there is more of it, or will be no more.
        self.moved = asyncio.Event()

    def move(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


class NodeTransfers:
    """Everything runs on the node's loop."""

    def __init__(self, peers: Peers, store: Store) -> None:
        self._node = peers.process
        self._peers = peers
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._copies = Copies()
        self._fetches = Fetches(self._node)
        self._works: dict[Fetch, _Work] = {}
        self._serials = itertools.count(1)
        self._due: deque[Action] = deque()
        self._gone: list[Fetch] = []
        self._closed = False
        self._dialling: set[ProcessId] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # ---- for processes of this node

    async def fetch(self, key: ObjectKey, home: ProcessId, size: int) -> None:
        """Wait until an object is here, which lies elsewhere. Raises ObjectLostError and ObjectStoreFullError."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        copy, actions = self._fetches.wanted(key, home, size, waiter)
        self._act(actions)
        try:
            await waiter
        finally:
            self._act(self._fetches.left(copy, waiter))

    def sealed_here(self, key: ObjectKey) -> None:
        """A process of this node has made an object that may have been on its way here."""
        if self._fetches:
            self._act(self._fetches.sealed_here(key))

    def freed(self, key: ObjectKey, node: ProcessId) -> None:
        """An owner of this node frees an object of its own, which lies on `node` if it is not here."""
        self._act_at_home(self._copies.freed(key))
        if node and node != self._node:
            self._tell(node, FreeCopy(*key, FREED))

    def owner_died(self, owner: ProcessId) -> None:
        self._act_at_home(self._copies.owner_died(owner))

    # ---- other nodes

    def take(self, node: ProcessId, message: CopyMessage) -> None:
        """A message of another node, or of this one to itself."""
        key = message.owner, message.seq
        match message:
            case WantCopy():
                self._act_at_home(self._copies.asked(key, node, message.failed, missing=message.missing))
            case HaveCopy():
                self._act_at_home(self._copies.has(key, node, message.version))
            case DropCopy():
                self._act_at_home(self._copies.dropped(key, node))
            case CopyAt():
                self._act(self._fetches.source(key, message.version, message.source))
            case FreeCopy():
                if self._fetches.get(key) is None:
                    self._store.free(key)
                self._act(self._fetches.freed(key, message.cause))

    def link_lost(self, node: ProcessId) -> None:
        """What was on the way to another node, or from there, may be lost."""
        self._copies.link_lost(node)
        if any(copy.home == node for copy in self._fetches):
            self._dial(node)

    def node_died(self, node: ProcessId) -> None:
        """Another node has ended for good, or counts as that."""
        self._act_at_home(self._copies.node_died(node))
        self._act(self._fetches.home_died(node, OWNER_ENDED))

    def facts(self) -> dict[str, int]:
        home, here = self._copies.statistics(), self._fetches.statistics()
        return {
            "spread": home.objects,
            "copies": here.copies,
            "fetching": here.fetching,
            "serving": here.serving,
        }

    def close(self) -> None:
        """Stop all that comes and goes. Memory goes with its node."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for work in self._works.values():
            if work.reading is not None:
                work.reading.stop()
            self._close_memory(work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell(self, node: ProcessId, message: CopyMessage) -> None:
        if node == self._node:
            self._loop.call_soon(self.take, node, message)
        elif (link := self._peers.get(node)) is not None:
            link.send(message)
        else:
            self._dial(node, message)

    def _dial(self, node: ProcessId, message: CopyMessage | None = None) -> None:
        if self._closed:
            return
        # What waits for the link is said again then; but for what only the home knows.
        if isinstance(message, FreeCopy) or node not in self._dialling:
            self._dialling.add(node)
            self._spawn(self._link_to(node, message if isinstance(message, FreeCopy) else None))

    async def _link_to(self, node: ProcessId, message: FreeCopy | None) -> None:
        try:
            link = await self._peers.link_to(node)
        except exceptions.LinkError:
            self.node_died(node)
        else:
            if message is not None:
                link.send(message)
            self._act(self._fetches.linked_again(node))
        finally:
            self._dialling.discard(node)

    # ---- the home's decisions

    def _act_at_home(self, actions: tuple[HomeAction, ...]) -> None:
        for action in actions:
            match action:
                case AskOwner():
                    self._spawn(self._ask_owner(action))
                case Name():
                    self._tell(action.node, CopyAt(*action.key, action.version, action.source))
                case Free():
                    self._tell(action.node, FreeCopy(*action.key, action.cause))

    async def _ask_owner(self, ask: AskOwner) -> None:
        owner, number = ask.key
        try:
            answer: ObjectIs = await self._peers.ask(owner, GetObject(number))
        except exceptions.LinkError:
            self._act_at_home(self._copies.not_found(ask.key, ask.number, OWNER_ENDED))
        except exceptions.ObjectFreedError:
            self._act_at_home(self._copies.not_found(ask.key, ask.number, FREED))
        except exceptions.ActorrtError as error:
            self._act_at_home(self._copies.not_found(ask.key, ask.number, str(error)))
        else:
            self._act_at_home(self._copies.found(ask.key, ask.number, answer.value.node or self._node))

    # ---- the decisions about what is fetched

    def _act(self, actions: tuple[Action, ...]) -> None:
        # What is being performed stays in front until it is done.
        under_way = bool(self._due)
        self._due.extend(actions)
        if under_way or not actions or self._closed:
            return
        while self._due:
            try:
                self._perform(self._due[0])
            except Exception:
                logger.exception("%r could not be performed", self._due[0])
            finally:
                self._due.popleft()
        for copy in self._gone:
            if (work := self._works.pop(copy, None)) is not None:
                work.move()
        self._gone.clear()

    def _perform(self, action: Action) -> None:
        copy = action.copy
        work = self._works.get(copy)
        if work is None:
            work = self._works[copy] = _Work()
        match action.step:
            case Step.MAKE_ROOM:
                work.room = self._spawn(self._make_room(copy, work))
            case Step.CALL_OFF:
                if work.room is not None:
                    work.room.cancel()
            case Step.ASK:
                self._loop.call_later(copy.pause_s, self._ask, copy) if copy.pause_s else self._ask(copy)
            case Step.TELL_HAVE:
                self._tell(copy.home, HaveCopy(*copy.key, copy.version))
            case Step.TELL_DROP:
                self._tell(copy.home, DropCopy(*copy.key))
            case Step.READ:
                self._read(copy, work)
            case Step.STOP_READING:
                if work.reading is not None:
                    work.reading.stop()
                    work.reading = None
            case Step.SEAL:
                assert work.incoming is not None
                self._store.seal_copy(copy.key, work.serial, work.incoming.size, work.incoming.length)
                self._close_memory(work)
            case Step.FREE:
                self._store.free(copy.key)
            case Step.DISCARD:
                assert work.incoming is not None
                self._store.drop_copy(work.serial)
                self._store.unreserve_copy(work.incoming.length)
                self._close_memory(work)
            case Step.WAKE:
                for waiter in copy.waiters:
                    _settle(waiter, None)
            case Step.FAIL:
                for waiter in copy.waiters:
                    _settle(waiter, _error_for(copy, work))
        if copy.state is State.GONE:
            self._gone.append(copy)

    @staticmethod
    def _close_memory(work: _Work) -> None:
        if work.incoming is not None:
            work.incoming.close()
            work.incoming = None
        work.move()

    async def _make_room(self, copy: Fetch, work: _Work) -> None:
        # ctypes takes milliseconds to load, and most nodes fetch nothing.
        from ..memory.incoming import IncomingSegment

        length = copy.size
        try:
            await self._store.reserve_for_copy(length)
        except exceptions.ObjectStoreFullError as error:
            work.error = error
            self._act(self._fetches.no_room(copy, str(error)))
            return
        making = self._loop.run_in_executor(None, IncomingSegment, length)
        try:
            incoming = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_close_made)
            self._store.unreserve_copy(length)
            raise
        except OSError as error:
            self._no_memory(copy, work, length, error)
            return
        work.serial = next(self._serials)
        try:
            self._store.adopt_copy(work.serial, incoming)
        except OSError as error:
            incoming.close()
            self._no_memory(copy, work, length, error)
            return
        work.incoming = incoming
        self._act(self._fetches.room(copy))

    def _no_memory(self, copy: Fetch, work: _Work, length: int, error: OSError) -> None:
        self._store.unreserve_copy(length)
        work.error = exceptions.ObjectStoreFullError(length, length, error.strerror or str(error))
        self._act(self._fetches.no_room(copy, str(work.error)))

    def _ask(self, copy: Fetch) -> None:
        if copy.state is State.ASKING:
            self._tell(copy.home, WantCopy(*copy.key, copy.failed, copy.missing))

    # ---- bytes that come

    def _read(self, copy: Fetch, work: _Work) -> None:
        assert work.incoming is not None
        wanted = Wanted(copy.key, copy.version, copy.got)
        work.reading = Reading(_Taker(self, copy), wanted, work.incoming)
        self._spawn(self._connect(copy, copy.source, work.reading))
        if self._timer is None:
            self._timer = self._loop.call_later(SILENT_S, self._look)

    async def _connect(self, copy: Fetch, source: ProcessId, reading: Reading) -> None:
        try:
            await self._peers.connect(lambda: reading, source)
        except (exceptions.LinkError, OSError):
            if not reading.stopped:
                self.broke(copy, missing=False)

    def _look(self) -> None:
        self._timer = None
        reading = [(copy, work.reading) for copy, work in self._works.items() if work.reading is not None]
        for copy, one in reading:
            if one.is_alive:
                one.is_alive = False
            else:
                self.broke(copy, missing=False)
        if reading:
            self._timer = self._loop.call_later(SILENT_S, self._look)

    def begins(self, copy: Fetch, start: int, head: Head) -> None:
        """A source has answered."""
        if head.status in (OK, PARTIAL):
            self._act(self._fetches.begins(copy, head.mark, start + head.length))
        else:
            self.broke(copy, missing=head.status == MISSING)

    def came(self, copy: Fetch, nbytes: int) -> None:
        """So many bytes more of it are in its memory."""
        self._act(self._fetches.came(copy, nbytes))
        if copy.takers and (work := self._works.get(copy)) is not None:
            work.move()

    def broke(self, copy: Fetch, *, missing: bool) -> None:
        """Its source is lost."""
        self._act(self._fetches.broke(copy, missing=missing))

    # ---- bytes that go

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer another node that wants an object, or what is here of it while it comes."""
        from aiohttp import web

        wanted = wanted_in(request.path, request.headers.get("Range", "")) if request.method == "GET" else None
        if wanted is None:
            return web.Response(status=400)
        # Who takes it may go at any time.
        with contextlib.suppress(ConnectionError):
            match self._fetches.asked_for(wanted.key, wanted.version, is_here=self._store.has(wanted.key)):
                case Serving.WHOLE:
                    return await self._serve_whole(request, wanted)
                case Serving.PART:
                    return await self._serve_part(request, wanted)
                case Serving.MISSING:
                    return web.Response(status=MISSING)
                case Serving.NOT_NOW:
                    pass
        return web.Response(status=NOT_NOW)

    async def _serve_whole(self, request: web.Request, wanted: Wanted) -> web.StreamResponse:
        from aiohttp import web

        try:
            segment, location, in_memory = self._store.open_here(wanted.key)
        except UnknownObjectError:
            return web.Response(status=MISSING)
        try:
            copy = self._fetches.get(wanted.key)
            mark = mark_of(*segment) if copy is None else copy.mark
            response = await self._head(request, wanted, location.length, mark)
            if response is None:
                return web.Response(status=416)
            fd = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if in_memory:
                    await self._write(response, fd, wanted.start, location.length)
                else:
                    await self._write_file(response, fd, wanted.start, location.length)
            finally:
                os.close(fd)
            return response
        finally:
            self._store.close_here(segment)

    @staticmethod
    async def _write(response: web.StreamResponse, fd: int, start: int, length: int) -> None:
        view = memoryview(mmap.mmap(fd, length, access=mmap.ACCESS_READ))
        for at in range(start, length, PIECE):
            await response.write(view[at : at + PIECE])

    async def _write_file(self, response: web.StreamResponse, fd: int, start: int, length: int) -> None:
        # A disk may take its time.
        for at in range(start, length, PIECE):
            piece = await self._loop.run_in_executor(None, os.pread, fd, min(PIECE, length - at), at)
            await response.write(piece)

    async def _serve_part(self, request: web.Request, wanted: Wanted) -> web.StreamResponse:
        from aiohttp import web

        taker = object()
        copy = self._fetches.taken(wanted.key, taker)
        opened: SegmentId | None = None
        try:
            work = self._works[copy]
            while not copy.mark and not self._is_over(copy):
                await work.moved.wait()
            memory = work.incoming
            if copy.version != wanted.version or memory is None:
                return web.Response(status=NOT_NOW)
            response = await self._head(request, wanted, memory.length, copy.mark)
            if response is None:
                return web.Response(status=416)
            view, at, mark = memory.read(), wanted.start, copy.mark
            while at < len(view):
                if copy.state is State.HERE and opened is None:
                    # From now on the ledger keeps it.
                    with contextlib.suppress(UnknownObjectError):
                        opened = self._store.open_here(wanted.key)[0]
                if copy.mark != mark or self._is_over(copy):
                    # The other end learns it by that.
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                there = len(view) if copy.state is State.HERE else copy.got
                if at < there:
                    piece = view[at : min(there, at + PIECE)]
                    await response.write(piece)
                    at += len(piece)
                else:
                    await work.moved.wait()
            return response
        finally:
            self._act(self._fetches.not_taken(copy, taker))
            if opened is not None:
                self._store.close_here(opened)

    def _is_over(self, copy: Fetch) -> bool:
        return self._closed or copy.state is State.GONE

    @staticmethod
    async def _head(request: web.Request, wanted: Wanted, length: int, mark: bytes) -> web.StreamResponse | None:
        """The head of an answer, which is sent; None if nothing lies behind where it is to begin."""
        from aiohttp import web

        if wanted.start >= length:
            return None
        headers = {"Content-Length": str(length - wanted.start), MARK: mark.decode()}
        if wanted.start:
            headers["Content-Range"] = f"bytes {wanted.start}-{length - 1}/{length}"
        response = web.StreamResponse(status=PARTIAL if wanted.start else OK, headers=headers)
        await response.prepare(request)
        return response


class _Taker:
    """What comes on one connection, as what comes of one copy."""

    __slots__ = ("_copy", "_transfers")

    def __init__(self, transfers: NodeTransfers, copy: Fetch) -> None:
        self._transfers = transfers
        self._copy = copy

    def begins(self, reading: Reading, head: Head) -> None:
        self._transfers.begins(self._copy, reading.start, head)

    def came(self, reading: Reading, nbytes: int) -> None:
        self._transfers.came(self._copy, nbytes)

    def ended(self, reading: Reading) -> None:
        self._transfers.broke(self._copy, missing=False)


def _settle(waiter: Any, error: Exception | None) -> None:
    if not waiter.done():
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


def _error_for(copy: Fetch, work: _Work) -> Exception:
    if work.error is not None:
        return type(work.error)(*work.error.args)
    return _ERRORS.get(copy.cause, exceptions.ObjectLostError)(_name(copy.key), copy.cause)


def _close_made(making: asyncio.Future[IncomingSegment]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def _name(key: ObjectKey) -> str:
    return f"{key[0].hex()}{key[1]:016x}"
