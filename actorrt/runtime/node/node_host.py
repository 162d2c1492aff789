"""What the supervisor of detached actors needs of a node."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from actorrt.core.lifecycle import State
from actorrt.types import Employer, LeaseId, ProcessId
from actorrt.wire.messages import Lease, LeaseRequest, SharedWorkers, WorkerList

from ..links.link import Link
from ..links.peers import Peers
from ..owner.actor_records import ActorRecord
from ..owner.shared import SharedPool

if TYPE_CHECKING:
    from .node import Node


class _PoolHost:
    """A node as a user of shared workers (shared.PoolHost)."""

    def __init__(self, node: Node, employer: Employer) -> None:
        self._node = node
        self._employer = employer

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._node.loop

    @property
    def peers(self) -> Peers:
        return self._node.peers

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList:
        return await self._node.shared_workers(SharedWorkers(want, env or None, self._employer))


class NodeHost:
    """A node as the owner of actors (supervisor.Host)."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seq = itertools.count(1)
        self._pools: dict[tuple[Employer, tuple[tuple[str, str], ...]], SharedPool] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._node.loop

    @property
    def peers(self) -> Peers:
        return self._node.peers

    @property
    def closing(self) -> bool:
        return self._node.stopping

    def next_seq(self) -> int:
        return next(self._seq)

    async def lease(self, request: LeaseRequest) -> Lease:
        return await self._node.leases.lease(self._node.process, request)

    def return_lease(self, lease: LeaseId) -> None:
        self._node.leases.give_back(lease, False)

    def shared_pool(self, env: dict[str, str], employer: Employer) -> SharedPool:
        key = (employer, tuple(sorted(env.items())))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = SharedPool(_PoolHost(self._node, employer), env)
        return pool

    def blocked(self, process: ProcessId, blocked: bool) -> None:
        """The loop of a worker is blocked, or goes on."""
        for pool in self._pools.values():
            pool.blocked(process, blocked)

    def link_lost(self, link: Link) -> None:
        """A shared worker may be gone; a pool goes with its last one."""
        for key, pool in list(self._pools.items()):
            pool.link_lost(link)
            if pool.is_empty:
                del self._pools[key]

    def kill_worker(self, process: ProcessId, reason: str) -> None:
        self._node.workers.kill(process, reason)

    async def exit_cause(self, process: ProcessId) -> tuple[str, bool]:
        end = await self._node.workers.exit_of(process)
        return end.cause, end.oom

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        self._node.spawn(work)

    def actor_moved(self, record: ActorRecord) -> None:
        """Nobody calls actors from a node."""

    def holds(self, record: ActorRecord) -> bool:
        """A detached actor lives without handles. A dead one is kept like any other: for those who hold them."""
        return record.state is not State.DEAD
