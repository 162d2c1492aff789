"""How tasks are spread over workers, and what a death means for each of them."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from actorrt.core.pipeline import (
    AHEAD_S,
    LEAST_FRAME,
    LONG_S,
    MAX_DEPTH,
    Pace,
    after_crash,
    frame_is_due,
    leases_to_ask,
    share,
)

COUNTS = st.integers(0, 5000)


def test_nothing_is_queued_behind_tasks_that_nobody_knows() -> None:
    assert Pace().depth == 1


@given(samples=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1024)), min_size=1))
def test_the_depth_stays_within_its_bounds(samples: list[tuple[float, int]]) -> None:
    pace = Pace()
    for elapsed, tasks in samples:
        pace.measured(elapsed, tasks)
        assert 1 <= pace.depth <= MAX_DEPTH


@given(duration=st.floats(1e-6, 10))
def test_what_lies_in_front_of_a_worker_takes_no_longer_than_it_may(duration: float) -> None:
    pace = Pace()
    for _ in range(100):
        pace.measured(duration, 1)
    assert pace.depth == 1 or pace.depth * duration <= AHEAD_S * 1.001


def test_tasks_that_came_back_are_sent_one_by_one_until_they_are_known_to_be_short() -> None:
    pace = Pace()
    pace.measured(1e-5, 1)
    assert pace.depth > 1
    pace.ran_long()
    assert pace.depth == 1
    assert pace.mean_s is not None
    assert pace.mean_s >= LONG_S
    for _ in range(40):
        pace.measured(1e-5, 1)
    assert pace.depth > 1


@given(backlog=COUNTS, rooms=st.lists(st.integers(1, MAX_DEPTH), min_size=1, max_size=20))
def test_no_task_waits_while_a_worker_has_room(backlog: int, rooms: list[int]) -> None:
    left = backlog
    for index, room in enumerate(rooms):
        taken = min(left, share(left, len(rooms) - index, room))
        assert taken <= room
        # Whoever is left when its turn comes gets something.
        assert taken or not left
        left -= taken
    assert left <= max(0, backlog - len(rooms))


@given(backlog=st.integers(0, 100), workers=st.integers(1, 20))
def test_tasks_are_spread_evenly_over_workers_with_room(backlog: int, workers: int) -> None:
    left, shares = backlog, list[int]()
    for index in range(workers):
        shares.append(min(left, share(left, workers - index, MAX_DEPTH)))
        left -= shares[-1]
    assert left == 0
    assert max(shares) - min(shares) <= 1


@given(backlog=COUNTS, asked=st.integers(0, 100), limit=st.integers(1, 100))
def test_never_more_leases_are_asked_for_than_tasks_wait(backlog: int, asked: int, limit: int) -> None:
    more = leases_to_ask(backlog, asked, limit)
    assert more >= 0
    assert more == 0 or asked + more <= min(backlog, limit)
    assert asked + more >= min(backlog, limit)


@given(calls=st.lists(st.integers(1, 50), unique=True, max_size=20), begun=st.integers(1, 50))
def test_after_a_crash_each_call_is_sorted_once_and_in_order(calls: list[int], begun: int) -> None:
    finished, charged, unstarted = after_crash(calls, 7, (7, begun))
    assert [*finished, *charged, *unstarted] == calls
    assert list(charged) == [begun] * (begun in calls)


def test_a_crash_is_blamed_on_the_task_that_was_begun_last() -> None:
    assert after_crash([1, 2, 3, 4], 7, (7, 3)) == ([1, 2], [3], [4])


def test_a_crash_after_the_last_answer_is_blamed_on_nobody() -> None:
    assert after_crash([4, 5], 7, (7, 3)) == ((), (), [4, 5])
    assert after_crash([4, 5], 7, (6, 4)) == ((), (), [4, 5])


def test_where_nobody_knows_the_first_is_blamed() -> None:
    assert after_crash([4, 5], 7, None) == ((), [4], [5])
    assert after_crash([], 7, None) == ((), (), ())


@given(inflight=st.integers(1, 5000))
def test_what_is_under_way_is_cut_into_some_four_frames(inflight: int) -> None:
    frames: list[int] = []
    queued = 0
    for _ in range(inflight):
        queued += 1
        if frame_is_due(queued, inflight):
            frames.append(queued)
            queued = 0
    assert sum(frames) + queued == inflight
    assert len(frames) <= 4
    assert all(size >= LEAST_FRAME for size in frames)
    assert inflight < 16 or len(frames) >= 3
