"""How a caller spreads its tasks of one shape over leased workers: who gets what, which leases it asks for, and when
each of them goes back. Events in, actions out; no I/O: times are arguments, and calls are known by their life alone.

The shell reports what happens, in order and one at a time, and does what it is answered before the next event. What
may happen to a lease is the table of core/lease_life.py; the formulas are those of core/pipeline.py.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from enum import auto
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from actorrt.types import FunctionKey, LeaseId

from . import calls
from .call_errors import Why
from .call_terms import Limit
from .calls import CallLife, Wish
from .labels import Label
from .lease_life import GONE, IDLE, LOST, OFFERED, PUSHED, PUSHED_ALONE, PUSHED_LAST, Event, LeaseLife
from .pipeline import Pace, after_crash, leases_to_ask, share

# At most so many questions for leases of one shape are under way, whatever the backlog.
MAX_ASKED: Final = 64
# While some workers do, a worker that could not be started is asked for again after this long.
ASK_AGAIN_S: Final = 1.0
ENDED: Final = calls.ENDED

C = TypeVar("C", bound=CallLife)
L = TypeVar("L", bound=LeaseLife[Any])


class Timer(Label):
    # Leases that have nothing to do for so long go back.
    IDLE = auto()
    # A worker could not be started; ask once more.
    ASK = auto()


# ---- what the shell does


class Push(Struct, Generic[L, C], frozen=True):
    """Send these calls to the worker of the lease, in this order."""

    lease: L
    calls: list[C]


class Ask(Struct, frozen=True):
    """Ask the node for leases: one for each of these questions. `granted`, `unreachable` or `refused` answers them."""

    questions: list[int]


class CallOff(Struct, frozen=True):
    """Nobody needs the answers to these questions any more. If one comes nonetheless, `granted` returns the lease."""

    questions: list[int]


class Rest(Struct, Generic[C], frozen=True):
    """A call goes again after its pause: `add` and `pump` then."""

    call: C


class Return(Struct, frozen=True):
    """Give the lease back to the node. `end_worker`: nobody else is to get its worker."""

    lease: LeaseId
    end_worker: bool


class FindOut(Struct, Generic[L], frozen=True):
    """Find out what the worker of a lost lease had begun; `sort_out` takes it."""

    lease: L


class End(Struct, Generic[C], frozen=True):
    """A call has come to its end without an answer."""

    call: C
    why: Why


class Arm(Struct, frozen=True):
    """Report `timer_over` after `delay_s` seconds."""

    timer: Timer
    delay_s: float


Action = Push[L, C] | Ask | CallOff | Rest[C] | Return | FindOut[L] | End[C] | Arm


class PoolStatistics(Struct, frozen=True):
    """A pool at one moment."""

    # Calls that wait for a worker.
    waiting: int
    # Calls that workers have.
    under_way: int
    # Leases by the name of their state.
    leases: Mapping[str, int]
    # Questions for leases without an answer.
    asked: int
    # How long a task takes, in seconds; None while nothing is known.
    mean_s: float | None
    # How many tasks a worker gets at once.
    depth: int


class LeasePool(Generic[L, C]):
    """The calls of one shape that wait, the leases that they go to, and the questions for more."""

    def __init__(
        self,
        *,
        one_by_one: bool,
        most_asked: int,
        idle_s: float,
        max_calls: Mapping[FunctionKey, int],
        function_of: Callable[[C], FunctionKey],
        number_of: Callable[[C], int],
    ) -> None:
        """`one_by_one`: a worker runs all that it gets at once, so it gets one. `most_asked`: so many questions may be
        under way. `idle_s`: a lease that has nothing to do for so long goes back. `max_calls`: how often a worker may
        run a function, for those with a limit; it may change. `number_of`: by which a worker's end names a call."""
        self._one_by_one = one_by_one
        self._most_asked = most_asked
        self._idle_s = idle_s
        self._max_calls = max_calls
        self._function_of = function_of
        self._number_of = number_of
        self.backlog: deque[C] = deque()
        self.leases: dict[LeaseId, L] = {}
        self.pace = Pace()
        # Calls that were cancelled before they left. At most so many of those in the backlog have ended: others had not
        # come there.
        self._ended = 0
        # Questions under way; those that were called off are not.
        self._asked: dict[int, None] = {}
        self._questions = 0
        # When something was last to be done.
        self._used_at = 0.0
        # When these timers ring; None if they are not armed.
        self._idle_at: float | None = None
        self._ask_at: float | None = None
        self._stopped = False

    @property
    def busy(self) -> bool:
        """True while calls wait or are under way."""
        return bool(self.backlog) or any(lease.calls for lease in list(self.leases.values()))

    @property
    def depth(self) -> int:
        """How many calls a worker may have."""
        return 1 if self._one_by_one else self.pace.depth

    def statistics(self) -> PoolStatistics:
        leases = list(self.leases.values())
        return PoolStatistics(
            sum(call.state is not ENDED for call in list(self.backlog)),
            sum(len(lease.calls) for lease in leases),
            dict(Counter(lease.state.name for lease in leases)),
            len(self._asked),
            self.pace.mean_s,
            self.depth,
        )

    # ---- calls that come and go

    def add(self, call: C) -> None:
        """A call waits for a worker; `pump` follows."""
        self.backlog.append(call)

    def unused(self) -> L | None:
        """A lease that takes a call at once, if no call waits or is under way."""
        if self.backlog or self._stopped:
            return None
        found = None
        for lease in self.leases.values():
            if lease.calls:
                return None
            if found is None and lease.takes_more:
                found = lease
        return found

    def push_at_once(self, lease: L, call: C, now: float) -> None:
        """An `unused` lease gets this call."""
        self._used_at = now
        event = PUSHED if call.attempts_left else PUSHED_ALONE
        if self._max_calls and self._is_last(lease, call):
            event = PUSHED_LAST
        lease.pushed((call,), event, now)

    def take_back(self, lease: L, call: C, now: float) -> tuple[bool, list[Action[L, C]]]:
        """Nobody is to get the answer of this call, which the lease may have got: whether it had."""
        if call not in lease.calls:
            return False, []
        del lease.calls[call]
        actions: list[Action[L, C]] = []
        if lease.state is not LOST and lease.heard(now, False):
            self._return(lease, actions)
        return True, actions

    def cancel(self, call: C, force: bool, now: float) -> tuple[calls.Action, list[Action[L, C]]]:
        """Its caller wants a call cancelled: what to do with it, and what else."""
        return self._unwanted(call.on_cancel(force), now)

    def late(self, call: C, limit: Limit, now: float) -> tuple[calls.Action, list[Action[L, C]]]:
        """A limit of a call is over: the same."""
        return self._unwanted(call.on_late(limit), now)

    def _unwanted(self, action: calls.Action, now: float) -> tuple[calls.Action, list[Action[L, C]]]:
        actions: list[Action[L, C]] = []
        if action is calls.Action.END_CANCELLED:
            # From the backlog it is taken with others, later.
            self._ended += 1
            if self._ended * 2 > len(self.backlog):
                self.backlog = deque(call for call in self.backlog if not call.done)
                self._ended = 0
            if not self.backlog:
                # Nobody needs the leases that were asked for.
                self._pump(now, actions)
        return action, actions

    # ---- handing over

    def pump(self, now: float) -> list[Action[L, C]]:
        """Hand over what can be handed over, and ask for leases for the rest."""
        actions: list[Action[L, C]] = []
        self._pump(now, actions)
        return actions

    def _pump(self, now: float, actions: list[Action[L, C]]) -> None:
        if self._stopped:
            return
        self._used_at = now
        backlog = self.backlog
        if backlog:
            self._hand_over(now, actions)
        if backlog:
            # A worker that blocks in `get` gives its CPU back, so one more than there are CPUs can always be used.
            count = leases_to_ask(len(backlog), len(self._asked), self._most_asked)
            if count:
                first = self._questions + 1
                self._questions += count
                questions = list(range(first, first + count))
                self._asked.update(dict.fromkeys(questions))
                actions.append(Ask(questions))
        elif self._asked:
            self._call_off(actions)
        if self._idle_at is None and self.leases:
            # It stays armed while leases are used: a timer that is made and cancelled for each task would cost more.
            self._idle_at = now + self._idle_s
            actions.append(Arm(Timer.IDLE, self._idle_s))

    def _hand_over(self, now: float, actions: list[Action[L, C]]) -> None:
        depth = self.depth
        free = [lease for lease in self.leases.values() if lease.takes_more and len(lease.calls) < depth]
        free.sort(key=lambda lease: len(lease.calls))
        for index, lease in enumerate(free):
            count = share(len(self.backlog), len(free) - index, depth - len(lease.calls))
            self._push(lease, count, now, actions)
            if not self.backlog:
                return

    def _push(self, lease: L, count: int, now: float, actions: list[Action[L, C]]) -> None:
        backlog = self.backlog
        alone = not lease.calls
        event = PUSHED
        batch: list[C] = []
        while count and backlog and event is PUSHED:
            call = backlog.popleft()
            if call.state is ENDED:
                self._ended -= 1
                continue
            if call.attempts_left == 0:
                if not alone:
                    # It must not run twice, so it has its worker for itself. If the worker dies because of another
                    # task, there is no doubt about this one, and an answer of it that is on its way is not lost.
                    backlog.appendleft(call)
                    break
                event = PUSHED_ALONE
            if self._max_calls and self._is_last(lease, call):
                event = PUSHED_LAST
            count -= 1
            alone = False
            batch.append(call)
        if batch:
            lease.pushed(batch, event, now)
            actions.append(Push(lease, batch))

    def _is_last(self, lease: L, call: C) -> bool:
        function = self._function_of(call)
        most = self._max_calls.get(function)
        return bool(most) and lease.count_run(function, most)

    # ---- leases

    def granted(self, question: int, lease: L, now: float) -> list[Action[L, C]]:
        """The node has granted a lease, and its worker can be reached."""
        actions: list[Action[L, C]] = []
        if question not in self._asked:
            # Called off, and the answer was on its way.
            actions.append(Return(lease.id, False))
            return actions
        del self._asked[question]
        self.leases[lease.id] = lease
        self._pump(now, actions)
        if lease.state is OFFERED and lease.on(Event.UNNEEDED):
            self._return(lease, actions)
        return actions

    def unreachable(self, question: int, lease: LeaseId, now: float) -> list[Action[L, C]]:
        """The node has granted a lease, and its worker cannot be reached."""
        self._asked.pop(question, None)
        actions: list[Action[L, C]] = [Return(lease, False)]
        self._pump(now, actions)
        return actions

    def refused(self, question: int, no_worker: bool, now: float) -> list[Action[L, C]]:
        """The node grants no lease. `no_worker`: since it could not start one; else there never will be one."""
        actions: list[Action[L, C]] = []
        if question not in self._asked:
            return actions
        del self._asked[question]
        if no_worker and any(lease.state is not LOST for lease in self.leases.values()):
            # Those that there are go on.
            if self._ask_at is None:
                self._ask_at = now + ASK_AGAIN_S
                actions.append(Arm(Timer.ASK, ASK_AGAIN_S))
            return actions
        self._fail_backlog(Why.REFUSED, actions)
        return actions

    def wanted(self, lease: L, now: float) -> list[Action[L, C]]:
        """Others wait for it: it gets nothing more, and goes back once it is empty."""
        actions: list[Action[L, C]] = []
        if lease.on(Event.WANTED):
            self._return(lease, actions)
            if self.backlog:
                self._pump(now, actions)
        return actions

    def worker_ends(self, lease: L, now: float) -> list[Action[L, C]]:
        """Its worker ends itself: it gets nothing more, and goes back, for nobody else, once it is empty."""
        actions: list[Action[L, C]] = []
        if lease.on(Event.WORKER_ENDS):
            self._return(lease, actions)
            self._pump(now, actions)
        return actions

    def timer_over(self, timer: Timer, now: float) -> list[Action[L, C]]:
        """An armed timer rings."""
        actions: list[Action[L, C]] = []
        if timer is Timer.ASK:
            self._ask_at = None
            self._pump(now, actions)
            return actions
        self._idle_at = None
        if self._stopped or not self.leases:
            return actions
        left = self._used_at + self._idle_s - now
        if left > 0:
            self._idle_at = now + left
            actions.append(Arm(Timer.IDLE, left))
            return actions
        for lease in [lease for lease in self.leases.values() if lease.state is IDLE]:
            lease.on(Event.UNNEEDED)
            self._return(lease, actions)
        return actions

    def _return(self, lease: L, actions: list[Action[L, C]]) -> None:
        self.leases.pop(lease.id, None)
        if not self._stopped:
            actions.append(Return(lease.id, lease.spends_worker))

    def _call_off(self, actions: list[Action[L, C]]) -> None:
        if self._asked:
            actions.append(CallOff(list(self._asked)))
            self._asked.clear()

    # ---- what comes of the calls

    def answered(self, lease: L, count: int, unbegun: Sequence[C], now: float) -> list[Action[L, C]]:
        """One frame came from a worker: `count` of its calls have come to an end, and are not among the lease's calls
        any more. These others it could not begin: the one before them blocks, runs long or ends the worker."""
        actions: list[Action[L, C]] = []
        if count:
            self.pace.measured(now - lease.mark, count)
        if unbegun:
            if not lease.worker_ends:
                self.pace.ran_long()
            for call in unbegun:
                lease.calls.pop(call, None)
            for call in reversed(unbegun):
                self._again_or_end(call, calls.Event.UNBEGUN, actions, worker_ended=False)
        if lease.heard(now if count else lease.mark, bool(unbegun)):
            self._return(lease, actions)
        self._pump(now, actions)
        return actions

    def lost(self, lease: L, now: float) -> list[Action[L, C]]:
        """The worker of this lease is gone."""
        lease.on(Event.LOST)
        if lease.state is GONE:
            return []
        if lease.calls:
            return [FindOut(lease)]
        return self.sort_out(lease, None, now)

    def sort_out(self, lease: L, begun: tuple[int, int] | None, now: float, *, died: bool = True) -> list[Action[L, C]]:
        """What the worker of a lost lease had begun last is known: (lease, number of the call), or None: nobody knows.
        `died`: False where only its link is known to be gone.

        A call that ends for that ends as CRASHED, FORCED or CANCELLED.
        """
        actions: list[Action[L, C]] = []
        by_number: dict[int, C] = {self._number_of(call): call for call in lease.calls}
        finished, charged, unstarted = after_crash(list(by_number), lease.number, begun)
        happened = calls.Event
        for numbers, event in (
            (unstarted, happened.UNBEGUN),
            (charged, happened.DIED if died else happened.LOST),
            (finished, happened.UNHEARD),
        ):
            for number in reversed(numbers):
                self._again_or_end(by_number[number], event, actions, worker_ended=True)
        lease.calls.clear()
        if lease.on(Event.SORTED_OUT):
            self._return(lease, actions)
        self._pump(now, actions)
        return actions

    def _again_or_end(self, call: C, event: calls.Event, actions: list[Action[L, C]], *, worker_ended: bool) -> None:
        """A call has come back without an answer: to the front of the backlog, or to its end."""
        match call.came_back(event):
            case calls.Action.AGAIN:
                self.backlog.appendleft(call)
            case calls.Action.PAUSE:
                actions.append(Rest(call))
            case calls.Action.FAIL:
                actions.append(End(call, Why.CRASHED))
            case calls.Action.END_CANCELLED:
                by_force = worker_ended and call.wish is Wish.FORCE
                actions.append(End(call, Why.FORCED if by_force else Why.CANCELLED))
            case _:
                pass

    # ---- the end

    def stop(self) -> list[Action[L, C]]:
        """The caller ends: nothing is pushed, asked for or returned any more."""
        actions: list[Action[L, C]] = []
        self._stopped = True
        self._call_off(actions)
        return actions

    def close(self) -> list[Action[L, C]]:
        """`stop`, and end what waits. As often as it may be that more has come."""
        actions = self.stop()
        self._fail_backlog(Why.CLOSED, actions)
        return actions

    def _fail_backlog(self, why: Why, actions: list[Action[L, C]]) -> None:
        waiting, self.backlog, self._ended = self.backlog, deque(), 0
        fail = calls.Action.FAIL
        actions.extend(End(call, why) for call in waiting if call.on(calls.Event.GIVEN_UP) is fail)
        self._call_off(actions)
