"""Tasks of one shape on their way to workers: the backlog, the leases, and the questions for more.

All of it runs on the runtime loop, except for `send_at_once`, which runs in the caller's thread: what it looks at is
changed under the lock. How many tasks a worker gets at once is decided in core/pipeline.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.calls import Action, Event, Wish
from actorrt.core.pipeline import Pace, after_crash, leases_to_ask, share
from actorrt.types import FunctionKey, LeaseId, ProcessId
from actorrt.wire.messages import Assigned, Cancel, Define, Exit, Lease, LeaseRequest, ReturnLease, TaskCall

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from .calls import Call
from .exits import Exits
from .membership import Membership

PoolKey = tuple[tuple[tuple[str, int], ...], str, tuple[tuple[str, str], ...]]
# At most so many questions for leases of one shape are under way, whatever the backlog.
MAX_ASKED: Final = 64
# While some workers do, a worker that could not be started is asked for again after this long.
ASK_AGAIN_S: Final = 1.0


class HeldLease:
    """A worker that this process may push tasks to."""

    __slots__ = (
        "calls",
        "full",
        "id",
        "idle_timer",
        "lease",
        "link",
        "mark",
        "pool",
        "running_long",
        "runs_left",
        "wanted",
    )

    def __init__(self, pool: TaskPool, lease: Lease, link: Link) -> None:
        self.pool = pool
        self.id = lease.lease
        # Its number at its node, which its worker knows it by.
        self.lease = lease.lease.number
        self.link = link
        # Unanswered, in the order in which the worker takes them.
        self.calls: dict[int, Call] = {}
        self.mark = 0.0
        self.running_long = False
        # Nothing more is pushed until it is empty: its one task must not run twice, or was the last it may run.
        self.full = False
        # Others wait for it: it is given back once it is empty. None: but it has not been used yet.
        self.wanted: bool | None = None if lease.wanted else False
        # How often it may still run functions with `max_calls` that it has run.
        self.runs_left: dict[FunctionKey, int] | None = None
        self.idle_timer: asyncio.TimerHandle | None = None

    @property
    def takes_more(self) -> bool:
        return not self.running_long and not self.full and not self.wanted


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


class Leases(Protocol):
    """The leases of all pools of the process, and what is known of its functions."""

    max_calls: dict[FunctionKey, int]
    by_link: dict[ProcessId, dict[int, HeldLease]]

    def forget(self, held: HeldLease) -> None: ...


class TaskPool:
    """The backlog and the leases of one shape."""

    def __init__(self, surroundings: Surroundings, tasks: Leases, key: PoolKey) -> None:
        self._tasks = tasks
        self._process = surroundings
        self._thread = surroundings.thread
        self.shape = dict(key[0])
        self.mode = key[1]
        self.env = dict(key[2])
        self.backlog: deque[Call] = deque()
        self.leases: dict[LeaseId, HeldLease] = {}
        # Calls in the backlog that have ended: cancelled before they left.
        self._ended = 0
        # Questions for leases under way. One that is called off leaves at once, so that the next is not held back.
        self._asking: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._pace = Pace()
        # Held while a task is given to a lease, and while a lease is given up.
        self._lock = threading.RLock()

    @property
    def _depth(self) -> int:
        # A loop runs all that it gets at once, so it gets what its resources are for: one.
        return self._pace.depth if self.mode == "sync" else 1

    @property
    def busy(self) -> bool:
        return bool(self.backlog) or any(held.calls for held in self.leases.values())

    def add(self, call: Call) -> None:
        call.target = self
        self.backlog.append(call)

    def send_at_once(self, call: Call) -> bool:
        """Push a call to a worker if none has anything to do; from any thread.

        A task that somebody waits for is so spared the way over the runtime loop; many at a time are better sent in
        batches, from there. The arguments must be there.
        """
        if self.backlog:
            return False
        held: HeldLease | None = None
        try:
            with self._lock:
                leases = list(self.leases.values())
                if self.backlog or self._thread.closing or any(held.calls for held in leases):
                    return False
                held = next((held for held in leases if held.takes_more and not held.link.closed), None)
                if held is None or call.done:
                    # Done: cancelled with its parent in this very moment.
                    return call.done
                self._send(held, call, time.monotonic())
                held.full = held.full or call.attempts_left == 0
            held.link.flush()
        except BaseException:
            # A KeyboardInterrupt: nobody gets a ref to this call. It may have been queued, or not.
            if held is not None:
                self._take_back(held, call)
            raise
        return True

    def _take_back(self, held: HeldLease, call: Call) -> None:
        with self._lock:
            if held.calls.pop(call.message.seq, None) is not None:
                held.link.inflight.pop(call.message.seq, None)
                held.full = self._worn_out(held)
                held.link.post(Cancel(call.message.seq))
        self._thread.run_soon(call.cancelled)
        self._thread.run_soon(self.pump)

    def pump(self) -> None:
        """Hand over what can be handed over, and ask for leases for the rest."""
        with self._lock:
            self._pump()

    def _pump(self) -> None:
        backlog = self.backlog
        if backlog:
            self._hand_over()
        if backlog:
            limit = min(MAX_ASKED, self._process.membership.node_cpus + 1)
            # A worker that blocks in `get` gives its CPU back, so one more than there are CPUs can always be used.
            for _ in range(leases_to_ask(len(backlog), len(self._asking), limit)):
                task = self._thread.loop.create_task(self._ask())
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        elif self._asking:
            self._call_off()
        for held in list(self.leases.values()):
            if not held.calls:
                self._idle(held)

    def _hand_over(self) -> None:
        # Not the loop's own time: that stands still while the loop waits.
        now = time.monotonic()
        depth = self._depth
        free = [held for held in self.leases.values() if held.takes_more and len(held.calls) < depth]
        free.sort(key=lambda held: len(held.calls))
        for index, held in enumerate(free):
            self._push(held, share(len(self.backlog), len(free) - index, depth - len(held.calls)), now)
            if not self.backlog:
                return

    def _call_off(self) -> None:
        asking, self._asking = self._asking, set()
        for task in asking:
            task.cancel()

    def _idle(self, held: HeldLease) -> None:
        if held.wanted is not False or held.full:
            self.give_back(held)
        else:
            held.mark = time.monotonic()
            if held.idle_timer is None:
                # It stays armed while the lease is used: a timer made and cancelled for each task would cost more.
                held.idle_timer = self._thread.loop.call_later(
                    self._process.settings.idle_lease_s, self._idle_over, held
                )

    def _idle_over(self, held: HeldLease) -> None:
        held.idle_timer = None
        if held.calls or self.leases.get(held.id) is not held:
            return
        loop = self._thread.loop
        left = held.mark + self._process.settings.idle_lease_s - time.monotonic()
        if left > 0:
            held.idle_timer = loop.call_later(left, self._idle_over, held)
        else:
            self.give_back(held)

    def _push(self, held: HeldLease, count: int, now: float) -> None:
        while count and self.backlog:
            call = self.backlog.popleft()
            if call.done:
                self._ended -= 1
                continue
            if call.attempts_left == 0 and held.calls:
                # A task that must not run twice has its worker for itself. If the worker dies because of another task,
                # there is no doubt about this one, and an answer of it that is still on its way is not lost.
                self.backlog.appendleft(call)
                break
            count -= 1
            self._send(held, call, now)
            if call.attempts_left == 0:
                held.full = True
            if held.full:
                break
        # At once: a turn of the loop later is a good part of a short task's round trip.
        held.link.flush()

    def _send(self, held: HeldLease, call: Call, now: float) -> None:
        if held.wanted is None:
            held.wanted = True
        if not held.calls:
            held.mark = now
        link = held.link
        message = call.message
        assert isinstance(message, TaskCall)
        function = message.function
        if function not in link.defined:
            link.defined.add(function)
            link.push(Define(function, call.code.blob))
        if self._tasks.max_calls and (most := self._tasks.max_calls.get(function)):
            runs_left = held.runs_left = held.runs_left or {}
            runs_left[function] = runs_left.get(function, most) - 1
            held.full = held.full or runs_left[function] <= 0
        message.lease = held.lease
        held.calls[message.seq] = call
        call.push(link)

    # ---- leases

    async def _ask(self) -> None:
        process = self._process
        try:
            lease: Lease = await process.node.ask(
                LeaseRequest(self.shape, self.mode, self.env or None, "", process.membership.employer)
            )
        except exceptions.ActorrtError as error:
            self._refused(error)
            return
        try:
            link = await process.peers.link_to(lease.worker.process, lease.worker.address)
        except asyncio.CancelledError:
            process.node.send(ReturnLease(lease.lease))
            raise
        except exceptions.LinkError:
            link = None
        # This question is answered: it does not count as under way any more.
        self._asking.discard(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        if link is None or link.closed:
            process.node.send(ReturnLease(lease.lease))
        else:
            held = HeldLease(self, lease, link)
            # First: once the lease is there, others may send tasks.
            link.send(Assigned(held.lease, self.shape))
            self._tasks.by_link.setdefault(link.peer, {})[held.lease] = held
            self.leases[held.id] = held
        self.pump()

    def _refused(self, error: exceptions.ActorrtError) -> None:
        self._asking.discard(asyncio.current_task())  # pyright: ignore[reportArgumentType]
        if isinstance(error, exceptions.WorkerCrashedError) and self.leases:
            # It could not start one more worker: those that there are go on.
            if self._again is None:
                self._again = self._thread.loop.call_later(ASK_AGAIN_S, self._ask_again)
            return
        with self._lock:
            calls, self.backlog, self._ended = self.backlog, deque(), 0
        for call in calls:
            call.fail(self._error_for(call, error))
        self._call_off()

    def _ask_again(self) -> None:
        self._again = None
        self.pump()

    def _error_for(self, call: Call, error: exceptions.ActorrtError) -> exceptions.ActorrtError:
        if isinstance(error, exceptions.LinkError):
            return self._process.exits.node_died()
        if isinstance(error, exceptions.TaskUnschedulableError | exceptions.WorkerCrashedError):
            return type(error)(call.name, *error.args[1:])
        return error

    def give_back(self, held: HeldLease) -> None:
        """Return an idle lease to the node."""
        with self._lock:
            if held.calls or self.leases.get(held.id) is not held:
                return
            self._drop(held)
        self._tasks.forget(held)
        self._process.node.send(ReturnLease(held.id, held.runs_left is not None))
        if self.backlog:
            # The tasks that would have gone there.
            self._thread.loop.call_soon(self.pump)

    def wanted_back(self, held: HeldLease) -> None:
        """Others wait for it: it gets nothing more, and goes back once it is empty."""
        held.wanted = True
        self.give_back(held)

    def _drop(self, held: HeldLease) -> None:
        self.leases.pop(held.id, None)
        if held.idle_timer is not None:
            held.idle_timer.cancel()
            held.idle_timer = None

    # ---- what comes of the calls

    def replied(self, held: HeldLease, seq: int) -> None:
        held.calls.pop(seq, None)
        held.running_long = False
        if held.full and not held.calls and not self._worn_out(held):
            held.full = False

    def _worn_out(self, held: HeldLease) -> bool:
        # By itself: nobody may have such a function any more.
        return any(left <= 0 for left in (held.runs_left or {}).values())

    def settle_pace(self, held: HeldLease, count: int) -> None:
        now = time.monotonic()
        self._pace.measured(now - held.mark, count)
        held.mark = now

    def given_back(self, held: HeldLease, calls: list[Call]) -> None:
        """The worker could not start these: the task in front of them blocks or runs long."""
        self._pace.ran_long()
        with self._lock:
            for call in calls:
                held.calls.pop(call.message.seq, None)
            # The one in front may have ended since.
            held.running_long = bool(held.calls)
            held.full = held.full and (bool(held.calls) or self._worn_out(held))
        for call in reversed(calls):
            self._return(call)
        self.pump()

    def _return(self, call: Call) -> None:
        """A call that was pushed and has not been started goes back to the front of the backlog."""
        self._perform(call, call.on(Event.UNBEGUN), None)

    def _perform(self, call: Call, action: Action, end: Exit | None) -> None:
        """What comes of a call whose worker did not answer it; `end`, where it is gone."""
        match action:
            case Action.AGAIN:
                self.backlog.appendleft(call)
            case Action.END_CANCELLED if end is not None and call.wish is Wish.FORCE:
                call.end_with(exceptions.WorkerCrashedError(call.name, f"cancelled with force: {end.cause}", True))
            case Action.END_CANCELLED:
                call.end_cancelled()
            case Action.REPORT if end is not None:
                call.fail(crash_error(call, end))
            case _:
                pass

    def cancel(self, call: Call, force: bool) -> Action:
        """The caller of a call wants it cancelled; what to do now. From the backlog it is taken with others, later."""
        with self._lock:
            call.ask(force)
            action = call.on(Event.CANCEL)
            if action is not Action.END_CANCELLED:
                return action
            self._ended += 1
            if self._ended * 2 > len(self.backlog):
                self.backlog = deque(call for call in self.backlog if not call.done)
                self._ended = 0
        if not self.backlog:
            self._call_off()
        return action

    async def lost(self, held: HeldLease) -> None:
        """The worker of this lease is gone."""
        with self._lock:
            self._drop(held)
        if held.calls:
            self._sort_out(held, await self._process.exits.exit_of(held.link.peer))
        if not self._thread.closing:
            self._process.node.send(ReturnLease(held.id))
            self.pump()

    def _sort_out(self, held: HeldLease, end: Exit) -> None:
        finished, charged, unstarted = after_crash(list(held.calls), held.lease, end.started)
        for seqs, event in (unstarted, Event.UNBEGUN), (charged, Event.LOST), (finished, Event.UNHEARD):
            for seq in reversed(seqs):
                call = held.calls[seq]
                self._perform(call, call.on(event), end)

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: nobody is to wait for what is left."""
        if self._again is not None:
            self._again.cancel()
        with self._lock:
            calls, self.backlog = self.backlog, deque()
        for call in calls:
            call.fail(error)


def crash_error(call: Call, end: Exit) -> exceptions.ActorrtError:
    """Why a call failed whose worker died."""
    kind = exceptions.OutOfMemoryError if end.oom else exceptions.WorkerCrashedError
    return kind(call.name, end.cause, True)
