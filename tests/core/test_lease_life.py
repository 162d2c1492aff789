"""The life of a lease as its holder decides it: every row, and that the rows that are written out are the table's."""

from __future__ import annotations

from typing import Final

import pytest

from actorrt.core.calls import CallLife
from actorrt.core.lease_life import TABLE, Event, LeaseError, LeaseLife, State
from actorrt.types import FunctionKey, LeaseId, ProcessId

PUSHES: Final = (Event.PUSHED, Event.PUSHED_ALONE, Event.PUSHED_LAST)
TAKES_MORE: Final = frozenset({State.OFFERED, State.IDLE, State.BUSY})


def lease(state: State, calls: int = 0) -> LeaseLife[CallLife]:
    made = LeaseLife[CallLife](LeaseId(ProcessId(b"node"), 7), wanted=False)
    made.calls.update(dict.fromkeys(CallLife() for _ in range(calls)))
    made.state = state
    return made


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    one = lease(state)
    after = TABLE.get((state, event))
    if after is None:
        with pytest.raises(LeaseError, match=f"{event.name} cannot happen to a lease that is {state.name}.*lease 7"):
            one.on(event)
        assert one.state is state
    else:
        assert one.on(event) == (after is State.GONE and state is not State.GONE)
        assert one.state is after


def test_a_lease_begins_as_offered_if_others_wait_for_it() -> None:
    assert LeaseLife[CallLife](LeaseId(ProcessId(b"node"), 1), wanted=True).state is State.OFFERED
    assert LeaseLife[CallLife](LeaseId(ProcessId(b"node"), 1), wanted=False).state is State.IDLE


@pytest.mark.parametrize("state", State)
def test_what_takes_no_more_gets_no_more(state: State) -> None:
    assert lease(state).takes_more == (state in TAKES_MORE)
    for event in PUSHES:
        assert ((state, event) in TABLE) == (state in TAKES_MORE)


def test_only_a_lease_that_is_empty_is_returned() -> None:
    empty = {Event.EMPTIED, Event.UNNEEDED, Event.SORTED_OUT}
    for (before, event), after in TABLE.items():
        if after is State.GONE and before is not State.GONE:
            # Nothing is under way of a lease that is idle.
            assert event in empty or before is State.IDLE, (before, event)


def test_a_lease_that_others_wait_for_never_takes_more_again() -> None:
    reached = {State.LEAVING}
    while True:
        further = reached | {after for (before, _), after in TABLE.items() if before in reached}
        if further == reached:
            break
        reached = further
    assert not reached & TAKES_MORE
    for state in State:
        after = TABLE.get((state, Event.WANTED))
        assert after not in TAKES_MORE
        if after is None:
            assert state is State.OFFERED, "it is used or returned before anything else can happen"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", PUSHES)
@pytest.mark.parametrize("before", [0, 1])
def test_a_push_is_the_row_of_the_table(state: State, event: Event, before: int) -> None:
    short, looked_up = lease(state, before), lease(state)
    short.mark = 1.0
    if (state, event) not in TABLE:
        with pytest.raises(LeaseError):
            short.pushed([CallLife()], event, 5.0)
        return
    call = CallLife()
    short.pushed([call], event, 5.0)
    looked_up.on(event)
    assert short.state is looked_up.state
    assert list(short.calls)[before:] == [call]
    # How long the calls take is measured from the first of them on.
    assert short.mark == (1.0 if before else 5.0)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("gave_back", [False, True])
@pytest.mark.parametrize("left", [0, 1])
def test_what_is_heard_is_the_row_of_the_table(state: State, gave_back: bool, left: int) -> None:
    event = Event.EMPTIED if not left else Event.GIVEN_BACK if gave_back else Event.REPLIED
    short, looked_up = lease(state, left), lease(state)
    if (state, event) not in TABLE:
        with pytest.raises(LeaseError):
            short.heard(5.0, gave_back)
        return
    assert short.heard(5.0, gave_back) == looked_up.on(event)
    assert short.state is looked_up.state
    assert short.mark == 5.0


def test_a_worker_runs_a_function_with_a_limit_so_often_and_no_more() -> None:
    one = lease(State.IDLE)
    assert one.runs_left is None
    assert [one.count_run(FunctionKey(b"three"), 3) for _ in range(3)] == [False, False, True]
    assert one.count_run(FunctionKey(b"once"), 1)


def test_an_error_tells_what_was_before() -> None:
    one = lease(State.BUSY, 1)
    one.on(Event.GIVEN_BACK)
    one.on(Event.WANTED)
    with pytest.raises(LeaseError, match=r"LEAVING.*BUSY --GIVEN_BACK--> LONG, LONG --WANTED--> LEAVING"):
        one.on(Event.PUSHED)
