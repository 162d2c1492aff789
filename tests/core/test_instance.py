"""The life of an actor in its worker: every row, and histories in which calls, stops, kills and exits cross."""

from __future__ import annotations

import itertools
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core.concurrency import Groups, Limiter
from actorrt.core.instance import (
    ADMITS,
    ENDS_IDLE,
    TABLE,
    Action,
    Actions,
    Event,
    InstanceError,
    InstanceLife,
    State,
    Verdict,
)

from ..depth import DEPTH

# What cannot happen: a constructor ends once, an actor that is not made has no call that could end it, and IDLE is told
# only where `ends_now` says so.
REFUSED: Final = {
    *((state, event) for state in (State.STARTING, State.STARTING_TO_STOP) for event in (Event.LEAVE, Event.STAYED)),
    *((state, Event.STAYED) for state in (State.READY, State.DRAINING)),
    *((state, event) for state in (State.READY, *ENDS_IDLE) for event in (Event.MADE, Event.NOT_MADE)),
    *((state, Event.IDLE) for state in State if state not in ENDS_IDLE),
}
PATHS: Final[dict[State, tuple[Event, ...]]] = {
    State.STARTING: (),
    State.STARTING_TO_STOP: (Event.STOP,),
    State.READY: (Event.MADE,),
    State.DRAINING: (Event.MADE, Event.STOP),
    State.LEAVING: (Event.MADE, Event.LEAVE),
    State.LEAVING_TO_STOP: (Event.STOP, Event.MADE, Event.LEAVE),
    State.EXITING: (Event.MADE, Event.EXIT),
    State.EXITING_WITH_CODE: (Event.MADE, Event.EXIT_WITH_CODE),
    State.OVER: (Event.KILLED,),
}


def brought_to(state: State, concurrency: int = 1) -> InstanceLife[str]:
    life: InstanceLife[str] = InstanceLife("Counter(one)", concurrency)
    for event in PATHS[state]:
        life.on(event)
    assert life.state is state
    return life


# -- the table


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_a_row_or_is_refused(state: State, event: Event) -> None:
    life = brought_to(state)
    if (state, event) in REFUSED:
        with pytest.raises(InstanceError, match=rf"{event.name} cannot happen to Counter\(one\).*{state.name}"):
            life.on(event)
        assert life.state is state
    else:
        assert life.on(event) == TABLE[state, event][1]
        assert life.state is TABLE[state, event][0]


def test_the_table_names_only_pairs_that_exist() -> None:
    assert set(TABLE) | REFUSED == set(itertools.product(State, Event))
    assert not set(TABLE) & REFUSED


def test_each_way_into_the_end_lets_go_of_what_the_actor_has_and_no_other_row_does() -> None:
    for (before, event), (after, actions) in TABLE.items():
        ends = after is State.OVER and before is not State.OVER
        assert (Action.FORGET in actions) == ends, (before, event)
        # An actor that was never made leaves its process to its owner.
        leaves, with_code = ends and event is not Event.NOT_MADE, before is State.EXITING_WITH_CODE
        assert (Action.LEAVE_PROCESS in actions) == (leaves and not with_code), (before, event)
        assert (Action.END_PROCESS in actions) == (leaves and with_code), (before, event)
        assert not ends or event is Event.IDLE or Action.REFUSE_WAITING in actions, (before, event)


def test_an_exit_is_reported_unless_the_loss_of_its_process_says_it() -> None:
    for state in State:
        first = state not in (State.EXITING, State.EXITING_WITH_CODE, State.OVER)
        assert (Action.REPORT in TABLE[state, Event.EXIT][1]) == first
        assert Action.REPORT not in TABLE[state, Event.EXIT_WITH_CODE][1]
        assert (Action.END_SOON in TABLE[state, Event.EXIT_WITH_CODE][1]) == first


def test_a_refusal_tells_what_came_before() -> None:
    life = brought_to(State.LEAVING_TO_STOP)
    with pytest.raises(InstanceError, match=r"LEAVING_TO_STOP; before: STOP, MADE, LEAVE$"):
        life.on(Event.MADE)


