"""How a process is reached and dialled again, in a time that is given."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.dialling import (
    LONGEST_PAUSE_S,
    NOBODY_LISTENS_S,
    PAUSE_S,
    TABLE,
    Aim,
    Attempt,
    Dialling,
    Step,
    Way,
    way_to,
)

SAY_S: Final = 10.0


def test_every_pair_is_in_the_table() -> None:
    assert set(TABLE) == set(product(Aim, Attempt))


def test_only_who_may_be_gone_is_given_up() -> None:
    # Whoever is silent, or hangs up, listens: it lives.
    for aim in Aim:
        assert TABLE[aim, Attempt.REFUSED] is Step.GIVE_UP
        assert TABLE[aim, Attempt.SILENT] is not Step.GIVE_UP
        assert TABLE[aim, Attempt.BROKE] is not Step.GIVE_UP


def test_who_has_dialled_is_awaited_once_and_then_dialled() -> None:
    assert way_to(True, False, True, True) is Way.AWAIT
    assert way_to(True, True, True, True) is Way.DIAL
    assert way_to(False, False, True, False) is Way.DIAL
    assert way_to(False, False, False, True) is Way.ASK
    assert way_to(True, True, False, False) is Way.NONE


def test_pauses_grow_and_stay_at_the_longest() -> None:
    dialling = Dialling(Aim.PEER, 0.0, SAY_S)
    pauses = [dialling.failed(Attempt.FAILED, 0.0).pause_s for _ in range(7)]
    assert pauses == [PAUSE_S, 0.1, 0.2, 0.4, 0.8, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert Dialling(Aim.NODE, 0.0, SAY_S).failed(Attempt.SILENT, 0.0).pause_s == 0.0


def test_a_link_is_given_up_where_nobody_has_listened_for_a_while_without_a_break() -> None:
    dialling = Dialling(Aim.AGAIN, 0.0, SAY_S)
    assert not dialling.failed(Attempt.NOBODY, 5.0).gives_up
    assert not dialling.failed(Attempt.NOBODY, 5.0 + NOBODY_LISTENS_S / 2).gives_up
    assert not dialling.failed(Attempt.BROKE, 5.0 + NOBODY_LISTENS_S).gives_up
    assert not dialling.failed(Attempt.NOBODY, 7.0).gives_up
    assert dialling.failed(Attempt.NOBODY, 7.0 + NOBODY_LISTENS_S).gives_up


@pytest.mark.parametrize("aim", [Aim.PEER, Aim.AGAIN])
@given(steps=st.lists(st.floats(min_value=0.0, max_value=3.0), max_size=40))
def test_it_is_said_how_long_it_lasts_and_not_too_often(aim: Aim, steps: list[float]) -> None:
    dialling, now, said = Dialling(aim, 100.0, SAY_S), 100.0, 100.0
    for step in steps:
        now += step
        found = dialling.failed(Attempt.SILENT, now)
        assert (found.lasts_s is not None) == (now - said >= SAY_S)
        if found.lasts_s is not None:
            assert found.lasts_s == now - 100.0
            said = now
