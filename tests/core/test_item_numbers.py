"""Numbers of streamed items: each run has a range of its own, which no other object of the owner's comes into."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.item_numbers import RUNS, first_item, next_item, run_of

runs = st.integers(0, RUNS - 1)


@given(run=runs, count=st.integers(0, 50))
def test_the_items_of_a_run_are_numbered_one_after_the_other(run: int, count: int) -> None:
    number = first_item(run)
    for index in range(count):
        assert number == first_item(run) + index
        assert run_of(number) == run
        assert number < 1 << 64
        number = next_item(number)


@given(one=runs, other=runs)
def test_two_runs_share_no_number(one: int, other: int) -> None:
    assert (first_item(one) == first_item(other)) is (one == other)
    assert first_item(one + RUNS) == first_item(one)


@given(st.integers(0, (1 << 63) - 1))
def test_other_objects_are_no_items(number: int) -> None:
    assert run_of(number) is None
    with pytest.raises(ValueError, match=str(number)):
        next_item(number)


def test_a_run_that_has_used_all_its_numbers_begins_anew_and_leaves_the_next_run_its_own() -> None:
    last = first_item(8) - 1
    assert run_of(last) == 7
    assert next_item(last) == first_item(7)
