"""A cancelled call is interrupted once, and what it has called follows as far as anybody wants."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.cancellation import TABLE, Action, Reach, State, reach_of

FARTHER = (Reach.ALONE, Reach.TREE, Reach.TREE_BY_FORCE)


def test_every_pair_has_a_row() -> None:
    assert set(TABLE) == set(itertools.product(State, Reach))


@pytest.mark.parametrize(
    ("recursive", "force", "reach"),
    [
        (False, False, Reach.ALONE),
        # Force without what it has called is for its own process, which ends at once.
        (False, True, Reach.ALONE),
        (True, False, Reach.TREE),
        (True, True, Reach.TREE_BY_FORCE),
    ],
)
def test_what_its_caller_says_is_how_far_it_reaches(recursive: bool, force: bool, reach: Reach) -> None:
    assert reach_of(recursive, force) is reach


@given(wishes=st.lists(st.sampled_from(Reach), min_size=1, max_size=6))
def test_whoever_cancels_it_in_what_order_it_is_interrupted_once_and_reaches_as_far_as_the_farthest(
    wishes: list[Reach],
) -> None:
    state = State.RUNNING
    farthest = -1
    for number, wish in enumerate(wishes):
        state, action = TABLE[state, wish]
        grows = FARTHER.index(wish) > farthest
        farthest = max(farthest, FARTHER.index(wish))
        # What it has called hears of it again only if more is wanted of it than before.
        assert action is (Action.INTERRUPT if number == 0 else Action.REACH if grows else Action.NOTHING)
        assert state.name == FARTHER[farthest].name
