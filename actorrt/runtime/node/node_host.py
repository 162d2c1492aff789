"""What the supervisor of detached actors needs of a node."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from actorrt.core.lifecycle import State
from actorrt.types import ANYWHERE, Employer, LeaseId, ProcessId
from actorrt.wire.messages import Exit, Lease, LeaseRequest, WorkerList

from ..links.link import Link
from ..links.peers import Peers
from ..owner.actor_records import ActorRecord
from ..owner.shared import SharedPool


class Staff(Protocol):
    """The workers of the node."""

    async def lease(self, owner: ProcessId, wanted: LeaseRequest, /) -> Lease: ...
    async def share(self, employer: Employer, env: Mapping[str, str] | None, want: int, /) -> WorkerList: ...
    async def exit_of(self, process: ProcessId, /) -> Exit: ...
    def give_back(self, lease: LeaseId, end_worker: bool, /) -> None: ...
    def kill(self, process: ProcessId, reason: str, /) -> None: ...


class Admission(Protocol):
    """Who knows where a request may run."""

    async def admit(self, wanted: LeaseRequest, /) -> None: ...


class _PoolHost:
    """A node as a user of shared workers (shared.PoolHost)."""

    def __init__(self, staff: Staff, peers: Peers, employer: Employer) -> None:
        self._staff = staff
        self._employer = employer
        self.peers = peers
        self.loop = asyncio.get_running_loop()

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList:
        return await self._staff.share(self._employer, env, want)


class NodeHost:
    """A node as the owner of actors (supervisor.Host)."""

    def __init__(
        self,
        peers: Peers,
        staff: Staff,
        groups: Admission,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        is_closing: Callable[[], bool],
    ) -> None:
        self.peers = peers
        self.loop = asyncio.get_running_loop()
        self._staff = staff
        self._groups = groups
        self._spawn = spawn
        self._is_closing = is_closing
        self._seq = itertools.count(1)
        self._pools: dict[tuple[Employer, tuple[tuple[str, str], ...]], SharedPool] = {}

    @property
    def closing(self) -> bool:
        return self._is_closing()

    def next_seq(self) -> int:
        return next(self._seq)

    async def lease(self, request: LeaseRequest) -> Lease:
        if request.strategy != ANYWHERE:
            await self._groups.admit(request)
        return await self._staff.lease(self.peers.process, request)

    def return_lease(self, lease: LeaseId) -> None:
        self._staff.give_back(lease, False)

    def shared_pool(self, env: dict[str, str], employer: Employer) -> SharedPool:
        key = (employer, tuple(sorted(env.items())))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = SharedPool(_PoolHost(self._staff, self.peers, employer), env)
        return pool

    def shared_pools(self) -> list[SharedPool]:
        """Those that there are."""
        return list(self._pools.values())

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
        self._staff.kill(process, reason)

    async def exit_cause(self, process: ProcessId) -> tuple[str, bool]:
        end = await self._staff.exit_of(process)
        return end.cause, end.oom

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(work)

    def actor_moved(self, record: ActorRecord) -> None:
        """Nobody calls actors from a node."""

    def holds(self, record: ActorRecord) -> bool:
        """A detached actor lives without handles. A dead one is kept like any other: for those who hold them."""
        return record.state is not State.DEAD
