"""The life of an actor: each pair of state and event has a row or is refused, and no history leads out of the table."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.lifecycle import (
    CAUSES,
    FAILURE_BYTES,
    LAST_LIFE,
    LOSSES,
    TABLE,
    Action,
    Answer,
    Death,
    Event,
    Lifecycle,
    State,
    TransitionError,
    Until,
)

# What its owner never does: a place is only given to an actor that waits for one, and so on.
REFUSED = {
    (State.STARTING, Event.PLACED),
    (State.STARTING, Event.UNPLACEABLE),
    (State.STARTING, Event.UNMAKEABLE),
    (State.ALIVE, Event.PLACED),
    (State.ALIVE, Event.STARTED),
    (State.ALIVE, Event.FAILED),
    (State.ALIVE, Event.CANCELLED),
    (State.ALIVE, Event.UNPLACEABLE),
    (State.ALIVE, Event.UNMAKEABLE),
    # Its constructor has returned.
    (State.ALIVE, Event.TURNED_AWAY),
}
PATHS: dict[State, tuple[Event, ...]] = {
    State.PLACING: (),
    State.STARTING: (Event.PLACED,),
    State.ALIVE: (Event.PLACED, Event.STARTED),
    State.DEAD: (Event.ENDED,),
}


def brought_to(state: State, restarts: int) -> Lifecycle:
    life = Lifecycle(restarts)
    for event in PATHS[state]:
        life.on(event)
    assert life.state is state
    return life


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_a_row_or_is_refused(state: State, event: Event) -> None:
    life = brought_to(state, 1)
    if (state, event) in REFUSED:
        with pytest.raises(TransitionError, match=f"{event.name} cannot happen while {state.name}"):
            life.on(event)
        assert life.state is state
    elif (state, event) not in LOSSES:
        assert (life.state, life.on(event)) == (state, TABLE[state, event][1])
        assert life.state is TABLE[state, event][0]


@pytest.mark.parametrize(("state", "event"), list(LOSSES))
@pytest.mark.parametrize("restarts", [0, 1, -1])
def test_a_loss_has_a_row_for_an_actor_with_restarts_left_and_one_for_others(
    state: State, event: Event, restarts: int
) -> None:
    life = brought_to(state, restarts)
    after, actions = LOSSES[state, event].left if restarts else LOSSES[state, event].spent
    assert life.on(event) == actions
    assert life.state is after
    assert after is (State.PLACING if restarts else State.DEAD)
    # One that was never anywhere has no life that ends.
    assert life.incarnation == (restarts != 0 or state is not State.PLACING)
    assert life.restarts_left == min(restarts, 0)


@pytest.mark.parametrize("state", [State.STARTING, State.ALIVE])
def test_a_loss_is_survived_as_often_as_restarts_allow(state: State) -> None:
    life = brought_to(state, 2)
    for incarnation in (1, 2):
        assert life.on(Event.LOST) == (Action.LEAVE_PLACE, Action.PLACE_AGAIN)
        assert life.incarnation == incarnation
        life.on(Event.PLACED)
    assert life.on(Event.LOST) == (Action.BURY,)
    assert life.state is State.DEAD


def test_a_kill_counts_also_while_the_actor_waits_for_a_place() -> None:
    life = brought_to(State.ALIVE, 2)
    for event in (Event.KILLED, Event.LOST, Event.KILLED, Event.LOST):
        life.on(event)
    assert (life.state, life.incarnation, life.restarts_left) == (State.PLACING, 2, 0)
    assert life.on(Event.KILLED) == (Action.BURY,)
    assert life.state is State.DEAD


@pytest.mark.parametrize("state", [State.STARTING, State.ALIVE])
def test_a_killed_actor_leaves_its_place_at_once_and_comes_back_without_a_pause(state: State) -> None:
    assert brought_to(state, 1).on(Event.KILLED) == (Action.STOP_WORKER, Action.LEAVE_PLACE, Action.PLACE)
    assert brought_to(state, 0).on(Event.KILLED) == (Action.STOP_WORKER, Action.BURY)


def test_one_that_is_held_no_more_finishes_what_it_was_called_for_and_one_that_was_killed_does_not() -> None:
    for event, action in (
        (Event.UNHELD, Action.LET_FINISH),
        (Event.LEFT, Action.LET_FINISH),
        (Event.ENDED, Action.STOP_WORKER),
    ):
        assert brought_to(State.ALIVE, 1).on(event)[0] is action


def test_the_constructor_of_one_that_is_held_no_more_is_not_cut_short() -> None:
    life = brought_to(State.STARTING, 1)
    assert life.on(Event.UNHELD) == ()
    assert Action.OPEN in life.on(Event.STARTED)
    assert life.on(Event.UNHELD) == (Action.LET_FINISH, Action.FORGET, Action.BURY)
    # Its death is no news to anybody.
    assert life.on(Event.UNHELD) == (Action.REMEMBER,)


def test_restarts_without_limit_are_not_used_up() -> None:
    life = Lifecycle(-1)
    for _ in range(100):
        life.on(Event.PLACED)
        assert life.on(Event.LOST) == (Action.LEAVE_PLACE, Action.PLACE_AGAIN)
    assert life.restarts_left == -1


@given(restarts=st.integers(-1, 3), events=st.lists(st.sampled_from(Event), max_size=40))
def test_whatever_happens_it_dies_once_and_stays_dead(restarts: int, events: list[Event]) -> None:
    life = Lifecycle(restarts)
    burials = 0
    for event in events:
        was_dead, incarnation = life.state is State.DEAD, life.incarnation
        try:
            actions = life.on(event)
        except TransitionError:
            assert (life.state, event) in REFUSED
            continue
        burials += Action.BURY in actions
        assert life.incarnation >= incarnation
        assert not was_dead or life.state is State.DEAD
        # Placed, started and opened only from where that makes sense.
        assert (Action.SEND_START in actions) <= (life.state is State.STARTING)
        assert (Action.OPEN in actions) <= (life.state is State.ALIVE)
        placed = {Action.PLACE, Action.PLACE_AGAIN} & set(actions)
        assert bool(placed) <= (life.state is State.PLACING)
        # It leaves its place before it has another.
        assert not placed or actions[-2:-1] == (Action.LEAVE_PLACE,)
    assert burials == (life.state is State.DEAD)


def test_a_refusal_tells_what_came_before() -> None:
    life = Lifecycle(3)
    for event in (Event.PLACED, Event.STARTED, Event.LOST, Event.PLACED):
        life.on(event)
    with pytest.raises(TransitionError, match=r"ALIVE --LOST--> PLACING, PLACING --PLACED--> STARTING"):
        life.on(Event.UNPLACEABLE)


def test_the_table_names_only_pairs_that_exist() -> None:
    assert set(TABLE) | REFUSED | set(LOSSES) == set(itertools.product(State, Event))
    assert not set(TABLE) & (REFUSED | set(LOSSES))
    assert not REFUSED & set(LOSSES)


@pytest.mark.parametrize("restarts", [0, 1, -1])
def test_what_a_start_takes_is_dropped_once_there_will_be_no_other(restarts: int) -> None:
    life = brought_to(State.STARTING, restarts)
    assert life.on(Event.STARTED) == ((Action.OPEN,) if restarts else (Action.DROP_START, Action.OPEN))
    assert all(TABLE[pair][0] is row[0] for pair, row in LAST_LIFE.items())


def test_a_place_that_comes_too_late_goes_back() -> None:
    assert brought_to(State.DEAD, 1).on(Event.PLACED) == (Action.LEAVE_PLACE,)


@given(
    restarts=st.integers(-1, 3),
    events=st.lists(st.tuples(st.sampled_from(Event), st.integers(0, 4), st.integers(0, 4)), max_size=40),
)
def test_what_belongs_to_an_earlier_life_or_an_earlier_start_changes_nothing(
    restarts: int, events: list[tuple[Event, int, int]]
) -> None:
    life = Lifecycle(restarts)
    for number, (event, incarnation, start) in enumerate(events):
        before = (life.state, life.incarnation, life.restarts_left)
        late = incarnation != life.incarnation or start != life.starting
        try:
            actions = life.on(event, incarnation=incarnation, start=start)
        except TransitionError:
            assert not late
            continue
        assert not late or (actions == () and before == (life.state, life.incarnation, life.restarts_left))
        if Action.SEND_START in actions:
            life.sent(number)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("until", Until)
@pytest.mark.parametrize("seen", [-1, 0])
def test_who_asks_where_an_actor_is_hears_of_a_later_life_than_the_one_seen(
    state: State, until: Until, seen: int
) -> None:
    answer = brought_to(state, 1).answer(seen, until)
    if state is State.DEAD:
        assert answer is Answer.DEATH
    elif until is Until.NOW:
        assert answer is Answer.PLACE
    elif seen == 0:
        assert answer is Answer.WAIT
    else:
        assert (answer is Answer.PLACE) == (until is Until.FATE or state is State.ALIVE)


@pytest.mark.parametrize(
    ("state", "event", "phase"),
    [
        (State.PLACING, Event.UNMAKEABLE, "being created"),
        (State.PLACING, Event.UNPLACEABLE, "being placed"),
        (State.PLACING, Event.ENDED, "being placed"),
        (State.PLACING, Event.KILLED, "being placed"),
        (State.PLACING, Event.LEFT, "running"),
        (State.STARTING, Event.FAILED, "starting"),
        (State.STARTING, Event.CANCELLED, "starting"),
        (State.STARTING, Event.LOST, "starting"),
        (State.STARTING, Event.KILLED, "running"),
        (State.ALIVE, Event.LOST, "running"),
        (State.ALIVE, Event.ABSENT, "running"),
        (State.ALIVE, Event.ENDED, "running"),
        (State.ALIVE, Event.UNHELD, "idle"),
    ],
)
def test_a_death_tells_what_the_actor_was_doing(state: State, event: Event, phase: str) -> None:
    life = brought_to(state, 0)
    life.on(event, "" if event in CAUSES else "why", b"error")
    assert life.death == Death(CAUSES.get(event, "why"), phase, b"error")
    # The first one counts.
    life.on(Event.ENDED)
    assert life.death == Death(CAUSES.get(event, "why"), phase, b"error")


def test_a_long_error_is_not_kept_for_those_who_may_never_ask() -> None:
    short, long = Death("why", "starting", b"e" * FAILURE_BYTES), Death("why", "starting", b"e" * (FAILURE_BYTES + 1))
    assert short.in_short() is short
    assert long.in_short() == Death("why", "starting")
