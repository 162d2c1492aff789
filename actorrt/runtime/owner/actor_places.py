"""Where actors are, as their callers learn it, and what becomes of calls whose actor is gone.

A call that is not to be sent again (core/calls.py) fails: with ActorDiedError or, if the actor comes back,
ActorUnavailableError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.core.calls import Action
from actorrt.core.calls import Event as CallEvent
from actorrt.core.lifecycle import Event, State
from actorrt.types import NO_PROCESS, ActorKey, ProcessId, owner_of
from actorrt.wire.messages import NOW, ActorAt, WhereIs

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from .actor_client import ActorClient
from .actor_records import ActorRecord
from .calls import Call
from .exits import Exits
from .supervisor import KILLED, Supervisor

PLACED_TIMEOUT_S: Final = 1.0


class Surroundings(Protocol):
    """What is asked of the process."""

    process: ProcessId

    @property
    def node(self) -> Link: ...
    @property
    def thread(self) -> LoopThread: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def exits(self) -> Exits: ...
    @property
    def supervisor(self) -> Supervisor: ...


class Known(Protocol):
    """The actors that the process can call."""

    def find(self, actor: ActorKey) -> ActorClient | None: ...
    def at(self, link: Link) -> Iterable[ActorClient]: ...
    def advance(self, client: ActorClient) -> None: ...
    def came_back(self, client: ActorClient, link: Link | None, count: int, again: list[Call]) -> None: ...


class ActorPlaces:
    """Finds actors, and sorts out what their loss means. Runs on the runtime loop."""

    def __init__(self, surroundings: Surroundings, actors: Known) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        self._actors = actors

    # ---- finding

    def locate(self, client: ActorClient) -> None:
        """Have it found out where the actor is. The owner's own client is told by the supervisor."""
        if not client.locating and client.record is None:
            client.locating = True
            self._thread.spawn_here(self._find(client))

    async def _find(self, client: ActorClient) -> None:
        process = self._process
        try:
            while client.dead is None:
                at = await self._ask_owner(client, WhereIs(client.actor, client.incarnation))
                if at.cause or at.worker is None:
                    self._bury(client, at)
                    break
                try:
                    client.link = await process.peers.link_to(at.worker.process, at.worker.address)
                except exceptions.LinkError:
                    # Its worker has ended: the owner will know where it is next.
                    client.incarnation = at.incarnation
                else:
                    client.incarnation = at.incarnation
                    break
        finally:
            client.locating = False
        self._actors.advance(client)

    async def _ask_owner(self, client: ActorClient, question: WhereIs) -> ActorAt:
        owner = owner_of(client.actor)
        if owner == self._process.process:
            return await self._process.supervisor.where_is(question.actor, question.incarnation, question.fate)
        try:
            return await self._process.peers.ask(owner, question)
        except exceptions.ActorrtError:
            cause, _ = await self._process.exits.cause(owner)
            return ActorAt(None, 0, f"its owner ended: {cause}", "running")

    async def placed_at(self, client: ActorClient) -> ProcessId | None:
        """The worker that an actor was given, though it may still be starting; None if that is not known."""
        try:
            async with asyncio.timeout(PLACED_TIMEOUT_S):
                at = await self._ask_owner(client, WhereIs(client.actor, NOW))
        except TimeoutError:
            return None
        return None if at.worker is None else at.worker.process

    def moved(self, record: ActorRecord) -> None:
        """An actor that this process owns was sent somewhere, has lost its place, or is dead."""
        client = self._actors.find(record.actor)
        if client is None:
            return
        if record.state is State.DEAD:
            self._bury(client, record.death())
        else:
            link = record.link
            client.link = None if link is None or link.closed else link
            client.incarnation = record.life.incarnation
        self._actors.advance(client)

    @staticmethod
    def _bury(client: ActorClient, at: ActorAt) -> None:
        client.dead = at
        # Its worker may live on: no further call goes there.
        client.link = None

    def killed(self, client: ActorClient, no_restart: bool) -> None:
        """Its owner has been told to kill it."""
        if no_restart:
            self._bury(client, ActorAt(None, 0, KILLED, "running"))
        else:
            client.link = None
        self._actors.advance(client)

    # ---- losing

    def link_lost(self, link: Link, calls: list[Call]) -> None:
        """The worker behind `link` is gone with these calls under way."""
        lost: dict[ActorClient, list[Call]] = {client: [] for client in self._actors.at(link)}
        for call in calls:
            lost.setdefault(call.target, []).append(call)
        for client, under_way in lost.items():
            again: list[Call] = []
            failed: list[Call] = []
            record = client.record
            # A worker says that the constructor has returned before it starts the first call.
            started = record is None or record.link is not link or record.state is not State.STARTING
            for call in under_way:
                self._sort(call, CallEvent.LOST if started else CallEvent.UNBEGUN, again, failed)
            if failed:
                self._thread.spawn_here(self._report(client, failed, link.peer))
            if record is None and client.link is link and not link.farewell and self._may_live(link.peer):
                # Only its link may be broken: then it is where it was.
                client.incarnation -= 1
            self._actors.came_back(client, link, len(under_way), again)

    def _may_live(self, worker: ProcessId) -> bool:
        """The node has not said that it has ended."""
        return worker not in self._process.peers.dead and not self._process.node.closed

    @staticmethod
    def _sort(call: Call, event: CallEvent, again: list[Call], failed: list[Call]) -> None:
        """What is to be done with a call that ended without an outcome."""
        match call.on(event):
            case Action.AGAIN:
                again.append(call)
            case Action.REPORT:
                failed.append(call)
            case Action.END_CANCELLED:
                call.end_cancelled()
            case _:
                pass

    def no_actor(self, client: ActorClient, call: Call, started: bool) -> None:
        """The worker does not have the actor (any more); `started`: it ended while the call ran."""
        again: list[Call] = []
        failed: list[Call] = []
        self._sort(call, CallEvent.LOST if started else CallEvent.UNBEGUN, again, failed)
        stale: Link | None = None
        if call.incarnation == client.incarnation:
            record = client.record
            if record is None:
                stale = call.link
            elif record.state is State.ALIVE and record.life.incarnation == call.incarnation:
                # The owner would know by now if it had ended in any way that it was told of.
                self._process.supervisor.apply(record, Event.LOST, "its worker has lost it", "running")
        if failed:
            self._thread.spawn_here(self._report(client, failed, NO_PROCESS))
        self._actors.came_back(client, stale, 1, again)

    async def _report(self, client: ActorClient, calls: list[Call], worker: ProcessId) -> None:
        """Fail calls with what has become of their actor."""
        cause = (await self._process.exits.cause(worker))[0] if worker else "it ended under the call"
        seen = max(call.incarnation for call in calls)
        if client.record is None and worker and self._may_live(worker):
            # It may be where it was.
            seen -= 1
        try:
            at = client.dead or await self._ask_owner(client, WhereIs(client.actor, seen, True))
        except asyncio.CancelledError:
            # The runtime ends: nobody else knows of these calls.
            for call in calls:
                call.fail(
                    exceptions.ActorDiedError(client.title, "running", f"{cause}; the runtime was shut down", True)
                )
            raise
        if at.cause:
            self._bury(client, at)
        for call in calls:
            # Again, since its caller may have cancelled it while this was found out.
            if call.on(CallEvent.LOST) is Action.END_CANCELLED:
                call.end_cancelled()
            elif at.cause:
                call.fail(client.death(may_have_run=True))
            else:
                call.fail(exceptions.ActorUnavailableError(client.title, f"{cause}; it is being restarted", True))
        self._actors.advance(client)
