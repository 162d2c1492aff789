"""Tasks of this process on their way to workers: leases are asked for by shape, and tasks pushed straight to their holders.

All of it runs on the runtime loop. How many tasks a worker gets at once is decided in core/pipeline.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from actorrt import exceptions
from actorrt.core.pipeline import Pace, leases_to_ask, share
from actorrt.wire.messages import GIVEN_BACK, Define, Lease, LeaseRequest, Outcome, ReturnLease, TaskCall

from .calls import Call, fill_slots
from .link import Link

if TYPE_CHECKING:
    from .definitions import RemoteFunctionDef
    from .runtime import Runtime

Env = tuple[tuple[str, str], ...]
PoolKey = tuple[tuple[tuple[str, int], ...], str, Env]
# At most so many questions for leases of one shape are under way, whatever the backlog.
MAX_ASKED: Final = 64


class HeldLease:
    """A worker that this process may push tasks to."""

    __slots__ = ("calls", "idle_timer", "lease", "link", "mark", "pool", "running_long")

    def __init__(self, pool: TaskPool, lease: int, link: Link) -> None:
        self.pool = pool
        self.lease = lease
        self.link = link
        # Unanswered, oldest first: only the oldest can have been started.
        self.calls: dict[int, Call] = {}
        self.mark = 0.0
        self.running_long = False
        self.idle_timer: asyncio.TimerHandle | None = None


class TaskPool:
    """The backlog and the leases of one shape."""

    def __init__(self, tasks: Tasks, key: PoolKey) -> None:
        self._tasks = tasks
        self._runtime = tasks.runtime
        self.shape = dict(key[0])
        self.mode = key[1]
        self.env = dict(key[2])
        self.backlog: deque[Call] = deque()
        self.leases: dict[int, HeldLease] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._pace = Pace()

    def add(self, call: Call) -> None:
        call.target = self
        self.backlog.append(call)

    def pump(self) -> None:
        """Hand over what can be handed over, and ask for leases for the rest."""
        backlog = self.backlog
        now = self._runtime.loop.time()
        if backlog:
            depth = self._pace.depth
            free = [held for held in self.leases.values() if not held.running_long and len(held.calls) < depth]
            free.sort(key=lambda held: len(held.calls))
            for index, held in enumerate(free):
                room = share(len(backlog), len(free) - index, depth - len(held.calls))
                self._push(held, room, now)
                if not backlog:
                    break
        if backlog:
            for _ in range(leases_to_ask(len(backlog), len(self._asking), min(MAX_ASKED, self._limit()))):
                task = self._runtime.loop.create_task(self._ask())
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        elif self._asking:
            for task in self._asking:
                task.cancel()
        for held in list(self.leases.values()):
            if not held.calls and held.idle_timer is None:
                held.idle_timer = self._runtime.loop.call_later(
                    self._runtime.settings.idle_lease_s, self.give_back, held
                )

    def _limit(self) -> int:
        # A worker that blocks in `get` gives its CPU back, so one more than there are CPUs can always be used.
        return self._runtime.node_cpus + 1

    def _push(self, held: HeldLease, count: int, now: float) -> None:
        if held.idle_timer is not None:
            held.idle_timer.cancel()
            held.idle_timer = None
        link = held.link
        if not held.calls:
            held.mark = now
        while count and self.backlog:
            call = self.backlog.popleft()
            if call.done:
                continue
            if call.attempts_left == 0 and held.calls:
                # A task that must not run twice is never queued behind another: if the worker dies, it is clear whether
                # it had been started.
                self.backlog.appendleft(call)
                break
            count -= 1
            message = call.message
            assert isinstance(message, TaskCall)
            if message.function not in link.defined:
                link.defined.add(message.function)
                link.send(Define(message.function, self._tasks.blob(message.function)))
            message.lease = held.lease
            call.link = link
            call.started = True
            held.calls[message.seq] = call
            link.inflight[message.seq] = call
            link.send(message)
            if call.attempts_left == 0:
                break

    async def _ask(self) -> None:
        runtime = self._runtime
        try:
            lease = await runtime.node.ask(LeaseRequest(self.shape, self.mode, self.env or None, "", runtime.job))
        except exceptions.ActorrtError as error:
            self._refuse(error)
            return
        await self._granted(lease)

    async def _granted(self, lease: Lease) -> None:
        runtime = self._runtime
        try:
            link = await runtime.peers.link_to(lease.worker)
        except (exceptions.LinkError, asyncio.CancelledError):
            runtime.node.send(ReturnLease(lease.lease))
            if self.backlog and not runtime.closing:
                runtime.loop.call_soon(self.pump)
            return
        held = HeldLease(self, lease.lease, link)
        self.leases[lease.lease] = held
        self._tasks.by_link.setdefault(link.peer, {})[lease.lease] = held
        # This question is answered: it does not count as under way any more.
        self._asking.discard(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        self.pump()

    def _refuse(self, error: exceptions.ActorrtError) -> None:
        """The node says that these tasks can never run."""
        if isinstance(error, exceptions.LinkError):
            error = exceptions.NodeDiedError(self._runtime.node.peer.hex(), str(error))
        calls, self.backlog = self.backlog, deque()
        for call in calls:
            call.fail(error)

    def replied(self, held: HeldLease, seq: int) -> None:
        held.calls.pop(seq, None)
        held.running_long = False

    def settle_pace(self, held: HeldLease, count: int) -> None:
        now = self._runtime.loop.time()
        self._pace.measured(now - held.mark, count)
        held.mark = now

    def given_back(self, held: HeldLease, calls: list[Call]) -> None:
        """The worker could not start these: the task in front of them blocks or runs long."""
        self._pace.ran_long()
        held.running_long = True
        for call in reversed(calls):
            held.calls.pop(call.message.seq, None)
            call.started = False
            if call.cancel_asked:
                call.cancelled()
            elif not call.done:
                self.backlog.appendleft(call)
        self.pump()

    def give_back(self, held: HeldLease) -> None:
        """Return an idle lease to the node."""
        if held.calls or self.leases.get(held.lease) is not held:
            return
        if held.idle_timer is not None:
            held.idle_timer.cancel()
        del self.leases[held.lease]
        self._tasks.forget(held)
        self._runtime.node.send(ReturnLease(held.lease))

    async def lost(self, held: HeldLease) -> None:
        """The worker of this lease is gone."""
        self.leases.pop(held.lease, None)
        if held.idle_timer is not None:
            held.idle_timer.cancel()
        calls = list(held.calls.values())
        if calls:
            cause, out_of_memory = await self._runtime.exit_cause(held.link.peer)
            for index, call in reversed(list(enumerate(calls))):
                self._after_crash(call, first=index == 0, cause=cause, out_of_memory=out_of_memory)
        if not self._runtime.closing:
            self._runtime.node.send(ReturnLease(held.lease))
            self.pump()

    def _after_crash(self, call: Call, first: bool, cause: str, out_of_memory: bool) -> None:
        if call.done:
            return
        if call.cancel_asked:
            if first and call.started:
                call.fail(exceptions.WorkerCrashedError(call.name, f"cancelled with force: {cause}", True))
            else:
                call.cancelled()
            return
        if first:
            if call.attempts_left == 0 or (call.stream is not None and call.stream.items):
                kind = exceptions.OutOfMemoryError if out_of_memory else exceptions.WorkerCrashedError
                call.fail(kind(call.name, cause, True))
                return
            if call.attempts_left > 0:
                call.attempts_left -= 1
        call.started = False
        self.backlog.appendleft(call)


class Tasks:
    """All tasks that this process has submitted and that have no outcome yet."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.by_link: dict[bytes, dict[int, HeldLease]] = {}
        self._pools: dict[PoolKey, TaskPool] = {}
        self._blobs: dict[bytes, bytes] = {}

    def blob(self, function: bytes) -> bytes:
        return self._blobs[function]

    def learn(self, definition: RemoteFunctionDef) -> None:
        """Keep the pickled function for the workers that do not have it yet."""
        self._blobs.setdefault(definition.function_id, definition.blob)

    def pool(self, shape: dict[str, int], mode: str, env: dict[str, str]) -> TaskPool:
        key: PoolKey = (tuple(sorted(shape.items())), mode, tuple(sorted(env.items())))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = TaskPool(self, key)
        return pool

    def forget(self, held: HeldLease) -> None:
        leases = self.by_link.get(held.link.peer)
        if leases is not None:
            leases.pop(held.lease, None)
            if not leases:
                del self.by_link[held.link.peer]

    def submit(self, calls: list[tuple[Call, TaskPool]]) -> None:
        """Queue calls whose arguments are there."""
        touched: dict[TaskPool, None] = {}
        for call, pool in calls:
            if call.done:
                continue
            if fill_slots(call):
                pool.add(call)
                touched[pool] = None
        for pool in touched:
            pool.pump()

    def resubmit(self, call: Call) -> None:
        """A failed task runs again (retry_exceptions)."""
        pool: TaskPool = call.target
        call.started = False
        pool.backlog.append(call)
        pool.pump()

    def after_batch(self, link: Link, answered: dict[int, int], back: list[tuple[Call, int]]) -> None:
        """One frame of outcomes came over `link`: `answered` calls a lease, and those that were given back."""
        leases = self.by_link.get(link.peer)
        if leases is None:
            return
        returned: dict[int, list[Call]] = {}
        for call, lease in back:
            returned.setdefault(lease, []).append(call)
        for lease, count in answered.items():
            held = leases.get(lease)
            if held is not None:
                held.pool.settle_pace(held, count)
        for lease, calls in returned.items():
            held = leases.get(lease)
            if held is not None:
                held.pool.given_back(held, calls)
        for lease in answered:
            held = leases.get(lease) if leases else None
            if held is not None:
                held.pool.pump()

    def answered(self, link: Link, call: Call) -> int:
        """A call to a leased worker has its outcome; which lease it was."""
        message = call.message
        assert isinstance(message, TaskCall)
        leases = self.by_link.get(link.peer)
        held = leases.get(message.lease) if leases else None
        if held is not None:
            held.pool.replied(held, message.seq)
        return message.lease

    def link_lost(self, link: Link) -> None:
        leases = self.by_link.pop(link.peer, None)
        for held in (leases or {}).values():
            self.runtime.spawn_here(held.pool.lost(held))

    def leases_wanted(self) -> None:
        for leases in list(self.by_link.values()):
            for held in list(leases.values()):
                held.pool.give_back(held)

    def cancel_queued(self, call: Call) -> bool:
        """True if the call had not left yet; it is cancelled now."""
        if call.started or call.done:
            return False
        call.cancelled()
        return True


def is_given_back(outcome: Outcome) -> bool:
    return outcome.kind == GIVEN_BACK
