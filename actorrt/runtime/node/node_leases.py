"""The leases of a node: who has which worker, with which resources, and who waits. core/leases.py decides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable
from typing import TYPE_CHECKING

from actorrt import exceptions
from actorrt.core.leases import UNIT, Queue, Request, Resources
from actorrt.types import LeaseId, ProcessId
from actorrt.wire.addresses import place_on
from actorrt.wire.messages import Lease, LeaseRequest, LeasesWanted

from ..machine.gpus import visible_gpus
from .workers import Worker

if TYPE_CHECKING:
    from .node import Node


class HeldLease:
    """A worker that is leased to a process."""

    __slots__ = ("blocked", "gpus", "is_actor", "kind", "lease", "owner", "shape", "worker")

    def __init__(self, lease: LeaseId, owner: ProcessId, worker: Worker, request: Request, is_actor: bool) -> None:
        self.lease = lease
        self.owner = owner
        self.worker = worker
        self.shape = request.shape
        self.kind = request.kind
        self.gpus = request.gpus
        self.is_actor = is_actor
        self.blocked = False


class NodeLeases:
    """Grants and takes back. Runs on the node's loop."""

    def __init__(self, node: Node, total: dict[str, int]) -> None:
        self._node = node
        self.resources = Resources(total)
        self._queue = Queue(self.resources)
        self._futures: dict[Request, asyncio.Future[None]] = {}
        self._held: dict[LeaseId, HeldLease] = {}
        self._last = 0

    async def lease(self, owner: ProcessId, wanted: LeaseRequest) -> Lease:
        """A worker for `owner`, when its shape is free. Raises what makes it impossible."""
        lacking = self.resources.lacking(wanted.shape)
        if lacking:
            shape = {name: amount / UNIT for name, amount in wanted.shape.items()}
            if wanted.actor:
                raise exceptions.ActorUnschedulableError(wanted.actor, shape, lacking)
            raise exceptions.TaskUnschedulableError("the task", shape, lacking)
        request = await self._turn(wanted.shape, _kind(owner, wanted))
        worker: Worker | None = None
        try:
            own = self._environment(wanted, request.gpus)
            worker = await self._node.workers.get(wanted.employer, wanted.mode, wanted.env or {}, own, request.gpus)
            if owner != self._node.process and self._node.peers.get(owner) is None:
                raise exceptions.LinkError("the process that asked is gone")
        except BaseException:
            if worker is not None:
                self._node.workers.idle(worker)
            self._give(request)
            raise
        self._last += 1
        lease = LeaseId(self._node.process, self._last)
        self._held[lease] = held = HeldLease(lease, owner, worker, request, bool(wanted.actor))
        worker.lease = held.lease
        worker.is_actor = held.is_actor
        others_wait = not held.is_actor and self._queue.wanted_back(held.shape, held.kind)
        return Lease(lease, place_on(lease.node, worker.process), worker.pid, held.gpus or None, others_wait)

    def _environment(self, wanted: LeaseRequest, gpus: list[int]) -> dict[str, str]:
        """What a worker's environment has to say about its resources; workers of different ones are not exchanged."""
        env: dict[str, str] = {}
        cpus = wanted.shape.get("CPU", 0) // UNIT
        if cpus > 1 and "OMP_NUM_THREADS" not in os.environ:
            env["OMP_NUM_THREADS"] = str(cpus)
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus(gpus))
        return env

    async def _turn(self, shape: dict[str, int], kind: Hashable) -> Request:
        request = self._queue.ask(shape, kind)
        self._grant()
        if request.granted:
            return request
        self._call_back(request)
        future = self._futures[request] = self._node.loop.create_future()
        try:
            await future
        except asyncio.CancelledError:
            if not self._queue.withdraw(request):
                self._give(request)
            raise
        finally:
            del self._futures[request]
        return request

    def _call_back(self, request: Request) -> None:
        """Ask those for their leases who have what `request` waits for. Its own kind is left alone: they take turns."""
        short = self.resources.short_of(request.shape)
        wanted: dict[ProcessId, list[LeaseId]] = {}
        for held in self._held.values():
            if held.kind != request.kind and not held.is_actor and any(held.shape.get(name) for name in short):
                wanted.setdefault(held.owner, []).append(held.lease)
        for owner, leases in wanted.items():
            link = self._node.peers.get(owner)
            if link is not None:
                link.send(LeasesWanted(leases))

    def _grant(self) -> None:
        for request in self._queue.grant():
            future = self._futures.get(request)
            if future is not None and not future.done():
                future.set_result(None)

    def _give(self, taken: Request | HeldLease) -> None:
        self.resources.give(taken.shape, taken.gpus)
        self._grant()

    def give_back(self, lease: LeaseId, end_worker: bool) -> None:
        """The holder does not need it any more, or its worker is gone."""
        held = self._held.get(lease)
        if held is not None:
            self._end(held)
            # A process that has used a GPU keeps some of its memory until it ends.
            self._node.workers.returned(held.worker, end_worker or bool(held.gpus))

    def worker_ended(self, worker: Worker) -> None:
        held = None if worker.lease is None else self._held.get(worker.lease)
        if held is not None:
            self._end(held)

    def _end(self, held: HeldLease) -> None:
        del self._held[held.lease]
        held.worker.lease = None
        if held.blocked:
            self.resources.resume(held.shape)
        self._give(held)

    def block(self, number: int, blocked: bool) -> None:
        """The worker of a lease waits in `get`, or goes on."""
        held = self._held.get(LeaseId(self._node.process, number))
        if held is None or held.blocked == blocked:
            return
        held.blocked = blocked
        if blocked:
            self.resources.pause(held.shape)
            self._grant()
        else:
            self.resources.resume(held.shape)

    def owner_lost(self, owner: ProcessId) -> None:
        """Its workers have nobody left to work for: what runs there is cancelled, then they end.

        Others may need what they own.
        """
        for held in [held for held in self._held.values() if held.owner == owner]:
            self._node.workers.retire(held.worker, "its owner ended", finish=False)


def _kind(owner: ProcessId, wanted: LeaseRequest) -> Hashable:
    if wanted.actor:
        # An actor's worker is given to nobody else.
        return object()
    return (
        owner,
        wanted.employer,
        wanted.mode,
        tuple(sorted(wanted.shape.items())),
        tuple(sorted((wanted.env or {}).items())),
    )