def test_a_story_is_bounded() -> None:
    life = brought_to(State.READY)
    for _ in range(20):
        life.leave()
        life.stayed()
    with pytest.raises(InstanceError, match=f"before: {', '.join(['LEAVE, STAYED'] * 4)}$"):
        life.on(Event.MADE)


# -- calls


@pytest.mark.parametrize("state", State)
def test_a_call_runs_waits_or_is_refused_by_what_its_actor_is_about(state: State) -> None:
    life = brought_to(state, 1)
    assert life.admit(life.limiter, "first") is ADMITS[state]
    started = ADMITS[state] is Verdict.START
    assert life.limiter.running == started
    if started:
        assert life.admit(life.limiter, "second") is Verdict.WAIT
    assert life.under_way == (2 if started else ADMITS[state] is Verdict.WAIT)


def test_a_call_finds_the_limiter_of_its_group() -> None:
    groups: Groups[str] = Groups({"io": 2, "db": 1}, {"read": "io"})
    life = InstanceLife("Store", 7, groups)
    assert life.limiter_of("read", "") is groups.limiters["io"]
    assert life.limiter_of("read", "db") is groups.limiters["db"]
    assert life.limiter_of("other", "") is life.limiter
    assert life.limiters() == [life.limiter, groups.limiters["io"], groups.limiters["db"]]
    with pytest.raises(ValueError, match="Store has no concurrency group 'net', only db, io"):
        life.limiter_of("read", "net")


def test_an_actor_without_groups_names_a_group_that_is_asked_of_it() -> None:
    life: InstanceLife[str] = InstanceLife("Store", 1)
    assert life.limiter_of("read", "") is life.limiter
    with pytest.raises(ValueError, match=r"Store has no concurrency group 'io'$"):
        life.limiter_of("read", "io")


def test_an_actor_that_is_to_stop_takes_up_what_waits_first() -> None:
    life = brought_to(State.STARTING_TO_STOP)
    life.admit(life.limiter, "first")
    life.on(Event.MADE)
    assert not life.ends_now
    assert life.limiter.next() == "first"
    assert not life.ends_now
    life.limiter.end()
    assert life.ends_now


def test_two_calls_that_are_to_end_it_do_not_wait_for_each_other() -> None:
    life = brought_to(State.READY, 2)
    life.admit(life.limiter, "first")
    life.admit(life.limiter, "second")
    life.leave()
    assert not life.ends_now
    life.leave()
    assert life.ends_now


def test_what_waits_behind_a_call_that_is_to_end_it_is_refused() -> None:
    life = brought_to(State.READY, 1)
    life.admit(life.limiter, "terminate")
    life.admit(life.limiter, "behind")
    assert life.leave() == (Action.REFUSE_BEHIND,)
    assert life.limiter.refuse() == ["behind"]
    assert life.ends_now


def test_an_actor_stays_if_the_call_that_was_to_end_it_is_cancelled() -> None:
    life = brought_to(State.READY, 3)
    for call in ("first", "terminate", "terminate too"):
        life.admit(life.limiter, call)
    life.leave()
    life.leave()
    life.stayed()
    assert life.state is State.LEAVING
    life.stayed()
    assert life.state is State.READY


def test_an_actor_that_is_to_stop_stops_even_if_the_call_that_was_to_end_it_is_cancelled() -> None:
    life = brought_to(State.READY, 2)
    life.admit(life.limiter, "first")
    life.admit(life.limiter, "terminate")
    life.leave()
    life.on(Event.STOP)
    assert life.admit(life.limiter, "late") is Verdict.REFUSE
    life.stayed()
    life.limiter.end()
    assert not life.ends_now
    life.limiter.end()
    assert life.ends_now
    assert life.on(Event.IDLE) == (Action.FORGET, Action.LEAVE_PROCESS)


# -- histories

LIMITS: Final = st.integers(1, 3)


