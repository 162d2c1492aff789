"""Actors that this process owns: placed, started, restarted, buried.

The decisions are core/lifecycle.py's table; this shell carries them out on the runtime loop. A driver or worker
supervises the actors that it created, a node the detached ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, Protocol

from actorrt import exceptions
from actorrt.core.lifecycle import CAUSES, Action, Answer, Event, State, TransitionError, Until
from actorrt.core.recent import Recent
from actorrt.core.restarts import Restarts
from actorrt.types import ActorKey, Employer, LeaseId, Place, ProcessId
from actorrt.wire.messages import (
    CANCELLED,
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
from .actor_records import ActorRecord, ActorSpec, at_end, forgotten
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


_PLACED: Final = Event.PLACED
_STARTED: Final = Event.STARTED
_UNHELD: Final = Event.UNHELD
DEATHS_REMEMBERED: Final = 256
# What an outcome of a start is, beside an error of the constructor.
_UNMADE: Final = {GIVEN_BACK: Event.TURNED_AWAY, CANCELLED: Event.CANCELLED}
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
        # What is under way for those that wait for a worker of their own, or for their next life.
        self._placing: dict[ActorKey, asyncio.Task[Any] | asyncio.TimerHandle] = {}
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
        if record.life.wants_place:
            self.adopt(record)
            self._place(record)

    def fail(self, record: ActorRecord, error: BaseException | bytes) -> None:
        """It cannot even be placed."""
        self.apply(record, Event.UNMAKEABLE, failure=error_bytes(error))

    def apply(
        self,
        record: ActorRecord,
        event: Event,
        cause: str = "",
        failure: bytes = b"",
        incarnation: int | None = None,
        start: int | None = None,
    ) -> tuple[Action, ...]:
        """Let the table decide and do what it says; what that was."""
        cause = cause or CAUSES.get(event, "")
        try:
            actions = record.life.on(event, cause, failure, incarnation=incarnation, start=start)
        except TransitionError:
            logger.exception("actor %s", record.title)
            return ()
        for action in actions:
            _STEPS[action](self, record, cause)
        record.changed()
        return actions

    # ---- placing

    def _placed_at(self, record: ActorRecord, link: Link, place: Place | None, lease: LeaseId | None = None) -> None:
        record.goes_to(link, place, lease)
        self._placed.setdefault(link, {})[record] = None
        self.apply(record, _PLACED)

    def _pool_of(self, record: ActorRecord) -> SharedPool | None:
        """The workers that it shares."""
        spec = record.spec
        return None if spec is None or not spec.shared else self._host.shared_pool(spec.env, spec.employer)

    def _is_not_at(self, record: ActorRecord, link: Link) -> None:
        pool = self._pool_of(record)
        if pool is not None:
            pool.done(link)
        there = self._placed.get(link)
        if there is not None:
            there.pop(record, None)
            if not there:
                del self._placed[link]

    def _avoid_worker(self, record: ActorRecord, _cause: str) -> None:
        pool, link = self._pool_of(record), record.link
        if pool is not None and link is not None:
            pool.blocked(link.peer, True)

    def _leave_place(self, record: ActorRecord, _cause: str) -> None:
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
            self._placing[record.actor] = loop.call_later(pause_s, self._pause_over, record)
        else:
            self._place(record)

    def _pause_over(self, record: ActorRecord) -> None:
        del self._placing[record.actor]
        if not self._host.closing:
            self._place(record)

    def _place(self, record: ActorRecord, _cause: str = "") -> None:
        pool, spec = self._pool_of(record), record.spec
        assert spec is not None
        if pool is None:
            self._host.spawn_here(self._place_process(record, spec))
        elif not self._place_at(record, pool):
            self._host.spawn_here(self._place_shared(record, pool))

    def _place_at(self, record: ActorRecord, pool: SharedPool) -> bool:
        """Place it in a worker of the pool, if that has one."""
        link = pool.pick()
        if link is None:
            return False
        self._placed_at(record, link, pool.place_of(link))
        return True

    async def _place_shared(self, record: ActorRecord, pool: SharedPool) -> None:
        while record.life.wants_place and not self._place_at(record, pool):
            try:
                await pool.ready()
            except exceptions.ActorrtError as error:
                self.apply(record, Event.UNPLACEABLE, failure=error_bytes(error))

    async def _place_process(self, record: ActorRecord, spec: ActorSpec) -> None:
        placing = asyncio.current_task()
        if placing is None or not record.life.wants_place:
            return
        self._placing[record.actor] = placing
        try:
            lease, link = await self._lease_worker(spec, record.title)
        except exceptions.ActorrtError as error:
            self._placing.pop(record.actor, None)
            self.apply(record, Event.UNPLACEABLE, failure=error_bytes(error))
        else:
            self._placing.pop(record.actor, None)
            self._placed_at(record, link, lease.worker, lease.lease)

    async def _lease_worker(self, spec: ActorSpec, title: str) -> tuple[Lease, Link]:
        host = self._host
        while True:
            wanted = LeaseRequest(spec.shape, spec.mode, spec.env or None, title, spec.employer, spec.strategy)
            lease = await host.lease(wanted)
            try:
                return lease, await host.peers.link_to(lease.worker.process, lease.worker.address)
            except exceptions.LinkError:
                host.return_lease(lease.lease)
            except asyncio.CancelledError:
                host.return_lease(lease.lease)
                raise

    def _send_start(self, record: ActorRecord, _cause: str) -> None:
        link, spec = record.link, record.spec
        assert link is not None
        assert spec is not None
        if link.closed:
            self._host.loop.call_soon(self.apply, record, Event.LOST, "its process ended")
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
        if outcome is None:
            self.apply(record, _STARTED, start=seq)
        elif outcome.kind == FAILED:
            self.apply(record, Event.FAILED, failure=outcome.values[0].data, start=seq)
        else:
            self.apply(record, _UNMADE[outcome.kind], start=seq)

    def _drop_start(self, record: ActorRecord, _cause: str) -> None:
        record.will_not_start_again()

    def _open(self, record: ActorRecord, _cause: str) -> None:
        self.release(record)

    # ---- the end

    def _forget(self, record: ActorRecord, _cause: str) -> None:
        self.records.pop(record.actor, None)

    def _stop(self, record: ActorRecord, cause: str) -> None:
        link = record.link
        if link is not None and not link.closed:
            if record.lease is not None:
                self._host.kill_worker(link.peer, cause)
            else:
                link.send(StopActor(record.actor, False, cause))
        self._return(record)

    def _let_finish(self, record: ActorRecord, cause: str) -> None:
        link = record.link
        if link is None or link.closed:
            self._return(record)
        else:
            link.send(StopActor(record.actor, True, cause))

    def _return(self, record: ActorRecord) -> None:
        lease = record.take_lease()
        if lease is not None:
            self._host.return_lease(lease)

    def _bury(self, record: ActorRecord, _cause: str) -> None:
        if record.link is not None:
            self._is_not_at(record, record.link)
        record.is_buried()
        self._restarts.pop(record.actor, None)
        placing = self._placing.pop(record.actor, None)
        if placing is not None:
            # It is not to keep a place in the queue for a worker.
            placing.cancel()
        self._host.actor_moved(record)
        record.tell_of_death()
        self.release(record)

    def _remember(self, record: ActorRecord, _cause: str) -> None:
        """Nobody is known who could ask for it, but a handle may lie in a value."""
        death = record.life.death
        if death is not None and self.records.pop(record.actor, None) is not None:
            self._deaths.put(record.actor, at_end(death.in_short(), record.life.incarnation))

    def at(self, link: Link) -> list[ActorRecord]:
        """The actors that were sent there, and have not left."""
        return list(self._placed.get(link, ()))

    def link_lost(self, link: Link) -> None:
        """The link to a worker is gone: every actor there is lost."""
        lost = [(record, record.life.incarnation) for record in self.at(link)]
        if lost:
            self._host.spawn_here(self._lost(link, lost))

    def borrower_ended(self, process: ProcessId) -> None:
        """A process has ended: it holds no handles any more."""
        for record in self._borrowed.pop(process, ()):
            record.borrower_lost(process)
            self.release(record)

    def absent(self, record: ActorRecord, incarnation: int) -> None:
        """The worker that this life of it runs in says that it does not have it."""
        self.apply(record, Event.ABSENT, incarnation=incarnation)

    async def _lost(self, link: Link, lost: list[tuple[ActorRecord, int]]) -> None:
        cause, _ = await self._host.exit_cause(link.peer)
        if self._host.closing:
            return
        for record, incarnation in lost:
            self.apply(record, Event.LOST, cause, incarnation=incarnation)

    def ended(self, actor: ActorKey, cause: str) -> None:
        """It left by itself (exit_actor)."""
        record = self.records.get(actor)
        if record is not None:
            self.apply(record, Event.LEFT, cause)

    async def kill(self, actor: ActorKey, no_restart: bool) -> None:
        """End it. When this returns, no call that anybody makes from then on finds it as it was."""
        record = self.records.get(actor)
        if record is None:
            return
        link, own_process = record.link, record.lease is not None
        actions = self.apply(record, Event.ENDED if no_restart else Event.KILLED)
        if link is not None and not link.closed:
            # Others have links of their own to its worker: it has to know, or to be gone, before they call. One that
            # was dead and has a process to itself finishes what it was called for.
            process_ends = own_process and Action.STOP_WORKER in actions
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
            self.apply(record, _UNHELD)

    def disown(self, record: ActorRecord) -> None:
        """It was not to be: nothing is known of it any more. From any thread."""
        record.was_not_to_be()
        self.records.pop(record.actor, None)

    async def where_is(self, actor: ActorKey, seen: int, fate: bool = False) -> ActorAt:
        """Where it runs, at an incarnation later than `seen`, or that it is dead.

        Waits while it is on its way there; with `fate` only until it is known whether it will be. NOW: does not wait.
        """
        until = Until.NOW if seen == NOW else Until.FATE if fate else Until.RUNNING
        while (record := self.records.get(actor)) is not None:
            match record.life.answer(seen, until):
                case Answer.DEATH:
                    return record.death()
                case Answer.PLACE:
                    return ActorAt(record.place, record.life.incarnation)
                case Answer.WAIT:
                    await record.change(self._host.loop)
        return self._deaths.get(actor) or forgotten()


# What is done for the table. Found by its key, since many actors may be made in a row.
_STEPS: Final[Mapping[Action, Callable[[Supervisor, ActorRecord, str], None]]] = {
    Action.SEND_START: Supervisor._send_start,
    Action.DROP_START: Supervisor._drop_start,
    Action.OPEN: Supervisor._open,
    Action.LEAVE_PLACE: Supervisor._leave_place,
    Action.AVOID_WORKER: Supervisor._avoid_worker,
    Action.PLACE: Supervisor._place,
    Action.PLACE_AGAIN: Supervisor._place_again,
    Action.STOP_WORKER: Supervisor._stop,
    Action.LET_FINISH: Supervisor._let_finish,
    Action.FORGET: Supervisor._forget,
    Action.REMEMBER: Supervisor._remember,
    Action.BURY: Supervisor._bury,
}
