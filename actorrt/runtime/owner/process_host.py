"""Where a driver or worker has the processes for its actors and its async tasks from: leases, and shared workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from actorrt.types import NO_EMPLOYER, Employer, LeaseId, ProcessId
from actorrt.wire.messages import KillWorker, Lease, LeaseRequest, ReturnLease, SharedWorkers, WorkerList

from ..base.loop_thread import LoopThread
from ..links.peers import Peers
from .actor_records import ActorRecord
from .exits import Exits
from .membership import Membership
from .shared import SharedPool


class Surroundings(Protocol):
    """What is asked of the process. It has a node and peers when the first actor is placed."""

    @property
    def membership(self) -> Membership: ...
    @property
    def peers(self) -> Peers: ...


class ProcessHost:
    """A driver or worker as the owner of actors (supervisor.Host) and as a user of shared workers (shared.PoolHost)."""

    def __init__(
        self,
        surroundings: Surroundings,
        thread: LoopThread,
        exits: Exits,
        next_seq: Callable[[], int],
        actor_moved: Callable[[ActorRecord], None],
        holds: Callable[[ActorRecord], bool],
    ) -> None:
        """`actor_moved` is called on the runtime loop when the place of an actor that this process owns changes;
        `holds` says whether a handle to such an actor is in this process."""
        self._process = surroundings
        self._thread = thread
        self.spawn_here = thread.spawn_here
        self.exit_cause = exits.cause
        self.next_seq = next_seq
        self.actor_moved = actor_moved
        self.holds = holds
        self._pools: dict[tuple[tuple[str, str], ...], SharedPool] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._thread.loop

    @property
    def peers(self) -> Peers:
        return self._process.peers

    @property
    def closing(self) -> bool:
        return self._thread.closing

    def _tell_node(self, message: ReturnLease | KillWorker) -> None:
        """The node that is gone needs to know nothing."""
        node = self._process.membership.node
        if not node.closed:
            node.send(message)

    async def lease(self, request: LeaseRequest) -> Lease:
        membership = self._process.membership
        return await membership.node.ask(request)

    def return_lease(self, lease: LeaseId) -> None:
        self._tell_node(ReturnLease(lease))

    def shared_pool(self, env: dict[str, str], employer: Employer = NO_EMPLOYER) -> SharedPool:
        key = tuple(sorted(env.items()))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = SharedPool(self, env)
        return pool

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList:
        membership = self._process.membership
        return await membership.node.ask(SharedWorkers(want, env or None, membership.employer))

    def shared_pools(self) -> list[SharedPool]:
        return list(self._pools.values())

    def kill_worker(self, process: ProcessId, reason: str) -> None:
        self._tell_node(KillWorker(process, reason))
