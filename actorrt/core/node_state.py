"""What a node decides about leases and workers: who gets which worker, with which resources, and who waits. No I/O.

Events come in as method calls; each returns what is to be done now, in this order, by a shell without an opinion.
Requests are known by numbers of the caller's. Times are numbers of seconds that only ever grow, and are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

import msgspec

from actorrt.exceptions import (
    ActorPlacementGroupRemoved,
    ActorrtError,
    ActorUnschedulableError,
    LinkError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)
from actorrt.types import ANY_BUNDLE, ANYWHERE, Employer, GroupId, LeaseId, ProcessId, Strategy

from .leases import UNIT, Queue, Request, Resources, add_up
from .node_actions import (
    AGEING,
    CallBack,
    Freed,
    Grant,
    NodeAction,
    Refuse,
    Remind,
    Reserved,
    Share,
    Timer,
    Unreserved,
)
from .worker_pool import Limits, WorkerPool
from .workers import Env, ProcessEnd, State, Worker, WorkerKind

# Shared workers of one program and environment, for each CPU, before further ones are made in place of blocked ones.
MOST_SHARED: Final = 4
# Seconds of a tick of the queue, by which those who wait in line grow old.
TICK_S: Final = 0.5
FREED: Final = Freed()
NOT_HERE: Final = "its bundles are not on this node"


class Wanted(msgspec.Struct, frozen=True):
    """A worker of its own, as it is asked for. `actor`: the title of the one that it is for, which it is not shared
    with; "" for tasks."""

    shape: Mapping[str, int]
    employer: Employer
    mode: str
    env: Env = ()
    actor: str = ""
    # Of its `group` and `bundle` the node knows; the rest has been seen to where the node was chosen.
    strategy: Strategy = ANYWHERE


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

    __slots__ = ("bundles", "number", "owner", "turn", "wanted")

    def __init__(
        self, number: int, owner: ProcessId, wanted: Wanted, turn: Request, bundles: _Bundles | None = None
    ) -> None:
        self.number = number
        self.owner = owner
        self.wanted = wanted
        self.turn = turn
        self.bundles = bundles


class _Bundles:
    """The bundles of a placement group that are on this node, of one attempt to place it; `turn`: their place in line.

    Each is a part of the machine of its own, from which leases are given. PENDING: `parts` is empty.
    """

    __slots__ = ("_committed", "_ended", "attempt", "bundles", "group", "leases", "parts", "turn")

    def __init__(self, group: GroupId, attempt: int, bundles: Mapping[int, Mapping[str, int]], turn: Request) -> None:
        self.group = group
        self.attempt = attempt
        self.bundles = dict(bundles)
        self.turn = turn
        self.parts: dict[int, Resources] = {}
        self.leases: set[LeaseId] = set()
        self._committed = False
        self._ended = ""

    def set_aside(self) -> None:
        """They have been granted."""
        for (number, bundle), gpus in zip(self.bundles.items(), self.turn.gpus_of_parts, strict=True):
            wanted = bundle.get("GPU", 0)
            self.parts[number] = Resources(bundle, {gpu: min(wanted, UNIT) for gpu in gpus})

    def commit(self) -> None:
        self._committed = True

    def end(self, why: str) -> None:
        self._ended = why

    @property
    def ended(self) -> bool:
        """They are to be free."""
        return bool(self._ended)

    @property
    def usable(self) -> bool:
        """Leases are given from them."""
        return self._committed and not self._ended

    def among(self, bundle: int) -> tuple[Resources, ...]:
        """Those from which a request may have what it asks for; none: there is no such bundle here."""
        if bundle == ANY_BUNDLE:
            return tuple(self.parts.values())
        return (self.parts[bundle],) if bundle in self.parts else ()


class _Granted:
    """A worker that is leased to a process. `bundles`: it is in them."""

    __slots__ = ("_is_blocked", "actor", "bundles", "lease", "owner", "process", "turn")

    def __init__(self, lease: LeaseId, pending: _Pending, process: ProcessId) -> None:
        self.lease = lease
        self.process = process
        self.owner = pending.owner
        self.turn = pending.turn
        self.actor = pending.wanted.actor
        self.bundles = pending.bundles
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
        self._by_turn: dict[Request, _Pending | _Bundles] = {}
        self._bundles: dict[GroupId, _Bundles] = {}
        # It is reminded of the time, since somebody waits in line.
        self._ages = False
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
        strategy = wanted.strategy
        bundles = self._bundles.get(strategy.group) if strategy.group else None
        if strategy.group and (bundles is None or not bundles.usable):
            self._actions.append(Refuse(request, _gone(wanted, NOT_HERE)))
            return self._done()
        among = (self._resources,) if bundles is None else bundles.among(strategy.bundle)
        if not any(one.could(wanted.shape) for one in among):
            self._actions.append(Refuse(request, _unschedulable(wanted, _lacking(wanted, among))))
            return self._done()
        turn = self._queue.ask(wanted.shape, _kind_of(request, owner, wanted), among)
        self._pending[request] = self._by_turn[turn] = _Pending(request, owner, wanted, turn, bundles)
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
            self._give(pending.turn)

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.number]
        del self._by_turn[pending.turn]

    def _call_back(self, turn: Request) -> None:
        """Those who have what is waited for are asked to give it back. Its own kind is left alone: they take turns."""
        short = {source: source.short_of(turn.shape) for source in turn.among}
        wanted: dict[ProcessId, list[LeaseId]] = {}
        for held in self._granted.values():
            lacks = short.get(held.turn.source, ())
            if held.turn.kind != turn.kind and not held.is_actor and any(held.turn.shape.get(name) for name in lacks):
                wanted.setdefault(held.owner, []).append(held.lease)
        for owner, leases in wanted.items():
            self._actions.append(CallBack(owner, tuple(leases)))

    def _serve(self) -> None:
        """Have workers found for all who can have their resources now."""
        for turn in self._queue.grant():
            pending = self._by_turn[turn]
            if isinstance(pending, _Bundles):
                del self._by_turn[turn]
                pending.set_aside()
                self._actions.append(Reserved(pending.group, pending.attempt))
                continue
            wanted = pending.wanted
            cpus = turn.shape.get("CPU", 0) // UNIT
            told = cpus if cpus > 1 and self._tells_cpus else 0
            kind = WorkerKind(wanted.employer, wanted.mode, wanted.env, told, tuple(turn.gpus))
            self._pool.hire(pending.number, kind)
        if len(self._queue) and not self._ages:
            self._ages = True
            self._actions.append(Remind(AGEING, TICK_S))

    def _grow_old(self) -> None:
        """Those who wait in line have waited for a while."""
        self._ages = False
        if len(self._queue):
            self._queue.tick(self._coming)
        self._serve()

    def _coming(self, source: Resources) -> Mapping[str, int]:
        """What those have of it that will give it back: tasks, and not actors, nor bundles."""
        held = [one for one in self._granted.values() if one.turn.source is source and not one.is_actor]
        back = add_up(one.turn.shape for one in held)
        # It is free while they wait.
        paused = sum(one.turn.shape.get("CPU", 0) for one in held if one.is_blocked)
        return {**back, "CPU": back.get("CPU", 0) - paused}

    def _give(self, turn: Request) -> None:
        """What was granted is free; `_serve` is to follow."""
        turn.give()
        self._actions.append(FREED)

    def got(self, claim: int, worker: Worker) -> None:
        """The pool has a worker for a request."""
        pending = self._pending[claim]
        self._forget(pending)
        self._last_lease += 1
        lease = LeaseId(self._node, self._last_lease)
        held = self._granted[lease] = _Granted(lease, pending, worker.process)
        worker.begin_lease(lease)
        if held.bundles is not None:
            held.bundles.leases.add(lease)
        turn = held.turn
        others_wait = not held.is_actor and self._queue.wanted_back(turn.shape, turn.kind, turn.source)
        self._actions.append(Grant(claim, lease, worker.process, tuple(turn.gpus), others_wait))

    def refused(self, claim: int, error: ActorrtError) -> None:
        """The pool could not have a worker made for a request."""
        pending = self._pending[claim]
        self._forget(pending)
        self._actions.append(Refuse(claim, error))
        self._give(pending.turn)
        self._serve()

    def give_back(self, lease: LeaseId, end_worker: bool) -> tuple[NodeAction, ...]:
        """The holder does not need it any more; `end_worker`: nor is its worker to be used again."""
        held = self._granted.get(lease)
        if held is not None:
            worker = self._pool.get(held.process)
            assert worker is not None
            self._end(held, worker)
            # A process that has used a GPU keeps some of its memory until it ends.
            if held.is_actor or end_worker or held.turn.gpus:
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
            held.turn.source.resume(held.turn.shape)
        self._give(held.turn)
        if held.bundles is not None:
            held.bundles.leases.discard(held.lease)
            self._clear(held.bundles)

    def block(self, number: int, blocked: bool) -> tuple[NodeAction, ...]:
        """The worker of a lease waits in `get`, or goes on: its CPUs are free meanwhile."""
        held = self._granted.get(LeaseId(self._node, number))
        if held is not None and held.is_blocked is not blocked:
            held.block(blocked)
            if blocked:
                held.turn.source.pause(held.turn.shape)
                self._serve()
            else:
                held.turn.source.resume(held.turn.shape)
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

    # ---- placement groups

    def reserve(
        self, group: GroupId, attempt: int, bundles: Mapping[int, Mapping[str, int]], waits: bool
    ) -> tuple[NodeAction, ...]:
        """Set these bundles aside, together: now, or (`waits`) as soon as that is possible."""
        parts = tuple(bundles.values())
        # Nobody else is of its kind, so that who has what it lacks is asked to give that back.
        turn = self._queue.ask(add_up(parts), (group, attempt), parts=parts)
        self._bundles[group] = self._by_turn[turn] = _Bundles(group, attempt, bundles, turn)
        self._serve()
        if not turn.granted and waits:
            self._call_back(turn)
        elif not turn.granted:
            self._queue.withdraw(turn)
            del self._by_turn[turn], self._bundles[group]
            self._actions.append(Unreserved(group, attempt))
        return self._done()

    def commit(self, group: GroupId, attempt: int) -> tuple[NodeAction, ...]:
        """The whole group is there: leases are given from its bundles."""
        known = self._bundles.get(group)
        if known is not None and known.attempt == attempt:
            known.commit()
        return self._done()

    def release(self, group: GroupId, attempt: int, why: str) -> tuple[NodeAction, ...]:
        """The group is not here any more: what runs in it is ended. Its bundles are free once that has ended."""
        known = self._bundles.get(group)
        if known is None or known.attempt != attempt:
            return self._done()
        del self._bundles[group]
        known.end(why)
        if self._queue.withdraw(known.turn):
            del self._by_turn[known.turn]
        for pending in [pending for pending in self._pending.values() if pending.bundles is known]:
            self._withdraw(pending)
            self._actions.append(Refuse(pending.number, _gone(pending.wanted, why)))
        for lease in list(known.leases):
            self._pool.kill(self._granted[lease].process, f"its placement group is gone: {why}")
        self._clear(known)
        self._serve()
        return self._done()

    def _clear(self, known: _Bundles) -> None:
        """Bundles that have ended, and in which nothing runs any more, are free; `_serve` is to follow."""
        if known.ended and known.parts and not known.leases:
            known.parts.clear()
            self._give(known.turn)

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
        if timer == AGEING:
            self._grow_old()
        else:
            self._pool.due(timer)
        return self._done()

    def kill(self, process: ProcessId, reason: str) -> tuple[NodeAction, ...]:
        """End a worker now."""
        self._pool.kill(process, reason)
        return self._done()

    def end_for_memory(self, process: ProcessId, reason: str) -> tuple[NodeAction, ...]:
        """The same, since memory runs short, unless it is being ended anyway."""
        worker = self._pool.get(process)
        if worker is not None and not worker.cause:
            self._pool.kill(process, reason, for_memory=True)
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
            Holding(each.process, each.owner, each.turn.shape, each.actor, each.is_blocked)
            for each in self._granted.values()
        ]

    @property
    def rooms(self) -> Mapping[int, int]:
        """How much of each GPU is free, by index."""
        return self._resources.rooms

    def statistics(self) -> Statistics:
        return Statistics(
            self._pool.states(),
            self._pool.starts,
            len(self._granted),
            sum(held.is_blocked for held in self._granted.values()),
            len(self._pending),
            len(self._queue) - sum(isinstance(one, _Bundles) for one in self._by_turn.values()),
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
    shape = tuple(sorted(wanted.shape.items()))
    return (owner, wanted.employer, wanted.mode, shape, wanted.env, wanted.strategy)


def _lacking(wanted: Wanted, among: tuple[Resources, ...]) -> str:
    """Why none of these can ever give what is asked for."""
    group, bundle = wanted.strategy.group, wanted.strategy.bundle
    if not group:
        return among[0].lacking(wanted.shape)
    if not among:
        return f"there is no bundle {bundle} in its placement group"
    which = "none of the bundles of its placement group has" if bundle == ANY_BUNDLE else f"its bundle {bundle} lacks"
    if bundle == ANY_BUNDLE:
        return f"{which} that; the largest lacks {min((one.lacking(wanted.shape) for one in among), key=len)}"
    return f"{which} {among[0].lacking(wanted.shape)}"


def _unschedulable(wanted: Wanted, lacking: str) -> ActorrtError:
    shape = {name: amount / UNIT for name, amount in wanted.shape.items()}
    if wanted.actor:
        return ActorUnschedulableError(wanted.actor, shape, lacking)
    return TaskUnschedulableError("the task", shape, lacking)


def _gone(wanted: Wanted, why: str) -> ActorrtError:
    """The placement group is gone."""
    group = wanted.strategy.group.hex()
    if wanted.actor:
        return ActorPlacementGroupRemoved(wanted.actor, group, why)
    return TaskPlacementGroupRemoved("the task", group, why)
