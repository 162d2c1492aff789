"""When a loop counts as blocked, and that this is told once: each rule, and loops that block at any times."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.watchdog import (
    GIL_FACTOR,
    IDLE_PERIOD_S,
    LONG_WORK_S,
    LOOKS,
    Alarm,
    Finding,
    Watch,
    sends_others_elsewhere,
)

LIMIT_S: Final = 0.1
PERIOD_S: Final = LIMIT_S / LOOKS


def found(watch: Watch, now: float, late_s: float = 0.0, **given: float) -> Finding:
    """What a closer look finds; `given`: on_purpose, excused_until and waited_for_cpu, where they count."""
    return watch.find(
        now,
        late_s,
        on_purpose=bool(given.get("on_purpose", False)),
        excused_until=given.get("excused_until", 0.0),
        waited_for_cpu=given.get("waited_for_cpu", 0.0),
    )


def asked(at: float) -> Watch:
    """A watch whose loop was asked then, and is busy."""
    watch = Watch(LIMIT_S)
    watch.next_look(at, True, 0.0)
    assert watch.ask(at) == 1
    return watch


def test_one_question_is_open_at_a_time() -> None:
    watch = asked(10.0)
    assert watch.ask(10.1) is None
    assert watch.is_late
    watch.answer(1)
    assert not watch.is_late
    assert watch.ask(10.2) == 2


def test_work_for_an_idle_loop_brings_the_next_look_forward() -> None:
    watch = Watch(LIMIT_S)
    assert watch.next_look(10.0, False, 0.0) == IDLE_PERIOD_S
    assert watch.work()
    assert watch.next_look(10.0, True, 0.0) == PERIOD_S
    assert not watch.work()


def test_a_loop_that_answers_in_time_is_not_looked_at_closer() -> None:
    watch = asked(10.0)
    assert watch.look(10.0 + PERIOD_S, True) is None
    watch.answer(1)
    assert watch.look(10.0 + 3 * PERIOD_S, True) is None


def test_a_question_that_stays_open_says_how_long_the_loop_has_been_blocked() -> None:
    watch = asked(10.0)
    watch.next_look(10.0 + 2 * PERIOD_S, True, 0.0)
    now = 10.0 + 3 * PERIOD_S + 0.001
    assert watch.look(now, True) == pytest.approx(0.001)
    finding = found(watch, now)
    assert finding.blocked_s == pytest.approx(3 * PERIOD_S + 0.001)
    assert finding.tell_s == finding.blocked_s
    assert not finding.kept_the_gil


def test_a_block_is_told_once_and_the_next_one_again() -> None:
    watch = asked(10.0)
    assert found(watch, 10.2).tell_s is not None
    watch.tell()
    again = found(watch, 10.3)
    assert again.blocked_s == pytest.approx(0.3)
    assert again.tell_s is None
    watch.answer(1)
    assert watch.ask(11.0) == 2
    assert found(watch, 11.2).tell_s == pytest.approx(0.2)


def test_what_blocks_on_purpose_is_not_told_but_others_may_go_elsewhere() -> None:
    watch = asked(10.0)
    finding = found(watch, 10.2, on_purpose=True)
    assert finding.blocked_s == pytest.approx(0.2)
    assert finding.tell_s is None
    # Nor when it turns out later that it has done so.
    assert found(watch, 10.3).tell_s is None


def test_a_block_counts_from_the_end_of_what_blocked_on_purpose() -> None:
    watch = asked(10.0)
    watch.looked(10.1, True, True)
    assert found(watch, 10.2, excused_until=10.19) == Finding(None, None)
    assert found(watch, 10.2, on_purpose=True).tell_s is None
    # What blocks from then on is another thing.
    assert found(watch, 10.35, excused_until=10.2).tell_s == pytest.approx(0.15)


def test_a_loop_that_does_not_run_yet_is_not_blocked() -> None:
    watch = asked(10.0)
    assert watch.look(15.0, False) == pytest.approx(5.0 - PERIOD_S)
    assert found(watch, 15.0).blocked_s is None


def test_a_look_that_is_late_says_that_the_gil_was_kept() -> None:
    watch = asked(10.0)
    watch.answer(1)
    now = 10.0 + PERIOD_S + 0.5
    late_s = watch.look(now, True)
    assert late_s is not None
    assert late_s == pytest.approx(0.5)
    assert watch.counts_cpu(late_s)
    finding = found(watch, now, late_s)
    assert finding.blocked_s is None
    assert finding.tell_s == pytest.approx(0.5)
    assert finding.kept_the_gil


def test_what_waited_for_a_cpu_kept_no_gil() -> None:
    watch = Watch(LIMIT_S)
    watch.next_look(10.0, True, 7.0)
    assert found(watch, 10.5, 0.475, waited_for_cpu=7.4).tell_s is None
    assert found(watch, 10.5, 0.475, waited_for_cpu=7.3).tell_s == pytest.approx(0.475)


def test_an_idle_loop_is_asked_at_each_look_and_a_busy_one_until_it_is_idle() -> None:
    watch = Watch(LIMIT_S)
    watch.next_look(10.0, False, 0.0)
    assert watch.looked(10.5, False, False)
    watch.next_look(10.5, True, 0.0)
    assert not watch.looked(10.5, False, False)
    assert watch.looked(10.5, True, False)
    assert watch.looked(10.5, False, True)
    watch.work()
    assert watch.looked(10.5, False, False)
    # The work has been seen.
    assert not watch.looked(10.5, False, False)


def test_the_alarm_is_put_off_while_the_loop_is_busy_and_off_while_it_is_not() -> None:
    watch = Watch(LIMIT_S)
    span = LIMIT_S * GIL_FACTOR
    assert watch.alarm_s == span
    assert watch.alarm(100.0, False) is Alarm.KEEP
    assert watch.alarm(100.0, True) is Alarm.PUT_OFF
    assert watch.alarm(100.0 + span / 5, True) is Alarm.KEEP
    assert watch.alarm(100.0 + span / 4, True) is Alarm.PUT_OFF
    assert watch.alarm(100.0 + span, False) is Alarm.TURN_OFF
    assert watch.alarm(100.0 + 2 * span, False) is Alarm.KEEP


def test_what_the_alarm_has_told_is_not_told_again() -> None:
    watch = asked(100.0)
    assert watch.alarm(100.0, True) is Alarm.PUT_OFF
    now = 100.0 + watch.alarm_s + 0.1
    assert watch.look(now, True) is not None
    assert found(watch, now, now - 100.0 - PERIOD_S).tell_s is None


def test_what_is_said_of_a_loop_is_said_once() -> None:
    watch = Watch(LIMIT_S)
    assert not watch.says("", False)
    assert watch.says("A.block", False)
    assert not watch.says("A.block", False)
    assert watch.says("A.block", True)
    assert watch.says("", False)


def test_code_of_a_user_sends_others_elsewhere_at_once_and_other_work_only_if_it_lasts() -> None:
    assert sends_others_elsewhere(LIMIT_S, True)
    assert not sends_others_elsewhere(LIMIT_S, False)
    assert sends_others_elsewhere(LONG_WORK_S, False)


class Loop:
    """A loop that is stuck in the given spans of time, and whoever looks at it, as the shell does."""

    def __init__(self, stuck: list[tuple[float, float]]) -> None:
        self.stuck = stuck
        self.watch = Watch(LIMIT_S)
        self.told: list[tuple[float, float]] = []
        self.question: tuple[int, float] | None = None

    def answers(self, now: float) -> None:
        """The open question, if the loop has turned since it was asked."""
        if self.question is not None:
            number, at = self.question
            free = next((end for begin, end in self.stuck if begin <= at < end), at)
            if free <= now:
                self.watch.answer(number)
                self.question = None

    def ask(self, now: float) -> None:
        number = self.watch.ask(now)
        if number is not None:
            self.question = (number, now)

    def run(self, until: float) -> None:
        now = self.watch.next_look(0.0, True, 0.0)
        while now < until:
            self.answers(now)
            late_s = self.watch.look(now, True)
            late = self.watch.is_late
            if late_s is not None and (finding := found(self.watch, now, late_s)).tell_s is not None:
                self.watch.tell()
                self.told.append((now, finding.tell_s))
            if self.watch.looked(now, late, runs_calls=True):
                self.ask(now)
            now += self.watch.next_look(now, True, 0.0)


@given(
    spans=st.lists(st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 0.6)), max_size=6),
)
def test_a_block_beyond_the_limit_is_told_once_while_it_lasts_and_a_shorter_one_never(
    spans: list[tuple[float, float]],
) -> None:
    stuck: list[tuple[float, float]] = []
    now = 1.0
    for free_s, stuck_s in spans:
        stuck.append((now + free_s, now + free_s + stuck_s))
        now += free_s + stuck_s
    loop = Loop(stuck)
    loop.run(now + 1.0)
    for begin, end in stuck:
        told = [(at, span) for at, span in loop.told if begin <= at < end]
        # A step is found by the time it has lasted for the limit and a look; a look may come a little earlier.
        if end - begin > LIMIT_S + PERIOD_S:
            assert len(told) == 1
        if end - begin < LIMIT_S - PERIOD_S:
            assert told == []
        assert all(span <= at - begin + 1e-9 for at, span in told)
    assert len(loop.told) == sum(any(begin <= at < end for at, _ in loop.told) for begin, end in stuck)
