"""The processes of a node's workers: forked, killed and reaped, with their pipes, files and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final, Protocol

import msgspec

from actorrt import exceptions
from actorrt.core.worker_environment import THREADS, environment_of
from actorrt.core.workers import ProcessEnd, WorkerKind, lacks_memory
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.any_text import as_bytes, as_text
from actorrt.wire.messages import Exit, JoinDriver

from ..base.progress import last_begun
from ..base.socket_paths import remove_socket
from ..base.worker_params import WorkerParams
from ..machine.gpus import visible_gpus
from ..machine.process import describe_exit
from ..machine.zygote import WORKER_ID
from ..machine.zygote_client import ForkError, ZygoteLostError
from .programs import Programs
from .worker_exits import WorkerExits
from .worker_output import Source

# What is said of a process that a zygote has not made, or has taken along before it could tell.
NEVER_MADE: Final = Exit("it was not made")


class Reports(Protocol):
    """Who decides what becomes of workers, and hears what has."""

    def forked(self, process: ProcessId, /) -> None: ...
    def fork_failed(self, process: ProcessId, error: exceptions.ActorrtError, /) -> None: ...
    def fork_lost(self, process: ProcessId, error: exceptions.ActorrtError, /) -> None: ...
    def exited(self, process: ProcessId, end: ProcessEnd, /) -> None: ...
    def may_lack_memory(self, process: ProcessId, /) -> bool: ...


class Zygote(Protocol):
    """What forks workers."""

    async def fork(
        self, params: bytes, *, stdout_fd: int, stderr_fd: int, env: Mapping[str, str], cwd: str | None
    ) -> int: ...
    def kill(self, pid: int) -> None: ...


class Memory(Protocol):
    """Says whether the kernel has killed for want of memory (machine.cgroup.OomWatch)."""

    def observe(self, now: float) -> None: ...
    def claim(self, now: float) -> bool: ...


class Outputs(Protocol):
    """Takes what workers print (worker_output.WorkerOutputs)."""

    def open(self, worker: Source, /) -> tuple[int, int]: ...
    def born(self, worker: Source, /) -> None: ...
    def abandon(self, worker: Source, /) -> None: ...
    def rename(self, worker: Source, name: str, /) -> None: ...
    def flush(self, job: JobKey, /) -> None: ...
    def ended(self, worker: Source, /) -> None: ...
    async def close(self) -> None: ...


class Facts(msgspec.Struct, frozen=True):
    """What the workers of a node are told about it."""

    node: ProcessId
    session: str
    cpus: int
    store_limit: int
    has_gpus: bool


class WorkerProcess:
    """A worker, as far as its process is concerned."""

    __slots__ = ("_pid", "kind", "process")

    def __init__(self, process: ProcessId, kind: WorkerKind) -> None:
        self.process = process
        self.kind = kind
        self._pid = 0

    @property
    def employer(self) -> Employer:
        return self.kind.employer

    @property
    def pid(self) -> int:
        """0 until it is there."""
        return self._pid

    def is_born(self, pid: int) -> None:
        self._pid = pid


class WorkerProcesses:
    """Runs on the node's loop."""

    def __init__(
        self,
        facts: Facts,
        programs: Programs,
        zygote: Zygote,
        outputs: Outputs,
        memory: Memory,
        reports: Reports,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._facts = facts
        self._programs = programs
        self._zygote = zygote
        self._reports = reports
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._by_process: dict[ProcessId, WorkerProcess] = {}
        self._by_pid: dict[int, WorkerProcess] = {}
        self._exits = WorkerExits(self._loop)
        self._oom = memory
        self._outputs = outputs

    @property
    def pids(self) -> Collection[int]:
        return self._by_pid.keys()

    def get(self, process: ProcessId) -> WorkerProcess | None:
        """A worker that has not been reaped."""
        return self._by_process.get(process)

    def with_pid(self, pid: int) -> WorkerProcess | None:
        return self._by_pid.get(pid)

    def every(self) -> list[WorkerProcess]:
        return list(self._by_process.values())

    # ---- their beginning

    def fork(self, process: ProcessId, kind: WorkerKind) -> None:
        """Have the zygote make a worker; what comes of it is reported."""
        worker = self._by_process[process] = WorkerProcess(process, kind)
        self._spawn(self._fork(worker))

    async def _fork(self, worker: WorkerProcess) -> None:
        try:
            pid = await self._make(worker)
        except ZygoteLostError as error:
            lost = exceptions.NodeDiedError(self._facts.node.hex(), error.reason)
            self._reports.fork_lost(worker.process, lost)
        except exceptions.ActorrtError as error:
            self._reports.fork_failed(worker.process, error)
        else:
            worker.is_born(pid)
            self._by_pid[pid] = worker
            self._outputs.born(worker)
            self._reports.forked(worker.process)

    async def _make(self, worker: WorkerProcess) -> int:
        """The pid of the worker. Raises ActorrtError if there is none, ZygoteLostError if its zygote ended first."""
        try:
            return await self._ask_zygote(worker)
        except ZygoteLostError:
            raise
        except (ForkError, OSError, ValueError) as error:
            cause = f"it could not be forked: {error}"
            raise exceptions.WorkerCrashedError("a new worker", cause, False) from error

    async def _ask_zygote(self, worker: WorkerProcess) -> int:
        driver = self._programs.of(worker.employer)
        if driver is None:
            raise exceptions.ActorrtError("its program has ended")
        stdout, stderr = self._outputs.open(worker)
        try:
            return await self._zygote.fork(
                msgspec.msgpack.encode(self._params(worker, driver)),
                stdout_fd=stdout,
                stderr_fd=stderr,
                env={**self._environment(worker.kind, driver), WORKER_ID: worker.process.hex()},
                cwd=as_text(driver.cwd),
            )
        finally:
            for fd in (stdout, stderr):
                if fd >= 0:
                    os.close(fd)

    def _params(self, worker: WorkerProcess, driver: JoinDriver) -> WorkerParams:
        facts, kind = self._facts, worker.kind
        return WorkerParams(
            process=worker.process,
            node=facts.node,
            session=as_bytes(facts.session),
            mode=kind.mode,
            employer=kind.employer,
            namespace=driver.namespace,
            sys_path=driver.sys_path,
            main_file=driver.main_file,
            argv=driver.argv,
            cpus=facts.cpus,
            gpus=visible_gpus(list(kind.gpus)),
            env=dict(kind.env),
            node_id=facts.node,
            store_limit=facts.store_limit,
        )

    def _environment(self, kind: WorkerKind, driver: JoinDriver) -> dict[str, str]:
        return environment_of(
            kind,
            driver.env,
            visible_gpus(list(kind.gpus)),
            node_has_gpus=self._facts.has_gpus,
            node_says_threads=THREADS in os.environ,
        )

    def unmake(self, process: ProcessId) -> None:
        """It was never made, or has ended before its zygote could tell; it may have listened."""
        worker = self._by_process.pop(process)
        remove_socket(self._facts.session, process)
        self._outputs.abandon(worker)
        self._exits.ended(process, NEVER_MADE)

    # ---- what it prints

    def rename(self, process: ProcessId, name: str) -> None:
        worker = self._by_process.get(process)
        if worker is not None:
            self._outputs.rename(worker, name)

    def flush_output(self, job: JobKey) -> None:
        """Send a driver what its workers have printed so far."""
        self._outputs.flush(job)

    # ---- its end

    def kill(self, process: ProcessId) -> None:
        worker = self._by_process.get(process)
        if worker is not None and worker.pid:
            self._zygote.kill(worker.pid)

    def exited(self, pid: int, status: int, lost: str) -> None:
        """It was reaped; `lost`: how its zygote ended, if it was lost with that."""
        worker = self._by_pid.pop(pid, None)
        if worker is None:
            return
        now = self._loop.time()
        self._oom.observe(now)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        suspected = lacks_memory(number, lost, self._reports.may_lack_memory(worker.process))
        out_of_memory = suspected and self._oom.claim(now)
        words = describe_exit(status, out_of_memory=out_of_memory)
        end = ProcessEnd.of(words, number, clean=status == 0, out_of_memory=out_of_memory, lost=lost)
        self._reports.exited(worker.process, end)

    def bury(self, process: ProcessId, cause: str, out_of_memory: bool) -> None:
        """Remove what is left of it, and tell who asks why."""
        worker = self._by_process.pop(process)
        remove_socket(self._facts.session, process)
        self._outputs.ended(worker)
        self._exits.ended(process, Exit(cause, out_of_memory, last_begun(self._facts.session, process)))

    def remember(self, process: ProcessId, end: Exit) -> None:
        """How any other process has ended."""
        self._exits.ended(process, end)

    async def exit_of(self, process: ProcessId) -> Exit:
        """Why a process ended; waits until a worker whose link broke has been reaped."""
        if process in self._by_process:
            return await self._exits.wait(process)
        return self._exits.known(process)

    async def until_ended(self, timeout_s: float) -> None:
        """Wait until all workers that are there have been reaped."""
        waiting = [self._loop.create_task(self.exit_of(process)) for process in self._by_process]
        if waiting:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(waiting, timeout=timeout_s)
        for task in waiting:
            task.cancel()

    async def close(self) -> None:
        await self._outputs.close()
