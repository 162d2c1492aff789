"""What a blocked loop has not taken up goes back, if others can do it."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from actorrt.core.giving_back import Fate, GivingBack, Kind

ABOUT = (Kind.START, Kind.CALL, Kind.STOP)


def test_an_actor_goes_back_with_all_that_is_for_it_and_no_other() -> None:
    look: GivingBack[str] = GivingBack()
    assert look.fate(Kind.CALL, "old") is Fate.STAY
    assert look.fate(Kind.START, "new") is Fate.GO_BACK
    assert look.fate(Kind.CALL, "new") is Fate.FIND_NO_ACTOR
    assert look.fate(Kind.STOP, "new") is Fate.DROP
    assert look.fate(Kind.STOP, "old") is Fate.STAY
    assert look.fate(Kind.TASK) is Fate.GO_BACK
    assert look.fate(Kind.OTHER) is Fate.STAY


@given(messages=st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from("abc"))))
def test_who_has_its_actor_here_stays_and_who_has_not_is_answered(messages: list[tuple[Kind, str]]) -> None:
    look: GivingBack[str] = GivingBack()
    gone: set[str] = set()
    for kind, actor in messages:
        fate = look.fate(kind, actor if kind in ABOUT else None)
        if kind is Kind.START:
            gone.add(actor)
        assert (fate is Fate.GO_BACK) == (kind in (Kind.START, Kind.TASK))
        assert (fate in (Fate.FIND_NO_ACTOR, Fate.DROP)) == (kind in (Kind.CALL, Kind.STOP) and actor in gone)
