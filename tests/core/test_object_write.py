"""An object on its way into shared memory: each row, and that nothing of a write stays that was given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.object_write import TABLE, Action, Event, ObjectWrite, State, WriteError

# What may come of a write that is in a state; GIVEN_UP may come at any time.
NEXT = {
    State.BEGUN: (Event.RESERVED, Event.FILLED),
    State.RESERVED: (Event.FILLED,),
    State.FILLED: (Event.ASKED, Event.TOLD),
    State.ASKED: (Event.ACCEPTED, Event.REFUSED),
    State.LEFT_BEGUN: (Event.RESERVED,),
    State.LEFT_ASKED: (Event.ACCEPTED, Event.REFUSED),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    write = ObjectWrite()
    write.state = state
    if (state, event) in TABLE:
        assert write.on(event) == TABLE[state, event][1]
        assert write.state is TABLE[state, event][0]
    else:
        with pytest.raises(WriteError, match=f"{event.name} .* {state.name}"):
            write.on(event)
        assert write.state is state


@pytest.mark.parametrize("state", State)
def test_a_write_can_be_given_up_at_any_time(state: State) -> None:
    assert (state, Event.GIVEN_UP) in TABLE


class Node:
    """What a node holds of one write, as the messages reach it."""

    def __init__(self) -> None:
        self.reserved = False
        self.has_object = False
        self.segment_is_full = False

    def happens(self, event: Event) -> None:
        match event:
            case Event.RESERVED:
                self.reserved = True
            case Event.FILLED:
                self.segment_is_full = True
            case Event.ACCEPTED:
                # The segment is the node's by now, and what was reserved is used up.
                self.reserved, self.has_object, self.segment_is_full = False, True, False
            case Event.TOLD:
                self.has_object, self.segment_is_full = True, False
            case _:
                pass

    def perform(self, action: Action) -> None:
        match action:
            case Action.UNRESERVE:
                self.reserved = False
            case Action.EMPTY:
                self.segment_is_full = False
            case Action.FREE:
                assert self.has_object
                self.has_object = False


@given(st.data())
def test_nothing_stays_of_a_write_that_is_given_up_and_all_of_one_that_is_not(data: st.DataObject) -> None:
    write, node = ObjectWrite(), Node()
    given_up = False
    while True:
        events = list(NEXT.get(write.state, ()))
        if node.reserved and Event.TOLD in events:
            # A segment that needs room is new to the node.
            events.remove(Event.TOLD)
        may_give_up = [Event.GIVEN_UP]
        if not events and (given_up or data.draw(st.booleans())):
            break
        event = data.draw(st.sampled_from(events + may_give_up))
        given_up = given_up or event is Event.GIVEN_UP
        node.happens(event)
        for action in write.on(event):
            node.perform(action)
        if event is Event.REFUSED and not given_up:
            given_up = True
            for action in write.on(Event.GIVEN_UP):
                node.perform(action)
    if given_up:
        assert not any((node.reserved, node.has_object, node.segment_is_full))
    else:
        assert write.state is State.THERE
        assert node.has_object
        assert not node.segment_is_full
