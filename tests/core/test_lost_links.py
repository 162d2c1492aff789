"""What a node does as the link to a process is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.lost_links import Step, after_end, after_loss

ROLES = st.sampled_from(["driver", "worker", "node"])
S = Step
ALL = (S.MARK_DEAD, S.GIVE_UP)


def test_a_worker_whose_link_is_lost_may_live_and_is_ended_before_it_is_given_up() -> None:
    assert after_loss("worker", lost=True, farewell=False, stopping=False) == (S.END_WORKER, S.AWAIT_END)
    assert after_end("worker", farewell=False, stopping=False) == (*ALL, S.WATCH_ON, S.FREE_NAMES, S.END_PROGRAM)


def test_a_driver_whose_link_is_lost_may_live_and_is_given_up_once_it_has_ended() -> None:
    assert after_loss("driver", lost=True, farewell=False, stopping=False) == (S.WATCH,)


@pytest.mark.parametrize("farewell", [False, True])
def test_a_driver_that_has_ended_is_given_up_at_once(farewell: bool) -> None:
    steps = after_loss("driver", lost=False, farewell=farewell, stopping=False)
    watch = S.STOP_WATCHING if farewell else S.WATCH_ON
    assert steps == (*ALL, watch, S.REMEMBER, S.FREE_NAMES, S.END_PROGRAM, S.END_WORKER)


@given(lost=st.booleans(), farewell=st.booleans(), stopping=st.booleans())
def test_of_a_head_nothing_goes(lost: bool, farewell: bool, stopping: bool) -> None:
    assert after_loss("head", lost=lost, farewell=farewell, stopping=stopping) == ()


@given(role=ROLES, lost=st.booleans(), farewell=st.booleans())
def test_a_node_that_ends_undoes_nothing(role: str, lost: bool, farewell: bool) -> None:
    assert after_loss(role, lost=lost, farewell=farewell, stopping=True) == (S.MARK_DEAD,)


@given(role=ROLES, lost=st.booleans(), farewell=st.booleans(), stops=st.booleans())
def test_each_process_is_given_up_once_and_a_worker_is_told_of_once(
    role: str, lost: bool, farewell: bool, stops: bool
) -> None:
    """Whether it is waited for, and whether the node has begun to end meanwhile."""
    steps = list(after_loss(role, lost=lost, farewell=farewell, stopping=False))
    if S.AWAIT_END in steps:
        assert (role, lost) == ("worker", True)
        steps += after_end(role, farewell=farewell, stopping=stops)
    if S.WATCH in steps:
        assert (role, lost) == ("driver", True)
        steps += after_loss(role, lost=False, farewell=farewell, stopping=stops)
    assert steps.count(S.MARK_DEAD) == 1
    given_up = not (stops and (S.AWAIT_END in steps or S.WATCH in steps))
    assert steps.count(S.END_WORKER) == (given_up or S.AWAIT_END in steps)
    assert steps.count(S.GIVE_UP) == given_up
    # Nobody dials it while what it had is given up.
    if given_up:
        assert steps.index(S.MARK_DEAD) < steps.index(S.GIVE_UP) < steps.index(S.END_PROGRAM)
        assert (S.FREE_NAMES in steps) is (role in ("driver", "worker"))
