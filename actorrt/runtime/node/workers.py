"""A node's workers and leases: messages in, the decisions of core/node_state.py performed. Nothing is decided here."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core import node_actions as do
from actorrt.core.node_state import Holding, NodeState, Statistics, Waiting, Wanted
from actorrt.core.roll_call import Member
from actorrt.core.worker_environment import THREADS
from actorrt.core.worker_pool import Limits
from actorrt.core.workers import Env, ProcessEnd, State
from actorrt.types import NO_EMPLOYER, PROCESS_ID_SIZE, Employer, GroupId, JobKey, LeaseId, Place, ProcessId
from actorrt.wire.addresses import place_on
from actorrt.wire.link import Ending
from actorrt.wire.messages import (
    Exit,
    Facts,
    Lease,
    LeaseRequest,
    LeasesWanted,
    NodeStopping,
    Query,
    Retire,
    WorkerBlocked,
    WorkerList,
)

from ..links.link import Link
from .loop_watch import LoopWatch, SharedWorker
from .programs import Programs
from .worker_processes import Facts as NodeFacts
from .worker_processes import Memory, Outputs, WorkerProcesses, Zygote

logger = logging.getLogger("actorrt")

Answer = do.Grant | do.Share
# In these states somebody's work may be in a worker.
_WORKING: Final = frozenset({State.LEASED, State.SHARED})


class GroupAnswers(Protocol):
    """Who has bundles of placement groups reserved, and hears of them; it is told in the middle of other work."""

    def reserved(self, group: GroupId, attempt: int, /) -> None: ...
    def refused(self, group: GroupId, attempt: int, /) -> None: ...
    def freed(self) -> None: ...


class Workers:
    """Runs on the node's loop."""

    def __init__(
        self,
        facts: NodeFacts,
        total: Mapping[str, int],
        settings: Settings,
        programs: Programs,
        zygote: Zygote,
        outputs: Outputs,
        memory: Memory,
        link_of: Callable[[ProcessId], Link | None],
        blocked: Callable[[ProcessId, bool], object],
        ended: Callable[[ProcessId], object],
        groups: GroupAnswers,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`blocked` hears of shared workers whose loop is blocked, `ended` of those that were reaped, `groups` of
        bundles."""
        self._node = facts.node
        self._cpus = facts.cpus
        self._programs = programs
        self._link_of = link_of
        self._blocked = blocked
        self._ended = ended
        self._groups = groups
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        limits = Limits(settings.worker_start_timeout_s, settings.idle_worker_s, settings.shutdown_timeout_s)
        self._state = NodeState(
            facts.node, total, facts.cpus, limits, _new_process, tells_cpus=THREADS not in os.environ
        )
        self._processes = WorkerProcesses(facts, programs, zygote, outputs, memory, self, spawn)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._timers: dict[do.Timer, asyncio.TimerHandle] = {}
        self._loops = LoopWatch(
            settings.worker_stall_timeout_s, self._all_shared, link_of, self._loop_changed, self.kill, spawn
        )

    # ---- questions

    async def lease(self, owner: ProcessId, wanted: LeaseRequest) -> Lease:
        """A worker for `owner`, when its shape is free. Raises what makes it impossible."""
        env = _sorted(wanted.env)
        request = Wanted(wanted.shape, wanted.employer, wanted.mode, env, wanted.actor, wanted.strategy)
        number = next(self._numbers)
        grant = await self._answer(number, self._state.ask(number, owner, request))
        assert isinstance(grant, do.Grant)
        pid = 0 if (worker := self._processes.get(grant.process)) is None else worker.pid
        return Lease(grant.lease, self._place_of(grant.process), pid, list(grant.gpus) or None, grant.wanted)

    async def share(self, employer: Employer, env: Mapping[str, str] | None, want: int) -> WorkerList:
        """The workers that an employer's coroutines share: at least one, and one more if `want` says so."""
        number = next(self._numbers)
        actions = self._state.ask_shared(number, employer, _sorted(env), min(want, self._cpus))
        found = await self._answer(number, actions)
        assert isinstance(found, do.Share)
        return WorkerList([self._place_of(process) for process in found.workers], self._cpus)

    def _place_of(self, process: ProcessId) -> Place:
        """Where a worker is: it has said so itself as it came."""
        link = self._link_of(process)
        return place_on(self._node, process, None if link is None else link.address)

    async def _answer(self, number: int, actions: tuple[do.NodeAction, ...]) -> Answer:
        future = self._asked[number] = self._loop.create_future()
        self._perform(actions)
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._perform(self._state.withdraw(number))
                self._perform(self._state.withdraw_shared(number))
            elif future.exception() is None and isinstance(grant := future.result(), do.Grant):
                # It crossed the end of who waited for it.
                self.give_back(grant.lease, False)
            raise
        finally:
            del self._asked[number]

    # ---- what is said of workers and leases

    def employ(self, employer: Employer) -> None:
        self._state.employ(employer)

    def dismiss(self, employer: Employer, reason: str) -> None:
        """A program has ended: its workers get a moment to clean up, then they are killed."""
        self._perform(self._state.dismiss(employer, reason))

    def give_back(self, lease: LeaseId, end_worker: bool) -> None:
        """The holder does not need it any more."""
        self._perform(self._state.give_back(lease, end_worker))

    def block(self, number: int, blocked: bool) -> None:
        """The worker of a lease waits in `get`, or goes on."""
        self._perform(self._state.block(number, blocked))

    def owner_ended(self, owner: ProcessId) -> None:
        """A process has ended: its workers have nobody left to work for."""
        self._perform(self._state.owner_ended(owner))

    def reserve(self, group: GroupId, attempt: int, bundles: Mapping[int, Mapping[str, int]], waits: bool) -> None:
        """Set bundles of a placement group aside."""
        self._perform(self._state.reserve(group, attempt, bundles, waits))

    def commit(self, group: GroupId, attempt: int) -> None:
        self._perform(self._state.commit(group, attempt))

    def release(self, group: GroupId, attempt: int, why: str) -> None:
        """Bundles are not needed any more: what runs in them is ended."""
        self._perform(self._state.release(group, attempt, why))

    def ready(self, process: ProcessId) -> None:
        self._perform(self._state.ready(process))

    def stays(self, process: ProcessId) -> None:
        """Its work is done, and others need what it owns: it goes on without its lease."""
        self._perform(self._state.stays(process))

    def kill(self, process: ProcessId, reason: str) -> None:
        """Kill a worker with all that it started."""
        self._perform(self._state.kill(process, reason))

    def end_for_memory(self, process: ProcessId, reason: str) -> None:
        """Kill a worker, since memory runs short."""
        self._perform(self._state.end_for_memory(process, reason))

    def working(self) -> dict[ProcessId, int]:
        """The pids of workers that are leased or shared."""
        return {
            one.process: one.pid
            for one in self._processes.every()
            if one.pid and (worker := self._state.worker(one.process)) is not None and worker.state in _WORKING
        }

    def living(self) -> set[ProcessId]:
        """All that have not been reaped."""
        return {one.process for one in self._processes.every()}

    def stalled(self, pid: int, timeout_s: float) -> None:
        """A worker was found stopped for so long."""
        worker = self._processes.with_pid(pid)
        if worker is not None:
            self._perform(self._state.stalled(worker.process, f"it was stopped (SIGSTOP) for {timeout_s:g} s"))

    def link_lost(self, link: Link) -> None:
        """It closed its link, is dead, or has not gone on: either way nothing can be asked of it any more."""
        cause = "its link to the node broke, and it did not dial again" if link.closed is Ending.LOST else ""
        self._perform(self._state.link_lost(link.peer, link.farewell, cause))

    def remember(self, process: ProcessId, end: Exit) -> None:
        """A process that is none of these workers has ended; for those who ask later."""
        self._processes.remember(process, end)

    def reaped(self, pid: int, status: int, lost: str) -> None:
        """A worker's process was reaped; `lost`: how its zygote ended, if it was lost with that."""
        self._processes.exited(pid, status, lost)

    # ---- what is said of their processes (worker_processes.Reports)

    def forked(self, process: ProcessId) -> None:
        self._perform(self._state.forked(process))

    def fork_failed(self, process: ProcessId, error: exceptions.ActorrtError) -> None:
        self._perform(self._state.fork_failed(process, error))

    def fork_lost(self, process: ProcessId, error: exceptions.ActorrtError) -> None:
        self._perform(self._state.fork_lost(process, error))

    def exited(self, process: ProcessId, end: ProcessEnd) -> None:
        self._perform(self._state.exited(process, end, self._loop.time()))

    def may_lack_memory(self, process: ProcessId) -> bool:
        return self._state.may_lack_memory(process)

    # ---- what is to be done

    def _perform(self, actions: tuple[do.NodeAction, ...]) -> None:
        for action in actions:
            match action:
                case do.Fork():
                    self._processes.fork(action.process, action.kind)
                case do.Kill():
                    self._processes.kill(action.process)
                case do.SendRetire():
                    self._send(action.process, Retire(action.finish))
                case do.SendLeave():
                    self._send(action.process, NodeStopping(action.reason))
                case do.AskIfNeeded():
                    self._spawn(self._ask_if_needed(action.process))
                case do.CallBack():
                    self._send(action.owner, LeasesWanted(list(action.leases)))
                case do.Grant() | do.Share():
                    self._answered(action)
                case do.Refuse():
                    future = self._asked[action.request]
                    if not future.done():
                        future.set_exception(action.error)
                case do.Reserved():
                    self._groups.reserved(action.group, action.attempt)
                case do.Unreserved():
                    self._groups.refused(action.group, action.attempt)
                case do.Freed():
                    self._groups.freed()
                case do.Remind():
                    self._unremind(action.timer)
                    self._timers[action.timer] = self._loop.call_later(action.delay_s, self._due, action.timer)
                case do.Unremind():
                    self._unremind(action.timer)
                case do.StartAgain():
                    words = "a new worker died: %s; another one is started in %g s"
                    logger.warning(words, action.story, action.pause_s)
                case do.Bury():
                    self._loops.ended(action.process)
                    self._processes.bury(action.process, action.cause, action.out_of_memory)
                    self._ended(action.process)
                case do.Unmake():
                    self._processes.unmake(action.process)
                    self._ended(action.process)

    def _answered(self, answer: Answer) -> None:
        future = self._asked[answer.request]
        if not future.done():
            future.set_result(answer)
        elif isinstance(answer, do.Grant):
            # Who waited for it does not any more, and has not been able to say so.
            self._loop.call_soon(self.give_back, answer.lease, False)

    def _send(self, process: ProcessId, message: Retire | NodeStopping | LeasesWanted) -> None:
        link = self._link_of(process)
        if link is not None:
            link.send(message)

    def _due(self, timer: do.Timer) -> None:
        del self._timers[timer]
        self._perform(self._state.due(timer))

    def _unremind(self, timer: do.Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    async def _ask_if_needed(self, process: ProcessId) -> None:
        """It may own what its tasks have left to others: objects, calls under way, actors."""
        link = self._link_of(process)
        if link is None:
            return
        try:
            answer: Facts = await link.ask(Query("needed"))
        except exceptions.LinkError:
            return
        except exceptions.ActorrtError:
            logger.exception("worker %s could not say whether it is needed", process.hex())
            answer = Facts(True)
        self._perform(self._state.needed(process, bool(answer.data)))

    # ---- loops that are blocked

    def _all_shared(self) -> list[SharedWorker]:
        return [worker for worker in self._processes.every() if self._is_shared(worker.process)]

    def _is_shared(self, process: ProcessId) -> bool:
        worker = self._state.worker(process)
        return worker is not None and worker.state is State.SHARED

    def loop_blocked(self, process: ProcessId, by: str, harmful: bool) -> None:
        """A worker says what blocks its loop, or that it goes on."""
        if self._is_shared(process):
            self._loops.heard(process, by, harmful)

    def _loop_changed(self, process: ProcessId, blocked: bool) -> None:
        self._state.loop_blocked(process, blocked)
        self._blocked(process, blocked)
        message = WorkerBlocked(process, blocked)
        job = self.employer_of(process).job
        program = self._programs.joined(job)
        workers = [self._link_of(one.process) for one in self._state.workers_of(job)]
        for link in (None if program is None else program.link, *workers):
            if link is not None and not link.closed:
                link.send(message)

    # ---- what they print

    def rename(self, process: ProcessId, name: str) -> None:
        self._processes.rename(process, name)

    def flush_output(self, job: JobKey) -> None:
        """Send a driver what its workers have printed so far."""
        self._processes.flush_output(job)

    # ---- what is known

    def employer_of(self, process: ProcessId) -> Employer:
        """Whom a worker works for; NO_EMPLOYER for any other process."""
        worker = self._state.worker(process)
        return NO_EMPLOYER if worker is None else worker.kind.employer

    def is_alive(self, process: ProcessId) -> bool:
        """A worker that has not been reaped."""
        return self._processes.get(process) is not None

    async def exit_of(self, process: ProcessId) -> Exit:
        """Why a process ended; waits until a worker whose link broke has been reaped."""
        return await self._processes.exit_of(process)

    @property
    def pids(self) -> Collection[int]:
        """The processes of all workers."""
        return self._processes.pids

    @property
    def free(self) -> Mapping[str, int]:
        """Resources, in units of 1/10000; CPUs may be overdrawn."""
        return self._state.free

    def requests(self) -> list[Waiting]:
        """Those for a lease that have no answer, in the order in which they came."""
        return self._state.requests()

    def holdings(self) -> list[Holding]:
        """The leases, the oldest first."""
        return self._state.holdings()

    @property
    def rooms(self) -> Mapping[int, int]:
        """How much of each GPU is free, by index."""
        return self._state.rooms

    def statistics(self) -> Statistics:
        return self._state.statistics()

    def tables(self) -> tuple[object, ...]:
        """Whatever has tables that could grow."""
        return (self, self._processes, *self._loops.tables(), *self._state.tables())

    def members(self) -> dict[Member, str]:
        """Workers, and in which state each is."""
        return {
            Member(one.process, "worker", one.pid): "" if worker is None else worker.state.name.lower()
            for one in self._processes.every()
            for worker in (self._state.worker(one.process),)
        }

    def facts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for process in self._processes.every():
            worker = self._state.worker(process.process)
            if worker is not None:
                found.append(
                    {
                        "worker_id": process.process.hex(),
                        "pid": process.pid,
                        "job": process.employer.job.hex(),
                        "detached": process.employer.detached,
                        "kind": "shared" if worker.is_shared else worker.kind.mode,
                        "idle": worker.state is State.IDLE,
                        "state": worker.state.name.lower(),
                    }
                )
        return found

    # ---- the end

    async def close(self, reason: str, grace_s: float) -> None:
        """End all workers."""
        self._perform(self._state.stop(reason, grace_s))
        await self._processes.until_ended(grace_s)
        for worker in self._processes.every():
            self.kill(worker.process, self._state.cause_of(worker.process) or reason)
        await self._processes.until_ended(grace_s)
        for timer in list(self._timers):
            self._unremind(timer)

    async def close_output(self) -> None:
        await self._processes.close()


def _new_process() -> ProcessId:
    return ProcessId(os.urandom(PROCESS_ID_SIZE))


def _sorted(env: Mapping[str, str] | None) -> Env:
    return tuple(sorted((env or {}).items()))
