"""What an error of a call's code is to its caller: every kind, wished for or not, in groups, and one that lies."""

from __future__ import annotations

from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

from actorrt.core.outcome import (
    EXITS,
    ActorExit,
    ActorGone,
    End,
    Errors,
    Unmade,
    end_of_leaver,
    end_of_unbegun,
    left_by,
    unmade,
)


class Interrupt(BaseException): ...


METHODS: Final = Errors((Interrupt, KeyboardInterrupt), EXITS)
TASKS: Final = Errors((Interrupt, KeyboardInterrupt))
ERRORS: Final = st.recursive(
    st.sampled_from([ValueError, Interrupt, KeyboardInterrupt, ActorExit, SystemExit, MemoryError]).map(
        lambda kind: kind("said")
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda errors: BaseExceptionGroup("several", errors)),
    max_leaves=5,
)


def leaves_of(error: BaseException) -> list[BaseException]:
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return [error] if inner is None else [leaf for one in inner for leaf in leaves_of(one)]


@pytest.mark.parametrize("error", [Interrupt(), KeyboardInterrupt()])
def test_what_interrupts_a_call_is_its_cancellation_only_if_somebody_wanted_that(error: BaseException) -> None:
    assert METHODS.end_of(error, cancelled=True) is End.CANCELLED
    assert METHODS.end_of(error, cancelled=False) is End.FAILED


def test_a_call_that_is_interrupted_since_its_actor_has_ended_hears_of_that() -> None:
    assert METHODS.end_of(Interrupt(), cancelled=True, over=True) is End.GONE
    assert METHODS.end_of(ValueError(), cancelled=True, over=True) is End.FAILED, "its own error says more"
    assert METHODS.end_of(ActorGone(), cancelled=True, over=True) is End.UNBEGUN


@pytest.mark.parametrize(("over", "end"), [(True, End.UNBEGUN), (False, End.CANCELLED)])
def test_a_call_that_did_not_begin_may_be_sent_again_where_its_actor_has_ended(over: bool, end: End) -> None:
    assert end_of_unbegun(over) is end


@pytest.mark.parametrize(("code", "end"), [(0, End.GONE), (3, End.UNSAID)])
def test_a_call_that_ends_its_process_with_a_code_is_answered_by_that_end(code: int, end: End) -> None:
    assert end_of_leaver(code) is end


@pytest.mark.parametrize("has_calls", [True, False])
def test_a_constructor_that_raises_has_its_calls_waited_for_before_its_process_ends(has_calls: bool) -> None:
    assert unmade(End.LEAVES, has_calls) == (Unmade.NOTE_CALLS, Unmade.EXIT)
    assert unmade(End.FAILED, has_calls) == ((Unmade.FAIL_BEHIND_CALLS if has_calls else Unmade.FAIL),)


@given(error=ERRORS, cancelled=st.booleans(), over=st.booleans())
def test_an_exit_in_it_ends_the_actor_and_no_task_that_shares_its_process(
    error: BaseException, cancelled: bool, over: bool
) -> None:
    end = METHODS.end_of(error, cancelled, over)
    shared = TASKS.end_of(error, cancelled, over)
    exits = [one for one in leaves_of(error) if isinstance(one, EXITS)]
    assert (end is End.LEAVES) == bool(exits)
    assert shared is not End.LEAVES
    if exits:
        assert left_by(error) is exits[0]
    else:
        assert shared is end


def test_an_error_that_lies_about_its_class_is_what_it_is() -> None:
    class Liar(Exception):
        @property
        def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise ValueError("do not look")

    assert METHODS.end_of(Liar(), cancelled=True) is End.FAILED
