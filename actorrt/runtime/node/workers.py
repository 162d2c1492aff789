"""The worker processes of a node: forked on demand, reused while idle, and remembered with the cause of their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from actorrt import exceptions
from actorrt.core.start_attempts import StartAttempts
from actorrt.types import NO_EMPLOYER, PROCESS_ID_SIZE, Employer, LeaseId, ProcessId
from actorrt.wire.any_text import as_bytes, as_text
from actorrt.wire.link import Ending
from actorrt.wire.messages import Exit, Facts, NodeStopping, Query, Retire, WorkerBlocked

from ..base.progress import last_begun
from ..base.socket_paths import remove_socket
from ..base.worker_params import WorkerParams
from ..links.link import Link
from ..machine.cgroup import Cgroup, OomWatch
from ..machine.gpus import visible_gpus
from ..machine.process import describe_exit
from ..machine.process_tree import NodeStart
from ..machine.zygote import WORKER_ID
from ..machine.zygote_client import ForkError, ZygoteLostError
from ..machine.zygote_keeper import ZygoteKeeper
from .loop_watch import LoopWatch, SharedWorker
from .worker_exits import WorkerExits
from .worker_output import WorkerOutputs

if TYPE_CHECKING:
    from .node import Node

logger = logging.getLogger("actorrt")

Env = tuple[tuple[str, str], ...]
# Employer, mode, the variables of the call, and those that say what it has for itself.
Kind = tuple[Employer, str, Env, Env]
_K = TypeVar("_K")
_V = TypeVar("_V")
# Who dies of one of these was killed by somebody: no fault of its own raises them.
SENT_BY_OTHERS: Final = (signal.SIGKILL, signal.SIGTERM)
# Shared workers of one program and environment, for each CPU, before further ones are made in place of blocked ones.
MOST_SHARED: Final = 4
# A worker that has said goodbye may take this long to flush its output and end.
GOODBYE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class YoungEnd:
    """A worker has ended while it started."""

    cause: str
    # It was not killed by somebody else.
    by_itself: bool


class Worker:
    """One worker process."""

    __slots__ = (
        "cause",
        "gpus",
        "is_actor",
        "is_idle",
        "is_shared",
        "employer",
        "kind",
        "lease",
        "link",
        "pid",
        "process",
        "reap_timer",
        "retired",
        "started",
    )

    def __init__(
        self, process: ProcessId, kind: Kind, gpus: list[int], is_shared: bool, started: asyncio.Future[YoungEnd | None]
    ) -> None:
        self.process = process
        self.kind = kind
        self.employer = kind[0]
        self.gpus = gpus
        self.is_shared = is_shared
        self.is_idle = False
        self.is_actor = False
        self.pid = 0
        self.lease: LeaseId | None = None
        self.link: Link | None = None
        # Why it was killed, if we did it.
        self.cause = ""
        # Why it gets no more work, though it may stay for what it owns.
        self.retired = ""
        # None once it is ready for work.
        self.started = started
        self.reap_timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return self.link is not None and not self.link.closed and not self.cause and not self.retired


class Workers:
    """All workers of a node. Runs on its loop."""

    def __init__(self, node: Node, start: NodeStart) -> None:
        self._node = node
        self._loop = node.loop
        config, silence_s = node.config, node.settings.worker_start_timeout_s
        self.zygote = ZygoteKeeper(node, start, config.session, config.preload_modules, silence_s, self._exited)
        self._by_process: dict[ProcessId, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        self._idle: dict[Kind, list[Worker]] = {}
        # Workers on their way that nobody waits for any more: the next who asks gets them, else they are idle.
        self._unclaimed: dict[Kind, list[asyncio.Task[Worker]]] = {}
        self._shared: dict[tuple[Employer, Env], list[Worker]] = {}
        self._starting_shared: dict[tuple[Employer, Env], asyncio.Task[list[Worker]]] = {}
        self._exits = WorkerExits(node.loop)
        self._oom = OomWatch(Cgroup.of_this_process())
        self._outputs = WorkerOutputs(os.path.join(node.config.session, "logs"), node.settings, self._listener)
        timeout = node.settings.worker_stall_timeout_s
        self._loops = LoopWatch(timeout, self._all_shared, self._tell_sharers, self._loop_stalled, node.spawn)

    # ---- getting one

    async def get(
        self, employer: Employer, mode: str, env: dict[str, str], own: dict[str, str], gpus: list[int]
    ) -> Worker:
        """A worker of its own: an idle one, or a new one. Raises what keeps it from starting."""
        kind: Kind = (employer, mode, tuple(sorted(env.items())), tuple(sorted(own.items())))
        while idle := self._idle.get(kind):
            worker = idle[-1]
            _take_out(self._idle, kind, worker)
            if worker.usable:
                worker.is_idle = False
                self._disarm(worker)
                return worker
        if unclaimed := self._unclaimed.get(kind):
            task = unclaimed[-1]
            _take_out(self._unclaimed, kind, task)
        else:
            task = self._loop.create_task(self._start(kind, gpus))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unclaimed.setdefault(kind, []).append(task)
            task.add_done_callback(partial(self._nobody_came, kind))
            raise

    def _nobody_came(self, kind: Kind, task: asyncio.Task[Worker]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if _take_out(self._unclaimed, kind, task) and not failed:
            self.idle(task.result())

    async def shared(self, employer: Employer, env: dict[str, str], want: int) -> list[Worker]:
        """The workers that a job's coroutines share: at least one, and one more if `want` says so."""
        key = (employer, tuple(sorted(env.items())))
        usable = [worker for worker in self._shared.get(key, ()) if worker.usable]
        have = [worker for worker in usable if not self._loops.is_blocked(worker)]
        if len(have) >= max(1, want):
            return have
        if len(usable) >= MOST_SHARED * max(1, self._node.cpus):
            # Those who block them all would block any further ones too.
            return have or usable
        task = self._starting_shared.get(key)
        if task is None:
            task = self._loop.create_task(self._start_shared(key))
            self._starting_shared[key] = task
            task.add_done_callback(partial(self._shared_started, key))
        return await asyncio.shield(task)

    def _shared_started(self, key: tuple[Employer, Env], task: asyncio.Task[list[Worker]]) -> None:
        del self._starting_shared[key]
        if not task.cancelled():
            # Whoever waits has it; nobody may wait any more.
            task.exception()

    async def _start_shared(self, key: tuple[Employer, Env]) -> list[Worker]:
        worker = await self._start((key[0], "loop", key[1], ()), [], is_shared=True)
        if worker.process in self._by_process:
            self._shared.setdefault(key, []).append(worker)
        return [worker for worker in self._shared.get(key, ()) if worker.usable and not self._loops.is_blocked(worker)]

    def _all_shared(self) -> list[Worker]:
        return [worker for workers in self._shared.values() for worker in workers if worker.usable]

    def loop_blocked(self, process: ProcessId, by: str, harmful: bool) -> None:
        """A worker says what blocks its loop, or that it goes on."""
        worker = self._by_process.get(process)
        if worker is not None and worker.is_shared and worker.usable:
            self._loops.heard(worker, by, harmful)

    def _tell_sharers(self, worker: SharedWorker, blocked: bool) -> None:
        job = self._by_process[worker.process].employer.job
        message = WorkerBlocked(worker.process, blocked)
        self._node.host.blocked(worker.process, blocked)
        _, driver = self._node.jobs.get(job, (None, None))
        workers = [one.link for one in self._by_process.values() if one.employer.job == job]
        for link in (driver, *workers):
            if link is not None and not link.closed:
                link.send(message)

    def _loop_stalled(self, worker: SharedWorker, why: str) -> None:
        self.kill(worker.process, why)

    async def _start(self, kind: Kind, gpus: list[int], is_shared: bool = False) -> Worker:
        limit_s = self._node.settings.worker_start_timeout_s
        attempts = StartAttempts(limit_s)
        while True:
            worker = await self._fork(kind, gpus, is_shared)
            try:
                async with asyncio.timeout(limit_s):
                    end = await worker.started
            except TimeoutError:
                self.kill(worker.process, "it did not start in time")
                raise exceptions.WorkerCrashedError("a new worker", "it did not start in time", False) from None
            if end is None:
                return worker
            pause_s = attempts.ended(self._loop.time(), by_itself=end.by_itself)
            story = attempts.story(end.cause)
            if worker.cause or pause_s is None:
                raise exceptions.WorkerCrashedError("a new worker", story, False)
            logger.warning("a new worker died: %s; another one is started in %g s", story, pause_s)
            await asyncio.sleep(pause_s)

    async def _fork(self, kind: Kind, gpus: list[int], is_shared: bool) -> Worker:
        node = self._node
        employer, mode, env, own = kind
        driver = node.program(employer)
        if driver is None or node.stopping:
            raise exceptions.ActorrtError("its program has ended")
        process = ProcessId(os.urandom(PROCESS_ID_SIZE))
        params = WorkerParams(
            process=process,
            node=node.process,
            session=as_bytes(node.config.session),
            mode=mode,
            employer=employer,
            namespace=driver.namespace,
            sys_path=driver.sys_path,
            main_file=driver.main_file,
            argv=driver.argv,
            cpus=node.cpus,
            gpus=visible_gpus(gpus),
            env=dict(env),
            node_id=node.process,
            store_limit=node.config.store_limit,
        )
        worker = Worker(process, kind, gpus, is_shared, self._loop.create_future())
        self._by_process[process] = worker
        stdout = stderr = -1
        try:
            stdout, stderr = self._outputs.open(worker)
            worker.pid = await self.zygote.fork(
                msgspec.msgpack.encode(params),
                stdout_fd=stdout,
                stderr_fd=stderr,
                env={**self._base_environment(), **driver.env, **dict(own), **dict(env), WORKER_ID: process.hex()},
                cwd=as_text(driver.cwd),
            )
        except BaseException as error:
            del self._by_process[process]
            self._outputs.abandon(worker)
            if isinstance(error, ZygoteLostError):
                raise exceptions.NodeDiedError(node.process.hex(), error.reason) from error
            if isinstance(error, ForkError | OSError | ValueError):
                raise exceptions.WorkerCrashedError(
                    "a new worker", f"it could not be forked: {error}", False
                ) from error
            raise
        finally:
            for fd in (stdout, stderr):
                if fd >= 0:
                    os.close(fd)
        self._by_pid[worker.pid] = worker
        self._outputs.born(worker)
        if worker.cause:
            # It was to be killed before it was there.
            self.zygote.kill(worker.pid)
        return worker

    def _base_environment(self) -> dict[str, str]:
        """What every worker gets, unless the program or the call says otherwise."""
        env: dict[str, str] = {}
        if "OMP_NUM_THREADS" not in os.environ:
            env["OMP_NUM_THREADS"] = "1"
        if self._node.leases.resources.total.get("GPU"):
            # GPUs are for those who ask for them.
            env["CUDA_VISIBLE_DEVICES"] = ""
        return env

    def ready(self, link: Link) -> None:
        worker = self._by_process.get(link.peer)
        if worker is not None:
            worker.link = link
            if not worker.started.done():
                worker.started.set_result(None)

    def employer_of(self, process: ProcessId) -> Employer:
        """Whom a worker works for; NO_EMPLOYER for any other process."""
        worker = self._by_process.get(process)
        return NO_EMPLOYER if worker is None else worker.employer

    def rename(self, process: ProcessId, name: str) -> None:
        worker = self._by_process.get(process)
        if worker is not None:
            self._outputs.rename(worker, name)

    # ---- what they print

    def _listener(self, employer: Employer) -> Link | None:
        """Who wants to see what workers print; those of detached actors are seen by who made them."""
        driver, link = self._node.jobs.get(employer.job, (None, None))
        return link if driver is not None and driver.log_to_driver else None

    def flush_output(self, link: Link) -> None:
        """Send a driver what its workers have printed so far."""
        for job, (_, its_link) in self._node.jobs.items():
            if its_link is link:
                self._outputs.flush(job)

    # ---- giving one back

    def returned(self, worker: Worker, end: bool) -> None:
        """Its lease ended: it is reused, unless an actor lived in it, or it is to `end`."""
        if worker.process not in self._by_process or worker.cause:
            return
        if worker.is_actor or end:
            self.retire(worker, "its work was done")
        else:
            self.idle(worker)

    def retire(self, worker: Worker, reason: str, finish: bool = True) -> None:
        """It gets no more work, and ends once nobody needs what it owns; see Retire."""
        if worker.cause or worker.retired:
            return
        worker.retired = reason
        if worker.link is not None and not worker.link.closed:
            worker.link.send(Retire(finish))
        # Unless it says that it is needed.
        self._kill_after(worker, self._node.settings.shutdown_timeout_s)

    def stays(self, process: ProcessId) -> None:
        """Its work is done, and others need what it owns: it goes on without its lease."""
        worker = self._by_process.get(process)
        if worker is None or worker.cause:
            return
        worker.retired = worker.retired or "its work was done"
        self._disarm(worker)
        if worker.lease is not None:
            self._node.leases.give_back(worker.lease, end_worker=True)

    def let_go(self, worker: Worker, reason: str) -> None:
        """It cancels what it runs and leaves by itself, or is made to."""
        if worker.cause:
            return
        worker.cause = reason
        if worker.link is not None and not worker.link.closed:
            worker.link.send(NodeStopping(reason))
        self._kill_after(worker, self._node.settings.shutdown_timeout_s)

    def idle(self, worker: Worker) -> None:
        """Keep a worker that nobody has, for the next who wants one of its kind."""
        if not worker.usable or self._node.stopping:
            return
        if self._node.program(worker.employer) is None:
            self.kill(worker.process, "its program ended")
            return
        worker.is_idle = True
        self._idle.setdefault(worker.kind, []).append(worker)
        self._disarm(worker)
        worker.reap_timer = self._loop.call_later(self._node.settings.idle_worker_s, self._reap, worker)

    def _reap(self, worker: Worker) -> None:
        if _take_out(self._idle, worker.kind, worker):
            worker.is_idle = False
            self._node.spawn(self._let_go_if_unneeded(worker))

    async def _let_go_if_unneeded(self, worker: Worker) -> None:
        """It may own what its tasks have left to others: objects, calls under way, actors."""
        assert worker.link is not None
        try:
            answer: Facts = await worker.link.ask(Query("needed"))
        except exceptions.LinkError:
            return
        except exceptions.ActorrtError:
            logger.exception("worker %s could not say whether it is needed", worker.process.hex())
            answer = Facts(True)
        if answer.data:
            self.idle(worker)
        else:
            self.let_go(worker, "nobody needed it")

    # ---- their ends

    def kill(self, process: ProcessId, reason: str) -> None:
        """Kill a worker with all that it started."""
        worker = self._by_process.get(process)
        if worker is not None:
            worker.cause = reason
            if worker.pid:
                self.zygote.kill(worker.pid)

    def _kill_after(self, worker: Worker, delay_s: float) -> None:
        self._disarm(worker)
        if worker.pid:
            worker.reap_timer = self._loop.call_later(delay_s, self.zygote.kill, worker.pid)

    @staticmethod
    def _disarm(worker: Worker) -> None:
        if worker.reap_timer is not None:
            worker.reap_timer.cancel()
            worker.reap_timer = None

    @property
    def pids(self) -> Collection[int]:
        """The processes of all workers."""
        return self._by_pid.keys()

    def stalled(self, pid: int, timeout_s: float) -> None:
        """A worker was found stopped for so long."""
        worker = self._by_pid.get(pid)
        if worker is not None and not worker.cause:
            self.kill(worker.process, f"it was stopped (SIGSTOP) for {timeout_s:g} s")

    def link_lost(self, link: Link) -> None:
        """It closed its link, is dead, or has not gone on: either way nothing can be asked of it any more."""
        worker = self._by_process.get(link.peer)
        # One that starts may dial again; if it does not, it ends by itself or is late.
        if worker is not None and worker.started.done():
            if link.closed is Ending.LOST:
                worker.cause = worker.cause or "its link to the node broke, and it did not dial again"
            self._kill_after(worker, GOODBYE_S if link.farewell else 0.0)

    def ended(self, process: ProcessId, end: Exit) -> None:
        """A process that is none of these workers has ended; for those who ask later."""
        self._exits.ended(process, end)

    def _exited(self, pid: int, status: int, lost: str) -> None:
        worker = self._by_pid.pop(pid, None)
        if worker is None:
            return
        now = self._loop.time()
        self._oom.observe(now)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        out_of_memory = bool(killed and not worker.cause and not lost and self._oom.claim(now))
        in_order = status == 0 and worker.retired
        cause = worker.cause or in_order or describe_exit(status, out_of_memory=out_of_memory)
        if killed and lost and not worker.cause:
            cause = f"{cause} since {lost}"
        sent = os.WIFSIGNALED(status) and os.WTERMSIG(status) in SENT_BY_OTHERS
        # The end of its zygote says no more about it.
        by_itself = not lost and (out_of_memory or not sent)
        self._forget(worker, Exit(cause, out_of_memory, last_begun(self._node.config.session, worker.process)))
        if not worker.started.done():
            worker.started.set_result(YoungEnd(cause, by_itself))

    def _forget(self, worker: Worker, end: Exit) -> None:
        self._by_process.pop(worker.process, None)
        self._disarm(worker)
        remove_socket(self._node.config.session, worker.process)
        worker.is_idle = False
        _take_out(self._idle, worker.kind, worker)
        _take_out(self._shared, (worker.employer, worker.kind[2]), worker)
        self._loops.ended(worker)
        self._outputs.ended(worker)
        self._exits.ended(worker.process, end)
        self._node.leases.worker_ended(worker)

    async def exit_of(self, process: ProcessId) -> Exit:
        """Why a process ended; waits until a worker whose link broke has been reaped."""
        if process in self._by_process:
            return await self._exits.wait(process)
        return self._exits.known(process)

    async def end_work_for(self, employer: Employer, reason: str) -> None:
        """A program has ended: its workers get a moment to clean up, then they are killed."""
        mine = [worker for worker in self._by_process.values() if worker.employer == employer]
        await self._end(mine, reason, self._node.settings.shutdown_timeout_s)
        for kind in [kind for kind in self._idle if kind[0] == employer]:
            del self._idle[kind]
        for kind in [kind for kind in self._unclaimed if kind[0] == employer]:
            del self._unclaimed[kind]
        for key in [key for key in self._shared if key[0] == employer]:
            del self._shared[key]

    async def _end(self, workers: list[Worker], reason: str, grace_s: float) -> None:
        for worker in workers:
            worker.cause = worker.cause or reason
            if worker.link is None:
                # It is starting, and has nothing to clean up.
                self.kill(worker.process, worker.cause)
            elif not worker.link.closed:
                worker.link.send(NodeStopping(reason))
        waiting = [self._loop.create_task(self.exit_of(worker.process)) for worker in workers]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for worker in workers:
            self.kill(worker.process, worker.cause)
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for task in waiting:
            task.cancel()

    async def close(self, grace_s: float) -> None:
        """End all workers and the zygote."""
        await self._end(list(self._by_process.values()), self._node.end_reason, grace_s)
        with contextlib.suppress(Exception):
            await self.zygote.close(grace_s)
        await self._outputs.close()

    def facts(self) -> list[dict[str, Any]]:
        return [
            {
                "worker_id": worker.process.hex(),
                "pid": worker.pid,
                "job": worker.employer.job.hex(),
                "detached": worker.employer.detached,
                "kind": "shared" if worker.is_shared else worker.kind[1],
                "idle": worker.is_idle,
            }
            for worker in self._by_process.values()
        ]


def _take_out(table: dict[_K, list[_V]], key: _K, value: _V) -> bool:
    """Take a value out of a table of lists, without leaving an empty one; whether it was there."""
    values = table.get(key, [])
    if value not in values:
        return False
    values.remove(value)
    if not values:
        del table[key]
    return True
