"""When pieces leave that code writes turn after turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.gathering import LONGEST_S, MOST_TURNS, QUIET_TURNS, Gathering


def leaves_of(written: list[bool], turn_s: float = 1e-6) -> list[int]:
    """The turns at whose ends pieces leave, of those in which one was written; and as many behind them as it takes."""
    gathering = Gathering()
    left: list[int] = []
    looks = False
    for number, writes in enumerate([*written, *[False] * (MOST_TURNS + QUIET_TURNS)]):
        if writes and gathering.wrote():
            assert not looks
            looks = True
        if looks:
            leaves, looks = gathering.turn(number * turn_s)
            if leaves:
                left.append(number)
    assert not looks
    return left


def test_one_that_comes_alone_leaves_with_its_turn_and_nobody_looks_for_long() -> None:
    assert leaves_of([True]) == [0]
    assert leaves_of([True, *[False] * QUIET_TURNS, True]) == [0, 1 + QUIET_TURNS]


def test_those_that_follow_leave_together() -> None:
    left = leaves_of([True] * (1 + 4 * MOST_TURNS))
    assert left == [0, MOST_TURNS, 2 * MOST_TURNS, 3 * MOST_TURNS, 4 * MOST_TURNS]
    # A turn without one between them ends nothing.
    assert len(leaves_of([True, False] * MOST_TURNS)) <= 4


def test_in_a_loop_with_long_turns_none_waits_for_many() -> None:
    assert leaves_of([True] * 10, turn_s=LONGEST_S * 0.51) == [0, 3, 6, 9]
    assert leaves_of([True] * 4, turn_s=2 * LONGEST_S) == [0, 1, 2, 3]


@given(st.lists(st.booleans(), max_size=200), st.sampled_from([1e-7, LONGEST_S / 3, LONGEST_S, 1.0]))
def test_every_piece_leaves_soon(written: list[bool], turn_s: float) -> None:
    left = leaves_of(written, turn_s)
    for number, writes in enumerate(written):
        if writes:
            gone = next(each for each in left if each >= number)
            assert gone - number < MOST_TURNS
            assert (gone - number - 1) * turn_s <= LONGEST_S * 1.001
