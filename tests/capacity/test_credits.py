"""Credits: room that routers fill by themselves, with nothing given twice and nothing lost, whatever gets lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorrt.serve.capacity.credit_gate import CreditGate
from actorrt.serve.capacity.credit_holder import CreditHolder, Held
from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.credits import MOST_AWAY, SILENT_S, STOPS_S, CreditBook, CreditSize
from actorrt.serve.capacity.ledger import Ledger
from actorrt.serve.capacity.need import LineFacts, LineId, Need
from actorrt.serve.capacity.queue import Ask, CapacityQueue

from ..depth import DEPTH

FACTS = LineFacts(kv_tokens=2000, slots=8, prefill_rate=1000.0)
SIZE = CreditSize(tokens=300, slots=2, lines=2)
LINE = LineId("a")


class Filled(NamedTuple):
    """A request that runs by a credit."""

    credit: Held
    tokens: int


class Holder(CreditHolder):
    """A router's, with requests that have no prompts."""

    def admit(self, tokens: int, now: float) -> Filled | None:
        held = self.take(tokens, now)
        return None if held is None else Filled(held, tokens)

    def end(self, filled: Filled, key: tuple[str, str, str] = ("", "", ""), served: float = 0.0) -> None:
        filled.credit.filled -= filled.tokens
        filled.credit.running -= 1
        if served:
            self.serve(key, served)


def pair(lines: int = 1, size: CreditSize = SIZE) -> tuple[CapacityQueue, CreditBook, Holder]:
    queue = CapacityQueue(1, 0.0)
    for number in range(lines):
        queue.set_line(LineId("abc"[number]), FACTS, 1)
    return queue, CreditBook(queue.ledger, queue.order, size), Holder("r")


def exchange(book: CreditBook, holder: Holder, now: float) -> None:
    holder.heard(book.grants(holder.router), now)
    book.report(holder.report(now), now)
    holder.heard(book.grants(holder.router), now)


def test_a_router_fills_and_empties_its_credit_without_asking_and_no_more_than_it() -> None:
    queue, book, holder = pair()
    assert holder.admit(100, 0.0) is None
    assert book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    assert queue.ledger.lines[LINE].used == 300
    for _ in range(10):
        grants = [holder.admit(150, 0.1) for _ in range(3)]
        assert [grant is not None for grant in grants] == [True, True, False]
        for grant in grants[:2]:
            assert grant is not None
            holder.end(grant)
    assert holder.admit(301, 0.1) is None


def test_what_is_called_back_is_there_as_soon_as_the_router_has_said_so() -> None:
    queue, book, holder = pair()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    grant = holder.admit(120, 0.0)
    assert grant is not None
    # Sent before it has heard of the recall: it may still fill all of it.
    late = holder.report(0.1)
    assert book.recall() == ["r"]
    assert book.recall() == []
    book.report(late, 0.1)
    assert queue.ledger.lines[LINE].used == 300
    holder.heard(book.grants("r"), 0.1)
    assert holder.admit(1, 0.1) is None
    book.report(holder.report(0.2), 0.2)
    assert (queue.ledger.lines[LINE].used, queue.ledger.lines[LINE].running) == (120, 1)
    holder.end(grant)
    book.report(holder.report(0.3), 0.3)
    assert book.tokens == queue.ledger.lines[LINE].used == 0


def test_a_credit_that_a_router_may_yet_hear_of_is_kept_though_it_said_that_it_holds_none() -> None:
    queue, book, holder = pair()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    early = holder.report(0.1)
    queue.set_line(LineId("b"), FACTS, 1)
    book.extend("r", 0.1)
    late = book.grants("r")
    book.recall()
    book.report(early, 0.1)
    holder.heard(late, 0.1)
    assert holder.admit(300, 0.1) is not None
    assert holder.admit(300, 0.1) is not None
    assert [line.used for line in queue.ledger.lines.values()] == [300, 300]


