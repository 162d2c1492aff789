"""The queue of a thread that runs calls one at a time: its states, and histories in which callers come and go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.core.long_calls import Look
from actorrt.core.work_queue import TABLE, Event, State, WorkQueue

from ..depth import DEPTH

CALLERS: Final = 2


@dataclass
class Caller:
    closed: bool = False
    # What it has sent and nobody has answered.
    open: list[Work] = field(default_factory=list["Work"])


@dataclass(eq=False)
class Work:
    number: int | None
    is_task: bool


def make_queue() -> WorkQueue[Caller, Work, int]:
    return WorkQueue(lambda work: work.is_task, lambda work: work.number)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_thread_that_leaves_or_has_ended_takes_up_nothing_again(state: State, event: Event) -> None:
    after = TABLE.get((state, event))
    if after is None:
        assert (state, event) == (State.IDLE, Event.EXIT), "only what runs can end the process"
    elif state is State.ENDED:
        assert after is State.ENDED
    elif state is State.LEAVES:
        assert after is (State.ENDED if event is Event.END else State.LEAVES)


def test_what_waits_behind_a_long_call_is_looked_at_and_goes_back() -> None:
    queue, caller = make_queue(), Caller()
    first, second, stop = Work(1, True), Work(2, True), Work(None, False)
    assert not queue.add(caller, [first], None), "it begins at once"
    assert queue.take() == (caller, first, True)
    assert queue.add(caller, [second, stop], 1)
    assert not queue.add(caller, [], 1), "a look is due already"
    assert queue.look(1) == Look(give_back=True, again=True)
    assert queue.give_back(has_actor=True) == []
    assert queue.give_back(has_actor=False) == [(caller, second)]
    assert queue.look(1) == Look(give_back=True, again=True), "the other one waits still"


def test_a_thread_that_leaves_begins_no_task_and_answers_all_else() -> None:
    queue, caller = make_queue(), Caller()
    exits, task, call = Work(1, True), Work(2, True), Work(3, False)
    queue.add(caller, [exits, task, call], None)
    assert queue.take() == (caller, exits, True)
    queue.on(Event.EXIT)
    assert queue.take() == (caller, task, False)
    assert queue.take() == (caller, call, True)
    assert queue.take() is None
    assert queue.state is State.LEAVES
    queue.add(caller, [task], None)
    assert queue.take() == (caller, task, False)


class Histories(RuleBasedStateMachine):
    """Each call begins, goes back, is withdrawn or loses its caller: one of them, and once."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue()
        self.callers = [Caller() for _ in range(CALLERS)]
        self.numbers = 0
        self.begun: list[int] = []
        self.left = False

    def answer(self, caller: Caller, work: Work) -> None:
        caller.open.remove(work)

    @rule(caller=st.integers(0, CALLERS - 1), tasks=st.lists(st.booleans(), min_size=1, max_size=4))
    def add(self, caller: int, tasks: list[bool]) -> None:
        source = self.callers[caller]
        if source.closed:
            source = self.callers[caller] = Caller()
        work = [Work(self.numbers + index, is_task) for index, is_task in enumerate(tasks)]
        self.numbers += len(tasks)
        source.open += work
        self.queue.add(source, work, None)

    @rule()
    def take(self) -> None:
        taken = self.queue.take()
        if taken is None:
            assert not len(self.queue)
            assert self.queue.state is not State.BUSY
            return
        caller, work, begins = taken
        assert work.number is not None
        assert not caller.closed
        self.answer(caller, work)
        assert begins == (not self.left or not work.is_task)
        if begins:
            self.begun.append(work.number)
            assert self.begun == sorted(self.begun), "in the order in which they came"

    @rule(has_actor=st.booleans())
    def give_back(self, has_actor: bool) -> None:
        for caller, work in self.queue.give_back(has_actor):
            assert work.is_task
            assert not has_actor
            if not caller.closed:
                self.answer(caller, work)

    @rule(caller=st.integers(0, CALLERS - 1), at=st.integers(0, 5))
    def withdraw(self, caller: int, at: int) -> None:
        source = self.callers[caller]
        if not source.open:
            assert not self.queue.withdraw(source, self.numbers)
            return
        work = source.open[at % len(source.open)]
        assert work.number is not None
        assert self.queue.find(source, work.number) is work
        assert self.queue.withdraw(source, work.number)
        assert self.queue.find(source, work.number) is None
        self.answer(source, work)

    @rule(caller=st.integers(0, CALLERS - 1), noticed=st.booleans())
    def lose(self, caller: int, noticed: bool) -> None:
        source = self.callers[caller]
        source.closed = True
        source.open.clear()
        if noticed:
            self.queue.source_lost(source)

    @precondition(lambda self: self.queue.state is State.BUSY)
    @rule()
    def exit(self) -> None:
        self.queue.on(Event.EXIT)
        self.left = True

    @invariant()
    def what_is_open_waits(self) -> None:
        waiting = sum(len(caller.open) for caller in self.callers)
        assert len(self.queue) >= waiting
        for caller in self.callers:
            for work in caller.open:
                assert self.queue.find(caller, work.number or 0) is work

    def teardown(self) -> None:
        while self.queue.take() is not None:
            pass
        assert not len(self.queue)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100 * DEPTH, stateful_step_count=30, deadline=None)
