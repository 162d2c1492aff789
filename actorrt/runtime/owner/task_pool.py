"""Tasks of one shape on their way to workers. core/task_pool.py decides; this sends, asks and waits for it.

All of it runs on the runtime loop, except for `send_at_once`, which runs in the caller's thread: each event is
reported under the lock, and what is pushed by it leaves under the lock, so that it leaves in order.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core import call_errors, calls
from actorrt.core.call_errors import Why
from actorrt.core.call_terms import Limit
from actorrt.core.lease_life import LeaseLife
from actorrt.core.task_pool import (
    MAX_ASKED,
    Action,
    Arm,
    Ask,
    CallOff,
    End,
    FindOut,
    LeasePool,
    PoolStatistics,
    Push,
    Rest,
    Return,
    Timer,
)
from actorrt.types import FunctionKey, LeaseId, Strategy
from actorrt.wire.messages import Assigned, Cancel, Define, Exit, Lease, LeaseRequest, ReturnLease, TaskCall

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from .calls import Call
from .exits import Exits
from .membership import Membership

PoolKey = tuple[tuple[tuple[str, int], ...], str, tuple[tuple[str, str], ...], Strategy]


class LeasedWorker(LeaseLife[Call]):
    """A lease of a pool, and the link to its worker."""

    __slots__ = ("link", "pool")

    def __init__(self, pool: TaskPool, lease: Lease, link: Link) -> None:
        super().__init__(lease.lease, lease.wanted)
        self.pool = pool
        self.link = link


Actions = Sequence[Action[LeasedWorker, Call]]
# What calls fail with that end for these reasons.
Errors = Mapping[Why, Callable[[Call], exceptions.ActorrtError]]
_NO_ERRORS: Final[Errors] = {}


class Surroundings(Protocol):
    """What is asked of the process."""

    settings: Settings

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
    def pause_call(self, call: Call) -> None: ...


class Leases(Protocol):
    """The leases of all pools of the process, and what is known of its functions."""

    max_calls: dict[FunctionKey, int]

    def hold(self, held: LeasedWorker) -> None: ...
    def forget(self, lease: LeaseId) -> None: ...


class TaskPool:
    """The tasks of one shape that wait, and the workers that they go to."""

    def __init__(self, surroundings: Surroundings, tasks: Leases, key: PoolKey) -> None:
        self._tasks = tasks
        self._process = surroundings
        self._thread = surroundings.thread
        self._loop = surroundings.thread.loop
        self._node = surroundings.node
        self._exits = surroundings.exits
        self.shape = dict(key[0])
        self.mode = key[1]
        self.env = dict(key[2])
        self.strategy = key[3]
        # Such tasks need no worker of their own: they run beside others.
        self.shares = self.mode == "loop" and not self.shape and not self.strategy.is_bound
        self._pool: LeasePool[LeasedWorker, Call] = LeasePool(
            one_by_one=self.mode != "sync",
            # A worker that blocks in `get` gives its CPU back, so one more than there are CPUs can always be used.
            most_asked=min(MAX_ASKED, surroundings.membership.node_cpus + 1),
            idle_s=surroundings.settings.idle_lease_s,
            max_calls=tasks.max_calls,
            function_of=_function_of,
            number_of=_number_of,
        )
        # By their numbers. One that is called off leaves at once.
        self._questions: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        # Held while an event is reported and what it pushes is queued. What waiters do is not done under it.
        self._lock = threading.RLock()

    @property
    def busy(self) -> bool:
        return self._pool.busy

    def statistics(self) -> PoolStatistics:
        """What waits and what is under way; from any thread."""
        with self._lock:
            return self._pool.statistics()

    def waiting(self) -> list[Call]:
        """Tasks that no worker has, in order; from any thread."""
        return list(self._pool.backlog)

    def add(self, call: Call) -> None:
        """A task waits for a worker; `pump` follows."""
        self._pool.add(call)

    def send_at_once(self, call: Call) -> bool:
        """Push a call to a worker if none has anything to do; from any thread.

        A task that somebody waits for is so spared the way over the runtime loop; many at a time are better sent in
        batches, from there. The arguments must be there.
        """
        pool = self._pool
        if pool.backlog:
            return False
        held: LeasedWorker | None = None
        try:
            with self._lock:
                held = pool.unused()
                if held is None or call.done or self._thread.closing or held.link.closed:
                    # Done: cancelled with its parent in this very moment.
                    return call.done
                pool.push_at_once(held, call, time.monotonic())
                self._send(held, (call,))
            held.link.flush()
        except BaseException:
            # A KeyboardInterrupt: nobody gets a ref to this call. It may have been queued, or not.
            if held is not None:
                self._take_back(held, call)
            raise
        return True

    def _take_back(self, held: LeasedWorker, call: Call) -> None:
        with self._lock:
            had_it, actions = self._pool.take_back(held, call, time.monotonic())
            if had_it:
                held.link.inflight.pop(call.message.seq, None)
                held.link.post(Cancel(call.message.seq))
        self._thread.run_soon(call.cancelled)
        self._thread.run_soon(partial(self._perform, actions))
        self._thread.run_soon(self.pump)

    # ---- what happens

    def pump(self) -> None:
        """Hand over what can be handed over, and ask for leases for the rest."""
        with self._lock:
            actions = self._pool.pump(time.monotonic())
            self._push(actions)
        self._perform(actions)

    def answered(self, held: LeasedWorker, count: int, unbegun: Sequence[Call]) -> None:
        """One frame came from a worker: `count` outcomes, and tasks that it could not begin."""
        with self._lock:
            actions = self._pool.answered(held, count, unbegun, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def wanted_back(self, held: LeasedWorker) -> None:
        """Others wait for this lease."""
        with self._lock:
            actions = self._pool.wanted(held, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def worker_ends(self, held: LeasedWorker) -> None:
        """The worker of this lease ends itself."""
        with self._lock:
            actions = self._pool.worker_ends(held, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def lost(self, held: LeasedWorker) -> None:
        """The worker of this lease is gone."""
        with self._lock:
            self._stop_if_closing()
            actions = self._pool.lost(held, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def cancel(self, call: Call, force: bool) -> calls.Action:
        """The caller of a call wants it cancelled; what to do with it now."""
        with self._lock:
            action, actions = self._pool.cancel(call, force, time.monotonic())
            self._push(actions)
        self._perform(actions)
        return action

    def late(self, call: Call, limit: Limit) -> calls.Action:
        """A limit of a call is over; what to do with it now."""
        with self._lock:
            action, actions = self._pool.late(call, limit, time.monotonic())
            self._push(actions)
        self._perform(actions)
        return action

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: nobody is to wait for what is left."""
        for timer in self._timers.values():
            timer.cancel()
        with self._lock:
            actions = self._pool.close()
        self._perform(actions, {Why.CLOSED: lambda _: error})

    def _ring(self, timer: Timer) -> None:
        del self._timers[timer]
        with self._lock:
            actions = self._pool.timer_over(timer, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def _stop_if_closing(self) -> None:
        # Links end before `close`, and nothing is to be asked for that they had.
        if self._thread.closing:
            self._pool.stop()

    # ---- what to do

    def _push(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Push):
                self._send(action.lease, action.calls)
                # At once: a turn of the loop later is a good part of a short task's round trip.
                action.lease.link.flush()

    def _send(self, held: LeasedWorker, batch: Sequence[Call]) -> None:
        link, lease = held.link, held.number
        for call in batch:
            message = call.message
            assert isinstance(message, TaskCall)
            function = message.function
            if function not in link.defined:
                link.defined.add(function)
                link.push(Define(function, call.code.blob))
            # The same message goes to one worker after the other.
            message.lease = lease
            call.push(link)

    def _perform(self, actions: Actions, errors: Errors = _NO_ERRORS) -> None:
        """Do all but what `_push` does; `errors`: what the calls end with that end by what has happened."""
        for action in actions:
            match action:
                case Ask():
                    for question in action.questions:
                        self._questions[question] = asking = self._loop.create_task(self._ask(question))
                        asking.add_done_callback(lambda _, question=question: self._questions.pop(question, None))
                case CallOff():
                    for asking in filter(None, map(self._questions.get, action.questions)):
                        asking.cancel()
                case Rest():
                    self._process.pause_call(action.call)
                case Return():
                    self._tasks.forget(action.lease)
                    self._node.send(ReturnLease(action.lease, action.end_worker))
                case FindOut():
                    self._thread.spawn_here(self._find_out(action.lease))
                case End(why=Why.CANCELLED):
                    action.call.end_cancelled()
                case End():
                    action.call.end_with(errors[action.why](action.call))
                case Arm():
                    ring = self._loop.call_later(action.delay_s, self._ring, action.timer)
                    self._timers[action.timer] = ring
                case _:
                    pass

    async def _ask(self, question: int) -> None:
        process = self._process
        try:
            lease: Lease = await self._node.ask(
                LeaseRequest(self.shape, self.mode, self.env or None, "", process.membership.employer, self.strategy)
            )
        except exceptions.ActorrtError as error:
            self._refused(question, error)
            return
        try:
            link = await process.peers.link_to(lease.worker.process, lease.worker.address)
        except asyncio.CancelledError:
            self._node.send(ReturnLease(lease.lease))
            raise
        except exceptions.LinkError:
            link = None
        with self._lock:
            if link is None or link.closed:
                actions = self._pool.unreachable(question, lease.lease, time.monotonic())
            else:
                held = LeasedWorker(self, lease, link)
                # First: once the lease is there, others may send tasks.
                link.send(Assigned(held.number, self.shape, self.strategy))
                self._tasks.hold(held)
                actions = self._pool.granted(question, held, time.monotonic())
            self._push(actions)
        self._perform(actions)

    def _refused(self, question: int, error: exceptions.ActorrtError) -> None:
        with self._lock:
            no_worker = isinstance(error, exceptions.WorkerCrashedError)
            actions = self._pool.refused(question, no_worker, time.monotonic())
        self._perform(actions, {Why.REFUSED: partial(self._refusal, error)})

    def _refusal(self, error: exceptions.ActorrtError, call: Call) -> exceptions.ActorrtError:
        return call_errors.refused(call.name, error, self._exits.node_died())

    async def _find_out(self, held: LeasedWorker) -> None:
        end = await self._exits.exit_of(held.link.peer)
        with self._lock:
            self._stop_if_closing()
            actions = self._pool.sort_out(held, end.started, time.monotonic(), died=end.known)
            self._push(actions)
        self._perform(actions, {Why.CRASHED: partial(crash_error, end), Why.FORCED: partial(_force_error, end)})


def _function_of(call: Call) -> FunctionKey:
    message = call.message
    assert isinstance(message, TaskCall)
    return message.function


def _number_of(call: Call) -> int:
    return call.message.seq


def crash_error(end: Exit, call: Call) -> exceptions.ActorrtError:
    """Why a call failed whose worker died."""
    return call_errors.crashed(call.name, end.cause, end.oom, call.deaths)


def _force_error(end: Exit, call: Call) -> exceptions.ActorrtError:
    return call_errors.forced(call.name, end.cause)
