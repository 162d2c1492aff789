"""The node: the supervising process of one machine. It leases workers, forks them, and knows why they ended.

No user code runs here, and no user value is unpickled. Files beside it: workers.py (workers and leases),
node_segments.py (objects in shared memory), node_machine.py (what it is made of); supervisor.py has detached actors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine
from importlib import import_module
from typing import Any, Final, NamedTuple

import msgspec
import uvloop

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.leases import UNIT
from actorrt.core.lost_links import Step, after_end, after_loss
from actorrt.core.node_state import Statistics as WorkersStatistics
from actorrt.core.roll_call import Listed, Member, listed, patience, plain
from actorrt.core.storage import Statistics as StoreStatistics
from actorrt.types import ANYWHERE, ActorKey, Employer, JobKey, ProcessId, actor_key
from actorrt.wire.addresses import place_on
from actorrt.wire.link import Ending
from actorrt.wire.link import State as LinkState
from actorrt.wire.messages import (
    ERROR,
    FAILED,
    ActorEnded,
    AdoptActor,
    AnswerBody,
    AnyMessage,
    AwaitGroup,
    Blocked,
    BorrowActor,
    ClaimName,
    CloseSegment,
    CopyAt,
    CreateDetached,
    CreateGroup,
    DialMe,
    Done,
    DropCopy,
    DropName,
    Exit,
    ExitOf,
    Facts,
    FindName,
    FlushOutput,
    FreeCopy,
    FreeItems,
    FreeSegment,
    HaveCopy,
    JoinDriver,
    Joined,
    KeepActor,
    KeptActor,
    KillActor,
    KillWorker,
    LeaseRequest,
    LetGo,
    ListEntries,
    ListGroups,
    ListNames,
    LoopBlocked,
    NameHolder,
    NodeEnded,
    NodeStopping,
    OpenSegment,
    Outcome,
    Ping,
    PleaseDial,
    PutEntry,
    Query,
    Question,
    Reaches,
    RemoveGroup,
    Reply,
    Reserve,
    Retired,
    ReturnLease,
    Seal,
    SharedWorkers,
    StartActor,
    Survey,
    Unblocked,
    UnborrowActor,
    Unreadable,
    Unreserve,
    Value,
    WantCopy,
    WhereIs,
    WorkerName,
    WorkerReady,
)

from ..base.process_watch import watch_pidfd
from ..base.socket_paths import remove_socket
from ..base.table_sizes import table_sizes
from ..links.link import Link
from ..links.peers import PeersStatistics
from ..machine.process import kill_process
from ..machine.process_tree import NodeStart
from ..machine.session_logs import retire
from ..owner import under_way
from ..owner.actor_records import ActorRecord, ActorSpec
from ..owner.calls import error_bytes
from ..owner.supervisor import Supervisor, SupervisorStatistics
from . import roll
from .groups import Groups
from .memory_keeper import MemoryKeeper
from .node_host import NodeHost
from .node_launch import launch_again
from .node_machine import Machine, NodeConfig, RealMachine
from .programs import Programs
from .worker_processes import Facts as NodeFacts
from .workers import Workers

logger = logging.getLogger("actorrt")

STOP_GRACE_S: Final = 2.0
# How long another node may take to answer, for a head that asks whether it is there.
REACH_S: Final = 2.0


class NodeStatistics(NamedTuple):
    """How a node stands at one moment."""

    workers: WorkersStatistics
    # The segments that it holds, and how many bytes they may have.
    store: StoreStatistics
    store_limit: int
    peers: PeersStatistics
    # Detached ones, which it owns.
    owned_actors: SupervisorStatistics


class Node:
    """The receiver of the node's links."""

    def __init__(self, config: NodeConfig, settings: Settings, machine: Machine) -> None:
        self.process = config.node
        self.loop = asyncio.get_running_loop()
        # Those of this process that nobody else is to take for an orphan of a worker: head and zygote.
        self.children: set[int] = set()
        self._config = config
        self._machine = machine
        self._stall_timeout_s = settings.worker_stall_timeout_s
        self._total = config.resources
        self._cpus = max(1, config.resources.get("CPU", 0) // UNIT)
        self._tasks: set[asyncio.Task[None]] = set()
        # Why it is to end, once somebody has asked for that; and whether it does.
        self._end: asyncio.Future[str] = self.loop.create_future()
        self._closing = asyncio.Event()
        self.peers = machine.peers(self, self._cause_of_end)
        self.programs = Programs()
        self._zygote = machine.zygote(self, self._reaped)
        self.groups = Groups(config.node, os.uname().nodename, self._total)
        self.workers = Workers(
            NodeFacts(config.node, config.session, self._cpus, config.store_limit, bool(self._total.get("GPU"))),
            self._total,
            settings,
            self.programs,
            self._zygote,
            machine.outputs(self.programs.listener),
            machine.memory,
            self.peers.get,
            self._loop_blocked,
            self.peers.mark_dead,
            self.groups,
            self.spawn,
        )
        self.groups.join(self.workers)
        self.head = machine.head(self, self.peers)
        self.segments = machine.segments(self.peers)
        self.host = NodeHost(self.peers, self.workers, self.groups, self.spawn, self._closing.is_set)
        self.supervisor = Supervisor(self.host)
        self.is_given_up = False
        # Detached actors that were made again here, by the keys that they had before.
        self._adopted: dict[ActorKey, ActorKey] = {}
        if config.cluster:
            self.head.beat()
        if (read := machine.memory_readings()) is not None and settings.memory_watch_s:
            keeper = MemoryKeeper(
                settings.memory_threshold,
                settings.memory_watch_s,
                read,
                self.workers,
                lambda: [link for link in self.peers.all_links() if link.role in ("driver", "worker")],
                lambda: under_way.by_worker(under_way.of_actors(self.supervisor.records.values())),
            )
            self.spawn(keeper.run())
        if (watch := machine.stall_watch(self._pids, self._stalled)) is not None:
            self.spawn(watch)
        # Drivers by their process: an open link does not prove that one lives, since its forks hold it too.
        self._watched: dict[ProcessId, asyncio.Future[None]] = {}

    @property
    def stopping(self) -> bool:
        """It is ending."""
        return self._closing.is_set()

    def _reaped(self, pid: int, status: int, lost: str) -> None:
        self.workers.reaped(pid, status, lost)

    def _loop_blocked(self, process: ProcessId, blocked: bool) -> None:
        self.host.blocked(process, blocked)

    def _pids(self) -> set[int]:
        """The processes that have to answer: all but this one and its drivers."""
        return {*self.workers.pids, *filter(None, (self.head.pid, self._zygote.pid))}

    def _stalled(self, pid: int) -> None:
        timeout_s = self._stall_timeout_s
        if pid in self.workers.pids:
            self.workers.stalled(pid, timeout_s)
        elif pid in (self.head.pid, self._zygote.pid):
            what = "head" if pid == self.head.pid else "zygote"
            logger.warning("the %s (pid %d) was stopped (SIGSTOP) for %g s, and is killed", what, pid, timeout_s)
            kill_process(pid, signal.SIGKILL)

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
                self.workers.give_back(message.lease, message.end)
            case Blocked() | Unblocked():
                self.workers.block(message.lease, isinstance(message, Blocked))
            case WorkerReady():
                self.workers.ready(link.peer)
            case Retired():
                self.workers.stays(link.peer)
            case WorkerName():
                self.workers.rename(link.peer, message.name)
            case LoopBlocked():
                self.workers.loop_blocked(link.peer, message.by, message.harmful)
            case KillWorker():
                self.workers.kill(message.process, message.reason)
            case Seal() | OpenSegment() | FreeSegment() | FreeItems() | CloseSegment() | LetGo() | Unreserve():
                self.segments.take(link, message)
            case WantCopy() | CopyAt() | HaveCopy() | DropCopy() | FreeCopy():
                self.segments.transfers.take(link.peer, message)
            case DropName():
                self.head.drop(message.name, message.namespace, message.actor)
            case BorrowActor() | UnborrowActor():
                delta = 1 if isinstance(message, BorrowActor) else -1
                self.supervisor.borrow(message.actor, link.peer, delta)
            case ActorEnded():
                self.supervisor.ended(message.actor, message.cause)
            case Reply() | Outcome():
                record = link.inflight.pop(message.seq, None)
                if isinstance(record, ActorRecord):
                    self.supervisor.started(record, message.seq, message if isinstance(message, Outcome) else None)
            case NodeStopping() if link.peer == self._config.head:
                self.given_up(message.reason)
            case NodeStopping():
                self.stop(message.reason)
            case NodeEnded():
                self.node_died(message.node, message.cause)
            case _:
                logger.warning("%r sent the node %r", link, message)

    async def answer(self, link: Link, question: Question) -> AnswerBody:
        match question:
            case LeaseRequest():
                if question.strategy != ANYWHERE:
                    await self.groups.admit(question)
                return await self.workers.lease(link.peer, question)
            case SharedWorkers():
                return await self.workers.share(question.employer, question.env, question.want)
            case ExitOf():
                return await self.exit_of(question.process)
            case Reserve():
                return await self.segments.reserve(link, question.size)
            case Seal():
                return await self.segments.seal(link, question)
            case OpenSegment():
                return await self.segments.open(link, question)
            case ClaimName():
                return await self.head.claim(question)
            case FindName() | ListNames():
                return await self.head.ask(question)
            case DialMe():
                target = self.peers.get(question.process)
                if target is None:
                    raise exceptions.LinkError(f"process {question.process.hex()} is gone")
                target.send(PleaseDial(link.peer, question.address))
                return Done()
            case JoinDriver():
                return self._join(link, question)
            case AdoptActor():
                return self._adopt(question)
            case Reaches():
                return Facts(await self._reaches(question.node))
            case PutEntry() | ListEntries():
                return await self.head.ask(question)
            case Query(what="nodes") if self._config.cluster:
                return await self.head.ask(question)
            case Query(what="sys_path"):
                return Facts(await self._program_paths(link))
            case Query(what="head tables"):
                return await self.head.ask(Query("tables"))
            case Query(what="statistics"):
                answer_s = patience(question.timeout_s)
                statistics = Query("statistics")
                members = self.members(link.peer)
                processes = await roll.call(members, lambda one: self.ask_member(one, statistics), answer_s)
                return Facts({"node": plain(self.statistics()), "processes": processes})
            case Survey():
                # Loaded once it is asked, which seldom happens.
                survey: Any = import_module("actorrt.runtime.node.survey")
                return await survey.answer(self, question)
            case Query():
                return Facts(self._facts(question.what))
            case WhereIs():
                return await self.supervisor.where_is(question.actor, question.incarnation, question.fate)
            case KillActor():
                await self.supervisor.kill(question.actor, question.no_restart)
                return Done()
            case CreateDetached():
                return await self._create_detached(question)
            case Ping():
                return Done()
            case CreateGroup():
                self.groups.create(question)
                return Done()
            case RemoveGroup():
                self.groups.remove(question.group)
                return Done()
            case AwaitGroup():
                await self.groups.until_created(question.group)
                return Done()
            case ListGroups():
                return Facts(self.groups.rows(question))
            case FlushOutput():
                self.workers.flush_output(JobKey(link.peer))
                return Done()
            case _:
                raise exceptions.ActorrtError(f"a node does not answer {type(question).__name__}")

    async def exit_of(self, process: ProcessId) -> Exit:
        """Why a process ended; waits while it lives. Of one that the node does not know nothing is known."""
        if process == self._config.head:
            return Exit(await self.head.end())
        program = self.programs.joined(process)
        if program is not None:
            await program.ended.wait()
            return Exit("its program ended")
        return await self.workers.exit_of(process)

    async def _cause_of_end(self, process: ProcessId) -> str:
        end = await self.exit_of(process)
        if not end.known:
            raise exceptions.LinkError(f"process {process.hex()} cannot be reached: {end.cause}")
        return end.cause

    def unwanted(self, link: Link, body: AnswerBody) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None:
        if isinstance(message, StartActor):
            error = error_bytes(exceptions.NotSentError("the start of an actor", why))
            self._handle(link, Outcome(message.seq, FAILED, [Value(ERROR, error)]))
        else:
            logger.error("a %s for %r cannot be sent: %s", type(message).__name__, link, why)

    def unreadable(self, link: Link, message: Unreadable) -> None:
        logger.error("%r sent what cannot be read: %s", link, message.why)

    def link_lost(self, link: Link) -> None:
        lost = link.closed is Ending.LOST
        self._perform(link, after_loss(link.role, lost=lost, farewell=link.farewell, stopping=self.stopping))
        if link.role == "node" and not self.stopping:
            self.segments.transfers.link_lost(link.peer)

    async def _await_end(self, link: Link) -> None:
        await self.workers.exit_of(link.peer)
        self._perform(link, after_end(link.role, farewell=link.farewell, stopping=self.stopping))

    def _perform(self, link: Link, steps: tuple[Step, ...]) -> None:
        process = link.peer
        for step in steps:
            match step:
                case Step.MARK_DEAD:
                    self.peers.mark_dead(process)
                case Step.GIVE_UP:
                    self.segments.process_died(process)
                    self.supervisor.link_lost(link)
                    self.supervisor.borrower_ended(process)
                    self.host.link_lost(link)
                    self.workers.owner_ended(process)
                case Step.STOP_WATCHING:
                    if (watched := self._watched.pop(process, None)) is not None:
                        watched.cancel()
                case Step.WATCH_ON:
                    # What is left behind it goes with its end.
                    self._watched.pop(process, None)
                case Step.WATCH:
                    self._watch(link, link.pid)
                case Step.REMEMBER:
                    self.workers.remember(process, Exit("its program ended"))
                case Step.FREE_NAMES:
                    self.head.drop_owner(process)
                case Step.END_PROGRAM:
                    if (driver := self.programs.leave(link)) is not None:
                        self._program_ended(JobKey(process), driver)
                case Step.END_WORKER:
                    self.workers.link_lost(link)
                case Step.AWAIT_END:
                    self.spawn(self._await_end(link))

    # ---- drivers

    def _program_ended(self, job: JobKey, driver: JoinDriver) -> None:
        if driver.shares_fate:
            self.stop()
            return
        self.groups.employer_ended(Employer(job))
        self.workers.dismiss(Employer(job), "its program ended")
        self._end_if_over(job)

    def _join(self, link: Link, driver: JoinDriver) -> Joined:
        self.workers.employ(self.programs.join(driver, link))
        self._watch(link, driver.pid)
        here = place_on(self.process, self.process, self.peers.address)
        head = place_on(self.process, self._config.head)
        return Joined(here, self._cpus, head, self._config.store_limit)

    def _watch(self, link: Link, pid: int) -> None:
        if link.peer not in self._watched:
            # The kernel knows nothing of a process on another machine.
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            watched = self._watched[link.peer] = never if link.is_remote else self._machine.end_of_driver(pid)
            watched.add_done_callback(lambda done: None if done.cancelled() else self._driver_ended(link))

    async def _program_paths(self, link: Link) -> list[bytes]:
        """Where the program of a worker finds its modules by now; where it did at last, if it has ended."""
        employer = self.workers.employer_of(link.peer)
        known = self.programs.joined(employer.job)
        if known is not None and self.programs.of(employer) is not None:
            with contextlib.suppress(exceptions.ActorrtError):
                answer: Facts = await known.link.ask(Query("sys_path"))
                # Workers that are made from now on have it from the start.
                self.programs.finds_modules_at(employer.job, answer.data)
        driver = self.programs.of(employer)
        return [] if driver is None else driver.sys_path

    def _driver_ended(self, link: Link) -> None:
        remove_socket(self._config.session, link.peer)
        if not link.closed:
            link.finish(Ending.DIED)
        elif link.peer in self._watched:
            # Its link was lost before.
            self._perform(link, after_loss(link.role, lost=False, farewell=False, stopping=self.stopping))

    def _facts(self, what: str) -> Any:
        if what == "resources":
            return {name: amount / UNIT for name, amount in self._total.items()}
        if what == "available":
            return {name: max(0, amount) / UNIT for name, amount in self.workers.free.items()}
        if what == "nodes":
            return [self.description()]
        if what == "workers":
            return self.workers.facts()
        if what == "tables":
            parts = (
                self.peers,
                self.head,
                *self.workers.tables(),
                *self.groups.tables(),
                self.programs,
                self.segments,
                self.host,
                self.supervisor,
            )
            return table_sizes(self, *parts, *self.peers.all_links())
        if what == "store":
            return self.segments.facts()
        raise exceptions.ActorrtError(f"nothing is known about {what!r}")

    def statistics(self) -> NodeStatistics:
        return NodeStatistics(
            self.workers.statistics(),
            self.segments.statistics(),
            self.segments.limit,
            self.peers.statistics(),
            self.supervisor.statistics(),
        )

    @property
    def head_process(self) -> ProcessId:
        return self._config.head

    @property
    def in_cluster(self) -> bool:
        """There may be other nodes."""
        return bool(self._config.cluster)

    def members(self, asker: ProcessId) -> list[Listed]:
        """Who is asked how it stands, and who cannot be; all but the asker."""
        links = [link for link in self.peers.all_links() if not link.closed]
        linked = [Member(link.peer, link.role, link.pid) for link in links]
        down = {link.peer for link in links if link.end.state is LinkState.DOWN}
        # Its keeper asks it, and dials it if it has to.
        head = Member(self._config.head, "head", self.head.pid or 0)
        return listed([*linked, head], self.workers.members(), down=down, asker=asker)

    async def ask_member(self, member: Member, question: Query | Survey) -> Facts:
        """The answer of one of these. Raises LinkError, or what it refuses to answer for."""
        if member.process == self._config.head:
            return await self.head.ask(question)
        link = self.peers.get(member.process)
        if link is None:
            raise exceptions.LinkError("it has ended")
        return await link.ask(question)

    # ---- other nodes of its cluster

    def node_died(self, node: ProcessId, cause: str) -> None:
        """The head says that another node is gone, with all its processes."""
        logger.warning("node %s is gone: %s", node.hex(), cause)
        self.peers.mark_dead(node)
        if (link := self.peers.get(node)) is not None:
            link.finish(Ending.DIED)
        self.segments.node_died(node)

    async def _reaches(self, node: ProcessId) -> bool:
        """Whether a node answers, now."""
        try:
            async with asyncio.timeout(REACH_S):
                link = await self.peers.link_to(node)
                await link.ask(Ping())
        except (exceptions.ActorrtError, TimeoutError):
            return False
        return True

    def given_up(self, cause: str) -> None:
        """Its cluster holds it for dead: it ends all that it has, and another incarnation joins."""
        logger.error("%s: it ends its workers, and another node takes its place", cause)
        self.is_given_up = True
        self.stop(cause)

    def description(self) -> dict[str, Any]:
        cluster: dict[str, Any] = {}
        if self._config.cluster:
            adopted = [[before.hex(), now.hex()] for before, now in self._adopted.items()]
            cluster = {"Machine": os.uname().nodename, "Before": self._config.before, "Adopted": adopted}
            cluster["Session"] = self._config.session
        return {
            **cluster,
            "NodeID": self.process.hex(),
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeName": os.uname().nodename,
            "Resources": self._facts("resources"),
            "Labels": {},
        }

    # ---- names and detached actors

    async def _create_detached(self, request: CreateDetached) -> NameHolder:
        start = request.start
        seq = self.host.next_seq()
        actor = actor_key(self.process, seq)
        made = msgspec.structs.replace(start, seq=seq, actor=actor)
        holder = NameHolder(actor, request.info, True)
        if start.name:
            holder = await self.head.claim(ClaimName(start.name, start.namespace, actor, request.info))
            if not holder.yours:
                return holder
        # What its arguments name lies in this session, and the place that it asks for may go with this node.
        is_kept = bool(self._config.cluster) and start.slots is None and request.strategy == ANYWHERE
        if is_kept:
            as_made = msgspec.structs.replace(request, start=made)
            kept = KeptActor(as_made, self.programs.of(Employer(request.job)), request.max_restarts)
            try:
                await self.head.ask(KeepActor(actor, kept))
            except BaseException:
                self.spawn(self._forget(actor))
                if start.name:
                    self.head.drop(start.name, start.namespace, actor)
                raise
        self._own_detached(request, made, is_kept)
        return holder

    def _adopt(self, adoption: AdoptActor) -> NameHolder:
        """Make a detached actor again that has lost its node."""
        request, before = adoption.request, adoption.before
        actor = self._adopted.get(before)
        if actor is None:
            seq = self.host.next_seq()
            actor = self._adopted[before] = actor_key(self.process, seq)
            start = request.start
            if start.name:
                self.head.hold(start.name, start.namespace, actor, request.info)
            self.programs.adopt(request.job, adoption.driver)
            made = msgspec.structs.replace(start, seq=seq, actor=actor)
            self._own_detached(request, made, True)
        return NameHolder(actor, request.info, True)

    def _own_detached(self, request: CreateDetached, made: StartActor, is_kept: bool) -> None:
        """`is_kept`: the head has it, and has it made again where this node is gone."""
        actor = made.actor
        # It outlives its program: it runs on workers of its own, which look like the program's.
        job = request.job
        employer = self.programs.detach(job)
        self.workers.employ(employer)
        env = dict(request.env or {})
        spec = ActorSpec(
            made,
            request.blob,
            request.shape,
            request.mode,
            request.shared,
            env,
            employer,
            detached=True,
            strategy=request.strategy,
        )

        def dead() -> None:
            if self.stopping and self._config.cluster:
                # It ends with its node, and is to be made again elsewhere.
                return
            if made.name:
                self.head.drop(made.name, made.namespace, actor)
            if is_kept:
                self.spawn(self._forget(actor))
            self._detached_ended(job)

        record = ActorRecord(actor, made.name or actor.hex(), spec, request.max_restarts, on_dead=dead)
        self.supervisor.create(record)

    async def _forget(self, actor: ActorKey) -> None:
        """Have the head keep an actor no more, however long it takes to be there."""
        while not self.stopping:
            try:
                await self.head.ask(KeepActor(actor, None))
            except exceptions.HeadUnavailableError:
                continue
            return

    def _detached_ended(self, job: JobKey) -> None:
        if self.programs.detached_ended(job):
            self._dismiss_detached(job)

    def _end_if_over(self, job: JobKey) -> None:
        if self.programs.is_over(job):
            self._dismiss_detached(job)

    def _dismiss_detached(self, job: JobKey) -> None:
        self.groups.employer_ended(Employer(job, True))
        self.workers.dismiss(Employer(job, True), "the last detached actor of its program ended")

    # ---- the end

    async def asked_to_end(self) -> None:
        """Wait until somebody has asked for the end of the session."""
        await asyncio.shield(self._end)

    def stop(self, reason: str = "the session ended") -> None:
        """End the session: tell the workers, give them a moment, then kill what is left."""
        if not self._end.done():
            self._end.set_result(reason)

    async def close(self) -> None:
        self.stop()
        reason = self._end.result()
        self._closing.set()
        for link in self.peers.all_links():
            if link.role in ("worker", "driver"):
                link.send(NodeStopping(reason))
        await self.workers.close(reason, STOP_GRACE_S)
        with contextlib.suppress(Exception):
            await self._zygote.close(STOP_GRACE_S)
        await self.workers.close_output()
        await self.peers.close()
        for task in list(self._tasks):
            task.cancel()
        self.segments.close()
        await self.head.close(STOP_GRACE_S)
        retire(self._config.session)


async def _serve(config: NodeConfig, start: NodeStart) -> bool:
    settings = Settings.from_environment()
    node = Node(config, settings, RealMachine(config, start, settings))
    await node.peers.listen()
    os.write(config.ready_fd, b"+")
    os.close(config.ready_fd)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    waiting: list[asyncio.Future[Any]] = [loop.create_task(node.asked_to_end())]
    if start.driver_pidfd is not None:
        waiting.append(watch_pidfd(start.driver_pidfd))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    await node.close()
    return node.is_given_up


def node_main(config: NodeConfig, start: NodeStart) -> None:
    """Run the node until it is told to stop, or its driver ends. One that was given up is followed by another one."""
    if uvloop.run(_serve(config, start)):
        launch_again(Settings.from_environment())
