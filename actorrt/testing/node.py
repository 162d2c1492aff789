"""The simulated node and head: the real ones, over processes that are forked and killed in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from actorrt.core.directory import Directory
from actorrt.core.restarts import Restarts
from actorrt.runtime.base.worker_params import WorkerParams
from actorrt.runtime.links.link import Link
from actorrt.runtime.node.head import Head
from actorrt.runtime.node.head_keeper import LONGEST_PAUSE_S, HeadKeeper
from actorrt.runtime.node.loop_watch import LoopWatch
from actorrt.runtime.node.node import Node, NodeConfig
from actorrt.runtime.node.node_host import NodeHost
from actorrt.runtime.node.node_leases import NodeLeases
from actorrt.runtime.node.worker_exits import WorkerExits
from actorrt.runtime.node.workers import Workers
from actorrt.runtime.owner.supervisor import Supervisor
from actorrt.types import JobKey, ProcessId
from actorrt.wire.addresses import place_on
from actorrt.wire.link import Ending
from actorrt.wire.messages import JoinDriver, Joined

from .peers import VirtualPeers
from .stage import Stage

if TYPE_CHECKING:
    from actorrt.runtime.node.node_segments import NodeSegments

# From the fork of a worker to its first step, in seconds.
FORK_S: Final = (0.002, 0.02)


class Processes(Protocol):
    """The processes of the machine, as a node starts and ends them."""

    def start_worker(self, params: WorkerParams) -> int: ...
    def start_head(self, process: ProcessId, listens: Callable[[], object]) -> int: ...
    def kill(self, pid: int) -> None: ...
    def ended(self, pid: int) -> asyncio.Future[int]: ...


class VirtualZygote:
    """Forks workers."""

    pid = None

    def __init__(self, processes: Processes, dice: Random, exited: Callable[[int, int, str], None]) -> None:
        self._processes = processes
        self._dice = dice
        self._exited = exited

    async def fork(self, params: bytes, **_: object) -> int:
        await asyncio.sleep(self._dice.uniform(*FORK_S))
        pid = self._processes.start_worker(msgspec.msgpack.decode(params, type=WorkerParams))
        self._processes.ended(pid).add_done_callback(lambda done: self._exited(pid, done.result(), ""))
        return pid

    def kill(self, pid: int) -> None:
        self._processes.kill(pid)

    async def close(self, grace_s: float) -> None: ...


class _NoMemoryPressure:
    def observe(self, now: float) -> None: ...

    def claim(self, now: float) -> bool:
        return False


class _NoOutput:
    def open(self, worker: object) -> tuple[int, int]:
        return -1, -1

    def born(self, worker: object) -> None: ...
    def abandon(self, worker: object) -> None: ...
    def rename(self, worker: object, name: str) -> None: ...
    def flush(self, job: int) -> None: ...
    def ended(self, worker: object) -> None: ...
    async def close(self) -> None: ...


class _NoSegments:
    """Every value travels inside its message."""

    def take(self, link: Link, message: object) -> None: ...
    def process_died(self, process: ProcessId) -> None: ...
    def close(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}


class VirtualWorkers(Workers):
    """The workers of a simulated node."""

    def __init__(self, node: VirtualNode, processes: Processes, dice: Random) -> None:
        self._node = node
        self._loop = node.loop
        self.zygote = cast("Any", VirtualZygote(processes, dice, self._exited))
        self._by_process = {}
        self._by_pid = {}
        self._idle = {}
        self._unclaimed = {}
        self._shared = {}
        self._starting_shared = {}
        self._exits = WorkerExits(node.loop)
        self._oom = cast("Any", _NoMemoryPressure())
        self._outputs = cast("Any", _NoOutput())
        timeout = node.settings.worker_stall_timeout_s
        self._loops = LoopWatch(timeout, self._all_shared, self._tell_sharers, self._loop_stalled, node.spawn)


class VirtualLife:
    """One head process, from its start to its end."""

    def __init__(self, processes: Processes, process: ProcessId) -> None:
        loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self.listens: asyncio.Future[bool] = loop.create_future()
        self.pid = processes.start_head(process, lambda: loop.call_soon(self._heard, True))

    def _heard(self, listens: bool) -> None:
        if not self.listens.done():
            self.listens.set_result(listens)

    async def end(self) -> None:
        self._heard(False)
        self.ended.set()


class VirtualHeadKeeper(HeadKeeper):
    """Keeps a simulated head."""

    def __init__(self, node: VirtualNode, process: ProcessId, processes: Processes) -> None:
        self._node = node
        self._process = process
        self._processes = processes
        self.names = Directory()
        self._restarts = Restarts()
        self._life = cast("Any", VirtualLife(processes, process))
        self._there = asyncio.Event()
        self._there.set()
        self._joining = None
        self._keeping = node.loop.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            life = self._life
            await self._processes.ended(life.pid)
            self._there.clear()
            link = self._node.peers.get(self._process)
            if link is not None:
                link.finish(Ending.DIED)
            await life.end()
            if self._node.stopping:
                return
            await asyncio.sleep(min(LONGEST_PAUSE_S, self._restarts.pause(self._node.loop.time())))
            self._life = cast("Any", VirtualLife(self._processes, self._process))
            self._there.set()
            self._join_soon()


class VirtualNode(Node):
    """The node of a simulation. Made on its own loop."""

    def __init__(
        self,
        config: NodeConfig,
        stage: Stage,
        processes: Processes,
        dice: Random,
    ) -> None:
        self.config = config
        self.process = config.node
        self.settings = stage.settings
        self.loop = asyncio.get_running_loop()
        self._tasks = set[asyncio.Task[None]]()
        self.stopping = False
        self._processes = processes
        self.peers = VirtualPeers(self, config.node, "node", stage)
        self.peers.end_of = self._cause_of_end
        self.children = set[int]()
        self.leases = NodeLeases(self, config.resources)
        self.workers = VirtualWorkers(self, processes, dice)
        self.head = VirtualHeadKeeper(self, config.head, processes)
        self.segments = cast("NodeSegments", _NoSegments())
        self.host = NodeHost(self)
        self.supervisor = Supervisor(self.host)
        self.stopped = asyncio.Event()
        self.end_reason = "the session ended"
        self.jobs = {}
        self.programs = {}
        self._detached = Counter[JobKey]()
        self._watched = {}

    def _join(self, link: Link, driver: JoinDriver) -> Joined:
        self.jobs[JobKey(link.peer)] = (driver, link)
        self._processes.ended(driver.pid).add_done_callback(lambda _: self._driver_ended(link))
        here, head = (place_on(self.process, process) for process in (self.process, self.config.head))
        return Joined(here, self.cpus, head, self.config.store_limit)


class VirtualHead(Head):
    """The head of a simulation."""

    def __init__(self, process: ProcessId, stage: Stage) -> None:
        self.directory = Directory()
        self.peers = VirtualPeers(self, process, "head", stage)
        self.stopped = asyncio.Event()
