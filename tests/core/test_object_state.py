"""The life of an object's value in a process, and that entries, which write its table out, follow it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from actorrt.core.object_state import PENDING, PRESENT, RAISED, SHARED, TABLE, Action, Event, State
from actorrt.runtime.owner.entries import Entry, unwatch_errors, watch_errors
from actorrt.types import ProcessId

OWNER = ProcessId(b"bob.....")
CAME = {Event.BYTES_CAME: PRESENT, Event.SEGMENT_CAME: SHARED, Event.ERROR_CAME: RAISED}


def test_every_event_may_come_in_every_state() -> None:
    assert set(TABLE) == {(state, event) for state in State for event in Event}


def test_an_object_has_one_outcome() -> None:
    for (state, _), (after, action) in TABLE.items():
        assert after >= state
        if state > PENDING:
            assert (after, action) == (state, Action.NOTHING)


def test_only_the_first_who_asks_has_it_fetched() -> None:
    fetched = [state for (state, _), (_, action) in TABLE.items() if action is Action.FETCH]
    assert fetched == [State.REMOTE]
    assert TABLE[State.REMOTE, Event.ASKED_FOR][0] is PENDING


@pytest.mark.parametrize("begin", [State.REMOTE, State.PENDING])
@given(events=st.lists(st.sampled_from(Event), max_size=6))
def test_an_entry_follows_the_table(begin: State, events: list[Event]) -> None:
    entry = Entry(OWNER, 1, begin)
    told: list[Entry] = []
    errors: list[Entry] = []
    state, fetched, expected_told, expected_errors = begin, 0, 0, 0
    entry.add_waiter(told.append)
    watch_errors(errors.append)
    try:
        for number, event in enumerate(events):
            before = entry.data
            state, action = TABLE[state, event]
            if event is Event.ASKED_FOR:
                assert entry.asked_for() == (action is Action.FETCH)
                fetched += action is Action.FETCH
            else:
                entry.settle(CAME[event], number)
                expected_told += action in (Action.TELL, Action.TELL_ALL)
                expected_errors += action is Action.TELL_ALL
                assert entry.data == (before if action is Action.NOTHING else number)
            assert entry.state is state
            assert entry.done == (state > PENDING)
            assert (len(told), len(errors)) == (expected_told, expected_errors)
    finally:
        unwatch_errors(errors.append)
    assert fetched <= 1
