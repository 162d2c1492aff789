"""Tasks that this process has submitted: from `.remote()` to the pool of their shape, and their outcomes back to it.

All of it runs on the runtime loop, unless it says otherwise. task_pool.py pushes them to workers.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from actorrt import exceptions
from actorrt.core.call_terms import Limit
from actorrt.core.calls import Action
from actorrt.core.scheduling_strategies import chosen
from actorrt.core.task_pool import PoolStatistics
from actorrt.types import ANYWHERE, FunctionKey, LeaseId, ProcessId, Strategy
from actorrt.wire.messages import Outcome, TaskCall

from ..links.link import Link
from . import task_pool
from .calls import Batch, Call, fill_slots
from .program import Program, Tenancy
from .shipped import Shipped
from .task_pool import LeasedWorker, PoolKey, TaskPool

if TYPE_CHECKING:
    from actorrt.core.options import TaskOptions

    from ..base.definitions import RemoteFunctionDef

# So many tasks in a row are handed over before more are made, so that workers begin.
FULL_FRAME: Final = 64
# A thread that makes many tasks waits no longer than this until they are taken.
LET_TAKE_S: Final = 0.005
# Options whose pools are found without looking at what they say.
REMEMBERED_OPTIONS: Final = 1024


class TasksStatistics(Struct, frozen=True):
    """The tasks of a process at one moment."""

    # Those that the runtime's thread has not taken yet.
    submitted: int
    # Its pools, by what their tasks ask for and how they run.
    pools: list[tuple[PoolKey, PoolStatistics]]


class Surroundings(task_pool.Surroundings, Protocol):
    """What is asked of the process."""

    @property
    def program(self) -> Program: ...
    @property
    def tenancy(self) -> Tenancy: ...
    @property
    def shipped(self) -> Shipped: ...


class Tasks:
    """All tasks that this process has submitted and that have no outcome yet."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        # The leases of all pools: by their ids, and by their workers and what those know them by.
        self.held: dict[LeaseId, LeasedWorker] = {}
        self._by_worker: dict[ProcessId, dict[int, LeasedWorker]] = {}
        # After so many runs of a function its worker is not used again; only those functions that have a limit.
        self.max_calls: dict[FunctionKey, int] = {}
        self._pools: dict[PoolKey, TaskPool] = {}
        self._by_options: dict[tuple[int, bool], tuple[TaskOptions, TaskPool]] = {}
        # What other threads have submitted and the runtime's has not taken yet.
        self._submitted: deque[tuple[Call, TaskPool]] = deque()
        self._take_is_due = False

    def learn(self, definition: RemoteFunctionDef, max_calls: int) -> None:
        """Know the function as long as it is used; from any thread."""
        self._process.shipped.know(definition)
        if max_calls:
            self.max_calls[definition.function_id] = max_calls

    def forget_function(self, function_id: FunctionKey) -> None:
        """Nobody has this function any more."""
        self.max_calls.pop(function_id, None)

    def pool(self, shape: dict[str, int], mode: str, env: dict[str, str], strategy: Strategy = ANYWHERE) -> TaskPool:
        """The pool of a shape; from any thread."""
        key: PoolKey = (tuple(sorted(shape.items())), mode, tuple(sorted(env.items())), strategy)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, TaskPool(self._process, self, key))
        return pool

    def pool_for(self, options: TaskOptions, is_async: bool) -> TaskPool:
        """The pool of tasks with these options; from any thread."""
        key = (id(options), is_async)
        found = self._by_options.get(key)
        if found is None:
            env = {**self._process.program.env, **dict(options.env_vars)}
            inherited = self._process.tenancy.inherited
            strategy = chosen(options.strategy, inherited, own_worker=not is_async or bool(options.shape))
            pool = self.pool(dict(options.shape), "loop" if is_async else "sync", env, strategy)
            if len(self._by_options) >= REMEMBERED_OPTIONS:
                self._by_options.clear()
            # The options are kept, so that no others get their id.
            found = self._by_options[key] = (options, pool)
        return found[1]

    def strategy_changed(self) -> None:
        """The tasks that this process makes from now on are placed in another way."""
        self._by_options.clear()

    def statistics(self) -> TasksStatistics:
        """From any thread."""
        pools = [(key, pool.statistics()) for key, pool in list(self._pools.items())]
        return TasksStatistics(len(self._submitted), pools)

    def waiting(self) -> list[Call]:
        """Tasks whose arguments are there and that no worker has; from any thread."""
        submitted = [call for call, _ in list(self._submitted)]
        return [*submitted, *(call for pool in list(self._pools.values()) for call in pool.waiting())]

    @property
    def busy(self) -> bool:
        """True while tasks whose arguments are there have no outcome yet."""
        return bool(self._submitted) or any(pool.busy for pool in list(self._pools.values()))

    def hold(self, held: LeasedWorker) -> None:
        """A pool has got a lease."""
        self.held[held.id] = held
        self._by_worker.setdefault(held.link.peer, {})[held.number] = held

    def forget(self, lease: LeaseId) -> None:
        """A lease goes back, if a pool had it."""
        held = self.held.pop(lease, None)
        if held is not None:
            leases = self._by_worker.get(held.link.peer)
            if leases is not None:
                leases.pop(held.number, None)
                if not leases:
                    del self._by_worker[held.link.peer]

    def hand_over(self, call: Call, pool: TaskPool) -> None:
        """Submit a call whose arguments are there; from any thread."""
        if not self._submitted and pool.send_at_once(call):
            return
        self._submitted.append((call, pool))
        if not self._take_is_due:
            self._take_is_due = True
            try:
                self._thread.run_soon(self._take)
            except BaseException:
                # A KeyboardInterrupt: whoever submits next says so.
                self._take_is_due = False
                raise
        if len(self._submitted) >= FULL_FRAME:
            self._let_take()

    def _let_take(self) -> None:
        """Let the runtime's thread take what was submitted, so that workers begin while this thread goes on."""
        if not self._thread.on_own_thread():
            taken = threading.Lock()
            taken.acquire()
            self._thread.run_soon(taken.release)
            taken.acquire(timeout=LET_TAKE_S)

    def _take(self) -> None:
        # Cleared first: who submits from here on has it taken again.
        self._take_is_due = False
        submitted = self._submitted
        batch: list[tuple[Call, TaskPool]] = []
        with contextlib.suppress(IndexError):
            while True:
                batch.append(submitted.popleft())
        self.submit(batch)

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

    def replied(self, link: Link, call: Call, data: bytes, batch: Batch) -> None:
        """The value of a task came."""
        self._count(link, call, batch)
        call.succeed(data)

    def _count(self, link: Link, call: Call, batch: Batch) -> None:
        lease = self.answered(link, call)
        answered = batch.by_lease
        answered[lease] = answered.get(lease, 0) + 1

    def ended(self, link: Link, call: Call, batch: Batch) -> None:
        """Any other outcome of a task came that ends it."""
        self._count(link, call, batch)

    def again(self, link: Link, call: Call, batch: Batch) -> None:
        """A failed task runs again (retry_exceptions)."""
        self._count(link, call, batch)
        self.resume(call)

    def came_back(self, link: Link, call: Call, outcome: Outcome, batch: Batch) -> None:
        """A worker could not begin it."""
        batch.given_back.append((call, self.answered(link, call)))

    def cancel(self, call: Call, force: bool) -> Action:
        """The caller of a task wants it cancelled: what to do with it now."""
        pool: TaskPool = call.target
        return pool.cancel(call, force)

    def late(self, call: Call, limit: Limit) -> Action:
        """A limit of a task is over: what to do with it now."""
        pool: TaskPool = call.target
        return pool.late(call, limit)

    def resume(self, call: Call) -> None:
        """The pause of a task is over."""
        pool: TaskPool = call.target
        pool.add(call)
        pool.pump()

    def after_batch(self, link: Link, answered: dict[int, int], back: list[tuple[Call, int]]) -> None:
        """One frame of outcomes came over `link`: `answered` calls a lease, and those that were given back."""
        returned: dict[int, list[Call]] = {}
        for call, lease in back:
            returned.setdefault(lease, []).append(call)
        for lease, count in answered.items():
            held = self._held(link, lease)
            if held is not None:
                held.pool.answered(held, count, returned.pop(lease, ()))
        for lease, calls in returned.items():
            held = self._held(link, lease)
            if held is not None:
                held.pool.answered(held, 0, calls)

    def _held(self, link: Link, lease: int) -> LeasedWorker | None:
        leases = self._by_worker.get(link.peer)
        return None if leases is None else leases.get(lease)

    def answered(self, link: Link, call: Call) -> int:
        """A call to a leased worker has its outcome; which lease it was."""
        message = call.message
        assert isinstance(message, TaskCall)
        held = self._held(link, message.lease)
        if held is not None:
            held.calls.pop(call, None)
        return message.lease

    def link_lost(self, link: Link) -> None:
        for held in list(self._by_worker.get(link.peer, {}).values()):
            # Another link to the same process may have been lost before, or may live.
            if held.link is link:
                held.pool.lost(held)

    def worker_ends(self, link: Link, lease: int) -> None:
        """The worker of a lease ends itself."""
        held = self._held(link, lease)
        if held is not None:
            held.pool.worker_ends(held)

    def leases_wanted(self, wanted: list[LeaseId]) -> None:
        """Others wait for these leases."""
        for lease in wanted:
            held = self.held.get(lease)
            if held is not None:
                held.pool.wanted_back(held)

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: what has not come back by now fails with `error`."""
        for held in self.held.values():
            for call in list(held.calls):
                call.fail(error)
        for pool in list(self._pools.values()):
            pool.close(error)
