"""The simulated node and head: the real ones, over processes that are forked and killed in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from actorrt.core.directory import Directory
from actorrt.core.restarts import Restarts
from actorrt.core.storage import Statistics as StoreStatistics
from actorrt.runtime.base.worker_params import WorkerParams
from actorrt.runtime.links.link import Link, Receiver
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.node.head import Head
from actorrt.runtime.node.head_client import HeadClient, HeadParent
from actorrt.runtime.node.head_keeper import LONGEST_PAUSE_S, HeadKeeper
from actorrt.runtime.node.node import Node
from actorrt.runtime.node.node_machine import EndOf, NodeConfig, Reaped
from actorrt.runtime.node.worker_output import Listener
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.link import Ending

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
    def flush(self, job: JobKey) -> None: ...
    def ended(self, worker: object) -> None: ...
    async def close(self) -> None: ...


class _NoSegments:
    """Every value travels inside its message."""

    def take(self, link: Link, message: object) -> None: ...
    def process_died(self, process: ProcessId) -> None: ...
    def node_died(self, node: ProcessId) -> None: ...
    def close(self) -> None: ...

    @property
    def limit(self) -> int:
        return 0

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(0, 0, 0, 0, 0, 0, 0)

    def facts(self) -> dict[str, Any]:
        return {}


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

    def __init__(
        self, parent: HeadParent, peers: VirtualPeers, process: ProcessId, processes: Processes, timeout_s: float
    ) -> None:
        HeadClient.__init__(self, parent, peers, process, timeout_s)
        self._children = parent.children
        self._processes = processes
        self._restarts = Restarts()
        self._final = ""
        self._life = cast("Any", VirtualLife(processes, process))
        self._there = asyncio.Event()
        self._there.set()
        self._keeping = self._loop.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            life = self._life
            await self._processes.ended(life.pid)
            self._there.clear()
            link = self._peers.get(self._process)
            if link is not None:
                link.finish(Ending.DIED)
            await life.end()
            if self._parent.stopping:
                return
            await asyncio.sleep(min(LONGEST_PAUSE_S, self._restarts.pause(self._loop.time())))
            self._life = cast("Any", VirtualLife(self._processes, self._process))
            self._there.set()
            self._join_soon()


class VirtualMachine:
    """What a simulated node is made of."""

    def __init__(self, config: NodeConfig, stage: Stage, processes: Processes, dice: Random) -> None:
        self._config = config
        self._stage = stage
        self._processes = processes
        self._dice = dice
        self.memory = _NoMemoryPressure()

    def peers(self, receiver: Receiver, end_of: EndOf) -> VirtualPeers:
        peers = VirtualPeers(receiver, self._config.node, "node", self._stage)
        peers.end_of = end_of
        return peers

    def head(self, parent: HeadParent, peers: Peers) -> VirtualHeadKeeper:
        timeout_s = self._stage.settings.head_timeout_s
        return VirtualHeadKeeper(parent, cast("VirtualPeers", peers), self._config.head, self._processes, timeout_s)

    def zygote(self, parent: object, reaped: Reaped) -> VirtualZygote:
        return VirtualZygote(self._processes, self._dice, reaped)

    def outputs(self, listener_of: Callable[[Employer], Listener | None]) -> _NoOutput:
        return _NoOutput()

    def segments(self, peers: Peers) -> NodeSegments:
        return cast("NodeSegments", _NoSegments())

    def end_of_driver(self, pid: int) -> asyncio.Future[None]:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The node may cancel what it watches; others wait for the same end.
        self._processes.ended(pid).add_done_callback(lambda _: ended.done() or ended.set_result(None))
        return ended

    def memory_readings(self) -> None: ...

    def stall_watch(self, pids: object, stalled: object) -> None: ...


class VirtualNode(Node):
    """The node of a simulation. Made on its own loop."""

    def __init__(self, config: NodeConfig, stage: Stage, processes: Processes, dice: Random) -> None:
        super().__init__(config, stage.settings, VirtualMachine(config, stage, processes, dice))


class VirtualHead(Head):
    """The head of a simulation."""

    def __init__(self, process: ProcessId, stage: Stage) -> None:
        self.directory = Directory()
        self.peers = VirtualPeers(self, process, "head", stage)
        self.stopped = asyncio.Event()
