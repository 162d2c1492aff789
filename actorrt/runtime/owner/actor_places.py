"""Where actors are, as their callers learn it, and what becomes of calls whose actor is gone.

Both are decided in core/actor_calls.py. A call that is not to be sent again fails: with ActorDiedError or, if the actor
comes back, ActorUnavailableError.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.core import calls, lifecycle
from actorrt.core.actor_calls import Action, Event, Sorted, State, look_again_after, may_live, sort
from actorrt.core.lifecycle import CAUSES, RUNNING_PHASE, Death
from actorrt.types import ActorKey, Place, ProcessId, owner_of
from actorrt.wire.messages import NOW, ActorAt, WhereIs

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from .actor_client import ActorClient
from .actor_records import ActorRecord, at_end
from .calls import Call
from .exits import Exits
from .supervisor import Supervisor

PLACED_TIMEOUT_S: Final = 1.0


class Surroundings(Protocol):
    """What is asked of the process."""

    process: ProcessId

    @property
    def thread(self) -> LoopThread: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def exits(self) -> Exits: ...
    @property
    def supervisor(self) -> Supervisor: ...
    def pause_call(self, call: Call) -> None: ...


class Known(Protocol):
    """The actors that the process can call."""

    lock: threading.Lock

    def find(self, actor: ActorKey) -> ActorClient | None: ...
    def advance(self, client: ActorClient) -> None: ...


class ActorPlaces:
    """Finds actors, and sorts out what their loss means. Runs on the runtime loop."""

    def __init__(self, surroundings: Surroundings, actors: Known) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        self._exits = surroundings.exits
        self._actors = actors
        # Clients of actors of other processes by the links that were found for them. Some may have another by now.
        self._found: dict[Link, weakref.WeakSet[ActorClient]] = {}

    @property
    def _peers(self) -> Peers:
        return self._process.peers

    @property
    def _supervisor(self) -> Supervisor:
        return self._process.supervisor

    # ---- finding

    def locate(self, client: ActorClient) -> None:
        """Have it found out where an actor is that another process owns."""
        self._thread.spawn_here(self._find(client))

    async def _find(self, client: ActorClient) -> None:
        try:
            rounds = 0
            while client.state is State.RESOLVING:
                at = await self._ask_owner(client, WhereIs(client.actor, client.incarnation))
                if at.cause or at.worker is None:
                    client.died(at)
                else:
                    await self._reach(client, at.worker, at.incarnation, rounds)
                    rounds += 1
        finally:
            if client.state is State.RESOLVING:
                client.on(Event.UNANSWERED)
        self._actors.advance(client)

    async def _reach(self, client: ActorClient, worker: Place, incarnation: int, rounds: int) -> None:
        link: Link | None = None
        with contextlib.suppress(exceptions.LinkError):
            link = await self._peers.link_to(worker.process, worker.address)
        if link is None or link.closed:
            lives = self._may_live(worker.process, link)
            client.unreachable(incarnation, may_live=lives)
            await asyncio.sleep(look_again_after(rounds, lives))
            return
        self._found.setdefault(link, weakref.WeakSet()).add(client)
        with self._actors.lock:
            client.found(link, incarnation)

    async def _ask_owner(self, client: ActorClient, question: WhereIs) -> ActorAt:
        owner = owner_of(client.actor)
        if owner == self._process.process:
            return await self._supervisor.where_is(question.actor, question.incarnation, question.fate)
        try:
            return await self._peers.ask(owner, question)
        except exceptions.ActorrtError:
            cause, _ = await self._exits.cause(owner)
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
        if record.life.state is lifecycle.DEAD:
            client.died(record.death())
        else:
            with self._actors.lock:
                client.moved(record.link, record.life.incarnation)
                waiting = client.is_waiting
            if not waiting:
                return
        self._actors.advance(client)

    def killed(self, client: ActorClient, no_restart: bool) -> None:
        """Its owner has been told to kill it."""
        if no_restart:
            # Its worker may live on: no further call goes there.
            client.died(at_end(Death(CAUSES[lifecycle.Event.ENDED], RUNNING_PHASE), 0))
        else:
            client.on(Event.KILLED)
        self._actors.advance(client)

    # ---- losing

    def link_lost(self, link: Link, under_way: list[Call]) -> None:
        """The worker behind `link` is gone with these calls under way."""
        lost: dict[ActorClient, list[Call]] = {client: [] for client in self._at(link)}
        for call in under_way:
            lost.setdefault(call.target, []).append(call)
        lives = self._may_live(link.peer, link)
        for client, calls_there in lost.items():
            record = client.record
            # A worker says that the constructor has returned before it starts the first call; if it was heard to the
            # end, and has not said so, no call has begun.
            begun = record is None or not record.is_starting_at(link) or link.unheard
            with self._actors.lock:
                found = client.lost(link, calls_there, begun=begun, may_live=lives)
            self._settle(client, found, link.peer)

    def _at(self, link: Link) -> list[ActorClient]:
        """The clients whose calls go over `link`, and maybe some whose calls did."""
        own = (self._actors.find(record.actor) for record in self._supervisor.at(link))
        return [*self._found.pop(link, ()), *(client for client in own if client is not None)]

    def _may_live(self, worker: ProcessId, link: Link | None) -> bool:
        """A link to a worker has ended, or none can be had, and maybe not the worker."""
        return may_live(
            said_goodbye=link is not None and link.farewell,
            has_ended=worker in self._peers.dead,
            node_is_gone=self._exits.node_is_gone,
        )

    def no_actor(self, client: ActorClient, call: Call, started: bool) -> None:
        """The worker does not have the actor (any more); `started`: it ended while the call ran."""
        with self._actors.lock:
            found, action = client.absent(call.link, call, begun=started)
        if action is Action.REPORT_ABSENT and client.record is not None:
            self._supervisor.absent(client.record, call.incarnation)
        self._settle(client, found, None)

    def _settle(self, client: ActorClient, found: Sorted[Call], worker: ProcessId | None) -> None:
        for call in found.cancelled:
            call.end_cancelled()
        for call in found.paused:
            self._process.pause_call(call)
        if found.failed:
            self._thread.spawn_here(self._report(client, found.failed, worker))
        self._actors.advance(client)

    async def _report(self, client: ActorClient, failed: list[Call], worker: ProcessId | None) -> None:
        """Fail calls with what has become of their actor, whose worker is lost, or does not have it."""
        cause, lives = "it ended under the call", False
        if worker is not None:
            cause, _ = await self._exits.cause(worker)
            lives = self._may_live(worker, None)
        try:
            seen = client.last_seen(failed, lives)
            at = client.dead or await self._ask_owner(client, WhereIs(client.actor, seen, True))
        except asyncio.CancelledError:
            # The runtime ends: nobody else knows of these calls.
            for call in failed:
                call.fail(
                    exceptions.ActorDiedError(client.title, "running", f"{cause}; the runtime was shut down", True)
                )
            raise
        if at.cause:
            client.died(at)
        # Again, since their callers may have cancelled them while this was found out.
        found = sort(failed, calls.Event.LOST)
        for call in found.cancelled:
            call.end_cancelled()
        for call in found.failed:
            call.fail(client.fate(cause))
        self._actors.advance(client)
