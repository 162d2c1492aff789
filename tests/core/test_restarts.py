"""The pauses before restarts, over all kinds of lives."""

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.restarts import FIRST_PAUSE_S, LONG_LIFE_S, LONGEST_PAUSE_S, Restarts


def test_the_first_loss_costs_nothing_and_a_crash_loop_more_each_time_up_to_a_limit() -> None:
    restarts = Restarts()
    now = 100.0
    pauses: list[float] = []
    for _ in range(20):
        pauses.append(restarts.pause(now))
        now += pauses[-1] + 0.01
    assert pauses[:4] == [0.0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


@given(st.lists(st.floats(0, 3 * LONG_LIFE_S), max_size=30))
def test_after_a_long_life_the_restart_is_immediate_again(lives: list[float]) -> None:
    restarts = Restarts()
    now = 0.0
    for life in lives:
        now += life
        pause = restarts.pause(now)
        assert 0.0 <= pause <= LONGEST_PAUSE_S
        now += pause
    assert restarts.pause(now + LONG_LIFE_S + 0.1) == 0.0
