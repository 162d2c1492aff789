"""Ends of workers that start, over all orders of kills and failures, in virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.start_attempts import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_FAILURES, StartAttempts

PATIENCE_S = 60.0


def until_given_up(attempts: StartAttempts, now: float, life_s: float) -> list[float]:
    """The pauses, while each worker is killed after so long."""
    pauses: list[float] = []
    while (pause_s := attempts.ended(now, by_itself=False)) is not None:
        pauses.append(pause_s)
        now += pause_s + life_s
    return pauses


def test_the_first_kill_costs_nothing_and_the_later_ones_more_each_time_up_to_a_limit() -> None:
    pauses = until_given_up(StartAttempts(PATIENCE_S), 100.0, 0.01)
    assert pauses[:4] == [0.0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    # Not before a next one would come too late.
    assert PATIENCE_S - LONGEST_PAUSE_S - 0.01 <= sum(pauses) + 0.01 * len(pauses) <= PATIENCE_S + 0.01


def test_who_kills_them_for_ever_has_a_bounded_number_forked() -> None:
    assert 60 < len(until_given_up(StartAttempts(PATIENCE_S), 0.0, 0.0)) < 70
    assert until_given_up(StartAttempts(0.0), 5.0, 0.0) == [0.0]


def test_those_that_end_by_themselves_are_given_up_after_a_few_without_a_pause() -> None:
    attempts = StartAttempts(PATIENCE_S)
    found = [attempts.ended(float(now), by_itself=True) for now in range(MOST_FAILURES)]
    assert found == [0.0] * (MOST_FAILURES - 1) + [None]


@given(st.lists(st.booleans(), max_size=40))
def test_kills_are_not_counted_among_the_failures(by_itself: list[bool]) -> None:
    attempts = StartAttempts(PATIENCE_S)
    for index, each in enumerate(by_itself):
        given_up = attempts.ended(7.0, by_itself=each) is None
        assert given_up == (each and sum(by_itself[: index + 1]) >= MOST_FAILURES)


def test_the_story_says_how_many_and_for_how_long() -> None:
    attempts = StartAttempts(PATIENCE_S)
    attempts.ended(100.0, by_itself=True)
    assert attempts.story("exit code 1") == "it ended while it started: exit code 1"
    attempts.ended(101.0, by_itself=False)
    attempts.ended(102.5, by_itself=False)
    assert attempts.story("why") == "it ended while it started, as did 2 before it in 2.50 s: why"
