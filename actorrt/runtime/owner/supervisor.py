"""Actors that this process owns: placed, started, restarted, buried.

The decisions are core/lifecycle.py's table; this shell carries them out on the runtime loop. A driver or worker
supervises the actors that it created, a node the detached ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.lifecycle import Action, Event, State, TransitionError
from actorrt.core.ownership import count
from actorrt.core.recent import Recent
from actorrt.core.restarts import Restarts
from actorrt.types import ActorKey, Employer, LeaseId, ProcessId
from actorrt.wire.messages import (
    FAILED,
    GIVEN_BACK,
    NOW,
    ActorAt,
    Define,
    Lease,
    LeaseRequest,
    Outcome,
    Ping,
    StartActor,
    StopActor,
)

from ..links.link import Link
from ..links.peers import Peers
from .actor_records import ActorRecord, ActorSpec
from .calls import error_bytes
from .shared import SharedPool

logger = logging.getLogger("actorrt")


class Host(Protocol):
    """What a supervisor needs of its process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def closing(self) -> bool: ...

    async def lease(self, request: LeaseRequest) -> Lease: ...
    def return_lease(self, lease: LeaseId) -> None: ...
    def shared_pool(self, env: dict[str, str], employer: Employer) -> SharedPool: ...
    def kill_worker(self, process: ProcessId, reason: str) -> None: ...
    async def exit_cause(self, process: ProcessId) -> tuple[str, bool]: ...
    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None: ...
    def actor_moved(self, record: ActorRecord, /) -> None: ...
    def next_seq(self) -> int: ...


DEATHS_REMEMBERED: Final = 256
# An error that is longer is not kept with them.
FAILURE_BYTES: Final = 16 * 1024
KILLED: Final = "it was killed by actorrt.kill"
# A worker whose code keeps the GIL does not hold up whoever kills one of its actors for longer.
TOLD_WITHIN_S: Final = 1.0


