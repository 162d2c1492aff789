"""What a node decides about leases and workers: who gets which worker, with which resources, and who waits. No I/O.

Events come in as method calls; each returns what is to be done now, in this order, by a shell without an opinion.
Requests are known by numbers of the caller's. Times are numbers of seconds that only ever grow, and are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

import msgspec

from actorrt.exceptions import ActorrtError, ActorUnschedulableError, LinkError, TaskUnschedulableError
from actorrt.types import Employer, LeaseId, ProcessId

from .leases import UNIT, Queue, Request, Resources
from .node_actions import CallBack, Grant, NodeAction, Refuse, Share, Timer
from .worker_pool import Limits, WorkerPool
from .workers import Env, ProcessEnd, State, Worker, WorkerKind

# Shared workers of one program and environment, for each CPU, before further ones are made in place of blocked ones.
MOST_SHARED: Final = 4


class Wanted(msgspec.Struct, frozen=True):
    """A worker of its own, as it is asked for. `actor`: the title of the one that it is for, which it is not shared
    with; "" for tasks."""

    shape: Mapping[str, int]
    employer: Employer
    mode: str
    env: Env = ()
    actor: str = ""


class Statistics(msgspec.Struct, frozen=True):
    """`workers`: how many are in which state. `starts`: those that are wanted and not ready. `requests`: those for a
    lease that have no answer, of which `waiting` wait for resources. `blocked`: leases whose worker waits in `get`.
    `free` and `total` are resources, in units of 1/10000; free CPUs may be negative.
    """

    workers: Mapping[State, int]
    starts: int
    leases: int
    blocked: int
    requests: int
    waiting: int
    waiting_for_shared: int
    free: Mapping[str, int]
    total: Mapping[str, int]


class Waiting(msgspec.Struct, frozen=True):
    """A request for a lease that has no answer. `has_resources`: it only waits for its worker to be ready."""

    owner: ProcessId
    wanted: Wanted
    has_resources: bool


class Holding(msgspec.Struct, frozen=True):
    """A worker that is leased to `owner`; `actor`: the title of the one that it has, or "". Of one that `is_blocked`
    the CPUs are free meanwhile."""

    process: ProcessId
    owner: ProcessId
    shape: Mapping[str, int]
    actor: str
    is_blocked: bool


class _Pending:
    """A request that has no lease yet."""

    __slots__ = ("number", "owner", "turn", "wanted")

    def __init__(self, number: int, owner: ProcessId, wanted: Wanted, turn: Request) -> None:
        self.number = number
        self.owner = owner
        self.wanted = wanted
        self.turn = turn


class _Granted:
    """A worker that is leased to a process."""

    __slots__ = ("_is_blocked", "actor", "gpus", "kind", "lease", "owner", "process", "shape")

    def __init__(self, lease: LeaseId, pending: _Pending, process: ProcessId) -> None:
        self.lease = lease
        self.process = process
        self.owner = pending.owner
        self.shape = pending.turn.shape
        self.kind = pending.turn.kind
        self.gpus = pending.turn.gpus
        self.actor = pending.wanted.actor
        self._is_blocked = False

    @property
    def is_actor(self) -> bool:
        return bool(self.actor)

    @property
    def is_blocked(self) -> bool:
        return self._is_blocked

    def block(self, blocked: bool) -> None:
        self._is_blocked = blocked


class NodeState:
    """One node's workers and leases."""

    def __init__(
        self,
        node: ProcessId,
        total: Mapping[str, int],
        cpus: int,
        limits: Limits,
        new_process: Callable[[], ProcessId],
        *,
        tells_cpus: bool = True,
    ) -> None:
        """`new_process` makes up process ids. `tells_cpus`: workers of several CPUs learn of it by their environment,
        so that they cannot stand in for others."""
        self._node = node
        self._cpus = cpus
        self._tells_cpus = tells_cpus
        self._actions: list[NodeAction] = []
        self._pool = WorkerPool(limits, new_process, self, self._actions)
        self._resources = Resources(total)
        self._queue = Queue(self._resources)
        self._pending: dict[int, _Pending] = {}
        self._by_turn: dict[Request, _Pending] = {}
        self._granted: dict[LeaseId, _Granted] = {}
        self._last_lease = 0
        # Who waits until a worker to share is ready.
        self._sharers: dict[WorkerKind, list[int]] = {}

    # ---- programs

    def employ(self, employer: Employer) -> None:
        """A program, or its first detached actor, is there."""
        self._pool.employ(employer)

    def dismiss(self, employer: Employer, reason: str) -> tuple[NodeAction, ...]:
        """It has ended: its workers end too."""
        self._pool.dismiss(employer, reason)
        return self._done()

    def stop(self, reason: str, grace_s: float) -> tuple[NodeAction, ...]:
        """The node ends: its workers get so many seconds to clean up, and no other is made."""
        self._pool.stop(reason, grace_s)
        return self._done()

    # ---- leases

    def ask(self, request: int, owner: ProcessId, wanted: Wanted) -> tuple[NodeAction, ...]:
        """`owner` asks for a worker: a Grant or Refuse follows, now or later."""
        lacking = self._resources.lacking(wanted.shape)
        if lacking:
            shape = {name: amount / UNIT for name, amount in wanted.shape.items()}
            if wanted.actor:
                self._actions.append(Refuse(request, ActorUnschedulableError(wanted.actor, shape, lacking)))
            else:
                self._actions.append(Refuse(request, TaskUnschedulableError("the task", shape, lacking)))
            return self._done()
        turn = self._queue.ask(wanted.shape, _kind_of(request, owner, wanted))
        self._pending[request] = self._by_turn[turn] = _Pending(request, owner, wanted, turn)
        self._serve()
        if not turn.granted:
            self._call_back(turn)
        return self._done()

    def withdraw(self, request: int) -> tuple[NodeAction, ...]:
        """Who has asked does not wait any more; nothing happens if it was answered."""
        pending = self._pending.get(request)
        if pending is not None:
            self._withdraw(pending)
            self._serve()
        return self._done()

    def _withdraw(self, pending: _Pending) -> None:
        """What it has is free; `_serve` is to follow."""
        self._forget(pending)
        if not self._queue.withdraw(pending.turn):
            self._pool.unclaim(pending.number)
            self._resources.give(pending.turn.shape, pending.turn.gpus)

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.number]
        del self._by_turn[pending.turn]

    def _call_back(self, turn: Request) -> None:
        """Those who have what is waited for are asked to give it back. Its own kind is left alone: they take turns."""
        short = self._resources.short_of(turn.shape)
        wanted: dict[ProcessId, list[LeaseId]] = {}
        for held in self._granted.values():
            if held.kind != turn.kind and not held.is_actor and any(held.shape.get(name) for name in short):
                wanted.setdefault(held.owner, []).append(held.lease)
        for owner, leases in wanted.items():
            self._actions.append(CallBack(owner, tuple(leases)))

    def _serve(self) -> None:
        """Have workers found for all who can have their resources now."""
        for turn in self._queue.grant():
            pending = self._by_turn[turn]
            wanted = pending.wanted
            cpus = turn.shape.get("CPU", 0) // UNIT
            told = cpus if cpus > 1 and self._tells_cpus else 0
            kind = WorkerKind(wanted.employer, wanted.mode, wanted.env, told, tuple(turn.gpus))
            self._pool.hire(pending.number, kind)

    def got(self, claim: int, worker: Worker) -> None:
        """The pool has a worker for a request."""
        pending = self._pending[claim]
        self._forget(pending)
        self._last_lease += 1
        lease = LeaseId(self._node, self._last_lease)
        held = self._granted[lease] = _Granted(lease, pending, worker.process)
        worker.begin_lease(lease)
        others_wait = not held.is_actor and self._queue.wanted_back(held.shape, held.kind)
        self._actions.append(Grant(claim, lease, worker.process, tuple(held.gpus), others_wait))

    def refused(self, claim: int, error: ActorrtError) -> None:
        """The pool could not have a worker made for a request."""
        pending = self._pending[claim]
        self._forget(pending)
        self._actions.append(Refuse(claim, error))
        self._resources.give(pending.turn.shape, pending.turn.gpus)
        self._serve()

    def give_back(self, lease: LeaseId, end_worker: bool) -> tuple[NodeAction, ...]:
        """The holder does not need it any more; `end_worker`: nor is its worker to be used again."""
        held = self._granted.get(lease)
        if held is not None:
            worker = self._pool.get(held.process)
            assert worker is not None
            self._end(held, worker)
            # A process that has used a GPU keeps some of its memory until it ends.
            if held.is_actor or end_worker or held.gpus:
                self._pool.retire(worker, "its work was done")
            else:
                self._pool.rest(worker)
            self._serve()
        return self._done()

    def _end(self, held: _Granted, worker: Worker) -> None:
        """Its resources are free; `_serve` is to follow."""
        del self._granted[held.lease]
        worker.end_lease()
        if held.is_blocked:
            self._resources.resume(held.shape)
        self._resources.give(held.shape, held.gpus)

    def block(self, number: int, blocked: bool) -> tuple[NodeAction, ...]:
        """The worker of a lease waits in `get`, or goes on: its CPUs are free meanwhile."""
        held = self._granted.get(LeaseId(self._node, number))
        if held is not None and held.is_blocked is not blocked:
            held.block(blocked)
            if blocked:
                self._resources.pause(held.shape)
                self._serve()
            else:
                self._resources.resume(held.shape)
        return self._done()

    def owner_ended(self, owner: ProcessId) -> tuple[NodeAction, ...]:
        """A process has ended: it waits for nothing, and its workers have nobody left to work for. What runs there is
        cancelled, then they end, unless others need what they own."""
        for pending in [pending for pending in self._pending.values() if pending.owner == owner]:
            self._withdraw(pending)
            self._actions.append(Refuse(pending.number, LinkError("the process that asked is gone")))
        # Once none of its own is left that could be next.
        self._serve()
        for held in [held for held in self._granted.values() if held.owner == owner]:
            worker = self._pool.get(held.process)
            assert worker is not None
            self._pool.retire(worker, "its owner ended", finish=False)
        return self._done()

    # ---- workers that are shared

    def ask_shared(self, request: int, employer: Employer, env: Env, want: int) -> tuple[NodeAction, ...]:
        """At least one worker, if possible `want`, for coroutines: a Share or Refuse follows, now or later."""
        kind = WorkerKind(employer, "loop", env)
        every, free = self._pool.shared(kind)
        if len(free) >= max(1, want):
            self._share(request, free)
        elif len(every) >= MOST_SHARED * max(1, self._cpus):
            # Those who block them all would block any further ones too.
            self._share(request, free or every)
        else:
            self._sharers.setdefault(kind, []).append(request)
            self._pool.start_shared(kind)
        return self._done()

    def withdraw_shared(self, request: int) -> tuple[NodeAction, ...]:
        """Who has asked does not wait any more; nothing happens if it was answered."""
        for kind, waiting in list(self._sharers.items()):
            if request in waiting:
                waiting.remove(request)
                if not waiting:
                    del self._sharers[kind]
        return self._done()

    def shared_changed(self, kind: WorkerKind, error: ActorrtError | None) -> None:
        """The pool has one more worker to share, or could not have it made."""
        _, free = self._pool.shared(kind)
        for request in self._sharers.pop(kind, ()):
            if error is None:
                self._share(request, free)
            else:
                self._actions.append(Refuse(request, error))

    def _share(self, request: int, workers: list[Worker]) -> None:
        self._actions.append(Share(request, tuple(worker.process for worker in workers)))

    def loop_blocked(self, process: ProcessId, blocked: bool) -> None:
        """The loop of a shared worker is blocked, or goes on."""
        self._pool.blocked(process, blocked)

    # ---- what becomes of workers

    def forked(self, process: ProcessId) -> tuple[NodeAction, ...]:
        """The zygote has made it."""
        self._pool.forked(process)
        return self._done()

    def fork_failed(self, process: ProcessId, error: ActorrtError) -> tuple[NodeAction, ...]:
        """It could not be made; `error` is for who waits for it."""
        self._pool.fork_failed(process, error)
        return self._done()

    def fork_lost(self, process: ProcessId, error: ActorrtError) -> tuple[NodeAction, ...]:
        """The zygote has ended before it has answered; `error` is for who waits, if no other process is made."""
        self._pool.fork_lost(process, error)
        return self._done()

    def ready(self, process: ProcessId) -> tuple[NodeAction, ...]:
        """It listens, and can be leased."""
        self._pool.ready(process)
        return self._done()

    def stays(self, process: ProcessId) -> tuple[NodeAction, ...]:
        """Its work is done, and others need what it owns: it goes on without its lease."""
        worker = self._pool.stays(process)
        if worker is not None:
            self._worker_gave_up_lease(worker)
        return self._done()

    def needed(self, process: ProcessId, needed: bool) -> tuple[NodeAction, ...]:
        """The answer to AskIfNeeded."""
        self._pool.needed(process, needed)
        return self._done()

    def due(self, timer: Timer) -> tuple[NodeAction, ...]:
        """A reminder that was asked for."""
        self._pool.due(timer)
        return self._done()

    def kill(self, process: ProcessId, reason: str) -> tuple[NodeAction, ...]:
        """End a worker now."""
        self._pool.kill(process, reason)
        return self._done()

    def stalled(self, process: ProcessId, reason: str) -> tuple[NodeAction, ...]:
        """End a worker that does not go on, unless it is being ended anyway."""
        worker = self._pool.get(process)
        if worker is not None and not worker.cause:
            self._pool.kill(process, reason)
        return self._done()

    def link_lost(self, process: ProcessId, farewell: bool, cause: str = "") -> tuple[NodeAction, ...]:
        """The link to a process is gone; `farewell`: it has closed it; `cause`: it may live, and is ended for this."""
        self._pool.link_lost(process, farewell, cause)
        return self._done()

    def exited(self, process: ProcessId, end: ProcessEnd, now: float) -> tuple[NodeAction, ...]:
        """A worker's process was reaped."""
        self._worker_gave_up_lease(self._pool.exited(process, end, now))
        return self._done()

    def _worker_gave_up_lease(self, worker: Worker) -> None:
        if worker.lease is not None:
            self._end(self._granted[worker.lease], worker)
            self._serve()

    # ---- what is known

    def worker(self, process: ProcessId) -> Worker | None:
        """A worker that has not ended."""
        return self._pool.get(process)

    def workers_of(self, job: ProcessId) -> list[Worker]:
        """All that work for a program, or for its detached actors."""
        return self._pool.of(job)

    def cause_of(self, process: ProcessId) -> str:
        """Why a worker is being ended, if this node does it."""
        worker = self._pool.get(process)
        return "" if worker is None else worker.cause

    def may_lack_memory(self, process: ProcessId) -> bool:
        """Whether a SIGKILL of this worker may have been sent by the kernel for want of memory: this node did not."""
        worker = self._pool.get(process)
        return worker is not None and not worker.cause

    @property
    def total(self) -> Mapping[str, int]:
        return self._resources.total

    @property
    def free(self) -> Mapping[str, int]:
        return self._resources.free

    def requests(self) -> list[Waiting]:
        """Those for a lease that have no answer, in the order in which they came."""
        waiting = sorted(self._pending.values(), key=lambda each: each.turn.number)
        return [Waiting(each.owner, each.wanted, each.turn.granted) for each in waiting]

    def holdings(self) -> list[Holding]:
        """The leases, the oldest first."""
        return [
            Holding(each.process, each.owner, each.shape, each.actor, each.is_blocked)
            for each in self._granted.values()
        ]

    def statistics(self) -> Statistics:
        return Statistics(
            self._pool.states(),
            self._pool.starts,
            len(self._granted),
            sum(held.is_blocked for held in self._granted.values()),
            len(self._pending),
            len(self._queue),
            sum(map(len, self._sharers.values())),
            dict(self._resources.free),
            dict(self._resources.total),
        )

    def tables(self) -> tuple[object, ...]:
        """Whatever has tables that could grow."""
        return (self, self._pool, self._queue)

    def _done(self) -> tuple[NodeAction, ...]:
        actions = tuple(self._actions)
        self._actions.clear()
        return actions


def _kind_of(request: int, owner: ProcessId, wanted: Wanted) -> Hashable:
    """Who asks, and what for: leases of one kind can stand in for each other."""
    if wanted.actor:
        # Its worker is given to nobody else.
        return request
    return (owner, wanted.employer, wanted.mode, tuple(sorted(wanted.shape.items())), wanted.env)