def test_nothing_is_given_while_somebody_waits() -> None:
    queue, book, _ = pair()
    while queue.submit(ask := Ask("m", 500, 0), 0.0) is not None:
        pass
    assert not book.extend("r", 0.0) or not book.grants("r").credits
    queue.withdraw(ask)
    queue.release(next(iter(queue.ledger.leases)))
    assert book.extend("r", 0.0)


def test_a_silent_router_stops_by_itself_before_its_credits_are_fenced_off() -> None:
    queue, book, holder = pair()
    gate = CreditGate()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    grant = holder.admit(100, STOPS_S - 0.01)
    assert grant is not None
    assert gate.begin(1, grant.credit.number, 100)
    assert holder.admit(100, STOPS_S) is None
    assert book.silent(SILENT_S - 0.01) == {}
    ((number, line),) = book.silent(SILENT_S).items()
    assert line == LINE
    # Not before the line has said what runs is any of it for others.
    assert queue.ledger.lines[LINE].used == 300
    book.fenced(number, gate.fence(number))
    assert queue.ledger.lines[LINE].used == 100
    assert not gate.begin(1, number, 50)
    left = gate.end(number, 100)
    assert left is not None
    book.fenced(number, left)
    assert queue.ledger.lines[LINE].used == 0
    assert book.silent(SILENT_S) == {}


def test_a_router_that_was_fenced_off_begins_anew() -> None:
    _, book, holder = pair()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    for number in book.silent(5.0):
        book.fenced(number, Room(0, 0))
    with pytest.raises(KeyError):
        book.grants("r")
    book.extend("r", 6.0)
    exchange(book, holder, 6.0)
    assert holder.admit(100, 6.1) is not None


def test_what_routers_served_is_charged_once() -> None:
    queue, book, holder = pair()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    for step in range(20):
        grant = holder.admit(10, step / 10)
        assert grant is not None
        holder.end(grant, ("default", "t", ""), 7.0)
        report = holder.report(step / 10)
        if step % 3:
            book.report(report, step / 10)
            book.report(report, step / 10)
        holder.heard(book.grants("r"), step / 10)
    exchange(book, holder, 2.0)
    exchange(book, holder, 2.0)
    assert queue.order.served(1, "t") == 140.0


def test_what_a_router_served_is_charged_also_after_it_was_forgotten() -> None:
    queue, book, holder = pair()

    def silent(now: float) -> None:
        for number in book.silent(now):
            book.fenced(number, Room(0, 0))

    def serve(now: float) -> None:
        book.extend("r", now)
        exchange(book, holder, now)
        grant = holder.admit(10, now)
        assert grant is not None
        holder.end(grant, ("default", "t", ""), 7.0)
        exchange(book, holder, now)

    for step in range(3):
        serve(step / 10)
    silent(2.0)
    for number in range(MOST_AWAY):
        book.extend(f"other {number}", 2.0)
        book.leave(f"other {number}")
        silent(2.0)
    serve(2.0)
    assert queue.order.served(1, "t") == 28.0


def test_a_line_that_ends_takes_the_credits_on_it_along() -> None:
    queue, book, holder = pair()
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    assert queue.set_line(LINE, FACTS, 2) == []
    book.extend("r", 0.1)
    exchange(book, holder, 0.1)
    exchange(book, holder, 0.1)
    grant = holder.admit(100, 0.2)
    assert grant is not None
    assert grant.credit.incarnation == 2
    assert queue.ledger.lines[LINE].used == 300


def test_a_line_refuses_what_an_older_queue_gave() -> None:
    gate = CreditGate()
    assert gate.begin(2, 1, 10)
    assert not gate.begin(1, 1, 10)
    assert gate.running(1) == Room(10, 1)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_credit_of_no_size_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        CreditSize(*wrong)


