"""Whose turn it is on a client's connection, how it is refused, and how long a client may take: case by case."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.connection_phase import Phase
from actorrt.serve.proxy.patience import Due, Pace, Rate, due, pace, stalled_since
from actorrt.serve.proxy.turns import Refusal, Turn, refusal, turn

LIMIT_S = 8.0


@pytest.mark.parametrize(
    ("waiting", "refused", "is_slow", "is_ready", "expected"),
    [
        (0, False, False, False, Turn.NOBODY),
        (0, False, False, True, Turn.READING),
        (2, False, False, False, Turn.NEXT),
        # A body that is read comes behind those that wait.
        (2, False, False, True, Turn.NEXT),
        # Those that came before what was wrong are answered first.
        (2, True, False, False, Turn.NEXT),
        (0, True, False, False, Turn.REFUSAL),
        # A client that does not take its answers gets no more of them, but hears that it is wrong.
        (0, False, True, True, Turn.NOBODY),
        (2, True, True, True, Turn.NOBODY),
        (0, True, True, False, Turn.REFUSAL),
    ],
)
def test_whose_turn_it_is(waiting: int, refused: bool, is_slow: bool, is_ready: bool, expected: Turn) -> None:
    assert turn(waiting=waiting, refused=refused, is_slow=is_slow, is_ready=is_ready) is expected


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("answer", [None, *Answer])
def test_a_refusal_is_said_where_its_answer_would_stand(answer: Answer | None, others: bool) -> None:
    found = refusal(answer, others=others)
    if answer in (None, Answer.WAITED_FOR):
        assert found is (Refusal.IN_TURN if others else Refusal.NOW)
    else:
        assert found is (Refusal.LINGER if answer is Answer.OVER else Refusal.ABORT)


def is_due(
    now: float = 100.0,
    deadline: float = 0.0,
    phase: Phase = Phase.BODIES,
    *,
    reads: bool = False,
    is_held_up: bool = False,
    is_answered: bool = False,
    streams: bool = False,
    idle_since: float | None = None,
) -> Due:
    return due(
        now,
        deadline,
        phase,
        reads=reads,
        is_held_up=is_held_up,
        is_answered=is_answered,
        streams=streams,
        idle_since=idle_since,
        keep_alive_s=5.0,
    )


def test_what_lingers_is_cut_off_at_its_deadline_whatever_else_there_is() -> None:
    for reads, held_up in product((False, True), repeat=2):
        assert is_due(100, 100.5, Phase.LINGERING, reads=reads, is_held_up=held_up) is Due.NOTHING
        assert is_due(100, 100, Phase.LINGERING, reads=reads, is_held_up=held_up) is Due.CUT_OFF


def test_a_connection_on_which_nothing_is_under_way_is_closed_after_a_while() -> None:
    assert is_due(idle_since=95.1) is Due.NOTHING
    assert is_due(idle_since=95.0) is Due.CLOSE
    assert is_due(idle_since=None) is Due.NOTHING
    # One that reads is not idle, however long ago that began.
    assert is_due(idle_since=0.0, reads=True) is Due.MEASURE_ANEW


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODIES])
def test_a_request_that_is_not_complete_in_time_is_refused_or_if_it_is_answered_thrown_away(phase: Phase) -> None:
    assert is_due(99, 100, phase, reads=True) is Due.MEASURE_ANEW
    assert is_due(100, 100, phase, reads=True) is Due.REFUSE
    assert is_due(100, 100, phase, reads=True, is_answered=True) is Due.LINGER
    # 0 is no time but that there is none.
    assert is_due(100, 0, phase, reads=True) is Due.MEASURE_ANEW


def test_a_client_that_is_not_to_send_is_not_late_and_its_body_is_measured_anew() -> None:
    assert is_due(100, 50, reads=True, is_held_up=True) is Due.MEASURE_ANEW
    assert is_due(100, 50, reads=False, is_held_up=True) is Due.NOTHING


def test_only_a_body_that_streams_is_measured() -> None:
    assert is_due(reads=True, streams=True) is Due.MEASURE
    assert is_due(phase=Phase.HEAD, reads=True, streams=True) is Due.MEASURE_ANEW
    assert is_due(100, 100, reads=True, streams=True) is Due.REFUSE


def never() -> bool:
    raise AssertionError("it costs a look into the kernel")


def test_a_client_stalls_from_the_first_look_on_that_finds_something_left() -> None:
    assert stalled_since(0.0, 10.0, 0, never) == 0
    assert stalled_since(4.0, 10.0, 0, never) == 0
    assert stalled_since(0.0, 10.0, 7, never) == 10
    assert stalled_since(4.0, 10.0, 7, lambda: False) == 4
    assert stalled_since(4.0, 10.0, 7, lambda: True) == 10


def test_a_body_is_measured_over_the_time_that_it_has() -> None:
    rate, found = pace(None, 10.0, 500, LIMIT_S, 100.0)
    assert (rate, found) == (Rate(10.0, 500), Pace.FINE)
    assert pace(rate, 11.9, 500, LIMIT_S, 100.0) == (rate, Pace.FINE)
    # Nothing more has come for a quarter of it: perhaps it waits for its answer.
    assert pace(rate, 12.0, 500, LIMIT_S, 100.0) == (rate, Pace.ENTER)
    assert pace(rate, 18.0, 1300, LIMIT_S, 100.0) == (Rate(18.0, 1300), Pace.FINE)
    assert pace(rate, 18.0, 1299, LIMIT_S, 100.0)[1] is Pace.TOO_SLOW
    # Where any rate will do it is never too slow.
    assert pace(rate, 1000.0, 500, LIMIT_S, 0) == (rate, Pace.ENTER)


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60), st.integers(1, 1000))
def test_a_body_that_never_comes_more_slowly_than_it_has_to_is_never_refused(steps: list[int], least: int) -> None:
    rate, came = None, 0
    for now, step in enumerate(steps):
        came += least + step
        rate, found = pace(rate, float(now), came, LIMIT_S, float(least))
        assert found is not Pace.TOO_SLOW
