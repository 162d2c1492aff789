"""The worker processes of a node: forked on demand, reused while idle, and remembered with the cause of their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actorrt import exceptions
from actorrt.wire.messages import NodeStopping

from .cgroup import Cgroup, OomWatch
from .link import Link
from .process import describe_exit
from .process_tree import NodeStart
from .worker_output import WorkerOutputs
from .worker_params import WorkerParams
from .zygote_client import ForkError, ZygoteClient

if TYPE_CHECKING:
    from .node import Node

Env = tuple[tuple[str, str], ...]
REMEMBERED_EXITS: Final = 4096


class Worker:
    """One worker process."""

    __slots__ = (
        "cause",
        "env",
        "is_actor",
        "is_idle",
        "is_shared",
        "job",
        "lease",
        "link",
        "mode",
        "pid",
        "process",
        "reap_timer",
        "started",
    )

    def __init__(
        self, process: bytes, job: int, mode: str, env: Env, is_shared: bool, started: asyncio.Future[None]
    ) -> None:
        self.process = process
        self.job = job
        self.mode = mode
        self.env = env
        self.is_shared = is_shared
        self.is_idle = False
        self.is_actor = False
        self.pid = 0
        self.lease = 0
        self.link: Link | None = None
        # Why it was killed, if we did it.
        self.cause = ""
        self.started = started
        self.reap_timer: asyncio.TimerHandle | None = None


class Workers:
    """All workers of a node. Runs on its loop."""

    def __init__(self, node: Node, start: NodeStart) -> None:
        self._node = node
        self._loop = node.loop
        self._zygote = ZygoteClient(
            start.zygote,
            start.zygote_pid,
            on_exit=self._exited,
            on_lost=self._zygote_lost,
            others={start.head_pid or 0},
        )
        self._by_process: dict[bytes, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        self._idle: dict[tuple[int, str, Env], list[Worker]] = {}
        self._shared: dict[tuple[int, Env], list[Worker]] = {}
        self._starting_shared: dict[tuple[int, Env], asyncio.Task[list[Worker]]] = {}
        self._exits: OrderedDict[bytes, tuple[str, bool]] = OrderedDict()
        self._exit_waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._oom = OomWatch(Cgroup.of_this_process())
        self._outputs = WorkerOutputs(os.path.join(node.config.session, "logs"), node.settings, self._listener)

    # ---- getting one

    async def get(self, job: int, mode: str, env: dict[str, str], cpus: int) -> Worker:
        """A worker of its own: an idle one, or a new one. Raises what keeps it from starting."""
        key: Env = tuple(sorted(env.items()))
        idle = self._idle.get((job, mode, key))
        while idle:
            worker = idle.pop()
            if worker.link is not None and not worker.link.closed and not worker.cause:
                worker.is_idle = False
                if worker.reap_timer is not None:
                    worker.reap_timer.cancel()
                return worker
        return await self._fork(job, mode, key, False, cpus)

    async def shared(self, job: int, env: dict[str, str], want: int) -> list[Worker]:
        """The workers that a job's coroutines share: at least one, and one more if `want` says so."""
        key = (job, tuple(sorted(env.items())))
        have = [worker for worker in self._shared.get(key, []) if not worker.cause]
        if len(have) >= max(1, want):
            return have
        task = self._starting_shared.get(key)
        if task is None:
            task = self._loop.create_task(self._start_shared(key))
            self._starting_shared[key] = task
            task.add_done_callback(lambda _: self._starting_shared.pop(key, None))
        return await asyncio.shield(task)

    async def _start_shared(self, key: tuple[int, Env]) -> list[Worker]:
        worker = await self._fork(key[0], "loop", key[1], True, 1)
        workers = self._shared.setdefault(key, [])
        workers.append(worker)
        return list(workers)

    async def _fork(self, job: int, mode: str, env: Env, is_shared: bool, cpus: int) -> Worker:
        node = self._node
        driver = node.program(job)
        if driver is None:
            raise exceptions.ActorrtError("its program has ended")
        process = os.urandom(8)
        params = WorkerParams(
            process=process,
            node=node.process,
            session=node.config.session,
            mode=mode,
            job=job,
            namespace=driver.namespace,
            sys_path=driver.sys_path,
            main_file=driver.main_file,
            argv=driver.argv,
            cpus=node.cpus,
            node_id=node.process,
        )
        worker = Worker(process, job, mode, env, is_shared, self._loop.create_future())
        self._by_process[process] = worker
        environment = {"OMP_NUM_THREADS": str(cpus), **driver.env, **dict(env)}
        stdout, stderr = self._outputs.open(worker)
        try:
            worker.pid = await self._zygote.fork(
                msgspec.msgpack.encode(params),
                stdout_fd=stdout,
                stderr_fd=stderr,
                env=environment,
                cwd=driver.cwd if driver.cwd and os.path.isdir(driver.cwd) else None,
            )
        except BaseException as error:
            self._by_process.pop(process, None)
            self._outputs.abandon(worker)
            if isinstance(error, ForkError):
                raise exceptions.WorkerCrashedError(
                    "a new worker", f"it could not be forked: {error}", False
                ) from error
            raise
        finally:
            os.close(stdout)
            os.close(stderr)
        self._by_pid[worker.pid] = worker
        self._outputs.born(worker)
        try:
            async with asyncio.timeout(node.settings.worker_start_timeout_s):
                await worker.started
        except TimeoutError:
            self.kill(process, "it did not start in time")
            raise exceptions.WorkerCrashedError("a new worker", "it did not start in time", False) from None
        except asyncio.CancelledError:
            if not worker.started.done() or worker.started.cancelled():
                self.kill(process, "nobody waits for it any more")
            else:
                self.idle(worker)
            raise
        return worker

    def ready(self, link: Link) -> None:
        worker = self._by_process.get(link.peer)
        if worker is not None:
            worker.link = link
            if not worker.started.done():
                worker.started.set_result(None)

    def rename(self, process: bytes, name: str) -> None:
        worker = self._by_process.get(process)
        if worker is not None:
            self._outputs.rename(worker, name)

    # ---- what they print

    def _listener(self, job: int) -> Link | None:
        """Who wants to see what the workers of a job print."""
        driver, link = self._node.jobs.get(job, (None, None))
        return link if driver is not None and driver.log_to_driver else None

    def flush_output(self, link: Link) -> None:
        """Send a driver what its workers have printed so far."""
        for job, (_, its_link) in self._node.jobs.items():
            if its_link is link:
                self._outputs.flush(job)

    # ---- giving one back

    def returned(self, worker: Worker) -> None:
        """Its lease ended: it is reused, unless an actor lived in it."""
        if worker.process not in self._by_process or worker.cause:
            return
        if worker.is_actor:
            self._let_go(worker)
        else:
            self.idle(worker)

    def _let_go(self, worker: Worker) -> None:
        """Its actor is gone, or was ended gracefully: it leaves by itself, or is made to."""
        worker.cause = worker.cause or "its work was done"
        if worker.link is not None and not worker.link.closed:
            worker.link.send(NodeStopping("its work is done"))
        worker.reap_timer = self._loop.call_later(
            self._node.settings.shutdown_timeout_s, self.kill, worker.process, "it did not leave"
        )

    def idle(self, worker: Worker) -> None:
        if worker.link is None or worker.link.closed or worker.cause or self._node.stopping:
            return
        if self._node.program(worker.job) is None:
            self.kill(worker.process, "its program ended")
            return
        worker.is_idle = True
        self._idle.setdefault((worker.job, worker.mode, worker.env), []).append(worker)
        worker.reap_timer = self._loop.call_later(self._node.settings.idle_worker_s, self._reap, worker)

    def _reap(self, worker: Worker) -> None:
        if worker.is_idle:
            idle = self._idle.get((worker.job, worker.mode, worker.env), [])
            if worker in idle:
                idle.remove(worker)
            worker.is_idle = False
            self._let_go(worker)

    # ---- their ends

    def kill(self, process: bytes, reason: str) -> None:
        """Kill a worker with all that it started."""
        worker = self._by_process.get(process)
        if worker is not None:
            worker.cause = reason
            if worker.pid:
                self._zygote.kill(worker.pid)

    def link_lost(self, link: Link) -> None:
        worker = self._by_process.get(link.peer)
        if worker is not None and worker.pid:
            # It closed its link, or is dead: either way nothing can be asked of it any more.
            self._zygote.kill(worker.pid)

    def _exited(self, pid: int, status: int) -> None:
        worker = self._by_pid.pop(pid, None)
        if worker is None:
            return
        now = self._loop.time()
        self._oom.observe(now)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
        out_of_memory = bool(killed and not worker.cause and self._oom.claim(now))
        cause = worker.cause or describe_exit(status, out_of_memory=out_of_memory)
        self._forget(worker, cause, out_of_memory)

    def _forget(self, worker: Worker, cause: str, out_of_memory: bool) -> None:
        self._by_process.pop(worker.process, None)
        if worker.reap_timer is not None:
            worker.reap_timer.cancel()
        for workers in (*self._idle.values(), *self._shared.values()):
            if worker in workers:
                workers.remove(worker)
        self._outputs.ended(worker)
        self._exits[worker.process] = (cause, out_of_memory)
        while len(self._exits) > REMEMBERED_EXITS:
            self._exits.popitem(last=False)
        for future in self._exit_waiters.pop(worker.process, []):
            if not future.done():
                future.set_result(None)
        if not worker.started.done():
            worker.started.set_exception(
                exceptions.WorkerCrashedError("a new worker", f"it ended while it started: {cause}", False)
            )
            worker.started.exception()
        self._node.worker_ended(worker)

    def _zygote_lost(self, reason: str) -> None:
        if not self._node.stopping:
            self._node.stop()

    async def exit_of(self, process: bytes) -> tuple[str, bool]:
        """Why a process ended; waits until a worker whose link broke has been reaped."""
        known = self._exits.get(process)
        if known is not None:
            return known
        if process not in self._by_process:
            return "its process ended", False
        future: asyncio.Future[None] = self._loop.create_future()
        self._exit_waiters.setdefault(process, []).append(future)
        await future
        return self._exits.get(process, ("its process ended", False))

    async def end_job(self, job: int, reason: str) -> None:
        """A program has ended: its workers get a moment to clean up, then they are killed."""
        mine = [worker for worker in self._by_process.values() if worker.job == job]
        await self._end(mine, reason)

    async def _end(self, workers: list[Worker], reason: str, grace_s: float | None = None) -> None:
        waiting: list[asyncio.Future[None]] = []
        for worker in workers:
            worker.cause = worker.cause or reason
            if worker.link is not None and not worker.link.closed:
                worker.link.send(NodeStopping(reason))
            future: asyncio.Future[None] = self._loop.create_future()
            self._exit_waiters.setdefault(worker.process, []).append(future)
            waiting.append(future)
        if waiting:
            await asyncio.wait(waiting, timeout=self._node.settings.shutdown_timeout_s if grace_s is None else grace_s)
        for worker in workers:
            if worker.process in self._by_process:
                self.kill(worker.process, reason)

    async def close(self, grace_s: float) -> None:
        """End all workers and the zygote."""
        await self._end(list(self._by_process.values()), "the session ended", grace_s)
        with contextlib.suppress(Exception):
            await self._zygote.close()
        await self._outputs.close()

    def facts(self) -> list[dict[str, Any]]:
        return [
            {
                "worker_id": worker.process.hex(),
                "pid": worker.pid,
                "job": worker.job,
                "kind": "shared" if worker.is_shared else worker.mode,
                "idle": worker.is_idle,
            }
            for worker in self._by_process.values()
        ]
