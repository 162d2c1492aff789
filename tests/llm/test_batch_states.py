"""The life of a batch: each pair of a state and an event, and that each life ends."""

from itertools import product

import pytest

from actorrt.serve.llm.batches.records import BATCH_COLUMNS
from actorrt.serve.llm.batches.states import ENDED, OPEN, TABLE, Event, Status, WrongEventError, after

PAIRS = list(product(Status, Event))


@pytest.mark.parametrize(("status", "event"), PAIRS, ids=lambda each: each.name)
def test_each_event_leads_on_or_is_refused_with_both_names(status: Status, event: Event) -> None:
    if (status, event) in TABLE:
        assert after(status, event) is TABLE[status, event]
        return
    with pytest.raises(WrongEventError) as refused:
        after(status, event)
    assert f"a batch that is {status} does not take {event.name}" in str(refused.value)


def test_nothing_happens_to_a_batch_that_has_ended() -> None:
    assert {status for status, _ in TABLE} == set(OPEN)
    assert set(OPEN) | set(ENDED) == set(Status)


def test_from_each_state_there_is_a_way_to_an_end_without_a_client() -> None:
    ended = set(ENDED)
    while new := {s for (s, e), then in TABLE.items() if then in ended and e is not Event.CANCEL} - ended:
        ended |= new
    assert ended == set(Status)


def test_a_batch_that_is_to_be_cancelled_is_never_completed() -> None:
    reached, todo = {Status.CANCELLING}, [Status.CANCELLING]
    while todo:
        status = todo.pop()
        for then in {then for (s, _), then in TABLE.items() if s is status} - reached:
            reached.add(then)
            todo.append(then)
    assert reached == {Status.CANCELLING, Status.CANCELLED, Status.FAILED}


def test_each_state_but_the_first_has_its_time() -> None:
    assert {f"{status}_at" for status in Status} - set(BATCH_COLUMNS) == {"validating_at"}
