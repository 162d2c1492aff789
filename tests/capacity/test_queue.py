"""The capacity queue as a whole: who is admitted, waits or is refused, and nothing lost in any order of events."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.serve.capacity.holdback import IN_USE_S
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.output_lengths import OutputLengths
from actorrt.serve.capacity.prefix_index import MOST_HITS
from actorrt.serve.capacity.queue import BANDS, Ask, CapacityQueue, QueueLimits, Refusal, TenantLimits
from actorrt.serve.capacity.window import PASSES

from ..depth import DEPTH

FACTS = LineFacts(kv_tokens=1000, slots=4, prefill_rate=1000.0)


class AsAsked(OutputLengths):
    """Expects every answer to be as long as it may be."""

    def expect(self, model: str, tenant: str, prompt: int, max_tokens: int | None = None) -> int:
        return super().expect(model, tenant, prompt) if max_tokens is None else max_tokens


def queue_of(
    lines: int = 1,
    facts: LineFacts = FACTS,
    most: QueueLimits | None = None,
    tenants: Callable[[str], TenantLimits] = lambda _: TenantLimits(),
    lengths: OutputLengths | None = None,
) -> CapacityQueue:
    queue = CapacityQueue(1, 0.0, most=most, tenants=tenants, lengths=lengths or AsAsked())
    for number in range(lines):
        queue.set_line(LineId(str(number)), facts, 1)
    return queue


def ask(prompt: int = 10, max_tokens: int = 90, **options: Any) -> Ask:
    return Ask("m", prompt, max_tokens, **options)


def submit(queue: CapacityQueue, one: Ask, now: float = 0.0) -> Lease:
    lease = queue.submit(one, now)
    assert lease is not None
    return lease


def given(queue: CapacityQueue, now: float = 0.0) -> list[Ask]:
    return [one for one, _ in queue.next(now, lambda: 0.0)]


def test_what_fits_is_admitted_at_once_and_the_rest_waits_for_its_turn() -> None:
    queue = queue_of()
    leases = [submit(queue, ask()) for _ in range(4)]
    first, second = ask(), ask()
    assert queue.submit(first, 0.0) is None
    assert queue.submit(second, 0.0) is None
    assert given(queue) == []
    assert queue.release(leases[0].id.number)
    assert not queue.release(leases[0].id.number)
    assert given(queue) == [first]
    queue.release(leases[1].id.number)
    queue.release(leases[2].id.number)
    assert given(queue) == [second]


@pytest.mark.parametrize("lines", [3, 20])
def test_those_that_are_alike_get_places_as_if_each_had_asked(lines: int) -> None:
    queue, other = queue_of(lines), queue_of(lines)
    for each in (queue, other):
        submit(each, ask())
    leases = queue.submit_alike(ask(), 4 * lines + 5, 0.0, 0.0)
    assert len(leases) == 4 * lines - 1
    for _ in leases:
        submit(other, ask())
    assert other.submit(ask(), 0.0) is None
    running = [line.running for line in queue.ledger.lines.values()]
    assert running == [line.running for line in other.ledger.lines.values()]
    tenant = queue.tenants.of("")
    assert (tenant.running, tenant.running_tokens) == (4 * lines, 400 * lines)
    for lease in leases:
        assert queue.release(lease.number)
    assert (tenant.running, tenant.running_tokens) == (1, 100)


def test_those_that_are_alike_keep_nothing_from_low_bands_where_they_have_no_place() -> None:
    queue, later = queue_of(), IN_USE_S + 1.0
    for _ in range(4):
        submit(queue, ask())
    assert queue.submit_alike(ask(), 2, later, 0.0) == []
    assert queue.holdback.share(queue.last_band, later).slots == BANDS[-1].ceiling


def test_those_that_are_alike_pass_nobody_who_waits() -> None:
    queue = queue_of()
    leases = [submit(queue, ask()) for _ in range(4)]
    first = ask()
    queue.submit(first, 0.0)
    queue.release(leases[0].number)
    assert queue.submit_alike(ask(), 2, 0.0, 0.0) == []
    assert given(queue) == [first]


def test_who_leaves_the_queue_gets_no_place() -> None:
    queue = queue_of()
    lease = submit(queue, ask(100, 900))
    one, other = ask(), ask()
    queue.submit(one, 0.0)
    queue.submit(other, 0.0)
    assert queue.withdraw(one)
    assert not queue.withdraw(one)
    queue.release(lease.id.number)
    assert given(queue) == [other]
    assert not queue.withdraw(other)


def test_a_large_one_is_not_passed_for_ever_and_others_use_the_rest() -> None:
    queue = queue_of(2)
    small = [submit(queue, ask(10, 390)) for _ in range(4)]
    large = ask(10, 880)
    assert queue.submit(large, 0.0) is None
    others = [ask(10, 190) for _ in range(4)]
    for one in others:
        assert queue.submit(one, 0.0) is None
    assert given(queue) == []
    # One line is kept for the large one, and the others share the other.
    found: list[Ask] = []
    for lease in small:
        queue.release(lease.id.number)
        found += given(queue)
    assert len(found) == 5
    assert set(found) == {large, *others}


def test_a_line_that_was_kept_for_one_that_went_elsewhere_is_used_at_once() -> None:
    queue = queue_of(2)
    first, second = (submit(queue, ask(10, 590)) for _ in range(2))
    large, small, passing = ask(10, 690), ask(10, 590), ask(10, 90)
    for one in (large, small, passing):
        queue.submit(one, 0.0)
    assert given(queue) == [passing]
    (kept,) = (line for line in queue.ledger.lines.values() if line.is_kept)
    other, there = (first, second) if first.line is not kept else (second, first)
    queue.release(other.id.number)
    queue.release(there.id.number)
    assert given(queue) == [large, small]


def test_small_ones_that_keep_coming_do_not_starve_a_large_one() -> None:
    queue = queue_of(1)
    running = [submit(queue, ask(10, 190)) for _ in range(4)]
    large = ask(10, 800)
    queue.submit(large, 0.0)
    for turn in range(4):
        queue.submit(ask(10, 190), float(turn))
        queue.release(running[turn].id.number)
        found = given(queue, float(turn))
        if turn < 3:
            assert found == []
        else:
            assert found == [large]


@pytest.mark.parametrize(
    ("lines", "one", "status", "reason"),
    [
        (0, ask(), 503, "no replica serves the model now"),
        (1, ask(1000), 413, "the prompt has 1000 tokens, and a replica holds 1000 at most"),
        (1, ask(5000), 413, "the prompt has 5000 tokens, and a replica holds 1000 at most"),
    ],
)
def test_what_can_never_be_served_is_refused_at_once(lines: int, one: Ask, status: int, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        queue_of(lines).submit(one, 0.0)
    assert (refused.value.status, refused.value.reason) == (status, reason)


def test_an_answer_that_may_be_longer_than_there_is_room_is_served_as_far_as_it_goes() -> None:
    queue = queue_of()
    assert submit(queue, ask(990, 5000)).tokens == 1000


def test_a_full_queue_refuses_with_its_numbers_and_when_to_ask_again() -> None:
    queue = queue_of(most=QueueLimits(requests=2))
    lease = submit(queue, ask(10, 990))
    for _ in range(2):
        queue.submit(ask(), 0.0)
    with pytest.raises(Refusal, match="2 requests wait, and 2 is the limit") as refused:
        queue.submit(ask(), 1.0)
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    queue.release(lease.id.number)
    assert len(given(queue)) == 2


def test_a_tenant_over_its_limit_is_refused_and_others_are_not() -> None:
    limits = {"a": TenantLimits(waiting_requests=1, waiting_tokens=150)}
    queue = queue_of(tenants=lambda name: limits.get(name, TenantLimits()))
    submit(queue, ask(10, 990))
    queue.submit(ask(tenant="a"), 0.0)
    with pytest.raises(Refusal, match="1 requests of tenant a wait, and 1 is the limit"):
        queue.submit(ask(tenant="a"), 0.0)
    assert queue.submit(ask(tenant="b"), 0.0) is None
    limits["a"] = TenantLimits(waiting_tokens=150)
    queue.limits_changed("a")
    with pytest.raises(Refusal, match="100 tokens of tenant a wait, and 150 is the limit"):
        queue.submit(ask(tenant="a"), 0.0)


def test_what_a_tenant_may_run_at_once_is_bounded_and_others_pass_it() -> None:
    queue = queue_of(tenants=lambda name: TenantLimits(running_tokens=150 if name == "a" else None))
    lease = submit(queue, ask(tenant="a"))
    held = ask(tenant="a")
    assert queue.submit(held, 0.0) is None
    other = ask(tenant="b")
    assert queue.submit(other, 0.0) is None
    assert given(queue) == [other]
    queue.release(lease.id.number)
    assert given(queue) == [held]


def test_who_would_wait_beyond_its_deadline_is_refused_at_once_and_who_did_is_then() -> None:
    queue = queue_of()
    lease = submit(queue, ask(10, 490))
    submit(queue, ask(10, 390))
    patient = ask(10, 500, deadline=100.0)
    assert queue.submit(patient, 10.0) is None
    # Of 900 tokens in the first ten seconds: 500 ahead take more than five.
    with pytest.raises(Refusal, match=r"it would wait for .* s, and its deadline is in 1 s") as refused:
        queue.submit(ask(deadline=11.0), 10.0)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after.seconds > 1
    assert list(queue.next(99.0, lambda: 0.0)) == []
    ((found, outcome),) = queue.next(100.0, lambda: 0.0)
    assert found is patient
    assert isinstance(outcome, Refusal)
    assert outcome.status == 429
    assert queue.release(lease.id.number)


def test_who_has_come_and_gone_leaves_nothing_behind() -> None:
    queue = queue_of(tenants=lambda _: TenantLimits(weight=2.0))
    submit(queue, ask(10, 990))
    for number in range(500):
        one = ask(tenant=str(number), deadline=1e9)
        queue.submit(one, 0.0)
        queue.withdraw(one)
    assert len(queue._deadlines) <= 66  # pyright: ignore[reportPrivateUsage]
    assert set(queue.order.weights()) == {""}


def test_a_line_that_ends_names_what_ran_there_and_a_new_life_owes_nothing() -> None:
    queue = queue_of()
    one = ask()
    lease = submit(queue, one)
    assert queue.set_line(LineId("0"), FACTS, 2) == [one]
    assert not queue.release(lease.id.number)
    again = submit(queue, one)
    assert queue.drop_line(LineId("0")) == [one]
    assert queue.drop_line(LineId("0")) == []
    queue.progress(again.id.number, 5)
    with pytest.raises(Refusal, match="no replica"):
        queue.submit(ask(), 0.0)


def test_answers_that_came_are_what_is_expected_of_the_next() -> None:
    queue = queue_of(lines=1, facts=LineFacts(100_000, 64, 1e6), lengths=OutputLengths())
    for _ in range(30):
        lease = submit(queue, ask(10, 5000))
        queue.release(lease.id.number, 40, is_whole=True)
    assert submit(queue, ask(10, 5000)).output < 50


def test_a_prompt_goes_where_its_beginning_lies() -> None:
    queue = queue_of(lines=4, facts=LineFacts(100_000, 64, 1e6))
    chain = (1, 2, 3, 4)
    lease = submit(queue, ask(2048, 10, chain=chain))
    line = lease.line
    for _ in range(5):
        queue.progress(lease.id.number, 1)
        lease = submit(queue, ask(2060, 10, chain=chain))
        assert lease.line is line
        assert lease.unread == 12


def test_of_a_beginning_that_all_lines_hold_nothing_is_read_again() -> None:
    queue = queue_of(lines=40, facts=LineFacts(100_000, 64, 1e6))
    leases = [submit(queue, ask(2060, 10, chain=(1, 2, 3, 4))) for _ in range(40)]
    assert len({lease.line for lease in leases}) == 40
    assert {submit(queue, ask(2060, 10, chain=(1, 2, 3, 4))).unread for _ in range(40)} == {12}


def test_what_another_epoch_let_run_counts() -> None:
    queue = queue_of()
    one = ask(10, 890)
    assert queue.adopt(LineId("0"), 77, one, 20, 0)
    assert not queue.adopt(LineId("0"), 77, one, 20, 0)
    assert queue.submit(ask(), 0.0) is None
    assert queue.release(77, 30)
    assert len(given(queue)) == 1


@pytest.mark.parametrize("wrong", [{"prompt": -1}, {"max_tokens": -1}, {"deadline": float("nan")}])
def test_a_request_of_no_size_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tokens|number"):
        ask(**wrong)


def test_a_band_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no band 9"):
        queue_of().submit(ask(band=9), 0.0)


def test_a_low_band_begins_where_nothing_is_to_be_read_and_few_run_while_higher_ones_are_in_use() -> None:
    queue = queue_of(facts=LineFacts(10_000, 16, 1000.0))
    queue.release(submit(queue, ask()).id.number)
    batch = [ask(100, 10, band=3) for _ in range(4)]
    first = submit(queue, batch[0])
    assert [queue.submit(one, 0.0) for one in batch[1:]] == [None, None, None]
    # What is to be read there is in the way of whoever comes next.
    assert given(queue) == []
    queue.progress(first.id.number, 1)
    assert given(queue) == [batch[1]]
    second = next(lease for lease in queue.ledger.leases.values() if lease.unread)
    queue.progress(second.id.number, 1)
    # An eighth of sixteen runs.
    assert given(queue) == []
    higher = submit_behind(queue, ask(100, 10))
    queue.release(first.id.number)
    queue.release(second.id.number)
    assert given(queue) == []
    queue.progress(higher.id.number, 1)
    assert given(queue) == [batch[2]]


def submit_behind(queue: CapacityQueue, one: Ask, now: float = 0.0) -> Lease:
    """Those that wait are of lower bands."""
    assert queue.submit(one, now) is None
    ((_, lease),) = queue.next(now, lambda: 0.0)
    assert isinstance(lease, Lease)
    return lease


def test_a_low_band_may_fill_its_ceiling_once_no_higher_one_is_in_use() -> None:
    queue = queue_of(facts=LineFacts(10_000, 16, 1000.0))
    submit(queue, ask(1, 1), 10.0)
    batch = [ask(10, 10, band=3) for _ in range(20)]
    for one in batch:
        assert queue.submit(one, 20.0) is None
    assert given(queue, 69.0) == []
    assert given(queue, 71.0) == batch[:11]
    # An empty line takes what can ever fit, whoever is in use.
    submit_behind(queue, ask(1, 1), 72.0)
    for number in list(queue.ledger.leases):
        queue.release(number)
    assert given(queue, 72.0) == [batch[11]]


def test_no_line_is_kept_from_higher_bands() -> None:
    queue = queue_of()
    submit(queue, ask(10, 590))
    large, small = ask(10, 890, band=3), ask(10, 90, band=3)
    for one in (large, small):
        assert queue.submit(one, 0.0) is None
    for lease in list(queue.ledger.leases.values()):
        queue.progress(lease.id.number, 1)
    given(queue)
    assert submit_behind(queue, ask(10, 190)).line.id == LineId("0")


def test_a_session_leaves_a_line_that_has_lost_what_it_had_read() -> None:
    queue = queue_of(2, LineFacts(10_000, 16, 10_000.0))
    lease = submit(queue, ask(600, 10, chain=(1,), session="s"))
    queue.progress(lease.id.number, 1)
    other = submit(queue, ask(50, 10, chain=(), session="s"))
    assert other.line is lease.line
    assert submit(queue, ask(600, 10, chain=(1,), session="s")).line is lease.line
    queue.prefixes.drop(lease.line.id)
    assert submit(queue, ask(600, 10, chain=(1,), session="s")).line is not lease.line


def test_a_session_is_known_to_have_missed_its_line_however_many_hold_its_prompt() -> None:
    queue, chain = queue_of(), (1, 2)
    lines = [LineId(str(number)) for number in range(MOST_HITS + 1)]
    for line in lines:
        queue.set_line(line, LineFacts(10_000, 1, 1000.0), 1)
        queue.prefixes.note(line, chain, 10_000)
    for line in lines:
        queue.sessions.note("s", line, has_blocks=True)
        queue.adopt(line, int(line.replica) - 100, ask(), 0, 0)
        missed = queue.missed_line(ask(1000, 10, session="s", chain=chain), 0.0)
        assert missed is not None
        assert missed.id == line


def test_a_session_stays_as_its_prompt_gets_its_first_whole_block() -> None:
    queue = queue_of(4, LineFacts(10_000, 16, 10_000.0))
    first = submit(queue, ask(300, 10, session="s"))
    queue.progress(first.id.number, 1)
    assert submit(queue, ask(700, 10, chain=(1,), session="s")).line is first.line


def test_one_far_behind_that_had_no_place_is_tried_again_though_lines_gained_when_it_was_not_looked_at() -> None:
    queue = queue_of(2)
    running = [submit(queue, ask(10, most)) for most in (490, 790, 390, 90)]
    small = ask(10, 40)
    assert queue.submit(small, 0.0) is None
    assert list(queue.next(0.0, lambda: 0.0, 1000)) == []
    for _ in range(PASSES + 1):
        assert queue.submit(ask(10, 690, band=0), 0.0) is None
    for lease in running[2:]:
        assert queue.release(lease.number)
    assert given(queue) == []
    assert [one for one, _ in queue.next(1.0, lambda: 0.0, 1000)] == [small]


class Queues(RuleBasedStateMachine):
    """Any order of what may happen, in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dice = random.Random(1)
        self.queue = CapacityQueue(
            1,
            0.0,
            most=QueueLimits(requests=20),
            tenants=lambda name: TenantLimits(2.0, waiting_requests=10, running_tokens=800 if name == "c" else None),
            lengths=AsAsked(),
        )
        self.waiting: dict[Ask, None] = {}
        self.running: dict[int, Ask] = {}
        self.ended: list[int] = []

    def lost(self, asks: Sequence[Ask]) -> None:
        for one in asks:
            # Those that are alike share it.
            there = self.queue.ledger.leases
            number = next(number for number, each in self.running.items() if each is one and number not in there)
            self.ended.append(number)
            del self.running[number]

    @rule(line=st.sampled_from("abc"), life=st.integers(1, 2), kv=st.integers(1, 2000), slots=st.integers(1, 5))
    def set_line(self, line: str, life: int, kv: int, slots: int) -> None:
        self.lost(self.queue.set_line(LineId(line), LineFacts(kv, slots, 100.0), life))

    @rule(line=st.sampled_from("abc"))
    def drop_line(self, line: str) -> None:
        self.lost(self.queue.drop_line(LineId(line)))

    @precondition(lambda self: self.queue.ledger.lines)
    @rule(data=st.data(), is_open=st.booleans())
    def open_line(self, data: st.DataObject, is_open: bool) -> None:
        self.queue.open_line(data.draw(st.sampled_from(sorted(self.queue.ledger.lines))), is_open)

    @rule(
        prompt=st.integers(0, 1500),
        output=st.integers(0, 1500),
        tenant=st.sampled_from("abc"),
        band=st.integers(0, 3),
        deadline=st.sampled_from([5.0, 100.0, float("inf")]),
        chain=st.sampled_from([(), (1, 2), (1, 3)]),
    )
    def submit(self, prompt: int, output: int, tenant: str, band: int, deadline: float, chain: tuple[int, ...]) -> None:
        one = Ask(
            "m", prompt, output, tenant=tenant, band=band, arrived=self.now, deadline=self.now + deadline, chain=chain
        )
        try:
            lease = self.queue.submit(one, self.now, self.dice.random())
        except Refusal:
            return
        if lease is None:
            self.waiting[one] = None
        else:
            self.began(one, lease)

    @rule(
        prompt=st.integers(0, 300),
        output=st.integers(0, 300),
        tenant=st.sampled_from("abc"),
        band=st.integers(0, 3),
        count=st.integers(1, 6),
    )
    def submit_alike(self, prompt: int, output: int, tenant: str, band: int, count: int) -> None:
        shared = Ask("m", prompt, output, tenant=tenant, band=band, arrived=self.now)
        leases = self.queue.submit_alike(shared, count, self.now, self.dice.random())
        for lease in leases:
            self.began(shared, lease)
        for _ in range(count - len(leases)):
            self.submit(prompt, output, tenant, band, float("inf"), ())

    def began(self, one: Ask, lease: Lease) -> None:
        line = lease.line
        assert lease.id.number not in self.running
        assert lease.id.number not in self.ended
        assert line.running == 1 or line.used <= line.fill_tokens
        assert line.running <= line.slots or line.running == 1
        assert line.is_open
        if one.band == 3:
            # It never aged: beside others it has an eighth of the slots, where nothing else is to be read.
            share = self.queue.holdback.share(3, self.now)
            assert line.running == 1 or line.running - 1 < line.slots * share.slots
            saved = one.prompt - lease.unread if share.backlog >= 1 else 0
            most = line.most_backlog * share.backlog + min(saved, line.most_backlog)
            assert line.running == 1 or line.backlog - lease.unread <= most
            assert line.running == 1 or line.used <= line.fill_tokens * share.tokens
        self.running[lease.id.number] = one

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.waiting)))
        # Who made way waits no more, and is told by the next look.
        if self.queue.withdraw(one):
            del self.waiting[one]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), generated=st.integers(0, 1000))
    def progress(self, data: st.DataObject, generated: int) -> None:
        self.queue.progress(data.draw(st.sampled_from(list(self.running))), generated)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), whole=st.booleans(), cached=st.sampled_from([None, 0, 512]))
    def release(self, data: st.DataObject, whole: bool, cached: int | None) -> None:
        number = data.draw(st.sampled_from(list(self.running)))
        del self.running[number]
        self.ended.append(number)
        assert self.queue.release(number, 10, cached, is_whole=whole)

    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        if self.ended:
            assert not self.queue.release(data.draw(st.sampled_from(self.ended)))

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 60.0]), passes=st.sampled_from([1, 32, 1000]))
    def next(self, seconds: float, passes: int) -> None:
        self.now += seconds
        for one, outcome in self.queue.next(self.now, self.dice.random, passes):
            del self.waiting[one]
            if isinstance(outcome, Lease):
                self.began(one, outcome)
            else:
                # Now, or once what is to be read before it has been.
                lines = self.queue.ledger.lines.values()
                longest_s = max((line.backlog / line.prefill_rate for line in lines), default=0.0)
                is_late = one.deadline <= self.now or one.begins_by < self.now + longest_s
                # Or it came beyond a limit or with too little time, and had no place at once; or it made way.
                others = ("is the limit", "its deadline is in", "the queue is full")
                assert is_late or any(words in outcome.reason for words in others)
        assert all(one.deadline > self.now for one in self.waiting)
        assert len(self.queue.order) == len(self.waiting)
        if passes == 1000:
            self.nobody_waits_for_nothing()

    def nobody_waits_for_nothing(self) -> None:
        lines = self.queue.ledger.lines.values()
        for one, _ in self.queue.order.turns():
            tokens_running = sum(each.tokens for each in self.running.values() if each.tenant == one.tenant)
            if one.tenant == "c" and tokens_running and tokens_running + one.tokens > 800:
                continue
            share = self.queue.holdback.share(self.queue.order.band_of(one), self.now)
            assert not any(line.admits(one.tokens, share) for line in lines)
        # No line is kept from all for one that it has room for.
        assert sum(line.is_kept for line in lines) <= (1 if self.waiting else 0)

    @invariant()
    def the_books_are_right(self) -> None:
        assert set(self.queue.ledger.leases) == set(self.running)
        # Who made way is told by the next look.
        assert self.queue.order.places.keys() <= self.waiting.keys()
        for line in self.queue.ledger.lines.values():
            assert line.used == sum(lease.tokens for lease in line.leases.values())


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=40 * DEPTH, stateful_step_count=50, deadline=None)


