"""How calls are spread over leases: single situations, and histories in which workers die and messages cross."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core import calls
from actorrt.core.call_errors import Why
from actorrt.core.calls import CallLife
from actorrt.core.lease_life import Event, LeaseLife, State
from actorrt.core.task_pool import (
    ASK_AGAIN_S,
    Action,
    Arm,
    Ask,
    CallOff,
    End,
    FindOut,
    LeasePool,
    PoolStatistics,
    Push,
    Return,
    Timer,
)
from actorrt.types import FunctionKey, LeaseId, ProcessId

from ..depth import DEPTH

IDLE_S: Final = 1.0
MOST_ASKED: Final = 3
LIMITED: Final = FunctionKey(b"limited")
PLAIN: Final = FunctionKey(b"plain")
RUNS: Final = 2
INDEX: Final = st.integers(0, 7)


class Task(CallLife):
    __slots__ = ("function", "number")

    def __init__(self, number: int, attempts: int = 3, function: FunctionKey = PLAIN) -> None:
        super().__init__()
        self.number = number
        self.attempts_left = attempts
        self.function = function

    def __repr__(self) -> str:
        return f"<task {self.number}: {self.state.name}, {self.attempts_left} attempts left>"


class Lease(LeaseLife[Task]):
    def __init__(self, number: int, wanted: bool) -> None:
        super().__init__(lease_id(number), wanted)


def lease_id(number: int) -> LeaseId:
    return LeaseId(ProcessId(b"node"), number)


Pool = LeasePool[Lease, Task]
Actions = list[Action[Lease, Task]]


def make_pool(*, one_by_one: bool = False, max_calls: dict[FunctionKey, int] | None = None) -> Pool:
    return LeasePool[Lease, Task](
        one_by_one=one_by_one,
        most_asked=MOST_ASKED,
        idle_s=IDLE_S,
        max_calls={} if max_calls is None else max_calls,
        function_of=lambda task: task.function,
        number_of=lambda task: task.number,
    )


def of(kind: type[Any], actions: Actions) -> list[Any]:
    return [action for action in actions if type(action) is kind]


def pushed(actions: Actions) -> list[tuple[int, list[int]]]:
    """(lease, numbers of its calls) in order; the calls are on their way by it."""
    for push in of(Push, actions):
        for call in push.calls:
            call.sent()
    return [(push.lease.number, [call.number for call in push.calls]) for push in of(Push, actions)]


def returned(actions: Actions) -> list[tuple[int, bool]]:
    return [(action.lease.number, action.end_worker) for action in of(Return, actions)]


def ended(actions: Actions) -> list[tuple[int, Why]]:
    return [(action.call.number, action.why) for action in of(End, actions)]


def answer(pool: Pool, lease: Lease, *tasks: Task, now: float) -> Actions:
    for task in tasks:
        del lease.calls[task]
        task.answered()
    return pool.answered(lease, len(tasks), [], now)


def with_lease(pool: Pool, *tasks: Task, wanted: bool = False) -> tuple[Lease, Actions]:
    """A pool that has got its first lease for these tasks."""
    for task in tasks:
        pool.add(task)
    (ask,) = of(Ask, pool.pump(0.0))
    lease = Lease(1, wanted)
    return lease, pool.granted(ask.questions[0], lease, 0.0)


# -- single situations


def test_calls_that_wait_ask_for_leases_and_a_lease_gets_the_first() -> None:
    pool = make_pool()
    tasks = [Task(number) for number in range(3)]
    for task in tasks[:2]:
        pool.add(task)
    assert pool.pump(0.0) == [Ask([1, 2])]
    pool.add(tasks[2])
    assert pool.pump(0.0) == [Ask([3])]
    lease = Lease(1, wanted=False)
    actions = pool.granted(2, lease, 0.0)
    assert pushed(actions) == [(1, [0])], "one, as long as nothing is known of them"
    assert of(Arm, actions) == [Arm(Timer.IDLE, IDLE_S)]
    assert pushed(answer(pool, lease, tasks[0], now=1e-5)) == [(1, [1, 2])], "many, if they are short"


def test_nothing_that_waits_calls_off_all_questions_and_a_late_answer_is_returned() -> None:
    pool = make_pool()
    task = Task(0)
    pool.add(task)
    pool.pump(0.0)
    assert pool.cancel(task, force=False, now=0.0) == (calls.Action.END_CANCELLED, [CallOff([1])])
    assert pool.granted(1, Lease(1, wanted=False), 0.0) == [Return(lease_id(1), False)]
    assert pool.refused(1, no_worker=False, now=0.0) == []
    assert pool.statistics().leases == {}


def test_a_lease_that_nobody_needs_any_more_goes_back_after_its_time_and_not_before() -> None:
    pool = make_pool()
    task = Task(0)
    lease, actions = with_lease(pool, task)
    pushed(actions)
    answer(pool, lease, task, now=0.7)
    (again,) = pool.timer_over(Timer.IDLE, IDLE_S)
    assert isinstance(again, Arm)
    assert again.delay_s == pytest.approx(0.7)
    assert pool.timer_over(Timer.IDLE, IDLE_S + again.delay_s) == [Return(lease_id(1), False)]


def test_a_lease_that_others_wait_for_takes_one_batch() -> None:
    pool = make_pool()
    first, second = Task(0), Task(1)
    lease, actions = with_lease(pool, first, second, wanted=True)
    assert pushed(actions) == [(1, [0])]
    assert lease.state is State.LEAVING
    actions = answer(pool, lease, first, now=1.0)
    assert returned(actions) == [(1, False)]
    assert pushed(actions) == []


def test_a_lease_that_others_wait_for_and_that_comes_too_late_goes_back() -> None:
    pool = make_pool()
    task = Task(0)
    lease, actions = with_lease(pool, task, Task(1))
    pushed(actions)
    # The other one has failed, and the questions are not called off yet.
    pool.backlog[0].on(calls.Event.GIVEN_UP)
    assert returned(pool.granted(2, Lease(2, wanted=True), 0.0)) == [(2, False)]
    assert lease.state is State.BUSY


def test_a_call_that_must_not_run_twice_has_its_worker_for_itself() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(0), Task(1, attempts=0), Task(2)]
    lease, actions = with_lease(pool, *tasks)
    assert pushed(actions) == [(1, [0])]
    assert pushed(answer(pool, lease, tasks[0], now=1e-6)) == [(1, [1])]
    assert lease.state is State.ALONE
    assert pushed(answer(pool, lease, tasks[1], now=2e-6)) == [(1, [2])]


def test_nothing_waits_behind_a_call_that_runs_long() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(number) for number in range(4)]
    lease, actions = with_lease(pool, *tasks)
    assert pushed(actions) == [(1, [0, 1, 2, 3])]
    del lease.calls[tasks[1]], lease.calls[tasks[2]], lease.calls[tasks[3]]
    actions = pool.answered(lease, 0, tasks[1:], 1.0)
    assert pushed(actions) == []
    assert lease.state is State.LONG
    assert list(pool.backlog) == tasks[1:]
    assert [len(ask.questions) for ask in of(Ask, actions)] == [3]
    assert pushed(answer(pool, lease, tasks[0], now=9.0)) == [(1, [1])]


def test_a_worker_that_ends_itself_gets_nothing_more_and_goes_to_nobody_else() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(number) for number in range(3)]
    lease, actions = with_lease(pool, *tasks)
    assert pushed(actions) == [(1, [0, 1, 2])]
    assert pool.worker_ends(lease, 0.0) == []
    assert pool.unused() is None
    assert pushed(pool.pump(0.0)) == []
    for task in tasks:
        del lease.calls[task]
    tasks[0].answered()
    actions = pool.answered(lease, 1, tasks[1:], 1e-6)
    assert returned(actions) == [(1, True)]
    assert list(pool.backlog) == tasks[1:]
    assert len(of(Ask, actions)) == 1
    assert pool.depth > 1, "it says nothing of how long they take"


def test_a_worker_that_ends_itself_by_a_call_that_was_taken_back_is_returned_at_once() -> None:
    pool = make_pool()
    first, second = Task(0), Task(1)
    lease, actions = with_lease(pool, first)
    pushed(actions)
    answer(pool, lease, first, now=0.1)
    pool.push_at_once(lease, second, 0.2)
    pool.take_back(lease, second, 0.3)
    assert returned(pool.worker_ends(lease, 0.4)) == [(1, True)]


def test_what_is_given_back_and_wanted_cancelled_ends() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(number) for number in range(3)]
    lease, actions = with_lease(pool, *tasks)
    pushed(actions)
    assert pool.cancel(tasks[1], force=False, now=0.0)[0] is calls.Action.SEND_CANCEL
    del lease.calls[tasks[1]], lease.calls[tasks[2]]
    assert ended(pool.answered(lease, 0, tasks[1:], 1.0)) == [(1, Why.CANCELLED)]
    assert list(pool.backlog) == tasks[2:]


def test_a_worker_that_has_run_a_function_as_often_as_it_may_is_ended() -> None:
    pool = make_pool(max_calls={LIMITED: RUNS})
    pool.pace.measured(1e-6, 1)
    tasks = [Task(number, function=LIMITED) for number in range(3)]
    lease, actions = with_lease(pool, *tasks)
    assert pushed(actions) == [(1, [0, 1])]
    actions = answer(pool, lease, tasks[0], tasks[1], now=1.0)
    assert returned(actions) == [(1, True)]
    assert pushed(actions) == []


def test_a_worker_that_has_begun_with_a_limited_function_goes_to_nobody_else() -> None:
    pool = make_pool(max_calls={LIMITED: RUNS})
    task = Task(0, function=LIMITED)
    lease, actions = with_lease(pool, task)
    pushed(actions)
    answer(pool, lease, task, now=0.5)
    assert pool.timer_over(Timer.IDLE, 3.0) == [Return(lease_id(1), True)]


def test_a_worker_that_could_not_be_started_is_asked_for_later_while_others_work() -> None:
    pool = make_pool()
    tasks = [Task(number) for number in range(2)]
    _, actions = with_lease(pool, *tasks)
    pushed(actions)
    assert pool.refused(2, no_worker=True, now=0.0) == [Arm(Timer.ASK, ASK_AGAIN_S)]
    assert of(Ask, pool.timer_over(Timer.ASK, ASK_AGAIN_S)) == [Ask([3])]


@pytest.mark.parametrize("no_worker", [False, True])
def test_a_refusal_without_a_lease_ends_all_that_wait(no_worker: bool) -> None:
    pool = make_pool()
    for number in range(2):
        pool.add(Task(number))
    pool.pump(0.0)
    actions = pool.refused(1, no_worker=no_worker, now=0.0)
    assert ended(actions) == [(0, Why.REFUSED), (1, Why.REFUSED)]
    assert of(CallOff, actions) == [CallOff([2])]


def test_a_lost_worker_has_its_calls_sorted_out_once_it_is_known_what_it_had_begun() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(0, attempts=1), Task(1, attempts=1), Task(2, attempts=1)]
    lease, actions = with_lease(pool, *tasks)
    pushed(actions)
    assert pool.lost(lease, 1.0) == [FindOut(lease)]
    actions = pool.sort_out(lease, (1, 1), 2.0)
    assert returned(actions) == [(1, False)]
    assert [task.attempts_left for task in tasks] == [1, 0, 1]
    assert list(pool.backlog) == tasks, "in their order"


def test_a_lost_worker_ends_what_has_no_attempts_left() -> None:
    pool = make_pool()
    lease, actions = with_lease(pool, Task(0, attempts=0))
    pushed(actions)
    pool.lost(lease, 1.0)
    actions = pool.sort_out(lease, (1, 0), 2.0)
    assert ended(actions) == [(0, Why.CRASHED)]
    assert not pool.busy


@pytest.mark.parametrize(("force", "why"), [(False, Why.CANCELLED), (True, Why.FORCED)])
def test_a_lost_worker_ends_what_was_to_be_cancelled(force: bool, why: Why) -> None:
    pool = make_pool()
    task = Task(0)
    lease, actions = with_lease(pool, task)
    pushed(actions)
    assert pool.cancel(task, force, 0.5) == (calls.Action.SEND_CANCEL, [])
    pool.lost(lease, 1.0)
    assert ended(pool.sort_out(lease, (1, 0), 2.0)) == [(0, why)]


def test_an_idle_worker_that_is_lost_is_returned_at_once() -> None:
    pool = make_pool()
    task = Task(0)
    lease, actions = with_lease(pool, task)
    pushed(actions)
    answer(pool, lease, task, now=0.1)
    assert returned(pool.lost(lease, 1.0)) == [(1, False)]
    assert pool.lost(lease, 1.0) == []
    assert pool.wanted(lease, 1.0) == []


def test_one_call_at_a_time_is_sent_at_once_and_no_second_beside_it() -> None:
    pool = make_pool()
    first, second = Task(0), Task(1)
    lease, actions = with_lease(pool, first)
    pushed(actions)
    assert pool.unused() is None
    answer(pool, lease, first, now=0.1)
    assert pool.unused() is lease
    pool.push_at_once(lease, second, 0.2)
    second.sent()
    assert pool.unused() is None
    assert pool.take_back(lease, second, 0.3) == (True, [])
    assert pool.take_back(lease, second, 0.3) == (False, [])
    assert pool.unused() is lease


def test_no_call_is_sent_at_once_while_another_worker_has_one() -> None:
    pool = make_pool()
    first, second = Task(0), Task(1)
    lease, actions = with_lease(pool, first, second)
    pushed(actions)
    pushed(pool.granted(2, Lease(2, wanted=False), 0.0))
    answer(pool, lease, first, now=0.1)
    assert lease.state is State.IDLE
    assert pool.unused() is None


def test_what_is_sent_at_once_and_must_not_run_twice_stays_alone() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    first = Task(0)
    lease, actions = with_lease(pool, first)
    pushed(actions)
    answer(pool, lease, first, now=1e-6)
    pool.push_at_once(lease, Task(1, attempts=0), 0.2)
    pool.add(Task(2))
    assert pushed(pool.pump(0.2)) == []


def test_tasks_that_come_back_beside_an_answer_are_held_for_long_ones() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    tasks = [Task(number) for number in range(3)]
    lease, actions = with_lease(pool, *tasks)
    pushed(actions)
    del lease.calls[tasks[0]], lease.calls[tasks[2]]
    tasks[0].answered()
    pool.answered(lease, 1, tasks[2:], 2e-6)
    assert pool.depth == 1


def test_a_caller_that_ends_calls_off_what_it_asked_for_and_ends_what_waits() -> None:
    pool = make_pool()
    tasks = [Task(0), Task(1)]
    _, actions = with_lease(pool, *tasks)
    pushed(actions)
    assert pool.close() == [CallOff([2]), End(tasks[1], Why.CLOSED)]
    assert pool.close() == []
    pool.add(Task(2))
    assert pool.pump(1.0) == []
    assert ended(pool.close()) == [(2, Why.CLOSED)]


def test_a_call_that_is_taken_back_from_a_lease_that_others_want_returns_it() -> None:
    pool = make_pool()
    task = Task(0)
    lease, actions = with_lease(pool, task)
    pushed(actions)
    assert pool.wanted(lease, 0.1) == []
    assert pool.take_back(lease, task, 0.2) == (True, [Return(lease_id(1), False)])


def test_a_lease_whose_last_call_is_taken_back_while_an_answer_is_counted_goes_back_once() -> None:
    pool = make_pool()
    pool.pace.measured(1e-6, 1)
    first, second = Task(0), Task(1)
    lease, actions = with_lease(pool, first, second)
    pushed(actions)
    pool.wanted(lease, 0.1)
    # The answer to the first has come, and its frame is not at its end.
    del lease.calls[first]
    first.answered()
    assert pool.take_back(lease, second, 0.2) == (True, [Return(lease_id(1), False)])
    assert returned(pool.answered(lease, 1, (), 0.3)) == []
    assert lease.state is State.GONE


def test_a_worker_whose_loop_runs_all_it_gets_at_once_gets_one() -> None:
    pool = make_pool(one_by_one=True)
    pool.pace.measured(1e-6, 1)
    _, actions = with_lease(pool, Task(0), Task(1))
    assert pushed(actions) == [(1, [0])]


def test_calls_that_are_cancelled_before_they_come_here_are_none_of_those_that_wait() -> None:
    pool = make_pool()
    for number in range(6):
        pool.add(Task(number))
    for number in range(6, 9):
        pool.cancel(Task(number), force=False, now=0.0)
    assert pool.statistics().waiting == 6


def test_statistics_count_what_is_there() -> None:
    pool = make_pool()
    _, actions = with_lease(pool, Task(0), Task(1), Task(2))
    pushed(actions)
    pool.cancel(pool.backlog[0], force=False, now=0.0)
    assert pool.statistics() == PoolStatistics(
        waiting=1, under_way=1, leases={"BUSY": 1}, asked=2, mean_s=None, depth=1
    )


# -- histories


@dataclass
class Worker:
    """Takes its messages in order and runs one task at a time; its link keeps the order both ways."""

    lease: Lease
    inbox: deque[tuple[str, Task]] = field(default_factory=deque[tuple[str, Task]])
    # None: it ends itself.
    outbox: deque[tuple[calls.Event | None, Task]] = field(default_factory=deque[tuple[calls.Event | None, Task]])
    queued: list[Task] = field(default_factory=list[Task])
    running: Task | None = None
    # What it began last.
    begun: Task | None = None
    limited_runs: int = 0
    # It gave back what is behind the one that it runs, and nothing has ended since, as far as the caller knows.
    runs_long: bool = False
    dead: bool = False
    # A task has ended its process: it begins no other; and whether its caller has heard of that.
    ends: bool = False
    ends_for_caller: bool = False


class Histories(RuleBasedStateMachine):
    """A pool, a node that grants, refuses and wants back, and workers that run, block and die."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool(max_calls={LIMITED: RUNS})
        self.now = 0.0
        self.tasks: list[Task] = []
        self.ends: dict[Task, int] = {}
        self.runs: dict[Task, int] = {}
        self.allowed: dict[Task, int] = {}
        # What the node has been asked, and has not answered, or not been told that it is called off.
        self.asked: list[int] = []
        self.called_off: set[int] = set()
        self.workers: dict[int, Worker] = {}
        # Leases that the node has granted, and how often each was returned.
        self.returns: dict[int, int] = {}
        # Who is to get nothing more.
        self.closed_to: set[int] = set()
        self.to_be_sorted: list[Worker] = []
        self.timers: dict[Timer, float] = {}
        self.closed = False

    # ---- the shell

    def do(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case Push():
                    self.push(action.lease, action.calls)
                case Ask():
                    assert not self.closed
                    self.asked += action.questions
                case CallOff():
                    self.called_off.update(action.questions)
                case Return():
                    self.returns[action.lease.number] += 1
                    worker = self.workers.get(action.lease.number)
                    if worker is not None:
                        assert worker.dead or not worker.lease.calls, "returned with calls under way"
                        # Its worker is clean, or ended.
                        assert action.end_worker or not worker.limited_runs or worker.dead
                        assert action.end_worker or not worker.ends_for_caller
                case FindOut():
                    self.to_be_sorted.append(self.workers[action.lease.number])
                case End():
                    self.end(action.call)
                case Arm():
                    assert action.timer not in self.timers, "armed twice"
                    self.timers[action.timer] = self.now + action.delay_s

    def push(self, lease: Lease, batch: list[Task]) -> None:
        worker = self.workers[lease.number]
        assert lease.number not in self.closed_to, "others wait for it"
        assert worker not in self.to_be_sorted
        assert not worker.runs_long, "nothing waits behind what runs long"
        assert not worker.ends_for_caller, "it would come back, without end"
        for task in batch:
            assert not task.done
            assert not task.wish
            if task.attempts_left == 0:
                assert list(lease.calls) == [task], "it has its worker for itself"
            task.sent()
            if not worker.dead:
                worker.inbox.append(("call", task))
        if any(task.attempts_left == 0 for task in lease.calls):
            assert len(lease.calls) == 1, "nothing is pushed beside it"
        if lease.state is State.LEAVING:
            self.closed_to.add(lease.number)

    def end(self, task: Task) -> None:
        assert task.done
        self.ends[task] += 1

    # ---- the caller

    @initialize(tasks=st.lists(st.tuples(st.sampled_from([0, 1, 3, -1]), st.booleans()), min_size=2, max_size=6))
    def begin(self, tasks: list[tuple[int, bool]]) -> None:
        for attempts, limited in tasks:
            self.submit(attempts, limited, pump=False)
        self.do(self.pool.pump(self.now))

    @precondition(lambda self: len(self.tasks) < 40)
    @rule(attempts=st.sampled_from([0, 1, 3, -1]), limited=st.booleans(), pump=st.booleans())
    def submit(self, attempts: int, limited: bool, pump: bool) -> None:
        task = Task(len(self.tasks), attempts, LIMITED if limited else PLAIN)
        self.tasks.append(task)
        self.ends[task] = self.runs[task] = 0
        self.allowed[task] = attempts
        self.pool.add(task)
        if pump:
            self.do(self.pool.pump(self.now))

    @precondition(lambda self: len(self.tasks) < 40)
    @rule(attempts=st.sampled_from([0, 1, 3, -1]), interrupted=st.booleans())
    def send_at_once(self, attempts: int, interrupted: bool) -> None:
        lease = self.pool.unused()
        if lease is None:
            return
        assert not any(task.state is calls.State.HERE for task in self.tasks)
        assert not any(one.calls for one in self.pool.leases.values())
        task = Task(len(self.tasks), attempts)
        self.tasks.append(task)
        self.ends[task] = self.runs[task] = 0
        self.allowed[task] = attempts
        self.pool.push_at_once(lease, task, self.now)
        self.push(lease, [task])
        if interrupted:
            had_it, actions = self.pool.take_back(lease, task, self.now)
            assert had_it
            self.workers[lease.number].inbox.append(("cancel", task))
            task.ask(force=False)
            task.on(calls.Event.GIVEN_UP)
            self.end(task)
            self.do(actions)
            self.do(self.pool.pump(self.now))

    @precondition(lambda self: self.tasks)
    @rule(index=INDEX, force=st.booleans())
    def cancel(self, index: int, force: bool) -> None:
        open_tasks = [task for task in self.tasks if not task.done] or self.tasks
        task = open_tasks[index % len(open_tasks)]
        action, actions = self.pool.cancel(task, force, self.now)
        self.do(actions)
        match action:
            case calls.Action.END_CANCELLED:
                self.end(task)
            case calls.Action.SEND_CANCEL:
                for worker in self.workers.values():
                    if task in worker.lease.calls and not worker.dead:
                        worker.inbox.append(("cancel", task))
            case _:
                assert task.done

    # ---- the node

    @precondition(lambda self: self.asked)
    @rule(index=INDEX, what=st.sampled_from(["grant", "grant", "grant", "wanted", "no worker", "never", "unreachable"]))
    def decide(self, index: int, what: str) -> None:
        """The node answers a question; it may have been called off meanwhile."""
        question = self.asked.pop(index % len(self.asked))
        self.now += 0.001
        if what in ("no worker", "never"):
            self.do(self.pool.refused(question, what == "no worker", self.now))
            return
        number = len(self.returns) + 1
        self.returns[number] = 0
        if what == "unreachable":
            self.do(self.pool.unreachable(question, lease_id(number), self.now))
            return
        lease = Lease(number, what == "wanted")
        if question not in self.called_off:
            self.workers[number] = Worker(lease)
        self.do(self.pool.granted(question, lease, self.now))
        if question in self.called_off:
            assert self.returns[number] == 1
        if what == "wanted":
            # It has had its one batch, or was returned.
            self.closed_to.add(number)

    @precondition(lambda self: self.workers)
    @rule(index=INDEX)
    def want_back(self, index: int) -> None:
        """Others wait; it may have been returned meanwhile."""
        worker = self.pick(index)
        actions = self.pool.wanted(worker.lease, self.now)
        self.closed_to.add(worker.lease.number)
        self.do(actions)

    # ---- workers

    def pick(self, index: int) -> Worker:
        alive = [worker for number, worker in self.workers.items() if not self.returns[number] and not worker.dead]
        workers = alive or list(self.workers.values())
        return workers[index % len(workers)]

    @precondition(lambda self: self.workers)
    @rule(moves=st.lists(st.tuples(st.integers(0, 3), INDEX), min_size=1, max_size=10))
    def go_on(self, moves: list[tuple[int, int]]) -> None:
        """What mostly happens: tasks are taken, run, and their answers come."""
        for move, index in moves:
            worker = self.pick(index)
            if move == 0:
                self.take(worker)
            elif move in (1, 2):
                self.finish(worker, index)
            else:
                self.hear(worker, index + 1)

    def take(self, worker: Worker) -> None:
        while worker.inbox and not worker.dead:
            what, task = worker.inbox.popleft()
            if what == "call" and worker.ends:
                worker.outbox.append((calls.Event.UNBEGUN, task))
            elif what == "call":
                worker.queued.append(task)
            elif task in worker.queued:
                worker.queued.remove(task)
                worker.outbox.append((calls.Event.STOPPED, task))
        self.start(worker)

    def start(self, worker: Worker) -> None:
        if worker.running is None and worker.queued and not worker.dead:
            task = worker.queued.pop(0)
            worker.running = worker.begun = task
            self.runs[task] += 1
            if task.function == LIMITED:
                worker.limited_runs += 1
                assert worker.limited_runs <= RUNS, "it may run it so often"

    def finish(self, worker: Worker, how: int) -> None:
        if worker.running is not None and not worker.dead:
            event = (calls.Event.ANSWERED, calls.Event.RAISED, calls.Event.FAILED)[how % 3]
            worker.outbox.append((event, worker.running))
            worker.running = None
            self.start(worker)

    def hear(self, worker: Worker, count: int) -> None:
        """A frame with so many outcomes comes to the caller."""
        if worker.dead or not worker.outbox:
            return
        self.now += 0.0001
        lease, answers, unbegun, again = worker.lease, 0, list[Task](), list[Task]()
        for _ in range(min(count, len(worker.outbox))):
            event, task = worker.outbox.popleft()
            if event is None:
                worker.ends_for_caller = True
                self.closed_to.add(lease.number)
                self.do(self.pool.worker_ends(lease, self.now))
                continue
            if task not in lease.calls:
                continue
            del lease.calls[task]
            if event is calls.Event.UNBEGUN:
                unbegun.append(task)
                continue
            answers += 1
            match task.on(event):
                case calls.Action.AGAIN:
                    again.append(task)
                case _:
                    self.end(task)
        for task in again:
            self.pool.add(task)
        worker.runs_long = bool(lease.calls) and (bool(unbegun) or (worker.runs_long and not answers))
        if answers or unbegun:
            self.do(self.pool.answered(lease, answers, unbegun, self.now))

    @precondition(lambda self: self.workers)
    @rule(index=INDEX)
    def give_back(self, index: int) -> None:
        """What runs blocks, or runs long: the tasks behind it go back."""
        worker = self.pick(index)
        if worker.running is not None:
            worker.outbox.extend((calls.Event.UNBEGUN, task) for task in worker.queued)
            worker.queued.clear()

    @precondition(lambda self: self.workers)
    @rule(index=INDEX)
    def exit(self, index: int) -> None:
        """What runs ends its process, which stays for a while: what it has not begun goes back."""
        worker = self.pick(index)
        if worker.running is not None and not worker.dead:
            worker.ends = True
            worker.outbox.append((None, worker.running))
            worker.outbox.extend((calls.Event.UNBEGUN, task) for task in worker.queued)
            worker.outbox.append((calls.Event.FAILED, worker.running))
            worker.queued.clear()
            worker.running = None

    @precondition(lambda self: self.workers)
    @rule(index=INDEX)
    def die(self, index: int) -> None:
        """Its link breaks, and what was on its way is lost."""
        worker = self.pick(index)
        if not worker.dead:
            worker.dead = True
            self.do(self.pool.lost(worker.lease, self.now))

    @precondition(lambda self: self.to_be_sorted)
    @rule(index=INDEX, known=st.booleans())
    def sort_out(self, index: int, known: bool) -> None:
        """The node tells what a dead worker had begun last."""
        worker = self.to_be_sorted.pop(index % len(self.to_be_sorted))
        number = worker.lease.number
        begun = (number, worker.begun.number) if worker.begun is not None else (0, 0)
        self.closed_to.add(number)
        self.do(self.pool.sort_out(worker.lease, begun if known else None, self.now))
        if not known:
            # The first was taken for the culprit, whichever it was.
            for task in self.tasks:
                self.allowed[task] = self.allowed[task] + 40 if self.allowed[task] > 0 else self.allowed[task]

    # ---- time

    @rule(elapsed=st.sampled_from([0.01, 0.5, 1.5]))
    def wait(self, elapsed: float) -> None:
        until = self.now + elapsed
        while self.timers and min(self.timers.values()) <= until:
            timer = min(self.timers, key=self.timers.__getitem__)
            self.now = self.timers.pop(timer)
            self.do(self.pool.timer_over(timer, self.now))
        self.now = until

    # ---- what holds

    @invariant()
    def every_call_ends_once(self) -> None:
        for task, ends in self.ends.items():
            assert ends == task.done, task

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        waiting = [task for task in self.pool.backlog if not task.done]
        under_way = [task for worker in self.workers.values() for task in worker.lease.calls]
        assert sorted(task.number for task in waiting + under_way) == [
            task.number for task in self.tasks if not task.done
        ]
        assert all(task.state is calls.State.HERE for task in waiting)
        assert self.pool.statistics().waiting <= len(self.pool.backlog)

    @invariant()
    def no_lease_is_returned_twice(self) -> None:
        held = {lease.number for lease in self.pool.leases.values()}
        for number, times in self.returns.items():
            assert times == (number not in held), f"lease {number} was returned {times} times"

    @invariant()
    def no_call_runs_more_often_than_it_may(self) -> None:
        for task, allowed in self.allowed.items():
            if allowed == 0:
                assert self.runs[task] <= 1

    @invariant()
    def who_must_not_run_twice_is_alone(self) -> None:
        for worker in self.workers.values():
            if any(task.attempts_left == 0 for task in worker.lease.calls):
                assert len(worker.lease.calls) == 1

    @invariant()
    def questions_are_as_many_as_there_is_use_for(self) -> None:
        open_questions = [question for question in self.asked if question not in self.called_off]
        assert len(open_questions) == self.pool.statistics().asked <= MOST_ASKED
        assert self.pool.backlog or not open_questions, "nobody needs what is asked for"

    def teardown(self) -> None:
        """In the end each call has its outcome, and each lease is back."""
        for _ in range(400):
            self.do(self.pool.pump(self.now))
            if self.asked:
                self.decide(0, "grant")
            while self.to_be_sorted:
                self.sort_out(0, known=True)
            for worker in list(self.workers.values()):
                self.take(worker)
                self.finish(worker, 0)
                self.hear(worker, 1000)
            self.check()
            if all(task.done for task in self.tasks) and not self.asked:
                break
        assert all(task.done for task in self.tasks), "a call is forgotten"
        self.do(self.pool.pump(self.now))
        self.wait(10.0)
        assert not self.pool.leases, "a lease is never returned"
        assert not self.pool.busy
        self.check()

    def check(self) -> None:
        self.every_call_ends_once()
        self.every_call_is_in_one_place()
        self.no_lease_is_returned_twice()


class Closing(Histories):
    """The same, and the caller may come to its end at any time."""

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.closed_to.update(self.workers)
        self.do(self.pool.close())
        assert self.pool.unused() is None

    def no_lease_is_returned_twice(self) -> None:
        if not self.closed:
            super().no_lease_is_returned_twice()
        assert all(times <= 1 for times in self.returns.values())

    def teardown(self) -> None:
        if not self.closed:
            self.close()
        for _ in range(20):
            while self.to_be_sorted:
                self.sort_out(0, known=True)
            self.do(self.pool.close())
        assert not self.pool.backlog
        assert not [task for task in self.tasks if task.state is calls.State.HERE]
        self.every_call_ends_once()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150 * DEPTH, stateful_step_count=40, deadline=None)
TestClosing = Closing.TestCase
TestClosing.settings = settings(max_examples=60 * DEPTH, stateful_step_count=25, deadline=None)


def test_an_event_that_cannot_happen_is_refused() -> None:
    lease = Lease(3, wanted=False)
    with pytest.raises(Exception, match="SORTED_OUT cannot happen to a lease that is IDLE"):
        lease.on(Event.SORTED_OUT)
