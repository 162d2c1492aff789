"""What runs again for a lost object: in which order, how often, and when nothing does."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.core.lineage import ANY_NUMBER, Lineage, Plan, Why
from actorrt.types import ProcessId

from ..depth import DEPTH

OWNER: Final = ProcessId(b"an owner")
OTHER: Final = ProcessId(b"another.")


def lost(lineage: Lineage, gone: Collection[int]) -> Plan:
    return lineage.lost(gone, lambda number: number not in gone)


def chain(length: int, retries: int = 3) -> Lineage:
    """Calls 1, 2, 3 ..., each of which takes the result of the one before."""
    lineage = Lineage(OWNER)
    for number in range(1, length + 1):
        arguments = [(OWNER, number - 1)] if number > 1 else []
        lineage.made(number, f"call {number}", [number], arguments, retries)
    return lineage


def test_what_is_lost_is_made_again_by_its_call_alone_where_the_arguments_are_there() -> None:
    assert lost(chain(3), {3}) == Plan((3,), {})


def test_what_its_arguments_need_runs_before_it() -> None:
    assert lost(chain(4), {4, 3, 2}) == Plan((2, 3, 4), {})


def test_an_argument_that_is_held_by_nobody_any_more_is_made_again_too() -> None:
    lineage = chain(3)
    lineage.freed(1)
    lineage.freed(2)
    assert lineage.lost({3}, lambda number: False).runs == (1, 2, 3)


def test_a_call_runs_once_however_many_of_its_results_are_lost_and_however_often_that_is_told() -> None:
    lineage = Lineage(OWNER)
    lineage.made(1, "f", [1, 2], [], 1)
    assert lost(lineage, {1, 2}) == Plan((1,), {})
    assert lost(lineage, {1, 2}) == Plan((), {})
    lineage.ended(1)
    assert lost(lineage, {1}).hopeless[1].why is Why.NO_RETRIES


def test_nothing_runs_in_vain_and_no_retry_is_taken() -> None:
    lineage = Lineage(OWNER)
    lineage.made(1, "spent", [1], [], 0)
    lineage.made(2, "fine", [2], [], 1)
    lineage.made(3, "sum", [3], [(OWNER, 1), (OWNER, 2)], 1)
    plan = lost(lineage, {1, 2, 3})
    assert plan.runs == (2,)
    assert {number: one.why for number, one in plan.hopeless.items()} == {1: Why.NO_RETRIES, 3: Why.NO_RETRIES}
    assert str(plan.hopeless[3]) == "object 1 cannot be made again: the retries of spent are used up"
    assert lineage.lost({3}, lambda number: number == 1).runs == (3,)


def test_what_was_put_is_lost_for_good_and_what_needs_it_too() -> None:
    lineage = Lineage(OWNER)
    lineage.made(2, "f", [2], [(OWNER, 1)], 3)
    assert lost(lineage, {2}).runs == (2,)
    lineage.ended(2)
    assert lost(lineage, {1, 2}).hopeless[2].why is Why.NOT_MADE


def test_results_of_actors_are_made_again_only_if_that_is_allowed() -> None:
    lineage = Lineage(OWNER)
    lineage.made(1, "Actor.f", [1], [], 3, is_allowed=False)
    lineage.made(2, "Actor.g", [2], [], ANY_NUMBER)
    plan = lost(lineage, {1, 2})
    assert plan.runs == (2,)
    assert plan.hopeless[1].why is Why.NOT_ALLOWED


def test_any_number_of_retries_never_ends() -> None:
    lineage = chain(1, ANY_NUMBER)
    for _ in range(10):
        assert lost(lineage, {1}).runs == (1,)
        lineage.ended(1)


def test_objects_of_other_owners_are_theirs_to_make() -> None:
    lineage = Lineage(OWNER)
    lineage.made(1, "f", [1], [(OTHER, 7)], 1)
    assert lineage.lost({1}, lambda number: False).runs == (1,)


def test_a_call_is_remembered_as_long_as_one_that_took_its_result() -> None:
    lineage = chain(3)
    lineage.freed(1)
    lineage.freed(2)
    assert len(lineage) == 3
    lineage.freed(3)
    assert len(lineage) == 0


def test_one_that_runs_again_is_remembered_until_it_has_ended() -> None:
    lineage = chain(1)
    lost(lineage, {1})
    lineage.freed(1)
    assert len(lineage) == 1
    lineage.ended(1)
    lineage.ended(1)
    assert len(lineage) == 0


def test_the_oldest_is_forgotten_once_there_are_too_many() -> None:
    lineage = Lineage(OWNER, most=2)
    for number in (1, 2, 3):
        lineage.made(number, "f", [number], [], 1)
    assert len(lineage) == 2
    assert lost(lineage, {1}).hopeless[1].why is Why.NOT_MADE


def test_a_chain_may_be_longer_than_the_stack() -> None:
    lineage = chain(20_000)
    assert lineage.lost({20_000}, lambda number: False).runs == tuple(range(1, 20_001))
    for number in range(1, 20_001):
        lineage.ended(number)
        lineage.freed(number)
    assert len(lineage) == 0


# Of each call: what it takes of those before, its retries, and whether its result is lost.
CALLS: Final = st.lists(
    st.tuples(st.sets(st.integers(0, 11), max_size=3), st.sampled_from([0, 1, 3, ANY_NUMBER]), st.booleans()),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300 * DEPTH)
@given(calls=CALLS, wanted=st.sets(st.integers(0, 11), min_size=1))
def test_a_plan_makes_all_that_can_be_made_in_an_order_that_works_and_no_more(
    calls: list[tuple[set[int], int, bool]], wanted: set[int]
) -> None:
    lineage = Lineage(OWNER)
    arguments = [{one for one in takes if one < number} for number, (takes, _, _) in enumerate(calls)]
    for number, (_, retries, _) in enumerate(calls):
        lineage.made(number, "f", [number], [(OWNER, one) for one in arguments[number]], retries)
    gone = {number for number, (_, _, is_gone) in enumerate(calls) if is_gone}
    asked = wanted & gone
    # By hand: what can be there in the end.
    can: dict[int, bool] = {}
    for number, (_, retries, is_gone) in enumerate(calls):
        can[number] = not is_gone or (retries != 0 and all(can[one] for one in arguments[number]))
    plan = lineage.lost(asked, lambda number: number not in gone)
    assert set(plan.hopeless) == {number for number in asked if not can[number]}
    here = set(range(len(calls))) - gone
    for call in plan.runs:
        assert arguments[call] <= here, "it would wait for what nobody makes"
        assert call not in here, "it runs in vain"
        here.add(call)
    assert {number for number in asked if can[number]} <= here
    needed = {number for number in asked if can[number]}
    for number in sorted(needed, reverse=True):
        needed |= arguments[number] & gone
    for number in range(len(calls) - 1, -1, -1):
        if number in needed:
            needed |= arguments[number] & gone
    assert set(plan.runs) == needed
    for number in range(len(calls)):
        lineage.freed(number)
        lineage.ended(number)
    assert len(lineage) == 0


@pytest.mark.parametrize("why", Why)
def test_every_reason_has_its_sentence(why: Why) -> None:
    lineage = Lineage(OWNER)
    lineage.made(1, "spent", [1], [], 0)
    lineage.made(2, "Actor.f", [2], [], 1, is_allowed=False)
    said = {one.why: str(one) for one in lost(lineage, {1, 2, 3}).hopeless.values()}
    assert len(said[why]) > 30
