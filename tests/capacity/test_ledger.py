"""The ledger of the capacity queue: the sum of its leases, after every step, and nothing given beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.ledger import Lease, Ledger, Placed
from actorrt.serve.capacity.need import Limits, LineFacts, LineId, Need
from actorrt.serve.capacity.share import WHOLE, Share

from ..depth import DEPTH

FACTS = LineFacts(kv_tokens=1000, slots=4, prefill_rate=100.0)


def ledger_of(*replicas: str, facts: LineFacts = FACTS) -> Ledger:
    ledger = Ledger(epoch=1)
    for replica in replicas:
        ledger.set_line(LineId(replica), facts, 1)
    return ledger


def admit(ledger: Ledger, prompt: int, output: int, router: str = "r") -> Lease | None:
    need = Need(prompt, output)
    placed = ledger.find(need)
    return None if placed is None else ledger.admit(placed, need, router)


def test_a_line_is_filled_to_its_limit_and_not_beyond() -> None:
    ledger = ledger_of("a")
    assert admit(ledger, 100, 300)
    assert admit(ledger, 50, 450)
    assert admit(ledger, 0, 1) is None
    assert ledger.lines[LineId("a")].used == 900


def test_an_empty_line_admits_whatever_can_ever_fit() -> None:
    ledger = ledger_of("a")
    assert admit(ledger, 1001, 0) is None
    assert admit(ledger, 1000, 0)


def test_no_more_run_at_once_than_there_are_slots() -> None:
    ledger = ledger_of("a")
    leases = [admit(ledger, 1, 1) for _ in range(4)]
    assert all(leases)
    assert admit(ledger, 1, 1) is None
    assert leases[0]
    ledger.release(leases[0].id.number)
    assert admit(ledger, 1, 1)


def test_prompts_that_wait_to_be_read_hold_others_back_until_the_first_token() -> None:
    ledger = ledger_of("a")
    lease = admit(ledger, 300, 10)  # more than two seconds of reading
    assert lease
    assert admit(ledger, 1, 1) is None
    ledger.progress(lease.id.number, 1)
    assert admit(ledger, 1, 1)


def test_the_least_busy_line_is_taken() -> None:
    ledger = ledger_of("a", "b", "c")
    lines = [lease.line.id.replica for lease in (admit(ledger, 10, 10) for _ in range(6)) if lease]
    assert sorted(lines) == ["a", "a", "b", "b", "c", "c"]


def test_a_line_that_holds_the_prompt_wins_until_it_is_too_busy() -> None:
    ledger = ledger_of("a", "b")
    a = ledger.lines[LineId("a")]
    need = Need(100, 10)

    def placed() -> str:
        found = ledger.find(need, [(a, 96)])
        assert found
        ledger.admit(found, need, "r")
        return found.line.id.replica

    # 5 x 1 beside 101 x 1, 9 x 2, 13 x 3, 17 x 4; then all its slots are taken.
    assert [placed() for _ in range(4)] == ["a", "a", "a", "a"]
    assert placed() == "b"


def test_an_answer_that_is_longer_than_expected_takes_more_and_is_counted() -> None:
    ledger = ledger_of("a")
    lease = admit(ledger, 100, 50)
    assert lease
    line = lease.line
    for generated, used, short in ((10, 150, 0), (50, 150, 0), (80, 180, 1), (90, 190, 1), (20, 190, 1)):
        ledger.progress(lease.id.number, generated)
        assert (line.used, ledger.short) == (used, short)
    assert ledger.release(lease.id.number) is lease
    assert (line.used, line.backlog, line.running) == (0, 0, 0)


def test_a_lease_ends_once() -> None:
    ledger = ledger_of("a")
    lease = admit(ledger, 100, 50)
    assert lease
    assert ledger.release(lease.id.number) is lease
    assert ledger.release(lease.id.number) is None
    ledger.progress(lease.id.number, 7)
    assert ledger.lines[LineId("a")].used == 0


def test_a_line_that_came_back_owes_nothing_of_its_earlier_life() -> None:
    ledger = ledger_of("a")
    lease = admit(ledger, 100, 50)
    assert lease
    assert ledger.set_line(LineId("a"), FACTS, 2) == [lease]
    assert ledger.release(lease.id.number) is None
    assert ledger.lines[LineId("a")].used == 0
    with pytest.raises(ValueError, match="does not admit"):
        ledger.admit(Placed(lease.line, 0), Need(1, 1), "r")


def test_capacity_may_change_under_what_runs() -> None:
    ledger = ledger_of("a")
    assert admit(ledger, 100, 700)
    ledger.set_line(LineId("a"), LineFacts(500, 4, 100.0), 1)
    assert ledger.lines[LineId("a")].used == 800
    assert admit(ledger, 1, 1) is None
    ledger.set_line(LineId("a"), LineFacts(2000, 4, 100.0), 1)
    assert admit(ledger, 1, 999)


def test_a_draining_line_takes_nothing_and_finishes_what_it_has() -> None:
    ledger = ledger_of("a")
    lease = admit(ledger, 10, 10)
    assert lease
    ledger.open_line(LineId("a"), False)
    assert admit(ledger, 1, 1) is None
    assert ledger.release(lease.id.number)
    assert admit(ledger, 1, 1) is None
    ledger.open_line(LineId("a"), True)
    assert admit(ledger, 1, 1)


def test_what_a_line_says_it_runs_is_adopted_once() -> None:
    ledger = ledger_of("a")
    assert ledger.adopt(LineId("a"), 7, "r", Need(400, 600), 20, 0)
    assert ledger.adopt(LineId("a"), 7, "r", Need(400, 600), 20, 0) is None
    assert ledger.adopt(LineId("b"), 8, "r", Need(1, 1), 0, 0) is None
    assert ledger.lines[LineId("a")].used == 1000
    later = admit(ledger_of("b"), 1, 1)
    assert later
    ledger.release(7)
    lease = admit(ledger, 1, 1)
    assert lease
    assert lease.id.number > 7


def test_a_low_band_leaves_its_share_to_others() -> None:
    ledger = ledger_of("a")
    need = Need(0, 400)
    for part, fits in ((0.5, True), (0.5, False), (1.0, True)):
        placed = ledger.find(need, share=Share(part))
        assert (placed is not None) is fits
        if placed:
            ledger.admit(placed, need, "r")


@pytest.mark.parametrize("wrong", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, float("nan"))])
def test_a_line_that_offers_nothing_is_refused(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        LineFacts(*wrong)


@pytest.mark.parametrize("wrong", [{"fill": 0.0}, {"fill": 1.1}, {"prefill_s": 0.0}, {"fill": float("nan")}])
def test_limits_that_admit_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Limits(**wrong)


@settings(max_examples=300 * DEPTH)
@given(
    slots=st.integers(1, 8),
    rate=st.sampled_from([1.0, 50.0, 1e18]),
    running=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=6),
    others=st.sampled_from([Room(0, 0), Room(50, 1), Room(600, 3)]),
    need=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    share=st.sampled_from([WHOLE, Share(0.7, 0.5), Share(0.9, 0.125, 0.0), Share(0.33, 0.9, 0.5)]),
    count=st.integers(1, 10),
)
def test_those_that_are_alike_are_given_as_if_one_had_come_after_the_other(
    slots: int,
    rate: float,
    running: list[tuple[int, int]],
    others: Room,
    need: tuple[int, int],
    share: Share,
    count: int,
) -> None:
    facts = LineFacts(kv_tokens=1000, slots=slots, prefill_rate=rate)
    together, alone = ledger_of("a", "b", "c", facts=facts), ledger_of("a", "b", "c", facts=facts)
    for ledger in (together, alone):
        for prompt, output in running:
            admit(ledger, prompt, output)
        ledger.set_others(LineId("a"), others)
    one = Need(*need)
    leases = together.admit_alike(one, count, "r", share, 0.0)
    given = 0
    while given < count and (line := alone.least_busy(one.tokens, one.prompt, share, 0.0)) is not None:
        alone.admit((line, one.prompt, 0), one, "r")
        given += 1
    assert len(leases) == given
    numbers = [lease.number for lease in leases]
    assert numbers == list(together.leases)[len(together.leases) - given :]
    assert not numbers or numbers == list(range(numbers[0], numbers[0] + given))

    def lines(ledger: Ledger) -> list[tuple[int, int, int, int]]:
        return [(line.used, line.backlog, line.running, line.at_work) for line in ledger.lines.values()]

    assert lines(together) == lines(alone)


def test_of_many_that_end_each_ends_once_and_no_credit_does() -> None:
    ledger = ledger_of("a", "b")
    asked = ledger.admit_alike(Need(1, 1), 4, "r", WHOLE, 0.0, ask="an ask")
    credit = admit(ledger, 1, 1, router="")
    assert credit is not None
    numbers = [lease.number for lease in asked]
    assert ledger.release_all([*numbers, numbers[0], credit.number, 10**9]) == asked
    assert list(ledger.leases) == [credit.number]
    assert [(line.used, line.running) for line in ledger.lines.values()] == [(2, 1), (0, 0)]
    assert {line.id.replica for line in ledger.take_gained()} == {"a", "b"}


class Ledgers(RuleBasedStateMachine):
    """Any order of what may happen to a ledger."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(epoch=1)
        self.given: dict[int, int] = {}

    @rule(
        replica=st.sampled_from("abc"),
        incarnation=st.integers(1, 2),
        kv=st.integers(1, 2000),
        slots=st.integers(1, 5),
        rate=st.floats(1, 1000),
    )
    def set_line(self, replica: str, incarnation: int, kv: int, slots: int, rate: float) -> None:
        self.ledger.set_line(LineId(replica), LineFacts(kv, slots, rate), incarnation)

    @rule(replica=st.sampled_from("abc"))
    def drop(self, replica: str) -> None:
        self.ledger.drop_line(LineId(replica))

    @precondition(lambda self: self.ledger.lines)
    @rule(data=st.data(), is_open=st.booleans())
    def open_line(self, data: st.DataObject, is_open: bool) -> None:
        self.ledger.open_line(data.draw(st.sampled_from(sorted(self.ledger.lines))), is_open)

    @rule(
        target=leases,
        prompt=st.integers(0, 1500),
        output=st.integers(0, 1500),
        share=st.sampled_from([WHOLE, Share(), Share(0.3), Share(slots=0.5), Share(backlog=0.0), Share(0.7, 0.5, 0.5)]),
        chance=st.floats(0, 1, exclude_max=True),
        hit=st.booleans(),
    )
    def admit(self, prompt: int, output: int, share: Share, chance: float, hit: bool) -> int:
        need = Need(prompt, output)
        lines = list(self.ledger.lines.values())
        cached = [(lines[0], prompt // 2)] if hit and lines else []
        possible = [line for line in lines if line.admits(need.tokens, share)]
        placed = self.ledger.find(need, cached, share, chance)
        # It finds a line exactly where there is one.
        assert (placed is not None) == bool(possible)
        if placed is None:
            return 0
        assert placed.line in possible
        line = placed.line
        assert not line.running or line.used + line.others.tokens + need.tokens <= line.fill_tokens * share.tokens
        assert not line.running or line.at_work < line.slots * share.slots
        # Of what it has read before, as much more may wait: not of a share of less than all.
        most = line.most_backlog * (share.backlog if share.backlog < 1 else 2)
        assert not line.running or line.backlog <= most
        lease = self.ledger.admit(placed, need, "r")
        assert lease.id.number not in self.given
        self.given[lease.id.number] = 1
        return lease.id.number

    @precondition(lambda self: self.ledger.lines)
    @rule(data=st.data(), tokens=st.sampled_from([0, 100, 5000]), slots=st.integers(0, 6))
    def set_others(self, data: st.DataObject, tokens: int, slots: int) -> None:
        self.ledger.set_others(data.draw(st.sampled_from(sorted(self.ledger.lines))), Room(tokens, slots))

    @rule(number=leases, generated=st.integers(0, 2000))
    def progress(self, number: int, generated: int) -> None:
        self.ledger.progress(number, generated)

    @rule(number=leases)
    def release(self, number: int) -> None:
        there = number in self.ledger.leases
        assert (self.ledger.release(number) is not None) is there

    @invariant()
    def lines_are_the_sums_of_their_leases(self) -> None:
        seen = 0
        for line in self.ledger.lines.values():
            leases = list(line.leases.values())
            seen += len(leases)
            assert line.used == sum(lease.tokens for lease in leases)
            assert line.backlog == sum(lease.unread for lease in leases)
            assert line.running == len(leases)
            assert line.at_work == line.running + line.others.slots
            assert all(self.ledger.leases[lease.id.number] is lease for lease in leases)
        assert seen == len(self.ledger.leases)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=30 * DEPTH, stateful_step_count=40, deadline=None)
