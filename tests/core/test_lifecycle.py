"""The life of an actor: each pair of state and event has a row or is refused, and no history leads out of the table."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.lifecycle import TABLE, Action, Event, Lifecycle, State, TransitionError

# What its owner never does: a place is only given to an actor that waits for one, and so on.
REFUSED = {
    (State.STARTING, Event.PLACED),
    (State.STARTING, Event.UNPLACEABLE),
    (State.ALIVE, Event.PLACED),
    (State.ALIVE, Event.STARTED),
    (State.ALIVE, Event.FAILED),
    (State.ALIVE, Event.UNPLACEABLE),
    # Its constructor has returned.
    (State.ALIVE, Event.TURNED_AWAY),
}
# These have no row, since they depend on the restarts that are left.
LOSSES = {(State.STARTING, Event.LOST), (State.ALIVE, Event.LOST), (State.PLACING, Event.KILLED)}
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
    elif (state, event) in LOSSES:
        # One that is on its way to a place already needs no other.
        assert life.on(event) == (() if state is State.PLACING else (Action.PLACE,))
        assert life.state is State.PLACING
    else:
        assert (life.state, life.on(event)) == (state, TABLE[state, event][1])
        assert life.state is TABLE[state, event][0]


@pytest.mark.parametrize("state", [State.STARTING, State.ALIVE])
def test_a_loss_is_survived_as_often_as_restarts_allow(state: State) -> None:
    life = brought_to(state, 2)
    for incarnation in (1, 2):
        assert life.on(Event.LOST) == (Action.PLACE,)
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


def test_restarts_without_limit_are_not_used_up() -> None:
    life = Lifecycle(-1)
    for _ in range(100):
        life.on(Event.PLACED)
        assert life.on(Event.LOST) == (Action.PLACE,)
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
        assert (Action.PLACE in actions) <= (life.state is State.PLACING)
    assert burials == (life.state is State.DEAD)


def test_a_refusal_tells_what_came_before() -> None:
    life = Lifecycle(3)
    for event in (Event.PLACED, Event.STARTED, Event.LOST, Event.PLACED):
        life.on(event)
    with pytest.raises(TransitionError, match=r"ALIVE --LOST--> PLACING, PLACING --PLACED--> STARTING"):
        life.on(Event.UNPLACEABLE)


def test_the_table_names_only_pairs_that_exist() -> None:
    assert set(TABLE) | REFUSED | LOSSES == set(itertools.product(State, Event))
    assert not set(TABLE) & (REFUSED | LOSSES)
