"""Where a driver or worker has the processes for its actors and its async tasks from: leases, and shared workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from actorrt.types import NO_EMPLOYER, Employer, LeaseId, ProcessId
from actorrt.wire.messages import KillWorker, Lease, LeaseRequest, ReturnLease, SharedWorkers, WorkerList

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from .actor_records import ActorRecord
from .exits import Exits
from .membership import Membership
from .shared import SharedPool


class Surroundings(Protocol):
    """What is asked of the process."""

    @property
    def node(self) -> Link: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def thread(self) -> LoopThread: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def exits(self) -> Exits: ...


class ProcessHost:
    """A driver or worker as the owner of actors (supervisor.Host) and as a user of shared workers (shared.PoolHost)."""

    def __init__(
        self,
        surroundings: Surroundings,
        next_seq: Callable[[], int],
        actor_moved: Callable[[ActorRecord], None],
        holds: Callable[[ActorRecord], bool],
    ) -> None:
        """`actor_moved` is called on the runtime loop when the place of an actor that this process owns changes;
        `holds` says whether a handle to such an actor is in this process."""
        self._process = surroundings
        self.next_seq = next_seq
        self.actor_moved = actor_moved
        self.holds = holds
        self._pools: dict[tuple[tuple[str, str], ...], SharedPool] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._process.thread.loop

    @property
    def peers(self) -> Peers:
        return self._process.peers

    @property
    def closing(self) -> bool:
        return self._process.thread.closing

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        self._process.thread.spawn_here(work)

    async def lease(self, request: LeaseRequest) -> Lease:
        return await self._process.node.ask(request)

    def return_lease(self, lease: LeaseId) -> None:
        if not self._process.node.closed:
            self._process.node.send(ReturnLease(lease))

    def shared_pool(self, env: dict[str, str], employer: Employer = NO_EMPLOYER) -> SharedPool:
        key = tuple(sorted(env.items()))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = SharedPool(self, env)
        return pool

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList:
        return await self._process.node.ask(SharedWorkers(want, env or None, self._process.membership.employer))

    def shared_pools(self) -> list[SharedPool]:
        return list(self._pools.values())

    def kill_worker(self, process: ProcessId, reason: str) -> None:
        if not self._process.node.closed:
            self._process.node.send(KillWorker(process, reason))

    async def exit_cause(self, process: ProcessId) -> tuple[str, bool]:
        return await self._process.exits.cause(process)
