"""The node: the supervising process of one machine. It leases workers, forks them, and knows why they ended.

No user code runs here, and no user value is unpickled. Files beside it: workers.py (the processes), node_segments.py
(objects in shared memory), supervisor.py (detached actors).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import uvloop

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.leases import UNIT, Resources
from actorrt.version import __version__
from actorrt.wire.messages import (
    ActorEnded,
    AnswerBody,
    AnyMessage,
    Blocked,
    BorrowActor,
    ClaimName,
    CloseSegment,
    CreateDetached,
    DialMe,
    Done,
    DropName,
    Exit,
    ExitOf,
    Facts,
    FindName,
    FlushOutput,
    FreeSegment,
    JoinDriver,
    Joined,
    JoinNode,
    KillActor,
    KillWorker,
    Lease,
    LeaseRequest,
    LeasesWanted,
    ListNames,
    NameHolder,
    NodeStopping,
    OpenSegment,
    Outcome,
    Ping,
    PleaseDial,
    Query,
    Question,
    Reply,
    ReturnLease,
    Seal,
    SharedWorkers,
    StartActor,
    Unblocked,
    UnborrowActor,
    WhereIs,
    WorkerList,
    WorkerName,
    WorkerReady,
)

from .link import Link
from .node_host import NodeHost
from .node_segments import NodeSegments
from .peers import Peers
from .process_tree import NodeStart
from .process_watch import wait_child, watch_pidfd
from .session_logs import retire
from .supervisor import ActorRecord, ActorSpec, Supervisor
from .transport import socket_path
from .workers import Worker, Workers

logger = logging.getLogger("actorrt")

STOP_GRACE_S: Final = 2.0


class NodeConfig(msgspec.Struct, frozen=True):
    """What the launcher is told."""

    node: bytes
    head: bytes
    session: str
    resources: dict[str, int]
    store_limit: int
    driver_pid: int
    # Told, by one byte, when the node listens.
    ready_fd: int


class HeldLease:
    """A worker that is leased to a process."""

    __slots__ = ("blocked", "gpus", "lease", "owner", "shape", "worker")

    def __init__(self, lease: int, owner: bytes, worker: Worker, shape: dict[str, int], gpus: list[int]) -> None:
        self.lease = lease
        self.owner = owner
        self.worker = worker
        self.shape = shape
        self.gpus = gpus
        self.blocked = False


class Waiting:
    """A request for a lease that does not fit yet."""

    __slots__ = ("future", "shape")

    def __init__(self, shape: dict[str, int], future: asyncio.Future[list[int]]) -> None:
        self.shape = shape
        self.future = future


class Node:
    """The receiver of the node's links."""

    def __init__(self, config: NodeConfig, start: NodeStart) -> None:
        self.config = config
        self.process = config.node
        self.settings = Settings.from_environment()
        self.loop = asyncio.get_running_loop()
        self.resources = Resources(config.resources)
        self.peers = Peers(self, config.node, "node", config.session, __version__)
        self.workers = Workers(self, start)
        self.segments = NodeSegments(self, config.store_limit)
        self.host = NodeHost(self)
        self.supervisor = Supervisor(self.host)
        self.stopped = asyncio.Event()
        self.stopping = False
        self.jobs: dict[int, tuple[JoinDriver, Link]] = {}
        # Programs whose detached actors may outlive them, by the negative of their job.
        self.programs: dict[int, JoinDriver] = {}
        self.leases: dict[int, HeldLease] = {}
        self._waiting: deque[Waiting] = deque()
        self._last_lease = 0
        self._last_job = 0
        self._head_pid = start.head_pid
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def cpus(self) -> int:
        return max(1, self.resources.total.get("CPU", 0) // UNIT)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- messages

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        for message in messages:
            try:
                self._handle(link, message)
            except Exception:
                logger.exception("%r sent %r, which could not be handled", link, message)

    def _handle(self, link: Link, message: AnyMessage) -> None:
        match message:
            case ReturnLease():
                self.return_lease(message.lease)
            case Blocked() | Unblocked():
                self._block(message.lease, isinstance(message, Blocked))
            case WorkerReady():
                self.workers.ready(link)
            case WorkerName():
                self.workers.rename(link.peer, message.name)
            case KillWorker():
                self.workers.kill(message.process, message.reason)
            case FreeSegment():
                self.segments.free(message.owner, message.seq)
            case CloseSegment():
                self.segments.closed(link.peer, message.owner, message.seq)
            case DropName():
                self.spawn(self._tell_head(message))
            case BorrowActor() | UnborrowActor():
                delta = 1 if isinstance(message, BorrowActor) else -1
                self.supervisor.borrow(message.actor, link.peer, delta)
            case ActorEnded():
                self.supervisor.ended(message.actor, message.cause)
            case Reply() | Outcome():
                record = link.inflight.pop(message.seq, None)
                if isinstance(record, ActorRecord):
                    self.supervisor.started(record, message.seq, message if isinstance(message, Outcome) else None)
            case NodeStopping():
                self.stop()
            case _:
                logger.warning("%r sent the node %r", link, message)

    async def answer(self, link: Link, question: Question) -> AnswerBody:
        match question:
            case LeaseRequest():
                return await self.lease(link.peer, question)
            case SharedWorkers():
                return await self.shared_workers(question)
            case ExitOf():
                cause, out_of_memory = await self.exit_of(question.process)
                return Exit(cause, out_of_memory)
            case Seal():
                return await self.segments.seal(link, question)
            case OpenSegment():
                return await self.segments.open(link.peer, question.owner, question.seq)
            case ClaimName() | FindName() | ListNames():
                return await (await self.head()).ask(question)
            case DialMe():
                target = self.peers.get(question.process)
                if target is None:
                    raise exceptions.LinkError(f"process {question.process.hex()} is gone")
                target.send(PleaseDial(link.peer))
                return Done()
            case JoinDriver():
                return self._join(link, question)
            case Query():
                return Facts(self._facts(question.what))
            case WhereIs():
                return await self.supervisor.where_is(question.actor, question.incarnation)
            case KillActor():
                self.supervisor.kill(question.actor, question.no_restart)
                return Done()
            case CreateDetached():
                return await self._create_detached(question)
            case Ping():
                return Done()
            case FlushOutput():
                self.workers.flush_output(link)
                return Done()
            case _:
                raise exceptions.ActorrtError(f"a node does not answer {type(question).__name__}")

    def unwanted(self, link: Link, body: AnswerBody) -> None: ...

    def link_lost(self, link: Link) -> None:
        self.peers.forget(link)
        self.peers.dead.add(link.peer)
        if self.stopping:
            return
        self.segments.process_died(link.peer)
        self.supervisor.link_lost(link)
        self.workers.link_lost(link)
        for held in [held for held in self.leases.values() if held.owner == link.peer]:
            self.workers.kill(held.worker.process, "its owner ended")
        if link.role in ("driver", "worker"):
            self.spawn(self._tell_head(DropName("", "", link.peer)))
        for job, (driver, its_link) in list(self.jobs.items()):
            if its_link is link:
                del self.jobs[job]
                if driver.shares_fate:
                    self.stop()
                else:
                    self.spawn(self.workers.end_job(job, "its program ended"))

    # ---- drivers

    def program(self, job: int) -> JoinDriver | None:
        """The program that workers of `job` should look like; None if it has ended."""
        if job < 0:
            return self.programs.get(job)
        known = self.jobs.get(job)
        return None if known is None else known[0]

    def _join(self, link: Link, driver: JoinDriver) -> Joined:
        self._last_job += 1
        self.jobs[self._last_job] = (driver, link)
        return Joined(self._last_job, self.process, self.cpus, self.config.head, self.config.store_limit)

    def _facts(self, what: str) -> Any:
        if what == "resources":
            return {name: amount / UNIT for name, amount in self.resources.total.items()}
        if what == "available":
            return {name: max(0, amount) / UNIT for name, amount in self.resources.free.items()}
        if what == "nodes":
            return [self._description()]
        if what == "workers":
            return self.workers.facts()
        if what == "store":
            return self.segments.facts()
        raise exceptions.ActorrtError(f"nothing is known about {what!r}")

    def _description(self) -> dict[str, Any]:
        return {
            "NodeID": self.process.hex(),
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeName": os.uname().nodename,
            "Resources": self._facts("resources"),
            "Labels": {},
        }

    # ---- leases

    async def lease(self, owner: bytes, request: LeaseRequest) -> Lease:
        """A worker for `owner`, when its shape is free."""
        lacking = self.resources.lacking(request.shape)
        if lacking:
            shape = {name: amount / UNIT for name, amount in request.shape.items()}
            if request.actor:
                raise exceptions.ActorUnschedulableError(request.actor, shape, lacking)
            raise exceptions.TaskUnschedulableError("the task", shape, lacking)
        gpus = await self._take(request.shape)
        try:
            env = dict(request.env or {})
            if request.shape.get("GPU"):
                env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
            worker = await self.workers.get(
                request.job, request.mode, env, max(1, request.shape.get("CPU", UNIT) // UNIT)
            )
        except BaseException:
            self._give(request.shape, gpus)
            raise
        if owner != self.process and self.peers.get(owner) is None:
            self.workers.idle(worker)
            self._give(request.shape, gpus)
            raise exceptions.LinkError("the process that asked is gone")
        self._last_lease += 1
        self.leases[self._last_lease] = HeldLease(self._last_lease, owner, worker, request.shape, gpus)
        worker.lease = self._last_lease
        worker.is_actor = bool(request.actor)
        return Lease(self._last_lease, worker.process, worker.pid, gpus or None)

    async def _take(self, shape: dict[str, int]) -> list[int]:
        if not self._waiting and self.resources.fits(shape):
            return self.resources.take(shape)
        waiting = Waiting(shape, self.loop.create_future())
        self._waiting.append(waiting)
        self._grant()
        if not waiting.future.done():
            for owner in {held.owner for held in self.leases.values()}:
                link = self.peers.get(owner)
                if link is not None:
                    link.send(LeasesWanted())
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.future.done() and not waiting.future.cancelled():
                self._give(shape, waiting.future.result())
            raise

    def _grant(self) -> None:
        """Give what is free to those who wait, in order; one that is too large does not hold up smaller ones."""
        for waiting in list(self._waiting):
            if self.resources.fits(waiting.shape):
                self._waiting.remove(waiting)
                if not waiting.future.done():
                    waiting.future.set_result(self.resources.take(waiting.shape))

    def _give(self, shape: dict[str, int], gpus: list[int]) -> None:
        self.resources.give(shape, gpus)
        self._grant()

    def return_lease(self, lease: int) -> None:
        """The holder does not need it any more, or its worker is gone."""
        held = self._end_lease(lease)
        if held is not None:
            self.workers.returned(held.worker)

    def worker_ended(self, worker: Worker) -> None:
        self._end_lease(worker.lease)

    def _end_lease(self, lease: int) -> HeldLease | None:
        held = self.leases.pop(lease, None)
        if held is not None:
            held.worker.lease = 0
            if held.blocked:
                self.resources.resume(held.shape)
            self._give(held.shape, held.gpus)
        return held

    def _block(self, lease: int, blocked: bool) -> None:
        held = self.leases.get(lease)
        if held is None or held.blocked == blocked:
            return
        held.blocked = blocked
        if blocked:
            self.resources.pause(held.shape)
            self._grant()
        else:
            self.resources.resume(held.shape)

    async def shared_workers(self, request: SharedWorkers) -> WorkerList:
        found = await self.workers.shared(request.job, dict(request.env or {}), min(request.want, self.cpus))
        return WorkerList([worker.process for worker in found], self.cpus)

    async def exit_of(self, process: bytes) -> tuple[str, bool]:
        return await self.workers.exit_of(process)

    # ---- names and detached actors

    async def head(self) -> Link:
        """The link to the head, opened on first use."""
        link = self.peers.get(self.config.head)
        if link is None:
            link = await self.peers.dial(self.config.head, socket_path(self.config.session, self.config.head))
            await link.ask(JoinNode(self.process, self._description()))
        return link

    async def _tell_head(self, message: DropName) -> None:
        link = self.peers.get(self.config.head)
        if link is not None:
            link.send(message)

    async def _create_detached(self, request: CreateDetached) -> NameHolder:
        start = request.start
        seq = self.host.next_seq()
        actor = self.process + seq.to_bytes(8, "big")
        made = StartActor(**{name: getattr(start, name) for name in start.__struct_fields__})
        made.seq, made.actor = seq, actor
        holder = NameHolder(actor, request.info, True)
        if start.name:
            holder = await (await self.head()).ask(ClaimName(start.name, start.namespace, actor, request.info))
            if not holder.yours:
                return holder
        # It outlives its program: it runs on workers of a job of its own, which look like the program's.
        job = -request.job
        if request.job in self.jobs:
            self.programs[job] = self.jobs[request.job][0]
        env = dict(request.env or {})
        spec = ActorSpec(
            made, request.blob, request.shape, request.mode, request.shared, env, job, named=True, detached=True
        )
        record = ActorRecord(actor, start.name or actor.hex(), spec, request.max_restarts)
        if start.name:
            record.on_dead = lambda: self.spawn(self._tell_head(DropName(start.name, start.namespace, actor)))
        self.supervisor.create(record)
        return holder

    # ---- the end

    def stop(self) -> None:
        """End the session: tell the workers, give them a moment, then kill what is left."""
        self.stopped.set()

    async def close(self) -> None:
        self.stopping = True
        for link in list(self.peers.links.values()):
            if link.role in ("worker", "driver"):
                link.send(NodeStopping("the session ends"))
        await self.workers.close(STOP_GRACE_S)
        await self.peers.close()
        for task in list(self._tasks):
            task.cancel()
        self.segments.close()
        if self._head_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._head_pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_child(self._head_pid), STOP_GRACE_S)
        retire(self.config.session)


async def _serve(config: NodeConfig, start: NodeStart) -> None:
    node = Node(config, start)
    await node.peers.listen()
    os.write(config.ready_fd, b"+")
    os.close(config.ready_fd)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    waiting: list[asyncio.Future[Any]] = [loop.create_task(node.stopped.wait())]
    if start.driver_pidfd is not None:
        waiting.append(watch_pidfd(start.driver_pidfd))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    await node.close()


def node_main(config: NodeConfig, start: NodeStart) -> None:
    """Run the node until it is told to stop, or its driver ends."""
    uvloop.run(_serve(config, start))
