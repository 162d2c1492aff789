"""A segment as its creator knows it: each row, and that what is let go of was wanted by nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.own_segment import TABLE, UNWANTED, Action, Event, OwnSegmentError, OwnSegmentLife, State


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event, wanted: bool) -> None:
    life = OwnSegmentLife()
    life.state, life.wanted, life.is_new = state, wanted, False
    if (row := TABLE.get((state, event))) is None:
        with pytest.raises(OwnSegmentError, match=f"{event.name} .* {state.name}"):
            life.on(event)
        assert life.state is state
    else:
        after, action = row.wanted if wanted and event not in UNWANTED else row.unwanted
        assert life.on(event) is action
        assert life.state is after


@pytest.mark.parametrize("row", [one for row in TABLE.values() for one in row])
def test_an_action_goes_with_its_state(row: tuple[State, Action]) -> None:
    state, action = row
    assert (action is Action.LET_GO) <= (state is State.CLOSED)
    assert (action is Action.POOL) <= (state is State.POOLED)


@pytest.mark.parametrize("event", [Event.RECALLED, Event.CROWDED_OUT, Event.CLOSED])
def test_a_segment_may_be_asked_for_at_any_time_while_it_is_held(event: Event) -> None:
    assert all((state, event) in TABLE for state in State if state is not State.CLOSED)


def happens(*events: Event) -> tuple[OwnSegmentLife, Action]:
    life, action = OwnSegmentLife(), Action.NOTHING
    for event in events:
        action = life.on(event)
    return life, action


def test_a_segment_goes_round() -> None:
    life, action = happens(Event.FILLED, Event.ADOPTED, Event.RETURNED)
    assert (life.state, action) == (State.POOLED, Action.POOL)
    assert life.on(Event.TAKEN) is Action.NOTHING
    assert life.state is State.FILLING


def test_what_nobody_filled_is_pooled_if_it_has_pages_and_goes_without_a_word_if_it_is_new() -> None:
    life, action = happens(Event.ABANDONED)
    assert action is Action.LET_GO
    assert not life.is_missed
    assert happens(Event.FILLED, Event.ADOPTED, Event.RETURNED, Event.TAKEN, Event.ABANDONED)[1] is Action.POOL


def test_what_is_recalled_while_it_is_filled_is_sealed_as_not_kept_and_goes_without_a_word() -> None:
    life, _ = happens(Event.RECALLED, Event.FILLED)
    assert not life.kept
    assert life.on(Event.ADOPTED) is Action.LET_GO
    assert not life.is_missed


def test_what_is_recalled_once_it_is_sealed_goes_when_the_node_has_it_which_is_told() -> None:
    life, action = happens(Event.FILLED, Event.RECALLED)
    assert (life.state, action, life.kept) == (State.SEALED, Action.NOTHING, True)
    assert life.on(Event.ADOPTED) is Action.LET_GO
    assert life.is_missed


def test_what_is_filled_as_the_process_ends_goes_when_that_is_done() -> None:
    life, action = happens(Event.FILLED, Event.ADOPTED, Event.RETURNED, Event.TAKEN, Event.CLOSED)
    assert (life.state, action) == (State.FILLING, Action.NOTHING)
    assert life.on(Event.ABANDONED) is Action.LET_GO


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_a_segment_is_let_go_of_once_and_only_where_nobody_needs_its_memory(events: list[Event]) -> None:
    life = OwnSegmentLife()
    unwanted, gone = False, 0
    for event in events:
        before = life.state
        if (before, event) not in TABLE:
            continue
        unwanted = unwanted or event in UNWANTED
        action = life.on(event)
        gone += action is Action.LET_GO
        assert gone == (life.state is State.CLOSED)
        if action is Action.LET_GO and before is State.FILLING:
            # Never under the hands of who fills it.
            assert event in (Event.ABANDONED, Event.GIVEN_UP)
        if action is Action.LET_GO and before is State.SEALED:
            # Nor before the node has a descriptor of its own, unless it does not take it, or the process ends.
            assert event in (Event.ADOPTED, Event.GIVEN_UP, Event.CLOSED)
        if action is Action.POOL:
            assert not unwanted
            assert not life.is_new
        assert life.is_readable == (life.state in (State.SEALED, State.ADOPTED))
