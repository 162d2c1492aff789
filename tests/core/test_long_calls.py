"""What waits behind a long call goes back to its callers; what waits behind short ones stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.long_calls import LongCalls, Look


def test_a_call_that_still_runs_at_the_look_has_those_behind_it_given_back() -> None:
    calls: LongCalls[str] = LongCalls()
    assert calls.waits("long")
    assert calls.look("long", True) == Look(give_back=True, again=True)


def test_another_call_gets_its_own_time() -> None:
    calls: LongCalls[str] = LongCalls()
    assert calls.waits("first")
    assert calls.look("second", True) == Look(give_back=False, again=True)
    assert calls.look("second", False) == Look(give_back=True, again=False)


def test_one_look_at_a_time_is_enough() -> None:
    calls: LongCalls[str] = LongCalls()
    assert calls.waits("first")
    assert not calls.waits("second")
    assert calls.look("second", False) == Look(give_back=False, again=False)
    assert calls.waits("third")


def test_a_thread_that_has_taken_up_nothing_holds_up_nothing() -> None:
    calls: LongCalls[str] = LongCalls()
    assert calls.waits(None)
    assert calls.look(None, True) == Look(give_back=False, again=True)


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=20))
def test_only_a_call_that_ran_at_two_looks_in_a_row_gives_back(steps: list[tuple[int, bool]]) -> None:
    # As a thread that runs calls named by numbers, whose look-out is armed wherever something waits.
    calls: LongCalls[str] = LongCalls()
    names = ["a", "b", "c"]
    armed_at: str | None = None
    for current, waiting in steps:
        name = names[current]
        if armed_at is None:
            assert calls.waits(name)
            armed_at = name
            continue
        assert calls.look(name, waiting) == Look(name == armed_at, waiting)
        armed_at = name if waiting else None
