"""The life of a call: every row, the rule of retries, and histories with lost, late, doubled and crossing messages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core.call_terms import CallTerms, Limit, Limits, pause_after
from actorrt.core.calls import MOST_DEATHS, RAN, TABLE, Action, CallError, CallLife, Event, State, Wish
from actorrt.exceptions import TaskError
from actorrt.types import RetryPolicy

from ..depth import DEPTH

ATTEMPTS: Final = st.sampled_from([0, 1, 3, -1])
INDEX: Final = st.integers(0, 5)
AGAIN_OR_NOT: Final = (Event.UNBEGUN, Event.LOST, Event.DIED, Event.UNHEARD, Event.RAISED)


def life(state: State = State.AWAY, *, attempts: int = 0, wish: Wish = Wish.NONE) -> CallLife:
    made = CallLife()
    made.state, made.attempts_left, made.wish = state, attempts, wish
    return made


def cancel(call: CallLife, force: bool) -> Action:
    call.ask(force)
    return call.on(Event.CANCEL)


# -- the table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
@given(attempts=ATTEMPTS, wish=st.sampled_from(Wish))
def test_every_pair_is_in_the_table_or_an_error_that_names_both(
    state: State, event: Event, attempts: int, wish: Wish
) -> None:
    call = life(state, attempts=attempts, wish=wish)
    row = TABLE.get((state, event))
    if row is None:
        with pytest.raises(CallError, match=f"{event.name}.*{state.name}"):
            call.on(event)
        assert (call.state, call.attempts_left) == (state, attempts)
        return
    after, action = row.asked if wish else row.left if attempts else row.spent
    assert call.on(event) is action
    assert call.state is after


def test_an_action_that_ends_a_call_leaves_it_ended_and_no_other_does() -> None:
    ends = {Action.SETTLE, Action.FAIL, Action.END_CANCELLED, Action.CUT}
    for (before, event), row in TABLE.items():
        for after, action in row:
            assert (action in ends) == (after is State.ENDED and before is not State.ENDED), (before, event)
            assert (action is Action.AGAIN) == (before is State.AWAY and after is State.HERE), (before, event)


def test_a_call_that_has_ended_does_nothing_more_whatever_comes() -> None:
    for event in Event:
        if event is not Event.SENT:
            assert TABLE[State.ENDED, event] == ((State.ENDED, Action.NOTHING),) * 3
    with pytest.raises(CallError):
        life(State.ENDED).on(Event.SENT)


@pytest.mark.parametrize("state", State)
@given(attempts=ATTEMPTS, wish=st.sampled_from(Wish))
def test_the_rows_that_are_not_looked_up_are_those_of_the_table(state: State, attempts: int, wish: Wish) -> None:
    if state is State.HERE:
        short, looked_up = (life(state, attempts=attempts, wish=wish) for _ in range(2))
        short.sent()
        assert (looked_up.on(Event.SENT) is Action.SEND_CANCEL) == bool(short.wish)
        assert short.state is looked_up.state
    else:
        short, looked_up = (life(state, attempts=attempts, wish=wish) for _ in range(2))
        assert short.answered() == (looked_up.on(Event.ANSWERED) is Action.SETTLE)
        assert short.state is looked_up.state


# -- the rule of retries


@pytest.mark.parametrize("event", AGAIN_OR_NOT)
@given(attempts=ATTEMPTS, force=st.booleans())
def test_a_cancelled_call_is_never_sent_again(event: Event, attempts: int, force: bool) -> None:
    call = life(attempts=attempts)
    cancel(call, force)
    assert call.on(event) in (Action.END_CANCELLED, Action.FAIL)
    assert call.done
    assert call.attempts_left == attempts


@pytest.mark.parametrize("event", AGAIN_OR_NOT)
@given(attempts=ATTEMPTS)
def test_what_counts_takes_one_attempt_and_what_does_not_takes_none(event: Event, attempts: int) -> None:
    call = life(attempts=attempts)
    again = call.on(event) is Action.AGAIN
    assert again == (event is Event.UNBEGUN or attempts != 0)
    assert call.may_have_run == (again and event in RAN)
    taken = event in (Event.LOST, Event.DIED, Event.RAISED) and attempts > 0
    assert call.attempts_left == attempts - taken


@given(attempts=st.integers(0, 20))
def test_a_call_runs_as_often_as_its_attempts_and_once_more(attempts: int) -> None:
    call = life(State.HERE, attempts=attempts)
    runs = 0
    while not call.done:
        call.sent()
        runs += 1
        if call.on(Event.LOST) is Action.REPORT:
            call.on(Event.GIVEN_UP)
    assert runs == attempts + 1


@given(attempts=st.sampled_from([0, 1, 2, 3, 20, -1]), others=st.lists(st.sampled_from([Event.UNBEGUN, Event.UNHEARD])))
def test_a_call_under_which_three_workers_in_a_row_died_is_not_sent_again(attempts: int, others: list[Event]) -> None:
    call = life(State.HERE, attempts=attempts)
    deaths = 0
    while not call.done:
        if call.attempts_left:
            for event in others:
                # Neither says anything of what its worker died of.
                call.sent()
                assert call.on(event) is Action.AGAIN
        call.sent()
        deaths += 1
        call.came_back(Event.DIED)
    assert deaths == min(MOST_DEATHS, attempts + 1 if attempts >= 0 else MOST_DEATHS)


def test_one_that_came_to_an_end_between_has_not_killed_its_workers_in_a_row() -> None:
    call = life(attempts=-1)
    call.terms = True
    for _ in range(5):
        for event in (Event.DIED, Event.DIED):
            assert call.on(event) is Action.AGAIN
            call.sent()
        assert call.raised(lambda: None) is Action.AGAIN
        call.sent()
    # A link that is lost says nothing of a death.
    for _ in range(5):
        assert call.on(Event.LOST) is Action.AGAIN
        call.sent()


def test_the_third_death_is_the_last_also_once_it_was_looked_into() -> None:
    call = life(attempts=-1)
    for _ in range(2):
        assert call.on(Event.DIED) is Action.AGAIN
        call.sent()
    assert call.on(Event.DIED) is Action.REPORT
    assert call.on(Event.LOST) is Action.REPORT
    assert call.came_back(Event.LOST) is Action.FAIL


# -- limits, pauses and errors that are not repeated for


def limited(state: State = State.AWAY, *, attempts: int = 0, wish: Wish = Wish.NONE, **policy: Any) -> CallLife:
    call = life(state, attempts=attempts, wish=wish)
    call.terms = CallTerms(Limits(1.0, 1.0, RetryPolicy(**policy)), True, lambda: 0.5)
    return call


@pytest.mark.parametrize(
    ("state", "limit", "action"),
    [
        (State.HERE, Limit.TIMEOUT, Action.END_CANCELLED),
        (State.HERE, Limit.START, Action.END_CANCELLED),
        (State.AWAY, Limit.TIMEOUT, Action.CUT),
        (State.AWAY, Limit.START, Action.WITHDRAW),
        (State.ENDED, Limit.TIMEOUT, Action.NOTHING),
        (State.ENDED, Limit.START, Action.NOTHING),
    ],
)
def test_what_a_limit_that_is_over_does(state: State, limit: Limit, action: Action) -> None:
    call = limited(state)
    assert call.on_late(limit) is action
    assert call.ended_by is (None if state is State.ENDED else limit)
    assert life(state).on_late(limit) is Action.NOTHING


def test_one_that_has_begun_before_is_not_late_to_begin() -> None:
    call = limited(attempts=1)
    call.on(Event.LOST)
    assert call.on_late(Limit.START) is Action.NOTHING
    assert call.on_late(Limit.TIMEOUT) is Action.END_CANCELLED
    assert call.terms.began  # pyright: ignore[reportAttributeAccessIssue]


def test_one_that_is_taken_back_ends_by_its_limit_whatever_crosses() -> None:
    for event in (Event.WITHDRAWN, Event.UNBEGUN):
        call = limited(attempts=1)
        call.on_late(Limit.START)
        assert call.on(event) is Action.END_CANCELLED
        assert call.ended_by is Limit.START
        asked = limited(attempts=1)
        asked.on_late(Limit.START)
        cancel(asked, False)
        assert asked.on(event) is Action.END_CANCELLED
        assert asked.ended_by is None


def test_one_that_has_begun_after_all_goes_on() -> None:
    call = limited(attempts=2)
    call.on_late(Limit.START)
    assert call.on(Event.RAISED) is Action.PAUSE
    call.sent()
    assert call.on(Event.UNBEGUN) is Action.AGAIN
    call.sent()
    assert call.on(Event.ANSWERED) is Action.SETTLE


def test_only_what_may_have_run_pauses_and_each_pause_is_longer_than_the_one_before() -> None:
    call = limited(attempts=-1, pause_s=1.0, growth=3.0, longest_pause_s=20.0)
    pauses: list[float] = []
    for event in (Event.RAISED, Event.LOST, Event.UNBEGUN, Event.DIED, Event.UNHEARD, Event.RAISED):
        action = call.on(event)
        assert action is (Action.AGAIN if event is Event.UNBEGUN else Action.PAUSE)
        if action is Action.PAUSE:
            pauses.append(call.pause_s)
        call.sent()
    assert pauses == [1.0, 3.0, 9.0, 20.0, 20.0]
    assert limited(attempts=1, pause_s=0.0).on(Event.RAISED) is Action.AGAIN


@given(
    policy=st.builds(RetryPolicy, st.floats(0, 1e9), st.floats(1, 1e9), st.floats(0, 1e9), st.floats(0, 1)),
    repeated=st.integers(0, 10**6),
    chance=st.floats(0, 1),
)
def test_a_pause_is_a_time_that_keeps_to_its_bounds(policy: RetryPolicy, repeated: int, chance: float) -> None:
    pause = pause_after(policy, repeated, chance)
    assert 0 <= pause <= policy.longest_pause_s * (1 + policy.jitter) * 1.0001
    middle = pause_after(policy, repeated, 0.5)
    assert abs(pause - middle) <= middle * policy.jitter * 1.0001


def test_errors_that_are_excepted_are_not_repeated_for() -> None:
    every = limited(attempts=3, never_for=(LookupError,))
    assert every.raised(lambda: OSError(1)) is Action.PAUSE
    every.sent()
    assert every.raised(lambda: KeyError(1)) is Action.FAIL
    named = limited(attempts=3, never_for=(KeyError,))
    named.terms.retry_on = (LookupError,)  # pyright: ignore[reportAttributeAccessIssue]
    assert named.raised(lambda: IndexError(1)) is Action.PAUSE
    named.sent()
    assert named.raised(lambda: TaskError("f", 1, None, "", KeyError(1))) is Action.FAIL


def test_a_loss_that_is_looked_into_is_asked_of_again() -> None:
    call = life()
    assert call.on(Event.LOST) is Action.REPORT
    assert call.on(Event.LOST) is Action.REPORT
    # Cancelled while the callee's end was looked into.
    assert cancel(call, False) is Action.SEND_CANCEL
    assert call.on(Event.LOST) is Action.END_CANCELLED


def test_what_came_back_is_sent_again_or_ends_with_what_has_become_of_its_callee() -> None:
    assert life(attempts=1).came_back(Event.LOST) is Action.AGAIN
    assert life().came_back(Event.UNBEGUN) is Action.AGAIN
    spent = life()
    assert spent.came_back(Event.LOST) is Action.FAIL
    assert spent.done
    assert spent.came_back(Event.LOST) is Action.NOTHING
    unwanted = life()
    cancel(unwanted, False)
    assert unwanted.came_back(Event.LOST) is Action.END_CANCELLED


def test_only_named_errors_are_repeated_for_and_none_is_read_in_vain() -> None:
    def unread() -> BaseException:
        raise AssertionError("nobody needs to know which error it was")

    assert life(attempts=1).raised(unread) is Action.FAIL
    every = life(attempts=1)
    every.terms = True
    assert every.raised(unread) is Action.AGAIN
    every.sent()
    assert every.raised(unread) is Action.FAIL
    for error, named, action in [
        (KeyError(1), (LookupError,), Action.AGAIN),
        (KeyError(1), (OSError, ValueError), Action.FAIL),
        (TaskError("f", 1, None, "", TaskError("g", 1, None, "", KeyError(1))), (KeyError,), Action.AGAIN),
        (TaskError("f", 1, None, "", OSError(1)), (KeyError,), Action.FAIL),
        (None, (Exception,), Action.FAIL),
    ]:
        call = life(attempts=3)
        call.terms = named
        assert call.raised(lambda error=error: error) is action, error
        assert call.attempts_left == 3 - (action is Action.AGAIN)


@given(asked=st.lists(st.booleans(), min_size=1))
def test_what_was_asked_with_force_stays_so(asked: list[bool]) -> None:
    call = life()
    for force in asked:
        call.ask(force)
    assert call.wish is (Wish.FORCE if any(asked) else Wish.CANCEL)


# -- histories


@dataclass
class Callee:
    """A worker that takes its messages in order and runs one call at a time; its link keeps the order both ways."""

    inbox: deque[tuple[str, int]] = field(default_factory=deque[tuple[str, int]])
    outbox: deque[tuple[Event, int]] = field(default_factory=deque[tuple[Event, int]])
    running: int | None = None
    # What it has not begun, in order, and what it was told to cancel.
    queued: list[int] = field(default_factory=list[int])
    cancelled: set[int] = field(default_factory=set[int])
    # In the order in which it began them.
    begun: list[int] = field(default_factory=list[int])
    # It has stopped what it ran though no caller asked: its end will follow.
    ending: bool = False


class Histories(RuleBasedStateMachine):
    """A caller with some calls and two callees, and whatever may happen between them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[CallLife] = []
        self.allowed: list[int] = []
        self.runs: list[int] = []
        self.counted: list[int] = []
        self.unheard: list[int] = []
        self.ends: list[list[Action]] = []
        self.asked: list[bool] = []
        self.callees = [Callee(), Callee()]
        # The callee that each call is with, as its caller knows it.
        self.at: dict[int, Callee] = {}
        self.values: list[int] = []
        self.pausing: set[int] = set()
        # Another thread of the caller that wants a call cancelled: it has seen where the call was; and it has sent the
        # cancellation there, and left it to the loop to look whether the call still was.
        self.seen: deque[tuple[int, Callee]] = deque()
        self.sent: deque[tuple[int, Callee, bool]] = deque()

    # what the caller does

    @initialize(calls=st.lists(st.tuples(st.sampled_from([0, 1, 1, 3, -1]), st.booleans()), min_size=3, max_size=6))
    def make(self, calls: list[tuple[int, bool]]) -> None:
        for attempts, retry in calls:
            call = CallLife()
            call.attempts_left, call.terms = attempts, retry
            if len(self.calls) % 2:
                call.terms = CallTerms(Limits(1.0, 1.0, RetryPolicy()), retry, lambda: 0.5)
            self.calls.append(call)
            self.allowed.append(attempts)
            for counts in (self.runs, self.counted, self.unheard, self.values):
                counts.append(0)
            self.ends.append([])
            self.asked.append(False)
        # Some are under way at once.
        for number in range(3):
            self.push(number, self.callees[number % 2])

    @rule(moves=st.lists(st.tuples(st.integers(0, 3), INDEX), min_size=1, max_size=12))
    def go_on(self, moves: list[tuple[int, int]]) -> None:
        """What mostly happens: calls are sent, begun, answered, and their answers come."""
        for move, which in moves:
            (self.send, self.take, self.finish, self.hear)[move](which)

    def send(self, which: int) -> None:
        here = [n for n, call in enumerate(self.calls) if call.state is State.HERE and n not in self.pausing]
        if here:
            self.push(here[which % len(here)], self.callees[which % 2])

    def push(self, number: int, callee: Callee) -> None:
        call = self.calls[number]
        assert not self.asked[number], "what its caller knows to be cancelled is not sent"
        call.sent()
        self.at[number] = callee
        if number in callee.begun:
            callee.begun.remove(number)
        callee.inbox.append(("call", number))
        if call.wish:
            callee.inbox.append(("cancel", number))

    @rule(number=INDEX, force=st.booleans())
    def cancel(self, number: int, force: bool) -> None:
        number %= len(self.calls)
        self.asked[number] = True
        self.act(number, cancel(self.calls[number], force))

    @rule(number=INDEX, limit=st.sampled_from(Limit))
    def late(self, number: int, limit: Limit) -> None:
        number %= len(self.calls)
        self.act(number, self.calls[number].on_late(limit))

    @precondition(lambda self: self.pausing)
    @rule()
    def go_on_after_pauses(self) -> None:
        self.pausing.clear()

    @precondition(lambda self: self.at)
    @rule(number=INDEX)
    def see(self, number: int) -> None:
        self.seen.append(list(self.at.items())[number % len(self.at)])

    @precondition(lambda self: self.seen)
    @rule(force=st.booleans())
    def ask(self, force: bool) -> None:
        number, callee = self.seen.popleft()
        self.calls[number].ask(force)
        callee.inbox.append(("cancel", number))
        self.sent.append((number, callee, force))

    @precondition(lambda self: self.sent)
    @rule()
    def look_whether_it_has_moved(self) -> None:
        number, callee, force = self.sent.popleft()
        if self.at.get(number) is not callee:
            self.act(number, cancel(self.calls[number], force))
        self.asked[number] = True

    def act(self, number: int, action: Action) -> None:
        match action:
            case Action.AGAIN | Action.PAUSE:
                assert not self.asked[number]
                del self.at[number]
                if action is Action.PAUSE:
                    self.pausing.add(number)
            case Action.WITHDRAW:
                self.at[number].inbox.append(("withdraw", number))
            case Action.CUT:
                self.at[number].inbox.append(("cancel", number))
                self.ends[number].append(action)
                del self.at[number]
            case Action.SEND_CANCEL:
                self.at[number].inbox.append(("cancel", number))
            case Action.SETTLE | Action.FAIL | Action.END_CANCELLED:
                self.ends[number].append(action)
                self.at.pop(number, None)
            case Action.REPORT:
                self.act(number, self.calls[number].on(Event.GIVEN_UP))
            case Action.WAIT | Action.NOTHING:
                pass

    def hear(self, which: int) -> None:
        """The next message of a callee comes."""
        callee = self.callees[which % 2]
        if callee.outbox:
            self.heard(callee, *callee.outbox.popleft())

    def heard(self, callee: Callee, event: Event, number: int) -> None:
        assert self.at.get(number) is callee or self.calls[number].done
        call = self.calls[number]
        if event is Event.RAISED:
            action = call.raised(ValueError)
            self.counted[number] += action in (Action.AGAIN, Action.PAUSE)
        else:
            action = call.on(event)
        if action is Action.SETTLE:
            assert self.values[number], "a value that nobody made"
        self.act(number, action)
        assert call.done or not (event is Event.STOPPED and self.asked[number])
        if call.done:
            # A message that comes twice, or behind the end, finds nothing to do.
            assert call.on(event) is Action.NOTHING

    # what a callee does

    def take(self, which: int) -> None:
        """A callee takes its next message, and begins the call in front if it runs none."""
        callee = self.callees[which % 2]
        if not callee.inbox:
            return
        what, number = callee.inbox.popleft()
        if what == "call":
            callee.queued.append(number)
        elif number in callee.queued:
            callee.queued.remove(number)
            callee.outbox.append((Event.STOPPED if what == "cancel" else Event.WITHDRAWN, number))
        elif number == callee.running and what == "cancel":
            callee.cancelled.add(number)
        self.begin(callee)

    def begin(self, callee: Callee) -> None:
        if callee.running is not None or not callee.queued:
            return
        callee.running = number = callee.queued.pop(0)
        callee.begun.append(number)
        self.runs[number] += 1

    def finish(self, which: int) -> None:
        how = (Event.ANSWERED, Event.RAISED, Event.FAILED)[which // 2]
        self.end(self.callees[which % 2], how)

    def end(self, callee: Callee, how: Event) -> None:
        number, callee.running = callee.running, None
        if number is not None:
            if number in callee.cancelled:
                callee.cancelled.discard(number)
                how = Event.STOPPED
            self.values[number] += how is Event.ANSWERED
            callee.outbox.append((how, number))
            self.begin(callee)

    @rule(which=INDEX)
    def give_back(self, which: int) -> None:
        """The call in front blocks: those behind it go back unbegun."""
        callee = self.callees[which % 2]
        for number in callee.queued:
            callee.outbox.append((Event.UNBEGUN, number))
        callee.queued.clear()

    @rule(which=INDEX)
    def stop_unasked(self, which: int) -> None:
        """A callee that is being ended cancels what it runs, though no caller asked."""
        callee = self.callees[which % 2]
        callee.ending = True
        self.end(callee, Event.STOPPED)

    # what happens to both

    @precondition(lambda self: self.at)
    @rule(which=st.integers(0, 1), dies=st.booleans())
    def lose(self, which: int, dies: bool) -> None:
        """A callee dies, and all messages on their way with it."""
        callee = self.callees[which]
        self.callees[which] = Callee()
        culprit = callee.begun[-1] if callee.begun else None
        for number in [number for number, at in self.at.items() if at is callee]:
            call = self.calls[number]
            event = Event.UNBEGUN if number not in callee.begun else Event.UNHEARD
            if number == culprit:
                event = Event.DIED if dies else Event.LOST
            action = call.on(event)
            if action in (Action.AGAIN, Action.PAUSE):
                self.counted[number] += event in (Event.LOST, Event.DIED)
                self.unheard[number] += event is Event.UNHEARD
            self.act(number, action)

    @invariant()
    def each_call_ends_once(self) -> None:
        for call, ends in zip(self.calls, self.ends, strict=True):
            assert len(ends) == call.done

    @invariant()
    def one_that_is_late_to_begin_has_not_run(self) -> None:
        for call, runs, ends in zip(self.calls, self.runs, self.ends, strict=True):
            assert not (ends == [Action.END_CANCELLED] and call.ended_by is Limit.START and runs)
            assert call.deaths <= MOST_DEATHS

    @invariant()
    def each_retry_counts_once(self) -> None:
        for call, allowed, counted in zip(self.calls, self.allowed, self.counted, strict=True):
            assert call.attempts_left == (allowed if allowed < 0 else allowed - counted)
            assert allowed < 0 or counted <= allowed

    @invariant()
    def no_call_runs_more_often_than_it_may(self) -> None:
        for number, allowed in enumerate(self.allowed):
            if allowed >= 0:
                assert self.runs[number] <= 1 + self.counted[number] + self.unheard[number]
            if allowed == 0:
                assert self.runs[number] <= 1
            # A call that ran and is to be sent again is known to have run.
            call = self.calls[number]
            if call.state is State.HERE and self.runs[number]:
                assert call.may_have_run

    @invariant()
    def no_cancellation_is_lost(self) -> None:
        for number, callee in self.at.items():
            if self.calls[number].wish and all(number != one for one, *_ in (*self.seen, *self.sent)):
                inbox = list(callee.inbox)
                behind = inbox[inbox.index(("call", number)) :] if ("call", number) in inbox else inbox
                over = callee.ending or any(number == one for _, one in callee.outbox)
                assert ("cancel", number) in behind or number in callee.cancelled or over

    def teardown(self) -> None:
        """In the end every call has ended: no caller waits for ever."""
        for which in (0, 1):
            self.lose(which, False)
        self.each_retry_counts_once()
        self.no_call_runs_more_often_than_it_may()
        for number, call in enumerate(self.calls):
            if call.state is State.HERE:
                self.act(number, call.on(Event.GIVEN_UP))
            assert call.done
        self.each_call_ends_once()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200 * DEPTH, stateful_step_count=40, deadline=None)
