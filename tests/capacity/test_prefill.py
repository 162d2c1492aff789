"""Prefill and decode on separate replicas: one lease on two lines of one revision, in any order of events."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.serve.capacity.explain import explain
from actorrt.serve.capacity.ledger import Lease, Line
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.prefill import Prefill
from actorrt.serve.capacity.queue import Ask, CapacityQueue, QueueLimits, Refusal

from .test_queue import AsAsked, ask, given, submit

READS = LineFacts(kv_tokens=1000, slots=4, prefill_rate=100.0)
ANSWERS = LineFacts(kv_tokens=1000, slots=4, prefill_rate=1e15)


def prefill_of(queue: CapacityQueue) -> Prefill:
    assert queue.prefill is not None
    return queue.prefill


def queue_of(
    readers: int = 1, answerers: int = 1, reads: LineFacts = READS, answers: LineFacts = ANSWERS
) -> CapacityQueue:
    queue = CapacityQueue(1, 0.0, lengths=AsAsked(), reads_elsewhere=True)
    for number in range(readers):
        queue.set_reader(LineId(f"p{number}"), reads, 1, "v1")
    for number in range(answerers):
        answering(queue, f"d{number}", answers)
    return queue


def answering(queue: CapacityQueue, replica: str, facts: LineFacts = ANSWERS, revision: str = "v1") -> None:
    queue.set_line(LineId(replica), facts, 1)
    prefill_of(queue).answers_in(LineId(replica), revision)


def reading(queue: CapacityQueue, lease: Lease) -> Lease:
    found = prefill_of(queue).lease(lease.number)
    assert found is not None
    return found


def state(queue: CapacityQueue) -> list[tuple[str, int, int, int]]:
    lines = [*prefill_of(queue).lines(), *queue.ledger.lines.values()]
    return [(line.id.replica, line.used, line.backlog, line.running) for line in lines]


def test_one_lease_takes_its_prompt_of_the_line_that_reads_and_all_of_the_one_that_answers() -> None:
    queue = queue_of()
    lease = submit(queue, ask(100, 50))
    assert state(queue) == [("p0", 100, 100, 1), ("d0", 150, 0, 1)]
    assert reading(queue, lease).number == lease.number
    queue.progress(lease.number, 1)
    assert state(queue) == [("p0", 0, 0, 0), ("d0", 150, 0, 1)]
    assert queue.release(lease.number, 50)
    assert not queue.release(lease.number, 50)
    assert state(queue) == [("p0", 0, 0, 0), ("d0", 0, 0, 0)]


def test_a_prompt_that_was_handed_over_makes_room_for_the_next_one_to_be_read() -> None:
    queue = queue_of()
    lease = submit(queue, ask(201, 1))
    second = ask(100, 1)
    assert queue.submit(second, 0.0) is None
    assert given(queue) == []
    queue.handed_over(lease.number)
    queue.handed_over(lease.number)
    assert given(queue) == [second]
    assert state(queue) == [("p0", 100, 100, 1), ("d0", 303, 0, 2)]


def test_both_lines_must_have_room() -> None:
    queue = queue_of(answers=LineFacts(1000, 1, 1e15))
    lease = submit(queue, ask(10, 10))
    queue.handed_over(lease.number)
    waits = ask(10, 10)
    assert queue.submit(waits, 0.0) is None
    assert given(queue) == []
    assert state(queue)[0] == ("p0", 0, 0, 0)
    queue.release(lease.number)
    assert given(queue) == [waits]


@pytest.mark.parametrize(("readers", "answerers"), [(0, 1), (1, 0), (0, 0)])
def test_without_a_line_of_each_kind_nobody_is_served(readers: int, answerers: int) -> None:
    with pytest.raises(Refusal, match="no replica serves the model now") as refused:
        queue_of(readers, answerers).submit(ask(), 0.0)
    assert refused.value.status == 503


def test_a_prompt_that_no_line_can_read_is_refused_at_once() -> None:
    queue = queue_of(answers=LineFacts(5000, 4, 1e15))
    with pytest.raises(Refusal, match="the prompt has 1000 tokens, and a replica holds 1000 at most"):
        queue.submit(ask(1000, 10), 0.0)
    assert submit(queue, ask(900, 3000)).tokens == 3900


def test_a_lease_is_within_one_revision() -> None:
    queue = queue_of()
    queue.set_reader(LineId("p-new"), LineFacts(1000, 4, 1e6), 1, "v2")
    first = submit(queue, ask(150, 1))
    assert (reading(queue, first).line.id.replica, first.line.id.replica) == ("p0", "d0")
    answering(queue, "d-new", revision="v2")
    second = submit(queue, ask(150, 1))
    assert (reading(queue, second).line.id.replica, second.line.id.replica) == ("p-new", "d-new")
    queue.drop_line(LineId("d-new"))
    queue.handed_over(first.number)
    queue.drop_line(LineId("d0"))
    answering(queue, "d-new", revision="v2")
    queue.drop_reader(LineId("p-new"))
    waits = ask(10, 10)
    assert queue.submit(waits, 0.0) is None
    assert given(queue) == []
    found = explain(queue, waits, 0.0)
    assert found is not None
    assert found.reason == "no replica reads prompts for those that answer: of their revision there is none"


def test_what_was_not_handed_over_by_a_line_that_dies_is_named_and_stays_until_it_is_given_back() -> None:
    queue = queue_of(2)
    read, unread = submit(queue, ask(100, 1)), submit(queue, ask(100, 1))
    queue.handed_over(read.number)
    lost = reading(queue, unread).line.id
    assert queue.drop_reader(lost) == [unread.number]
    assert queue.drop_reader(lost) == []
    assert ("d0", 202, 0, 2) in state(queue)
    assert queue.release(unread.number)
    assert queue.release(read.number)
    again = submit(queue, ask(100, 1))
    assert reading(queue, again).line.id != lost


def test_a_line_that_answers_takes_what_is_read_for_it_along_as_it_dies() -> None:
    queue = queue_of()
    one = ask(100, 1)
    submit(queue, one)
    assert queue.drop_line(LineId("d0")) == [one]
    assert state(queue) == [("p0", 0, 0, 0)]


def test_a_later_queue_learns_both_parts_from_who_runs_them_in_any_order() -> None:
    queue, prefill = queue_of(), None
    prefill = prefill_of(queue)
    one = ask(300, 100)
    assert prefill.adopt(LineId("p0"), -7, one)
    assert not prefill.adopt(LineId("p0"), -7, one)
    assert queue.adopt(LineId("d0"), -7, one, 0, 0)
    assert state(queue) == [("p0", 300, 0, 1), ("d0", 400, 0, 1)]
    queue.handed_over(-7)
    assert queue.release(-7)
    assert state(queue) == [("p0", 0, 0, 0), ("d0", 0, 0, 0)]


def test_prefixes_and_sessions_lie_with_the_lines_that_read() -> None:
    queue = queue_of(4, 4, LineFacts(10_000, 16, 10_000.0), LineFacts(10_000, 16, 1e15))
    chain = (1, 2)
    first = submit(queue, ask(1030, 10, chain=chain, session="s"))
    line = reading(queue, first).line
    queue.handed_over(first.number)
    second = submit(queue, ask(1040, 10, chain=chain))
    assert reading(queue, second).line is line
    assert reading(queue, second).unread == 16
    assert second.line is not first.line
    turn = submit(queue, ask(20, 10, session="s"))
    assert reading(queue, turn).line is line


def test_small_prompts_do_not_starve_a_large_one_and_lines_that_answer_are_not_kept_for_it() -> None:
    queue = queue_of(reads=LineFacts(1000, 4, 1e6), answers=LineFacts(10_000, 64, 1e15))
    running = [submit(queue, ask(200, 10)) for _ in range(4)]
    large = ask(800, 10)
    queue.submit(large, 0.0)
    for turn in range(4):
        queue.submit(ask(190, 10), float(turn))
        queue.handed_over(running[turn].number)
        found = given(queue, float(turn))
        assert found == ([] if turn < 3 else [large])
        if turn < 3:
            assert not any(line.is_kept for line in queue.ledger.lines.values())
            told = explain(queue, large, 0.0)
            assert told is not None
            assert "kept to read it" in told.reason


def test_a_revision_without_any_that_answers_keeps_no_line_from_being_kept() -> None:
    queue = queue_of(reads=LineFacts(1000, 4, 1e6), answers=LineFacts(10_000, 64, 1e15))
    queue.set_reader(LineId("later"), LineFacts(1000, 4, 1e6), 1, "v2")
    running = [submit(queue, ask(200, 10)) for _ in range(4)]
    large = ask(800, 10)
    queue.submit(large, 0.0)
    for turn in range(4):
        queue.submit(ask(190, 10), float(turn))
        queue.handed_over(running[turn].number)
        assert given(queue, float(turn)) == ([] if turn < 3 else [large])


def test_a_request_is_told_that_it_waits_for_prompts_to_be_read() -> None:
    queue = queue_of()
    submit(queue, ask(201, 1))
    waits = ask(10, 10)
    queue.submit(waits, 0.0)
    found = explain(queue, waits, 0.0)
    assert found is not None
    assert found.reason.startswith("at every replica that reads prompts no slot is free")


class Pairs(RuleBasedStateMachine):
    """Any order of what may happen, in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dice = random.Random(1)
        self.queue = CapacityQueue(1, 0.0, most=QueueLimits(requests=20), lengths=AsAsked(), reads_elsewhere=True)
        self.prefill = prefill_of(self.queue)
        self.waiting: dict[Ask, None] = {}
        self.running: dict[int, Ask] = {}
        self.unread: set[int] = set()
        # Of those, the ones of which their line has said that it reads them.
        self.begun: set[int] = set()
        self.revisions: dict[str, str] = {}
        self.ended: list[int] = []

    @rule(line=st.sampled_from(["p1", "p2"]), life=st.integers(1, 2), kv=st.integers(1, 2000), new=st.booleans())
    def set_reader(self, line: str, life: int, kv: int, new: bool) -> None:
        self.queue.set_reader(LineId(line), LineFacts(kv, 3, 100.0), life, "v2" if new else "v1")
        self._forget_reads()

    @rule(line=st.sampled_from(["p1", "p2"]))
    def drop_reader(self, line: str) -> None:
        for number in self.queue.drop_reader(LineId(line)):
            self.unread.remove(number)

    def _forget_reads(self) -> None:
        self.unread = {number for number in self.unread if self.prefill.lease(number) is not None}

    @rule(line=st.sampled_from(["d1", "d2"]), life=st.integers(1, 2), kv=st.integers(1, 2000), new=st.booleans())
    def set_line(self, line: str, life: int, kv: int, new: bool) -> None:
        revision = "v2" if new else "v1"
        if self.revisions.get(line, revision) != revision:
            self.drop_line(line)
        self.revisions[line] = revision
        self._lost(self.queue.set_line(LineId(line), LineFacts(kv, 4, 1e15), life))
        self.prefill.answers_in(LineId(line), revision)

    @rule(line=st.sampled_from(["d1", "d2"]))
    def drop_line(self, line: str) -> None:
        self.revisions.pop(line, None)
        self._lost(self.queue.drop_line(LineId(line)))

    def _lost(self, asks: list[Ask]) -> None:
        for one in asks:
            (number,) = (number for number, each in self.running.items() if each is one)
            self._over(number)

    def _over(self, number: int) -> None:
        del self.running[number]
        if number not in self.begun:
            self.unread.discard(number)
        self.ended.append(number)

    @precondition(lambda self: self.unread)
    @rule(data=st.data())
    def begin_to_read(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.unread)))
        lease = self.prefill.lease(number)
        assert lease is not None
        lease.has_begun = True
        self.begun.add(number)

    @precondition(lambda self: self.unread - self.running.keys())
    @rule(data=st.data())
    def read_for_nobody(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.unread - self.running.keys())))
        self.queue.handed_over(number)
        self.unread.remove(number)

    @rule(
        prompt=st.integers(0, 1500),
        output=st.integers(0, 1000),
        band=st.integers(0, 3),
        options=st.sampled_from([{}, {"chain": (1, 2)}, {"chain": (1, 3), "session": "s"}, {"session": "s"}]),
    )
    def submit(self, prompt: int, output: int, band: int, options: dict[str, Any]) -> None:
        one = ask(prompt, output, band=band, arrived=self.now, **options)
        try:
            lease = self.queue.submit(one, self.now, self.dice.random())
        except Refusal:
            return
        if lease is None:
            self.waiting[one] = None
        else:
            self._began(one, lease)

    def _began(self, one: Ask, lease: Lease) -> None:
        reads = reading(self.queue, lease)
        assert lease.number not in self.running
        assert lease.number not in self.ended
        for line in (reads.line, lease.line):
            assert line.is_open
            assert line.running == 1 or (line.used <= line.fill_tokens and line.running <= line.slots)
        saved = one.prompt - reads.unread
        most = reads.line.most_backlog + min(saved, reads.line.most_backlog)
        assert reads.line.running == 1 or reads.line.backlog - reads.unread <= most
        assert self.prefill._revisions[reads.line.id] == self.revisions[lease.line.id.replica]
        self.running[lease.number] = one
        self.unread.add(lease.number)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.waiting)))
        assert self.queue.withdraw(one)
        del self.waiting[one]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), what=st.sampled_from(["first token", "handed over", "end", "cancel"]))
    def go_on(self, data: st.DataObject, what: str) -> None:
        number = data.draw(st.sampled_from(list(self.running)))
        if what == "first token":
            self.queue.progress(number, 1)
        elif what == "handed over":
            self.queue.handed_over(number)
        elif what == "cancel":
            assert self.queue.release(number)
            self._over(number)
            return
        else:
            assert self.queue.release(number, 5)
            self._over(number)
        self.unread.discard(number)

    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        if self.ended:
            assert not self.queue.release(data.draw(st.sampled_from(self.ended)))

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0]), passes=st.sampled_from([1, 32, 1000]))
    def next(self, seconds: float, passes: int) -> None:
        self.now += seconds
        for one, lease in self.queue.next(self.now, self.dice.random, passes):
            del self.waiting[one]
            assert isinstance(lease, Lease)
            self._began(one, lease)
        if passes == 1000:
            self._nobody_waits_for_nothing()

    def _nobody_waits_for_nothing(self) -> None:
        for one, _ in self.queue.order.turns():
            share = self.queue.holdback.share(self.queue.order.band_of(one), self.now)
            for reads in self.prefill.lines():
                for line in self.queue.ledger.lines.values():
                    of_one_revision = self.prefill._revisions[reads.id] == self.revisions[line.id.replica]
                    fits = reads.admits(one.prompt, share) and line.admits(one.tokens, share)
                    assert not (of_one_revision and fits)
        kept: list[Line] = [line for line in self.prefill.lines() if line.is_kept]
        assert len(kept) <= (1 if self.waiting else 0)

    @invariant()
    def the_books_are_right(self) -> None:
        assert set(self.queue.ledger.leases) == set(self.running)
        assert {number for line in self.prefill.lines() for number in line.leases} == self.unread
        for line in [*self.prefill.lines(), *self.queue.ledger.lines.values()]:
            assert line.used == sum(lease.tokens for lease in line.leases.values())
            assert line.backlog == sum(lease.unread for lease in line.leases.values())
            assert line.running == len(line.leases)


TestPairs = Pairs.TestCase
TestPairs.settings = settings(stateful_step_count=40)