class Worker(RuleBasedStateMachine):
    """One actor in its worker, as a shell drives it, and what its callers and its owner hear of it.

    Calls, stops and kills come whenever they like, and may be doubled; cancellations may come for calls that have
    ended; the constructor may fail, or exit; END_SOON is done some steps later, as by a loop in its next turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came = 0
        self.answered: dict[int, str] = {}
        self.running: dict[int, Limiter[int]] = {}
        self.leaving: list[int] = []
        self.released: set[int] = set()
        self.actions: list[Action] = []
        self.end_is_due = False
        # In the order in which they came, and in which they began, for each limiter.
        self.order: dict[str, list[int]] = {}
        self.begun: dict[str, list[int]] = {}
        self.stopped = False

    @initialize(concurrency=LIMITS, groups=st.dictionaries(st.sampled_from(["io", "db"]), LIMITS))
    def begin(self, concurrency: int, groups: dict[str, int]) -> None:
        self.life: InstanceLife[int] = InstanceLife("it", concurrency, Groups(groups, {}) if groups else None)
        self.names = ["", *groups]
        self.order = {name: [] for name in self.names}
        self.begun = {name: [] for name in self.names}

    def name_of(self, limiter: Limiter[int]) -> str:
        return next(name for name in self.names if self.life.limiter_of("", name) is limiter)

    # ---- the shell

    def perform(self, actions: Actions, limiter: Limiter[int] | None = None) -> None:
        for action in actions:
            self.actions.append(action)
            match action:
                case Action.START_WAITING:
                    for each in self.life.limiters():
                        self.start_waiting(each)
                case Action.REFUSE_WAITING:
                    for call in self.life.refuse_waiting():
                        self.answer(call, "refused")
                case Action.REFUSE_BEHIND:
                    assert limiter is not None
                    for call in limiter.refuse():
                        self.answer(call, "refused")
                case Action.CANCEL_CALLS:
                    for call in list(self.running):
                        self.ends(call, "cancelled")
                case Action.RELEASE:
                    self.released.update(self.leaving)
                case Action.END_SOON:
                    self.end_is_due = True
                case _:
                    pass
        if self.life.ends_now and not self.leaving:
            self.perform(self.life.on(Event.IDLE))

    def start_waiting(self, limiter: Limiter[int]) -> None:
        while (call := self.life.next(limiter)) is not None:
            self.starts(call, limiter)

    def starts(self, call: int, limiter: Limiter[int]) -> None:
        assert Action.CONFIRM in self.actions
        assert self.life.state not in (State.EXITING, State.EXITING_WITH_CODE, State.OVER)
        self.running[call] = limiter
        self.begun[self.name_of(limiter)].append(call)

    def answer(self, call: int, how: str) -> None:
        assert call not in self.answered, "a call ends once"
        self.answered[call] = how

    def ends(self, call: int, how: str) -> None:
        self.answer(call, how)
        limiter = self.running.pop(call)
        limiter.end()
        if call in self.leaving:
            self.leaving.remove(call)
            self.perform(self.life.stayed())
        self.start_waiting(limiter)
        if self.life.ends_now:
            self.perform(self.life.on(Event.IDLE))

    # ---- what happens

    @rule(group=st.integers(0, 2))
    def a_call_comes(self, group: int) -> None:
        name = self.names[group % len(self.names)]
        call, limiter = self.came, self.life.limiter_of("", name)
        self.came += 1
        match self.life.admit(limiter, call):
            case Verdict.START:
                self.order[name].append(call)
                self.starts(call, limiter)
            case Verdict.WAIT:
                self.order[name].append(call)
            case Verdict.REFUSE:
                self.answer(call, "refused")

    @precondition(lambda self: self.life.is_being_made)
    @rule(ends=st.sampled_from([Event.MADE] * 9 + [Event.NOT_MADE, Event.EXIT, Event.EXIT_WITH_CODE]))
    def its_constructor_ends(self, ends: Event) -> None:
        self.perform(self.life.on(ends))

    @rule()
    def nobody_needs_it(self) -> None:
        self.stopped = True
        self.perform(self.life.on(Event.STOP))

    # Not often, so that a history goes on.
    @precondition(lambda self: self.came % 8 == 7)
    @rule(ends=st.sampled_from([Event.KILLED, Event.EXIT, Event.EXIT_WITH_CODE]))
    def it_ends(self, ends: Event) -> None:
        self.stopped = True
        self.perform(self.life.on(ends))

    @precondition(lambda self: bool(self.running))
    @rule(index=st.integers(0, 9))
    def a_call_ends(self, index: int) -> None:
        call = list(self.running)[index % len(self.running)]
        if call in self.leaving and call in self.released:
            # It goes on, and out.
            self.exits(call)
        elif call not in self.leaving:
            self.ends(call, "value")

    def exits(self, call: int) -> None:
        if call in self.leaving:
            self.leaving.remove(call)
        self.perform(self.life.on(Event.EXIT))
        self.ends(call, "no actor")

    @precondition(lambda self: self.came > 0)
    @rule(index=st.integers(0, 99))
    def a_call_is_cancelled(self, index: int) -> None:
        call = index % self.came
        if call in self.running:
            self.ends(call, "cancelled")
        elif any(limiter.withdraw(call) for limiter in self.life.limiters()):
            self.answer(call, "cancelled")
            if self.life.ends_now:
                self.perform(self.life.on(Event.IDLE))

    @precondition(lambda self: any(call not in self.leaving for call in self.running))
    @rule(index=st.integers(0, 9))
    def a_call_wants_to_end_it(self, index: int) -> None:
        free = [call for call in self.running if call not in self.leaving]
        call = free[index % len(free)]
        self.leaving.append(call)
        self.perform(self.life.leave(), self.running[call])
        if call in self.running and (self.life.state in (State.EXITING, State.EXITING_WITH_CODE) or self.life.ends_now):
            self.exits(call)

    @precondition(lambda self: self.end_is_due)
    @rule()
    def its_loop_turns(self) -> None:
        self.end_is_due = False
        self.perform(self.life.on(Event.KILLED))

    # ---- what is promised

    @invariant()
    def each_call_is_answered_runs_or_waits(self) -> None:
        waiting = [call for limiter in self.life.limiters() for call in limiter.waiting or ()]
        assert sorted([*self.answered, *self.running, *waiting]) == list(range(self.came))

    @invariant()
    def no_limit_is_passed(self) -> None:
        for limiter in self.life.limiters():
            assert limiter.running == sum(one is limiter for one in self.running.values()) <= limiter.limit

    @invariant()
    def calls_begin_in_order(self) -> None:
        for name, begun in self.begun.items():
            assert begun == [call for call in self.order[name] if call in begun]

    @invariant()
    def its_owner_hears_of_each_thing_once(self) -> None:
        for action in (Action.CONFIRM, Action.FAIL, Action.REPORT, Action.FORGET, Action.LEAVE_PROCESS):
            assert self.actions.count(action) <= 1
        assert not (Action.CONFIRM in self.actions and Action.FAIL in self.actions)
        assert (Action.FORGET in self.actions) == self.life.is_over

    @invariant()
    def one_that_is_over_has_no_calls(self) -> None:
        assert not self.life.is_over or not (self.running or self.life.under_way)

    def teardown(self) -> None:
        """All that runs comes to its end: nobody waits for ever, and an actor that is to end has ended."""
        if self.life.is_being_made:
            self.perform(self.life.on(Event.MADE))
        for _ in range(2 * self.came + 2):
            if self.end_is_due:
                self.its_loop_turns()
            elif ready := [call for call in self.running if call not in self.leaving or call in self.released]:
                self.exits(ready[0]) if ready[0] in self.leaving else self.ends(ready[0], "value")
        assert len(self.answered) == self.came
        # All that was to end it may have been cancelled before it did.
        assert self.life.state in (State.READY, State.OVER)
        assert self.life.is_over or not self.stopped


Worker.TestCase.settings = settings(max_examples=200 * DEPTH, stateful_step_count=40, deadline=None)
TestWorker = Worker.TestCase


@given(events=st.lists(st.sampled_from([event for event in Event if event is not Event.IDLE]), max_size=40))
def test_whatever_happens_it_ends_once_and_stays_so(events: list[Event]) -> None:
    life: InstanceLife[str] = InstanceLife("it", 1)
    forgets = 0
    for event in events:
        was_over = life.is_over
        try:
            actions = life.on(event)
        except InstanceError:
            assert (life.state, event) in REFUSED
            continue
        forgets += Action.FORGET in actions
        assert not was_over or (life.is_over and actions == ())
    assert forgets == life.is_over
