"""Actors that this process owns: placed, started, restarted, buried.

The decisions are core/lifecycle.py's table; this shell carries them out on the runtime loop. A driver or worker
supervises the actors that it created, a node the detached ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from actorrt import exceptions
from actorrt.core.lifecycle import Action, Event, State, TransitionError
from actorrt.core.recent import Recent
from actorrt.core.restarts import Restarts
from actorrt.types import ActorKey, Employer, LeaseId, Place, ProcessId
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
    def holds(self, record: ActorRecord, /) -> bool:
        """A handle to it is in this process, or it lives without one."""
        ...

    def next_seq(self) -> int: ...


DEATHS_REMEMBERED: Final = 256
# An error that is longer is not kept with them.
FAILURE_BYTES: Final = 16 * 1024
KILLED: Final = "it was killed by actorrt.kill"
# A worker whose code keeps the GIL does not hold up whoever kills one of its actors for longer.
TOLD_WITHIN_S: Final = 1.0


class SupervisorStatistics(NamedTuple):
    """What a supervisor has at one moment."""

    # Actors by where they are in their lives.
    placing: int
    starting: int
    alive: int
    # Dead, and handles to them are left.
    dead: int
    # Actors that other processes hold handles to.
    borrowed: int
    # Questions for a place that wait for an answer.
    waiting: int
    # Ends that are remembered of actors that nobody holds.
    remembered: int


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
        # What a lost link concerns, in order: the actors at its other end, and those that the process there holds.
        self._placed: dict[Link, dict[ActorRecord, None]] = {}
        self._borrowed: dict[ProcessId, dict[ActorRecord, None]] = {}

    def statistics(self) -> SupervisorStatistics:
        # At once: other threads make actors meanwhile.
        records = list(self.records.values())
        states = Counter(record.state for record in records)
        return SupervisorStatistics(
            placing=states[State.PLACING],
            starting=states[State.STARTING],
            alive=states[State.ALIVE],
            dead=states[State.DEAD],
            borrowed=sum(bool(record.borrowers) for record in records),
            waiting=sum(len(record.waiters or ()) for record in records),
            remembered=len(self._deaths),
        )

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
            record.fails(error_bytes(error))
            self.apply(record, Event.UNPLACEABLE, "it could not be created", phase)

    def apply(self, record: ActorRecord, event: Event, cause: str = "", phase: str = "") -> None:
        """Let the table decide and do what it says."""
        link, dead = record.link, record.state is State.DEAD
        try:
            actions = record.life.on(event)
        except TransitionError:
            logger.exception("actor %s", record.title)
            return
        if record.state is State.DEAD and not dead:
            record.dies(cause, phase)
        for action in actions:
            match action:
                case Action.SEND_START:
                    self._send_start(record)
                case Action.OPEN:
                    self._opened(record)
                case Action.LEAVE_PLACE:
                    self._leave_place(record)
                case Action.PLACE:
                    self._place(record)
                case Action.PLACE_AGAIN:
                    self._place_again(record, cause)
                case Action.STOP_WORKER:
                    self._stop(record, link, cause)
                case Action.LET_FINISH:
                    self._let_finish(record, link, cause)
                case Action.FORGET:
                    self.records.pop(record.actor, None)
                case Action.REMEMBER:
                    self._remember(record)
                case Action.BURY:
                    self._bury(record)
        record.changed()

    # ---- placing

    def _placed_at(self, record: ActorRecord, link: Link, place: Place | None, lease: LeaseId | None = None) -> None:
        record.goes_to(link, place, lease)
        self._placed.setdefault(link, {})[record] = None
        self.apply(record, Event.PLACED)

    def _is_not_at(self, record: ActorRecord, link: Link) -> None:
        if record.shares_worker and record.spec is not None:
            self._host.shared_pool(record.spec.env, record.spec.employer).done(link)
        there = self._placed.get(link)
        if there is not None:
            there.pop(record, None)
            if not there:
                del self._placed[link]

    def _leave_place(self, record: ActorRecord) -> None:
        link = record.leave_place()
        if link is not None:
            self._is_not_at(record, link)
        self._return(record)
        self._host.actor_moved(record)

    def _place_again(self, record: ActorRecord, cause: str) -> None:
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
                self._placed_at(record, link, pool.place_of(link))
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
                self._placed_at(record, link, pool.place_of(link))
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
            self._placed_at(record, link, lease.worker, lease.lease)
            return

    def _send_start(self, record: ActorRecord) -> None:
        link, spec = record.link, record.spec
        assert link is not None
        assert spec is not None
        if link.closed:
            self._host.loop.call_soon(self.apply, record, Event.LOST, "its process ended", "starting")
            return
        start = record.start(self._host.next_seq)
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
            record.fails(outcome.values[0].data)
            self.apply(record, Event.FAILED, "its constructor raised an error", "starting")
        else:
            self.apply(record, Event.ENDED, "it was cancelled", "starting")

    def _opened(self, record: ActorRecord) -> None:
        if record.life.restarts_left == 0 and record.spec is not None and not record.spec.named:
            record.will_not_start_again()
        self.release(record)

    # ---- the end

    def _stop(self, record: ActorRecord, link: Link | None, cause: str) -> None:
        if link is not None and not link.closed:
            if record.lease is not None:
                self._host.kill_worker(link.peer, cause)
            else:
                link.send(StopActor(record.actor, False, cause))
        self._return(record)

    def _let_finish(self, record: ActorRecord, link: Link | None, cause: str) -> None:
        if link is None or link.closed:
            self._return(record)
        else:
            link.send(StopActor(record.actor, True, cause))

    def _return(self, record: ActorRecord) -> None:
        lease = record.take_lease()
        if lease is not None:
            self._host.return_lease(lease)

    def _bury(self, record: ActorRecord) -> None:
        if record.link is not None:
            self._is_not_at(record, record.link)
        record.is_buried()
        self._restarts.pop(record.actor, None)
        placing = self._placing.get(record.actor)
        if placing is not None and placing is not asyncio.current_task():
            # It is not to keep a place in the queue for a worker.
            placing.cancel()
        self._host.actor_moved(record)
        record.tell_of_death()
        self.release(record)

    def _remember(self, record: ActorRecord) -> None:
        """Nobody is known who could ask for it, but a handle may lie in a value."""
        if self.records.pop(record.actor, None) is not None:
            death = record.death()
            if len(death.failed) > FAILURE_BYTES:
                death = replace(death, failed=b"")
            self._deaths.put(record.actor, death)

    def at(self, link: Link) -> list[ActorRecord]:
        """The actors that were sent there, and have not left."""
        return list(self._placed.get(link, ()))

    def link_lost(self, link: Link) -> None:
        """The link to a worker is gone: every actor there is lost."""
        lost = self.at(link)
        if lost:
            self._host.spawn_here(self._lost(link, lost))

    def borrower_ended(self, process: ProcessId) -> None:
        """A process has ended: it holds no handles any more."""
        for record in self._borrowed.pop(process, ()):
            record.borrower_lost(process)
            self.release(record)

    def absent(self, record: ActorRecord, incarnation: int) -> None:
        """The worker that this life of it runs in says that it does not have it."""
        if record.state is State.ALIVE and record.life.incarnation == incarnation:
            # Its owner would know by now if it had ended in any way that it was told of.
            self.apply(record, Event.LOST, "its worker has lost it", "running")

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
            self.apply(record, Event.LEFT, cause, "running")

    async def kill(self, actor: ActorKey, no_restart: bool) -> None:
        """End it. When this returns, no call that anybody makes from then on finds it as it was."""
        record = self.records.get(actor)
        if record is None:
            return
        link = record.link
        # One that is dead and has a process to itself finishes what it was called for.
        process_ends = record.lease is not None and record.state is not State.DEAD
        phase = "being placed" if record.state is State.PLACING else "running"
        self.apply(record, Event.ENDED if no_restart else Event.KILLED, KILLED, phase)
        if link is not None and not link.closed:
            # Others have links of their own to its worker: it has to know, or to be gone, before they call.
            with contextlib.suppress(exceptions.ActorrtError, TimeoutError):
                async with asyncio.timeout(TOLD_WITHIN_S):
                    await (link.gone.wait() if process_ends else link.ask(Ping()))

    # ---- who still wants it

    @property
    def is_borrowed(self) -> bool:
        """True while other processes hold handles to living actors that this one owns."""
        return any(record.borrowers and record.state is not State.DEAD for record in list(self.records.values()))

    def borrow(self, actor: ActorKey, borrower: ProcessId, delta: int) -> None:
        record = self.records.get(actor)
        if record is None:
            return
        if record.borrowed(borrower, delta):
            self._borrowed.setdefault(borrower, {})[record] = None
            return
        held = self._borrowed.get(borrower)
        if held is not None:
            held.pop(record, None)
            if not held:
                del self._borrowed[borrower]
        self.release(record)

    def release(self, record: ActorRecord) -> None:
        """A handle is gone: it may have been the last one."""
        if not record.borrowers and not self._host.holds(record):
            self.apply(record, Event.UNHELD, "no process held a handle to it any more", "idle")

    def disown(self, record: ActorRecord) -> None:
        """It was not to be: nothing is known of it any more. From any thread."""
        record.was_not_to_be()
        self.records.pop(record.actor, None)

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
            await record.change(self._host.loop)
