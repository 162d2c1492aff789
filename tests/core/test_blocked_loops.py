"""Which shared workers count as blocked, and which are ended for that."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorrt.core.blocked_loops import (
    ASK_EVERY_S,
    QUESTIONS,
    SILENT_AFTER,
    Action,
    Arm,
    BlockedLoops,
    Disarm,
    End,
    Tell,
)
from actorrt.types import ProcessId

ONE, TWO = ProcessId(b"worker 1"), ProcessId(b"worker 2")
TIMEOUT_S = 30.0


@pytest.fixture
def loops() -> BlockedLoops:
    return BlockedLoops(TIMEOUT_S)


def test_what_a_worker_says_is_told_once(loops: BlockedLoops) -> None:
    assert loops.heard(ONE, "f", False) == [Tell(ONE, True)]
    assert loops.heard(ONE, "g", False) == []
    assert not loops.is_blocked(TWO)
    assert loops.heard(ONE, "", False) == [Tell(ONE, False)]


def test_one_that_holds_others_up_is_ended_when_its_time_is_over(loops: BlockedLoops) -> None:
    assert loops.heard(ONE, "f", True) == [Arm(ONE, TIMEOUT_S), Tell(ONE, True)]
    # The time runs from the first word on, and the first is blamed.
    assert loops.heard(ONE, "g", True) == []
    assert loops.due(ONE) == [End(ONE, "its event loop was blocked for 30 s by f")]
    assert loops.due(ONE) == []


def test_one_that_goes_on_or_does_no_harm_any_more_has_no_deadline(loops: BlockedLoops) -> None:
    loops.heard(ONE, "f", True)
    assert loops.heard(ONE, "an import", False) == [Disarm(ONE)]
    loops.heard(ONE, "f", True)
    assert loops.heard(ONE, "", False) == [Disarm(ONE), Tell(ONE, False)]
    loops.heard(ONE, "f", True)
    assert loops.ended(ONE) == [Disarm(ONE)]
    assert loops.due(ONE) == []


def test_without_a_timeout_nobody_is_ended() -> None:
    loops = BlockedLoops(0.0)
    assert loops.period_s == ASK_EVERY_S
    assert loops.heard(ONE, "f", True) == [Tell(ONE, True)]
    assert loops.asks(ONE)
    told = [loops.no_answer(ONE, "R") for _ in range(1000)]
    assert not any(isinstance(action, End) for actions in told for action in actions)


def test_one_that_keeps_the_gil_counts_as_blocked_and_is_ended_in_time() -> None:
    loops = BlockedLoops(2.0)
    assert loops.period_s == 2.0 / QUESTIONS
    assert loops.asks(ONE)
    seen = [loops.no_answer(ONE, "R") for _ in range(QUESTIONS)]
    assert seen[SILENT_AFTER - 1] == [Tell(ONE, True)]
    assert seen[-1] == [End(ONE, "it did not answer for 2 s: code in it keeps the interpreter to itself")]
    assert not any(seen[: SILENT_AFTER - 1] + seen[SILENT_AFTER:-1])
    assert loops.answered(ONE) == [Tell(ONE, False)]
    assert loops.asks(ONE)


@pytest.mark.parametrize("state", ["T", "t", "Z", None])
def test_one_that_is_stopped_or_debugged_is_not_judged_by_its_silence(loops: BlockedLoops, state: str | None) -> None:
    loops.asks(ONE)
    assert [loops.no_answer(ONE, state) for _ in range(1000)] == [[]] * 1000


class Histories(RuleBasedStateMachine):
    """What a node hears and sees of two workers, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = BlockedLoops(2.0)
        self.told = {ONE: False, TWO: False}
        self.armed: set[ProcessId] = set()
        self.asked: set[ProcessId] = set()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Tell():
                    # Each word is news.
                    assert self.told[action.process] is not action.blocked
                    self.told[action.process] = action.blocked
                case Arm():
                    assert action.process not in self.armed
                    self.armed.add(action.process)
                case Disarm():
                    self.armed.remove(action.process)
                case End():
                    assert self.loops.is_blocked(action.process)

    @rule(process=st.sampled_from([ONE, TWO]), by=st.sampled_from(["", "f"]), harmful=st.booleans())
    def says(self, process: ProcessId, by: str, harmful: bool) -> None:
        self.perform(self.loops.heard(process, by, harmful and bool(by)))

    @rule(process=st.sampled_from([ONE, TWO]), state=st.sampled_from(["R", "S", "T", None]))
    def is_looked_at(self, process: ProcessId, state: str | None) -> None:
        if self.loops.asks(process):
            assert process not in self.asked
            self.asked.add(process)
        else:
            assert process in self.asked
            self.perform(self.loops.no_answer(process, state))

    @rule(process=st.sampled_from([ONE, TWO]))
    def answers(self, process: ProcessId) -> None:
        if process in self.asked:
            self.asked.remove(process)
            self.perform(self.loops.answered(process))

    @rule(process=st.sampled_from([ONE, TWO]))
    def time_is_over(self, process: ProcessId) -> None:
        if process in self.armed:
            self.armed.remove(process)
            self.perform(self.loops.due(process))

    @rule(process=st.sampled_from([ONE, TWO]))
    def ends(self, process: ProcessId) -> None:
        self.perform(self.loops.ended(process))
        self.told[process] = False
        assert process not in self.armed

    @invariant()
    def what_was_told_is_so(self) -> None:
        for process, blocked in self.told.items():
            assert self.loops.is_blocked(process) is blocked


TestHistories = Histories.TestCase
