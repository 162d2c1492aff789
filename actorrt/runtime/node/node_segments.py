"""The node's part in shared memory: messages in, the ledger's decisions performed. Nothing is decided here.

What comes from one process is handled in the order in which it was sent, so the end of a process comes last. Only a
Seal that somebody waits for is a question: no FreeSegment of its object can be on its way before it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from actorrt import exceptions
from actorrt.core.segment_life import HOLDS_MEMORY
from actorrt.core.storage import Ledger, Statistics, UnknownObjectError
from actorrt.core.storage_actions import Action, DropFile, DropMemory, Grant, Recall, Refuse, Return, Spill
from actorrt.types import ObjectKey, ProcessId, SegmentId, owned
from actorrt.wire.messages import (
    CloseSegment,
    Done,
    DropViews,
    FreeItems,
    FreeSegment,
    LetGo,
    OpenSegment,
    Ping,
    Seal,
    SegmentAt,
    SegmentBack,
    Unreserve,
)

from ..base.descriptors import allow_more, most_for_objects
from ..links.link import Link
from ..links.peers import Peers
from ..memory.segments import Location, SegmentGoneError, SegmentHolder
from .node_transfers import NodeTransfers

if TYPE_CHECKING:
    from ..memory.incoming import IncomingSegment

logger = logging.getLogger("actorrt")

# What lies in the pools for so long goes back to the system; how often to look.
IDLE_S: Final = 10.0
LOOK_S: Final = 1.0
# The part of the limit that segments which wait to be filled again may take.
POOL_PART: Final = 2
# A process that is stopped must not keep the others from their answer.
DROP_TIMEOUT_S: Final = 1.0
_READERS: Final = ("driver", "worker")

SegmentMessage = Seal | OpenSegment | FreeSegment | FreeItems | CloseSegment | LetGo | Unreserve


class _Wanted:
    """Room that was asked for."""

    __slots__ = ("creator", "future", "is_gone", "size")

    def __init__(
        self, creator: ProcessId, is_gone: Callable[[], object], size: int, future: asyncio.Future[None]
    ) -> None:
        self.creator = creator
        # Of a process that has ended, all promises are gone.
        self.is_gone = is_gone
        self.size = size
        self.future = future


class NodeSegments:
    """Everything runs on the node's loop."""

    def __init__(self, peers: Peers, limit: int, spill_folder: str) -> None:
        """`limit`: bytes of shared memory that may be used."""
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._node = peers.process
        self._limit = limit
        self._ledger = Ledger(limit, limit // POOL_PART)
        self._holder = SegmentHolder(spill_folder)
        self._wanted: dict[int, _Wanted] = {}
        self._numbers = itertools.count(1)
        self._due: deque[Action] = deque()
        self._spilling: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        # Each segment costs a descriptor; enough are left for workers, links and programs that join.
        allow_more()
        self._most = most_for_objects()
        self.transfers = NodeTransfers(peers, self)
        peers.serve(self.transfers.serve)

    # ---- messages

    def take(self, link: Link, message: SegmentMessage) -> None:
        """A message that nobody waits for the answer of."""
        now = self._loop.time()
        ledger = self._ledger
        match message:
            case Seal():
                self._sealed(link, message)
            case OpenSegment():
                with contextlib.suppress(UnknownObjectError):  # its owner has ended
                    self._act(ledger.opened((message.owner, message.seq), link.peer, now)[1])
            case FreeSegment():
                key = message.owner, message.seq
                self._act(ledger.freed(key))
                self.transfers.freed(key, message.node)
            case FreeItems():
                self._act(ledger.cut_off((link.peer, message.first)))
            case CloseSegment():
                self._act(ledger.closed(SegmentId(message.creator, message.serial), link.peer, now))
            case LetGo():
                self._act(ledger.let_go(SegmentId(link.peer, message.serial)))
            case Unreserve():
                self._act(ledger.unreserve(link.peer, message.size))

    def _sealed(self, link: Link, seal: Seal) -> None:
        segment = SegmentId(link.peer, seal.serial)
        key = (seal.owner, seal.seq)
        now = self._loop.time()
        self._act(self._ledger.sealed(key, segment, seal.size, seal.length, now, kept=seal.kept))
        self.transfers.sealed_here(key)

    # ---- questions

    async def reserve(self, link: Link, size: int) -> Done:
        """Answered when there is room. Raises ObjectStoreFullError if none can be made."""
        await self._reserve_after_all(link.peer, lambda: link.closed, size)
        return Done()

    async def _reserve_after_all(self, creator: ProcessId, is_gone: Callable[[], object], size: int) -> None:
        try:
            return await self._reserve(creator, is_gone, size)
        except exceptions.ObjectStoreFullError:
            if size > self._limit:
                raise
        # What only refs keep mapped may be spilled once it is not.
        await asyncio.gather(*(self._drop_views(one) for one in tuple(self._peers.links.values())))
        await self._reserve(creator, is_gone, size)

    @staticmethod
    async def _drop_views(link: Link) -> None:
        if link.role in _READERS:
            with contextlib.suppress(exceptions.ActorrtError, TimeoutError):
                async with asyncio.timeout(DROP_TIMEOUT_S):
                    await link.ask(DropViews())

    async def _reserve(self, creator: ProcessId, is_gone: Callable[[], object], size: int) -> None:
        number = next(self._numbers)
        wanted = self._wanted[number] = _Wanted(creator, is_gone, size, self._loop.create_future())
        self._act(self._ledger.reserve(creator, number, size))
        try:
            await wanted.future
        except asyncio.CancelledError:
            if wanted.future.done() and not wanted.future.cancelled() and not wanted.future.exception():
                self._give_back(wanted)
            raise

    def _give_back(self, wanted: _Wanted) -> None:
        if not wanted.is_gone():
            self._act(self._ledger.unreserve(wanted.creator, wanted.size))

    async def seal(self, link: Link, seal: Seal) -> Done:
        """Take over a segment. Raises ObjectStoreFullError if that fails; its creator has it still."""
        try:
            self._holder.adopt(SegmentId(link.peer, seal.serial), link.pid, seal.fd, seal.inode, seal.size, self._most)
        except (OSError, SegmentGoneError) as error:
            # What waits to be filled again takes descriptors too.
            self._act(self._ledger.expire(0.0, self._loop.time()))
            cause = f"the node could not take it over: {error}"
            raise exceptions.ObjectStoreFullError(seal.length, self._limit, cause) from error
        self._sealed(link, seal)
        return Done()

    async def open(self, link: Link, question: OpenSegment) -> SegmentAt:
        """Where an object lies; it stays there until the reader closes it. Raises ObjectLostError.

        ObjectStoreFullError: it lies on another node, and there is no room for it here.
        """
        owner, seq = key = (question.owner, question.seq)
        ended = ""
        if self._ledger.find(key) is None and question.home:
            await self.transfers.fetch(key, question.home, question.size)
        elif self._ledger.find(key) is None:
            # Its Seal may be on the way still, on the link to its owner; what the owner says now comes behind it. That
            # there is no link says nothing of the owner: it is dialled until it answers, or its end is known.
            try:
                await self._peers.ask(owner, Ping())
            except exceptions.LinkError as error:
                ended = str(error)
        try:
            segment, actions = self._ledger.opened(key, link.peer, self._loop.time())
        except UnknownObjectError:
            name = f"{owner.hex()}{seq:016x}"
            if ended:
                raise exceptions.OwnerDiedError(name, "its owner ended") from None
            raise exceptions.ObjectFreedError(name, "its last ref is gone") from None
        self._act(actions)
        found = self._ledger.find(key)
        assert found is not None
        place = self._holder.locate(segment, found.length)
        return SegmentAt(segment.creator, segment.serial, place.path, place.inode, place.length)

    # ---- the ends

    def process_died(self, process: ProcessId) -> None:
        """Its link is gone, and all that came over it has been handled."""
        self._act(self._ledger.process_died(process, self._loop.time()))
        self._wanted = {number: one for number, one in self._wanted.items() if one.creator != process}
        self._act(self._ledger.owner_died(process))
        self.transfers.owner_died(process)

    def node_died(self, node: ProcessId) -> None:
        """Another node is gone, with all that lay there and all that was owned there."""
        self.transfers.node_died(node)

    def where(self, key: ObjectKey) -> dict[str, Any] | None:
        """Where an object lies, and how many processes read it; None if it is not here."""
        found = self._ledger.find(key)
        if found is None:
            return None
        where = "memory" if found.state in HOLDS_MEMORY else "disk"
        return {"object_id": owned(*key).hex(), "where": where, "readers": len(found.readers)}

    def statistics(self) -> Statistics:
        return self._ledger.statistics()

    @property
    def limit(self) -> int:
        """Bytes that objects may have in memory."""
        return self._limit

    def facts(self) -> dict[str, int]:
        """Bytes by what they are used for, and how many segments there are."""
        known = self.statistics()
        return {
            "limit": self._limit,
            "bytes": known.memory - known.pooled,
            "pooled_bytes": known.pooled,
            "reserved_bytes": known.reserved,
            "spilled_bytes": known.disk,
            "segments": known.segments,
            "waiting": known.waiting,
        }

    def close(self) -> None:
        """Give everything back."""
        self.transfers.close()
        if self._timer is not None:
            self._timer.cancel()
        self._holder.close()

    # ---- copies of what lies elsewhere

    async def reserve_for_copy(self, length: int) -> None:
        await self._reserve_after_all(self._node, lambda: False, length)

    def unreserve_copy(self, length: int) -> None:
        self._act(self._ledger.unreserve(self._node, length))

    def adopt_copy(self, serial: int, incoming: IncomingSegment) -> None:
        segment = SegmentId(self._node, serial)
        self._holder.adopt(segment, os.getpid(), incoming.fd, incoming.inode, incoming.size, self._most)

    def drop_copy(self, serial: int) -> None:
        self._holder.drop_memory(SegmentId(self._node, serial))

    def seal_copy(self, key: ObjectKey, serial: int, size: int, length: int) -> None:
        segment = SegmentId(self._node, serial)
        self._act(self._ledger.sealed(key, segment, size, length, self._loop.time(), kept=False))

    def free(self, key: ObjectKey) -> None:
        self._act(self._ledger.freed(key))

    def has(self, key: ObjectKey) -> bool:
        return self._ledger.find(key) is not None

    def open_here(self, key: ObjectKey) -> tuple[SegmentId, Location, bool]:
        segment, actions = self._ledger.opened(key, self._node, self._loop.time())
        self._act(actions)
        found = self._ledger.find(key)
        assert found is not None
        return segment, self._holder.locate(segment, found.length), self._holder.is_in_memory(segment)

    def close_here(self, segment: SegmentId) -> None:
        self._act(self._ledger.closed(segment, self._node, self._loop.time()))

    # ---- what the ledger wants

    def _act(self, actions: tuple[Action, ...]) -> None:
        # What is being performed stays in front until it is done.
        under_way = bool(self._due)
        self._due.extend(actions)
        if under_way:
            return
        while self._due:
            try:
                self._perform(self._due[0])
            except Exception:
                logger.exception("%r could not be performed", self._due[0])
            finally:
                self._due.popleft()
        if self._timer is None and self._ledger.statistics().pooled:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._act(self._ledger.expire(IDLE_S, self._loop.time()))

    def _perform(self, action: Action) -> None:
        match action:
            case Spill():
                self._spill(action.segment)
            case DropMemory():
                self._holder.drop_memory(action.segment)
            case DropFile():
                self._holder.drop_file(action.segment)
            case Return():
                self._back(action.segment, reuse=True)
            case Recall():
                self._back(action.segment, reuse=False)
            case Grant():
                wanted = self._wanted.pop(action.request)
                if wanted.future.done():
                    self._give_back(wanted)
                else:
                    wanted.future.set_result(None)
            case Refuse():
                wanted = self._wanted.pop(action.request)
                if not wanted.future.done():
                    error = exceptions.ObjectStoreFullError(action.size, self._limit, action.cause)
                    wanted.future.set_exception(error)

    def _back(self, segment: SegmentId, *, reuse: bool) -> None:
        link = self._peers.get(segment.creator)
        if link is not None:
            link.send(SegmentBack(segment.serial, reuse))

    def _spill(self, segment: SegmentId) -> None:
        # The object may be freed while it is copied.
        length = self._ledger.length_of(segment)
        task = self._loop.create_task(self._copy(segment, length))
        self._spilling.add(task)
        task.add_done_callback(self._spilling.discard)

    async def _copy(self, segment: SegmentId, length: int) -> None:
        try:
            await self._loop.run_in_executor(None, self._holder.spill, segment, length)
        except OSError as error:
            logger.warning("an object of %d bytes could not be spilled: %s", length, error)
            self._act(self._ledger.spill_failed(segment))
        else:
            self._act(self._ledger.spilled(segment))
