"""The caller's side of an actor: every row, the order in which calls leave, and what a loss means for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core import calls
from actorrt.core.actor_calls import (
    FIRST_LOOK_S,
    LONGEST_LOOK_S,
    SENDING,
    TABLE,
    WINDOW,
    Action,
    ActorCalls,
    Event,
    State,
    TransitionError,
    look_again_after,
    may_live,
    sort,
    traits_of,
)
from actorrt.core.calls import CallLife
from actorrt.exceptions import PendingCallsLimitExceeded

# What a caller never hears: only an actor that is asked about is found, and only a supervisor of this process moves it.
REFUSED: Final = {
    *((State.UNKNOWN, event) for event in (Event.FOUND, Event.UNREACHABLE, Event.UNANSWERED, Event.MOVED)),
    *((State.UNKNOWN, event) for event in (Event.DISPLACED, Event.LOST, Event.ABSENT)),
    *((State.RESOLVING, event) for event in (Event.OWNED, Event.MOVED, Event.DISPLACED, Event.LOST, Event.ABSENT)),
    *((State.PLACED, event) for event in (Event.OWNED, Event.FOUND, Event.UNREACHABLE, Event.UNANSWERED)),
    *((State.PLACED, event) for event in (Event.MOVED, Event.DISPLACED)),
    *((State.RESTARTING, event) for event in (Event.OWNED, Event.FOUND, Event.UNREACHABLE, Event.UNANSWERED)),
    *((State.RESTARTING, event) for event in (Event.LOST, Event.ABSENT, Event.KILLED)),
    *((State.RUNNING, event) for event in (Event.OWNED, Event.FOUND, Event.UNREACHABLE, Event.UNANSWERED)),
    (State.RUNNING, Event.KILLED),
    (State.DEAD, Event.OWNED),
}
NUMBERS: Final = itertools.count(1)


class Way:
    def __init__(self) -> None:
        self.closed = False


class Call(CallLife):
    """One call, whose arguments are there unless they are `waiting`."""

    def __init__(self, *, waiting: bool = False, attempts: int = 0) -> None:
        super().__init__()
        self.number = next(NUMBERS)
        self.incarnation = -1
        self.waiting: object = True if waiting else None
        self.attempts_left = attempts

    def __repr__(self) -> str:
        return f"call {self.number}"


Actor = ActorCalls[Call, Way]


def actor(
    state: State = State.PLACED, *, ordered: bool = False, window: int = WINDOW + 1, max_pending: int = -1
) -> Actor:
    made: Actor = ActorCalls("Actor", traits_of(ordered, window - WINDOW, 0, max_pending))
    if state in (State.RESTARTING, State.RUNNING):
        made.on(Event.OWNED)
    match state:
        case State.RESOLVING:
            made.on(Event.WANTED)
        case State.PLACED:
            made.on(Event.WANTED)
            made.found(Way(), 0)
        case State.RUNNING:
            made.moved(Way(), 0)
        case State.DEAD:
            made.on(Event.DIED)
        case _:
            pass
    assert made.state is state
    return made


def make(client: Actor, count: int = 1, *, waiting: bool = False, attempts: int = 0) -> list[Call]:
    """So many calls, each sent or queued."""
    made = [Call(waiting=waiting, attempts=attempts) for _ in range(count)]
    for call in made:
        if client.admit(call) is not None:
            call.sent()
        else:
            client.enqueue(call)
    return made


def leave(client: Actor) -> list[Call]:
    """The calls that leave now."""
    left: list[Call] = []
    while (call := client.next_to_send()) is not None:
        call.sent()
        left.append(call)
    return left


def arrive(client: Actor, call: Call) -> None:
    """The arguments of a call."""
    call.waiting = None
    client.resolved(call)


def link_of(client: Actor) -> Way:
    assert client.link is not None
    return client.link


# -- the table


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_a_row_or_an_error_that_names_both(state: State, event: Event) -> None:
    client = actor(state)
    if (state, event) in REFUSED:
        with pytest.raises(TransitionError, match=f"{event.name} cannot happen to Actor while it is {state.name}"):
            client.on(event)
        assert client.state is state
        return
    after, action = TABLE[state, event]
    assert client.on(event) is action
    assert client.state is after


def test_the_table_has_a_row_for_each_pair_that_exists() -> None:
    assert set(TABLE) | REFUSED == set(itertools.product(State, Event))
    assert not set(TABLE) & REFUSED


@given(own=st.booleans(), events=st.lists(st.sampled_from(Event), max_size=30))
def test_an_actor_has_a_link_only_where_calls_are_sent_and_dies_for_good(own: bool, events: Iterable[Event]) -> None:
    client = actor(State.RESTARTING if own else State.UNKNOWN)
    for event in events:
        if (client.state, event) in REFUSED or event is Event.OWNED:
            continue
        was_dead = client.state is State.DEAD
        match event:
            case Event.FOUND:
                client.found(Way(), 0)
            case Event.MOVED:
                client.moved(Way(), 0)
            case _:
                client.on(event)
        assert (client.link is not None) == (client.state in SENDING)
        assert not was_dead or client.state is State.DEAD
        assert own != (client.state in (State.UNKNOWN, State.RESOLVING, State.PLACED)) or client.state is State.DEAD


# -- order


def test_a_call_to_a_known_place_leaves_at_once_and_knows_which_life_it_goes_to() -> None:
    client = actor(State.UNKNOWN)
    client.on(Event.WANTED)
    client.found(Way(), 7)
    call = Call()
    assert client.admit(call) is client.link
    assert (call.incarnation, client.inflight) == (7, 1)
    assert not client.is_waiting


@pytest.mark.parametrize("own", [False, True])
def test_calls_wait_in_order_until_there_is_a_place(own: bool) -> None:
    client = actor(State.RESTARTING if own else State.UNKNOWN)
    made = make(client, 3)
    assert client.is_waiting
    assert client.wanted() is (Action.NOTHING if own else Action.ASK)
    assert client.wanted() is Action.NOTHING
    assert leave(client) == []
    assert (client.moved(Way(), 0) if own else client.found(Way(), 0)) is Action.SEND
    assert leave(client) == made
    assert client.wanted() is Action.NOTHING
    assert not client.is_waiting


def test_only_the_first_of_a_backlog_and_what_needs_arguments_has_to_be_looked_at() -> None:
    client = actor(State.RESOLVING)
    assert client.enqueue(Call())
    assert not client.enqueue(Call())
    assert client.enqueue(Call(waiting=True))


def test_no_more_calls_than_the_window_are_under_way() -> None:
    client = actor(window=WINDOW + 2)
    make(client, WINDOW + 5)
    assert client.inflight == WINDOW + 2
    assert leave(client) == []
    assert client.answered(2)
    assert len(leave(client)) == 2
    assert client.answered(2)
    assert len(leave(client)) == 1
    assert not client.answered(1)


def test_nothing_overtakes_a_backlog() -> None:
    client = actor(window=WINDOW + 1)
    make(client, WINDOW + 2)
    client.answered(1)
    late = Call()
    assert client.admit(late) is None
    assert not client.enqueue(late)
    client.answered(1)
    assert leave(client)[-1] is late


def test_an_ordered_actor_waits_for_the_arguments_of_its_first_call() -> None:
    client = actor(ordered=True)
    (first,) = make(client, waiting=True)
    behind = make(client, 2)
    assert leave(client) == []
    assert client.next_to_resolve() is first
    assert client.next_to_resolve() is None
    arrive(client, first)
    assert leave(client) == [first, *behind]
    assert not client.is_waiting


def test_calls_overtake_one_that_waits_for_its_arguments_where_order_does_not_count() -> None:
    client = actor()
    (first,) = make(client, waiting=True)
    second, third = make(client, 2)
    assert leave(client) == []
    assert client.next_to_resolve() is first
    assert leave(client) == [second, third]
    assert client.is_waiting
    assert make(client, 1)[0].state is calls.State.AWAY
    arrive(client, first)
    assert leave(client) == [first]
    assert not client.is_waiting


def test_a_call_whose_arguments_failed_makes_way() -> None:
    for ordered in (True, False):
        client = actor(ordered=ordered)
        first, second = make(client, waiting=True)[0], make(client)[0]
        leave(client)
        assert client.next_to_resolve() is first
        first.on(calls.Event.GIVEN_UP)
        client.resolved(first)
        assert leave(client) == [second]
        assert not client.is_waiting


def test_the_limit_of_pending_calls_counts_each_call_once() -> None:
    for ordered in (True, False):
        client = actor(ordered=ordered, max_pending=4)
        make(client, 2)
        make(client, 2, waiting=True)
        leave(client)
        while client.next_to_resolve() is not None:
            leave(client)
        assert client.pending == 4
        with pytest.raises(PendingCallsLimitExceeded):
            client.admit(Call())
        cancelled = Call()
        cancelled.on(calls.Event.CANCEL)
        # Its parent was cancelled in this very moment: there is nothing to refuse.
        assert client.admit(cancelled) is None
        assert not client.enqueue(cancelled)
        assert client.pending == 4


def test_a_closed_link_is_waited_out_until_its_end_is_reported() -> None:
    client = actor()
    link = link_of(client)
    link.closed = True
    call = Call()
    assert client.admit(call) is None
    assert client.enqueue(call)
    assert client.wanted() is Action.SEND
    assert client.next_to_send() is None
    assert client.next_to_resolve() is None
    client.lost(link, [], begun=True, may_live=True)
    assert client.wanted() is Action.ASK
    client.found(Way(), 0)
    assert leave(client) == [call]


# -- the actor is gone


def test_calls_that_are_repeated_go_before_all_that_were_made_after_them() -> None:
    client = actor(window=WINDOW + 1)
    first, second, third = make(client, 3, attempts=1)
    make(client, WINDOW - 2)
    later = make(client, 2)
    link = link_of(client)
    lost = client.lost(link, [third, first, second], begun=True, may_live=False)
    assert (lost.failed, lost.cancelled) == ([], [])
    assert client.wanted() is Action.ASK
    client.found(Way(), 1)
    client.answered(WINDOW - 2)
    assert leave(client) == [first, second, third, *later]
    assert [call.attempts_left for call in (first, second, third)] == [0, 0, 0]


@given(begun=st.booleans(), attempts=st.sampled_from([0, 1, -1]), cancelled=st.booleans())
def test_what_a_loss_means_for_a_call(begun: bool, attempts: int, cancelled: bool) -> None:
    client = actor()
    (call,) = make(client, attempts=attempts)
    if cancelled:
        assert client.cancel(call, False) is calls.Action.SEND_CANCEL
    lost = client.lost(link_of(client), [call], begun=begun, may_live=False)
    again = not cancelled and (attempts != 0 or not begun)
    assert lost == ([call] * again, [call] * (not again and not cancelled), [call] * cancelled, [])
    assert client.is_waiting == again
    assert client.inflight == 0
    assert call.attempts_left == attempts - (again and begun and attempts > 0)


def test_a_call_that_was_cancelled_while_its_loss_was_looked_into_ends_as_cancelled() -> None:
    client = actor()
    kept, left, answered = make(client, 3)
    lost = client.lost(link_of(client), [kept, left, answered], begun=True, may_live=False)
    assert lost.failed == [kept, left, answered]
    client.cancel(left, False)
    answered.on(calls.Event.GIVEN_UP)
    assert sort(lost.failed, calls.Event.LOST) == ([], [kept], [left], [])


def test_what_was_seen_last_is_the_life_that_the_calls_went_to() -> None:
    client = actor()
    (first,) = make(client)
    client.lost(link_of(client), [], begun=True, may_live=False)
    client.on(Event.WANTED)
    client.found(Way(), 3)
    (second,) = make(client)
    assert client.last_seen([first, second], may_live=False) == 3
    assert client.last_seen([first, second], may_live=True) == 2
    assert client.last_seen([first], may_live=True) == -1


def test_the_life_that_an_own_actor_has_lost_is_no_answer() -> None:
    client = actor(State.RUNNING)
    (call,) = make(client)
    client.lost(link_of(client), [call], begun=True, may_live=True)
    assert client.last_seen([call], may_live=True) == call.incarnation


@given(said_goodbye=st.booleans(), has_ended=st.booleans(), node_is_gone=st.booleans())
def test_a_process_without_a_link_may_live_unless_somebody_who_knows_has_said_else(
    said_goodbye: bool, has_ended: bool, node_is_gone: bool
) -> None:
    lives = may_live(said_goodbye=said_goodbye, has_ended=has_ended, node_is_gone=node_is_gone)
    assert lives == (True not in (said_goodbye, has_ended, node_is_gone))


def test_an_actor_that_cannot_be_reached_is_looked_for_again_later_and_later() -> None:
    pauses = [look_again_after(rounds, lives=True) for rounds in range(100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_LOOK_S, LONGEST_LOOK_S)
    # Who knows that its process has ended asks at once: the owner waits for its next life.
    assert look_again_after(5, lives=False) == 0.0


@pytest.mark.parametrize("may_live", [False, True])
def test_who_lost_only_a_link_asks_for_the_same_life_again(may_live: bool) -> None:
    client = actor(State.RESOLVING)
    client.found(Way(), 3)
    client.lost(link_of(client), [], begun=True, may_live=may_live)
    assert client.incarnation == 3 - may_live
    client.on(Event.WANTED)
    assert client.unreachable(5, may_live) is Action.ASK
    assert client.incarnation == 5 - may_live


def test_a_supervisor_knows_itself_where_its_actor_is() -> None:
    client = actor(State.RESTARTING)
    client.moved(Way(), 3)
    client.lost(link_of(client), [], begun=True, may_live=True)
    assert (client.state, client.incarnation) == (State.RESTARTING, 3)
    # It was told of a place, and the link there has ended meanwhile.
    closed = Way()
    closed.closed = True
    assert client.moved(closed, 4) is Action.NOTHING
    assert (client.state, client.incarnation, client.link) == (State.RESTARTING, 4, None)


def test_the_loss_of_an_earlier_link_leaves_the_present_one() -> None:
    client = actor()
    old = link_of(client)
    (call,) = make(client, attempts=1)
    client.on(Event.KILLED)
    client.on(Event.WANTED)
    client.found(Way(), 1)
    client.lost(old, [call], begun=True, may_live=False)
    assert client.state is State.PLACED
    assert leave(client) == [call]
    assert call.incarnation == 1


@pytest.mark.parametrize(
    ("state", "action", "after"),
    [(State.PLACED, Action.NOTHING, State.UNKNOWN), (State.RUNNING, Action.REPORT_ABSENT, State.RUNNING)],
)
def test_a_process_without_the_actor_is_no_place_for_it(state: State, action: Action, after: State) -> None:
    client = actor(state)
    (call,) = make(client)
    found, told = client.absent(link_of(client), call, begun=False)
    assert (found.again, told) == ([call], action)
    assert client.state is after
    assert client.inflight == 0


def test_news_of_an_earlier_life_say_nothing_of_this_one() -> None:
    client = actor()
    old = link_of(client)
    stale, other = make(client, 2)
    client.lost(old, [other], begun=False, may_live=False)
    client.on(Event.WANTED)
    client.found(old, 1)
    # Both lives in one process: the answer about the first comes late.
    found, action = client.absent(old, stale, begun=False)
    assert (found.again, action, client.state) == ([stale], Action.NOTHING, State.PLACED)
    assert leave(client) == [stale, other]
    assert {stale.incarnation, other.incarnation} == {1}


# -- calls end


def test_a_call_that_is_cancelled_before_it_leaves_is_waited_for_no_more() -> None:
    for ordered in (True, False):
        client = actor(ordered=ordered)
        resolves, waits = make(client, 2, waiting=True)
        leave(client)
        assert client.next_to_resolve() is resolves
        for call in (resolves, waits):
            assert client.cancel(call, False) is calls.Action.END_CANCELLED
        client.resolved(resolves)
        assert leave(client) == []
        assert not client.is_waiting


def test_an_actor_is_not_looked_for_when_nothing_waits_for_it_any_more() -> None:
    for state in (State.UNKNOWN, State.RESTARTING):
        client = actor(state)
        (call,) = make(client)
        client.cancel(call, False)
        assert client.wanted() is Action.NOTHING
        assert not client.is_waiting


def test_a_dead_actor_fails_what_waits_and_whatever_is_called_later() -> None:
    for state in State:
        client = actor(state)
        client.enqueue(Call())
        client.on(Event.DIED)
        assert client.wanted() is Action.FAIL
        assert len(client.drain()) == 1
        assert client.wanted() is Action.NOTHING
        (late,) = make(client)
        assert client.wanted() is Action.FAIL
        assert client.drain() == [late]
        assert not client.is_waiting


def test_arguments_that_come_after_the_death_let_their_call_fail() -> None:
    client = actor()
    (call,) = make(client, waiting=True)
    leave(client)
    assert client.next_to_resolve() is call
    client.on(Event.DIED)
    assert client.wanted() is Action.NOTHING
    arrive(client, call)
    assert client.wanted() is Action.FAIL
    assert client.drain() == [call]


def test_closing_gives_every_call_that_has_not_left_once() -> None:
    for ordered in (True, False):
        client = actor(ordered=ordered)
        made = make(client, 2, waiting=True)
        leave(client)
        assert client.next_to_resolve() is made[0]
        made += make(client, 2)
        gone = {call for call in made if call.state is calls.State.AWAY}
        closed = client.close()
        assert len(closed) == len(set(closed))
        assert set(closed) | gone == set(made)
        assert not client.is_waiting
        assert client.close() == []


def test_what_is_repeated_for_its_error_goes_before_what_was_called_later() -> None:
    client = actor(window=WINDOW + 1)
    first = make(client, WINDOW + 1)[0]
    later = make(client, 2)
    client.repeat(first)
    assert leave(client)[:1] == [first]
    client.answered(2)
    assert leave(client) == later


@pytest.mark.parametrize("counted", [True, False])
def test_a_call_whose_maker_was_interrupted_before_it_was_sent_is_not_under_way(counted: bool) -> None:
    client, call = actor(max_pending=1), Call()
    if counted:
        assert client.admit(call) is client.link
    client.not_sent(call)
    assert client.inflight == 0
    assert client.admit(Call()) is client.link