def test_who_could_not_begin_in_time_at_the_best_replica_is_refused_before_it_waits() -> None:
    queue = CapacityQueue(1, 0.0)
    queue.set_line(LineId("a"), LineFacts(10_000, 8, 100.0), 1)
    assert queue.submit(Ask("m", 150, 10), 0.0)
    # A second and a half is to be read first, and its own prompt takes half of one.
    with pytest.raises(Refusal, match=r"would begin in 1.5 s, and it must in 1.4 s") as refused:
        queue.submit(Ask("m", 50, 10, deadline=1.9), 0.0)
    assert refused.value.retry_after is not None
    assert queue.submit(Ask("m", 50, 10, deadline=2.1), 0.0)
    # Who came back is not refused for that.
    assert queue.submit(Ask("m", 50, 10, deadline=1.0), 0.0, returns=True)


def test_a_prompt_that_takes_longer_to_read_than_its_deadline_has_half_of_it_to_wait() -> None:
    queue = CapacityQueue(1, 0.0)
    queue.set_line(LineId("a"), LineFacts(10_000, 8, 100.0), 1)
    assert queue.submit(Ask("m", 90, 10), 0.0)
    assert queue.submit(Ask("m", 900, 10, deadline=2.0), 0.0)


def test_one_that_waits_is_refused_once_it_could_not_begin_in_time() -> None:
    queue = CapacityQueue(1, 0.0)
    queue.set_line(LineId("a"), LineFacts(1000, 8, 100.0), 1)
    assert queue.submit(Ask("m", 700, 250), 0.0)
    late = Ask("m", 50, 400, deadline=3.0)
    assert queue.submit(late, 0.0) is None
    assert list(queue.next(2.4, lambda: 0.0)) == []
    ((ask, found),) = queue.next(2.5, lambda: 0.0)
    assert ask is late
    assert isinstance(found, Refusal)


def test_a_replica_that_has_read_a_prompt_takes_it_although_much_is_to_be_read_there() -> None:
    queue = CapacityQueue(1, 0.0)
    for name in "ab":
        queue.set_line(LineId(name), LineFacts(10_000, 8, 400.0), 1)
    chain = tuple(range(4))
    first = queue.submit(Ask("m", 4 * 512, 10, chain=chain), 0.0)
    assert first
    queue.release(first.id.number, 10)
    busy = queue.submit(Ask("m", 1000, 10), 0.0)
    other = queue.submit(Ask("m", 1000, 10), 0.0)
    assert busy
    assert other
    assert {busy.line.id, other.line.id} == {LineId("a"), LineId("b")}
    # Beyond two seconds of reading at both.
    assert queue.submit(Ask("m", 100, 10), 0.0) is None
    again = Ask("m", 4 * 512 + 20, 10, chain=chain)
    placed = queue.ledger.find(again, [(first.line, 4 * 512)])
    assert placed
    assert placed.line is first.line
    assert queue.ledger.find(again) is None
