"""What a node has of its machine: links, the processes beside it, pipes, memory. A simulation has another one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from importlib import import_module
from typing import Any, Final, Protocol

import msgspec

from actorrt.config import Settings
from actorrt.core.memory_watch import Reading
from actorrt.types import ActorKey, Employer, ProcessId
from actorrt.version import __version__
from actorrt.wire.messages import ClaimName, NameHolder

from ..base.process_watch import watch_pid
from ..links.access import Access
from ..links.link import Receiver
from ..links.peers import Peers
from ..machine.cgroup import Cgroup, OomWatch
from ..machine.memory import readings
from ..machine.process_tree import NodeStart
from ..machine.stall_watch import watch_for_stalls
from ..machine.zygote_keeper import Parent, ZygoteKeeper
from .head_client import HeadParent, HeadQuestion
from .head_keeper import HeadKeeper
from .node_segments import NodeSegments
from .worker_output import Listener, WorkerOutputs
from .worker_processes import Memory, Outputs, Zygote

# The address of a head on the same machine: a link to its socket lies in the session's folder.
NEAR: Final = "near"

Reaped = Callable[[int, int, str], None]
EndOf = Callable[[ProcessId], Coroutine[Any, Any, str]]


class NodeConfig(msgspec.Struct, frozen=True):
    """What the launcher is told."""

    node: ProcessId
    head: ProcessId
    session: str
    resources: dict[str, int]
    store_limit: int
    driver_pid: int
    # Told, by one byte, when the node listens.
    ready_fd: int
    preload_modules: list[str]
    # Of a cluster that outlives programs: its name, where its head is if another node keeps it, and the id that this
    # node had before it was given up.
    cluster: str = ""
    head_address: str = ""
    before: str = ""


class KeptZygote(Zygote, Protocol):
    """A zygote that is replaced when it ends."""

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        ...

    async def close(self, deadline_s: float, /) -> None: ...


class KeptHead(Protocol):
    """The way to the head (HeadClient), and its process if it is this node's."""

    @property
    def pid(self) -> int | None: ...
    async def end(self) -> str: ...
    async def ask(self, question: HeadQuestion, /) -> Any: ...
    async def claim(self, claim: ClaimName, /) -> NameHolder: ...
    def drop(self, name: str, namespace: str, actor: ActorKey, /) -> None: ...
    def drop_owner(self, owner: ProcessId, /) -> None: ...
    def hold(self, name: str, namespace: str, actor: ActorKey, info: bytes, /) -> None: ...
    def beat(self) -> None: ...
    async def close(self, grace_s: float, /) -> None: ...


class Machine(Protocol):
    """What a node is made of; each part is asked for once."""

    @property
    def memory(self) -> Memory: ...
    def peers(self, receiver: Receiver, end_of: EndOf) -> Peers: ...
    def head(self, parent: HeadParent, peers: Peers) -> KeptHead: ...
    def zygote(self, parent: Parent, reaped: Reaped) -> KeptZygote:
        """`reaped(pid, status, lost)` hears of each worker that has ended."""
        ...

    def outputs(self, listener_of: Callable[[Employer], Listener | None]) -> Outputs: ...
    def segments(self, peers: Peers) -> NodeSegments: ...
    def end_of_driver(self, pid: int) -> asyncio.Future[None]:
        """Done when the process has ended."""
        ...

    def memory_readings(self) -> Callable[[], Iterable[Reading]] | None:
        """How much memory is used, if anything says that."""
        ...

    def stall_watch(
        self, pids: Callable[[], Collection[int]], stalled: Callable[[int], object]
    ) -> Coroutine[Any, Any, None] | None:
        """What finds processes that are stopped, if anything does."""
        ...


class RealMachine:
    """This machine."""

    def __init__(self, config: NodeConfig, start: NodeStart, settings: Settings) -> None:
        self._config: Final = config
        self._start: Final = start
        self._settings: Final = settings
        self.memory = OomWatch(Cgroup.of_this_process())

    def memory_readings(self) -> Callable[[], Iterable[Reading]] | None:
        return partial(readings, self.memory.cgroup)

    def peers(self, receiver: Receiver, end_of: EndOf) -> Peers:
        config, timeout_s = self._config, self._settings.dial_timeout_s
        access = Access(self._settings)
        return Peers(
            receiver, config.node, "node", config.session, __version__, timeout_s, end_of=end_of, access=access
        )

    def head(self, parent: HeadParent, peers: Peers) -> KeptHead:
        if self._config.head_address:
            far_head: Any = import_module("actorrt.runtime.node.far_head")
            address = None if self._config.head_address == NEAR else self._config.head_address
            return far_head.FarHead(parent, peers, self._config.head, address, self._settings.head_timeout_s)
        return HeadKeeper(parent, peers, self._config.head, self._start, self._settings.head_timeout_s)

    def zygote(self, parent: Parent, reaped: Reaped) -> ZygoteKeeper:
        config, silence_s = self._config, self._settings.worker_start_timeout_s
        return ZygoteKeeper(parent, self._start, config.session, config.preload_modules, silence_s, reaped)

    def outputs(self, listener_of: Callable[[Employer], Listener | None]) -> WorkerOutputs:
        return WorkerOutputs(os.path.join(self._config.session, "logs"), self._settings, listener_of)

    def segments(self, peers: Peers) -> NodeSegments:
        folder = self._settings.spill_dir or os.path.join(self._config.session, "spill")
        return NodeSegments(peers, self._config.store_limit, folder)

    def end_of_driver(self, pid: int) -> asyncio.Future[None]:
        return watch_pid(pid)

    def stall_watch(
        self, pids: Callable[[], Collection[int]], stalled: Callable[[int], object]
    ) -> Coroutine[Any, Any, None] | None:
        timeout_s = self._settings.worker_stall_timeout_s
        return watch_for_stalls(pids, stalled, timeout_s) if timeout_s > 0 else None