class Supervisor:
    """The owner's side of actors. Runs on the runtime loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.records: dict[ActorKey, ActorRecord] = {}
        # Only of those that were lost already.
        self._restarts: dict[ActorKey, Restarts] = {}
        # How the last ones ended of which no record is left: somebody may come with a handle that lay in a value.
        self._deaths: Recent[ActorKey, ActorAt] = Recent(DEATHS_REMEMBERED)
        # Those that wait for a worker of their own.
        self._placing: dict[ActorKey, asyncio.Task[Any]] = {}

    def adopt(self, record: ActorRecord) -> None:
        """Own it from now on: it can be asked for and ended, though its arguments may not be there. From any thread."""
        self.records[record.actor] = record

    def create(self, record: ActorRecord) -> None:
        """Place and start it, unless it was ended before."""
        if record.state is State.PLACING:
            self.adopt(record)
            self._place(record)

    def fail(self, record: ActorRecord, error: BaseException | bytes) -> None:
        """It cannot even be placed."""
        self._unplaceable(record, error, "being created")

    def _unplaceable(self, record: ActorRecord, error: BaseException | bytes, phase: str = "being placed") -> None:
        if record.state is State.PLACING:
            record.failure = error_bytes(error)
            self.apply(record, Event.UNPLACEABLE, "it could not be created", phase)

    def apply(self, record: ActorRecord, event: Event, cause: str = "", phase: str = "") -> None:
        """Let the table decide and do what it says."""
        link, dead = record.link, record.state is State.DEAD
        try:
            actions = record.life.on(event)
        except TransitionError:
            logger.exception("actor %s", record.title)
            return
        if cause and not dead:
            record.cause, record.phase = cause, phase
        for action in actions:
            match action:
                case Action.SEND_START:
                    self._send_start(record)
                case Action.OPEN:
                    self._opened(record)
                case Action.PLACE:
                    self._leave_place(record)
                    self._place_again(record, cause)
                case Action.STOP_WORKER:
                    self._stop(record, link, cause)
                case Action.BURY:
                    self._bury(record)
        self._tell(record)

    # ---- placing

    def _leave_place(self, record: ActorRecord) -> None:
        link, record.link = record.link, None
        record.place = None
        if link is not None and record.spec is not None and record.spec.shared:
            self._host.shared_pool(record.spec.env, record.spec.employer).done(link)
        self._return(record)
        self._host.actor_moved(record)

    def _place_again(self, record: ActorRecord, cause: str) -> None:
        if cause == KILLED or not cause:
            # By its user, who wants it back, or it was not even begun: no sign that it cannot live.
            self._place(record)
            return
        loop = self._host.loop
        pause_s = self._restarts.setdefault(record.actor, Restarts()).pause(loop.time())
        if pause_s:
            logger.info("actor %s is lost again (%s): its restart waits for %.1f s", record.title, cause, pause_s)
            loop.call_later(pause_s, self._place_if_wanted, record)
        else:
            self._place(record)

    def _place_if_wanted(self, record: ActorRecord) -> None:
        if record.state is State.PLACING and not self._host.closing:
            self._place(record)

    def _place(self, record: ActorRecord) -> None:
        spec = record.spec
        assert spec is not None
        if spec.shared:
            pool = self._host.shared_pool(spec.env, spec.employer)
            link = pool.pick()
            if link is not None:
                record.link, record.place = link, pool.place_of(link)
                self.apply(record, Event.PLACED)
                return
            self._host.spawn_here(self._place_shared(record, pool))
        else:
            self._host.spawn_here(self._place_process(record, spec))

    async def _place_shared(self, record: ActorRecord, pool: SharedPool) -> None:
        while True:
            try:
                await pool.ready()
            except exceptions.ActorrtError as error:
                self._unplaceable(record, error)
                return
            if record.state is not State.PLACING:
                return
            link = pool.pick()
            if link is not None:
                record.link, record.place = link, pool.place_of(link)
                self.apply(record, Event.PLACED)
                return

    async def _place_process(self, record: ActorRecord, spec: ActorSpec) -> None:
        placing = asyncio.current_task()
        if placing is None or record.state is not State.PLACING:
            return
        self._placing[record.actor] = placing
        try:
            await self._lease_worker(record, spec)
        finally:
            self._placing.pop(record.actor, None)

    async def _lease_worker(self, record: ActorRecord, spec: ActorSpec) -> None:
        host = self._host
        while True:
            try:
                lease = await host.lease(
                    LeaseRequest(spec.shape, spec.mode, spec.env or None, record.title, spec.employer)
                )
            except exceptions.ActorrtError as error:
                self._unplaceable(record, error)
                return
            if record.state is not State.PLACING:
                host.return_lease(lease.lease)
                return
            try:
                link = await host.peers.link_to(lease.worker.process, lease.worker.address)
            except exceptions.LinkError:
                host.return_lease(lease.lease)
                continue
            except asyncio.CancelledError:
                host.return_lease(lease.lease)
                raise
            if record.state is not State.PLACING:
                host.return_lease(lease.lease)
                return
            record.link, record.place, record.lease = link, lease.worker, lease.lease
            self.apply(record, Event.PLACED)
            return

    def _send_start(self, record: ActorRecord) -> None:
        link, spec = record.link, record.spec
        assert link is not None
        assert spec is not None
        if link.closed:
            self._host.loop.call_soon(self.apply, record, Event.LOST, "its process ended", "starting")
            return
        start = spec.start
        if record.life.incarnation:
            start = StartActor(**{f: getattr(start, f) for f in start.__struct_fields__})
            start.incarnation = record.life.incarnation
            start.seq = self._host.next_seq()
        start.lease = 0 if record.lease is None else record.lease.number
        record.starting = start.seq
        if start.cls not in link.defined:
            link.defined.add(start.cls)
            link.send(Define(start.cls, spec.blob))
        link.inflight[start.seq] = record
        link.send(start)
        self._host.actor_moved(record)

    def started(self, record: ActorRecord, seq: int, outcome: Outcome | None) -> None:
        """The reply to StartActor: None is success."""
        if seq != record.starting or record.state is not State.STARTING:
            return
        if outcome is None:
            self.apply(record, Event.STARTED)
        elif outcome.kind == GIVEN_BACK:
            if record.link is not None and record.spec is not None and record.spec.shared:
                self._host.shared_pool(record.spec.env, record.spec.employer).blocked(record.link.peer, True)
            self.apply(record, Event.TURNED_AWAY)
        elif outcome.kind == FAILED:
            record.failure = outcome.values[0].data
            self.apply(record, Event.FAILED, "its constructor raised an error", "starting")
        else:
            self.apply(record, Event.ENDED, "it was cancelled", "starting")

    def _opened(self, record: ActorRecord) -> None:
        if record.life.restarts_left == 0 and record.spec is not None and not record.spec.named:
            # It will not be started again: its arguments can go.
            record.spec = record.spec.remainder()
            record.pins = None
        self._maybe_release(record)

    def _tell(self, record: ActorRecord) -> None:
        waiters, record.waiters = record.waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)

    # ---- the end

    def _stop(self, record: ActorRecord, link: Link | None, cause: str) -> None:
        if link is None or link.closed:
            self._return(record)
            return
        if self._is_alone(record):
            self._host.kill_worker(link.peer, cause)
            self._return(record)
        else:
            link.send(StopActor(record.actor, record.unwanted or record.left, cause))

    @staticmethod
    def _is_alone(record: ActorRecord) -> bool:
        """It has a process to itself, which is not ending already."""
        return record.lease is not None and not record.unwanted and not record.left

    def _return(self, record: ActorRecord) -> None:
        lease, record.lease = record.lease, None
        if lease is not None:
            self._host.return_lease(lease)

    def _bury(self, record: ActorRecord) -> None:
        link = record.link
        if link is not None and record.spec is not None and record.spec.shared:
            self._host.shared_pool(record.spec.env, record.spec.employer).done(link)
        if record.spec is not None and record.spec.detached:
            # From now on it is kept like any other: for those who hold handles.
            record.released = True
        record.spec = None
        record.pins = None
        self._restarts.pop(record.actor, None)
        placing = self._placing.get(record.actor)
        if placing is not None and placing is not asyncio.current_task():
            # It is not to keep a place in the queue for a worker.
            placing.cancel()
        self._host.actor_moved(record)
        if record.on_dead is not None:
            record.on_dead()
        if record.released and not record.borrowers:
            self._forget(record)

    def _forget(self, record: ActorRecord) -> None:
        """It is dead, and nobody is known who could ask for it."""
        # Of one that nobody wanted there is nothing to tell.
        if self.records.pop(record.actor, None) is not None and not record.unwanted:
            death = record.death()
            if len(death.failed) > FAILURE_BYTES:
                death.failed = b""
            self._deaths.put(record.actor, death)

    def link_lost(self, link: Link) -> None:
        """A worker is gone: every actor there is lost. Also a borrower may be gone."""
        lost = [record for record in list(self.records.values()) if record.link is link]
        if lost:
            self._host.spawn_here(self._lost(link, lost))
        for record in list(self.records.values()):
            if record.borrowers and record.borrowers.pop(link.peer, None):
                self._maybe_release(record)

    async def _lost(self, link: Link, lost: list[ActorRecord]) -> None:
        cause, _ = await self._host.exit_cause(link.peer)
        if self._host.closing:
            return
        for record in lost:
            if record.link is link and record.state is not State.PLACING:
                phase = "starting" if record.state is State.STARTING else "running"
                self.apply(record, Event.LOST, cause, phase)

    def ended(self, actor: ActorKey, cause: str) -> None:
        """It left by itself (exit_actor)."""
        record = self.records.get(actor)
        if record is not None:
            record.left = True
            self.apply(record, Event.ENDED, cause, "running")

    async def kill(self, actor: ActorKey, no_restart: bool) -> None:
        """End it. When this returns, no call that anybody makes from then on finds it as it was."""
        record = self.records.get(actor)
        if record is None:
            return
        link = record.link
        process_ends = self._is_alone(record)
        phase = "being placed" if record.state is State.PLACING else "running"
        if no_restart:
            self.apply(record, Event.ENDED, KILLED, phase)
        else:
            self.apply(record, Event.KILLED, KILLED, phase)
            # At once: no further call is to find it as it was.
            self.apply(record, Event.LOST, KILLED, "running")
        if link is not None and not link.closed:
            # Others have links of their own to its worker: it has to know, or to be gone, before they call.
            with contextlib.suppress(exceptions.ActorrtError, TimeoutError):
                async with asyncio.timeout(TOLD_WITHIN_S):
                    await (link.gone.wait() if process_ends else link.ask(Ping()))

    # ---- who still wants it

    @property
    def is_borrowed(self) -> bool:
        """True while other processes hold handles to living actors that this one owns."""
        return any(record.borrowers and record.state is not State.DEAD for record in self.records.values())

    def borrow(self, actor: ActorKey, borrower: ProcessId, delta: int) -> None:
        record = self.records.get(actor)
        if record is None:
            return
        borrowers = record.borrowers
        if borrowers is None:
            borrowers = record.borrowers = {}
        if not count(borrowers, borrower, delta):
            self._maybe_release(record)

    def release(self, record: ActorRecord) -> None:
        """The last handle in the owner's own process is gone."""
        record.released = True
        self._maybe_release(record)

    def _maybe_release(self, record: ActorRecord) -> None:
        if not record.released or record.borrowers:
            return
        if record.state is State.DEAD:
            self._forget(record)
        elif record.state is State.ALIVE or record.state is State.PLACING:
            # One that is starting is ended once it has started, so that its constructor's work is not cut short.
            record.unwanted = True
            self.apply(record, Event.ENDED, "no process held a handle to it any more", "idle")

    async def where_is(self, actor: ActorKey, seen: int, fate: bool = False) -> ActorAt:
        """Where it runs, at an incarnation later than `seen`, or that it is dead.

        Waits while it is on its way there; with `fate` only until it is known whether it will be. NOW: does not wait.
        """
        while True:
            record = self.records.get(actor)
            if record is None:
                return self._deaths.get(actor) or ActorAt(None, 0, "it has ended", "idle")
            if record.state is State.DEAD:
                return record.death()
            if seen == NOW or (record.life.incarnation > seen and (fate or record.state is State.ALIVE)):
                return ActorAt(record.place, record.life.incarnation)
            future: asyncio.Future[None] = self._host.loop.create_future()
            if record.waiters is None:
                record.waiters = []
            record.waiters.append(future)
            try:
                await future
            except asyncio.CancelledError:
                _withdraw(record, future)
                raise


def _withdraw(record: ActorRecord, future: asyncio.Future[None]) -> None:
    """Who asked where it is has gone."""
    if record.waiters is not None and future in record.waiters:
        record.waiters.remove(future)