class Credits(RuleBasedStateMachine):
    """Messages that are lost, come twice and out of order; routers that die; lines that end; other requests."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = CapacityQueue(1, 0.0)
        self.ledger: Ledger = self.queue.ledger
        self.book = CreditBook(self.ledger, self.queue.order, SIZE)
        self.gates: dict[tuple[LineId, int], CreditGate] = {}
        self.lives = 0
        for name in "ab":
            self.begin_line(LineId(name))
        self.routers = {f"r{n}": Holder(f"r{n}") for n in range(2)}
        self.names = 2
        # What runs by credits, and what the queue has given itself.
        self.running: list[tuple[LineId, int, Filled, str]] = []
        self.own: list[int] = []
        self.on_the_way: list[Callable[[], None]] = []
        self.nobody_was_fenced = True
        self.served = 0.0

    def begin_line(self, line: LineId) -> None:
        self.lives += 1
        self.queue.set_line(line, FACTS, self.lives)
        self.gates[line, self.lives] = CreditGate()

    # ---- what is sent

    @rule(data=st.data())
    def send_grants(self, data: st.DataObject) -> None:
        self.post_grants(data.draw(st.sampled_from(sorted(self.routers))))

    def post_grants(self, name: str) -> None:
        holder = self.routers[name]
        try:
            grants = self.book.grants(name)
        except KeyError:
            return
        self.on_the_way.append(lambda: holder.heard(grants, self.now))

    @rule(data=st.data())
    def send_report(self, data: st.DataObject) -> None:
        self.post_report(data.draw(st.sampled_from(sorted(self.routers))))

    def post_report(self, name: str) -> None:
        report = self.routers[name].report(self.now)
        self.on_the_way.append(lambda: self.book.report(report, self.now))

    @rule(data=st.data(), again=st.booleans(), lost=st.booleans())
    def arrive(self, data: st.DataObject, again: bool, lost: bool) -> None:
        if self.on_the_way:
            at = data.draw(st.integers(0, len(self.on_the_way) - 1))
            if not lost:
                self.on_the_way[at]()
            if not again:
                del self.on_the_way[at]

    @rule(data=st.data())
    def talk(self, data: st.DataObject) -> None:
        """As it mostly is: a report arrives, and its answer."""
        name = data.draw(st.sampled_from(sorted(self.routers)))
        self.book.extend(name, self.now)
        exchange(self.book, self.routers[name], self.now)

    # ---- what happens

    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        self.book.extend(data.draw(st.sampled_from(sorted(self.routers))), self.now)

    @rule()
    def recall(self) -> None:
        self.book.recall()

    @rule(data=st.data(), tokens=st.integers(1, 200))
    def admit(self, data: st.DataObject, tokens: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.routers)))
        holder = self.routers[name]
        grant = holder.admit(tokens, self.now)
        if grant is None:
            return
        credit = grant.credit
        gate = self.gates.get((credit.line, credit.incarnation))
        if gate is None or not gate.begin(1, credit.number, tokens):
            holder.end(grant)
            return
        self.running.append((credit.line, credit.incarnation, grant, name))

    def end(self, at: int) -> None:
        line, incarnation, grant, name = self.running.pop(at)
        left = self.gates[line, incarnation].end(grant.credit.number, grant.tokens)
        number = grant.credit.number
        if left is not None:
            self.on_the_way.append(lambda: self.book.fenced(number, left))
        if name in self.routers:
            self.routers[name].end(grant, ("default", "t", ""), 3.0)
            self.served += 3.0

    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        if self.running:
            self.end(data.draw(st.integers(0, len(self.running) - 1)))

    @rule(tokens=st.integers(1, 700))
    def admit_own(self, tokens: int) -> None:
        need = Need(tokens, 0)
        placed = self.ledger.find(need)
        if placed is not None:
            self.own.append(self.ledger.admit(placed, need, "queue").id.number)

    @rule(data=st.data())
    def end_own(self, data: st.DataObject) -> None:
        if self.own:
            self.ledger.release(self.own.pop(data.draw(st.integers(0, len(self.own) - 1))))

    @rule(data=st.data())
    def router_dies(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.routers)))
        del self.routers[name]
        self.names += 1
        self.routers[f"r{self.names}"] = Holder(f"r{self.names}")

    @rule(line=st.sampled_from("ab"))
    def line_ends(self, line: str) -> None:
        id = LineId(line)
        life = self.ledger.lines[id].incarnation
        del self.gates[id, life]
        for at in reversed(range(len(self.running))):
            if self.running[at][:2] == (id, life):
                _, _, grant, name = self.running.pop(at)
                if name in self.routers:
                    self.routers[name].end(grant)
        self.begin_line(id)
        self.own = [number for number in self.own if number in self.ledger.leases]

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]), told=st.booleans())
    def time_passes(self, seconds: float, told: bool) -> None:
        self.now += seconds
        self.fence(told)

    def fence(self, told: bool) -> None:
        for number, line in self.book.silent(self.now).items():
            self.nobody_was_fenced = False
            gate = self.gates.get((line, self.ledger.lines[line].incarnation))
            if gate is not None:
                room = gate.fence(number)
                if told:
                    self.book.fenced(number, room)
                else:
                    self.on_the_way.append(lambda number=number, room=room: self.book.fenced(number, room))

    # ---- what holds

    @invariant()
    def nothing_runs_beyond_the_ledger(self) -> None:
        for id, line in self.ledger.lines.items():
            runs = [grant for at, _, grant, _ in self.running if at == id]
            own = [self.ledger.leases[number] for number in self.own if self.ledger.leases[number].line is line]
            assert sum(grant.tokens for grant in runs) + sum(lease.tokens for lease in own) <= line.used
            assert len(runs) + len(own) <= line.running <= line.slots
            assert line.used <= line.fill_tokens
            assert line.used == sum(lease.tokens for lease in line.leases.values())
            assert line.running == sum(lease.slots for lease in line.leases.values())

    @invariant()
    def what_is_filled_is_known_of_the_credits_that_routers_have(self) -> None:
        routers = [name for name in self.routers if self.book.has_some(name)]
        have = {number for name in routers for number in self.book.grants(name).credits}
        known = {number for number in self.ledger.leases if self.book.filled(number) is not None}
        assert have & self.ledger.leases.keys() <= known
        assert known.isdisjoint(self.book.unanswered())

    def teardown(self) -> None:
        """Once all that live have reported, and the others are fenced off, the ledger has what runs, and no more."""
        for name in self.routers:
            # Each is known again, so that what it holds of earlier lives is behind it.
            self.book.extend(name, self.now)
            self.routers[name].heard(self.book.grants(name), self.now)
        for _ in range(5):
            self.now += 0.3
            self.book.recall()
            for name, holder in self.routers.items():
                self.book.report(holder.report(self.now), self.now)
                holder.heard(self.book.grants(name), self.now)
            self.fence(told=True)
        for message in self.on_the_way:
            message()
        self.nothing_runs_beyond_the_ledger()
        for id, line in self.ledger.lines.items():
            runs = [grant for at, _, grant, _ in self.running if at == id]
            own = [self.ledger.leases[number] for number in self.own if self.ledger.leases[number].line is line]
            assert line.used == sum(grant.tokens for grant in runs) + sum(lease.tokens for lease in own)
            assert line.running == len(runs) + len(own)
        if self.nobody_was_fenced and self.names == 2:
            assert self.queue.order.served(1, "t") == self.served


TestCredits = Credits.TestCase
TestCredits.settings = settings(max_examples=40 * DEPTH, stateful_step_count=50, deadline=None)


def test_admission_by_credit_looks_at_few_lines() -> None:
    dice = random.Random(1)
    queue, book, holder = pair(3, CreditSize(300, 2, 3))
    book.extend("r", 0.0)
    exchange(book, holder, 0.0)
    grants = [holder.admit(dice.randint(1, 100), 0.1) for _ in range(6)]
    assert sorted(grant.credit.line.replica for grant in grants if grant is not None) == ["a", "a", "b", "b", "c", "c"]
    assert queue.ledger.looks <= 20
