"""The borrow protocol: its counts and questions, and three processes whose messages cross."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorrt.core.ownership import TELL, Borrows, Question, Tell, Way, count

from ..depth import DEPTH

A, B = b"alice...", b"bob....."


@given(deltas=st.lists(st.tuples(st.sampled_from([A, B]), st.booleans())))
def test_an_object_is_borrowed_while_a_process_has_more_borrows_than_returns(deltas: list[tuple[bytes, bool]]) -> None:
    borrowers: dict[bytes, int] = {}
    expected = Counter[bytes]()
    for borrower, more in deltas:
        if not more and not expected[borrower]:
            # A return of what is not counted changes nothing.
            assert count(borrowers, borrower, -1) == bool(+expected)
            continue
        expected[borrower] += 1 if more else -1
        assert count(borrowers, borrower, 1 if more else -1) == bool(+expected)
    assert borrowers == dict(+expected)


def test_an_answer_speaks_of_what_was_told_before_its_question() -> None:
    borrows = Borrows()
    assert borrows.ask(A) is None
    borrows.told(A)
    first = borrows.ask(A)
    assert first is not None
    borrows.told(A)
    second = borrows.ask(A)
    assert second is not None
    borrows.sure(first)
    assert borrows.is_unsure(A)
    borrows.sure(second)
    assert not borrows.is_unsure(A)
    # Answers that come in another order take nothing back.
    borrows.sure(first)
    assert not borrows.is_unsure(A)
    assert borrows.ask(A) is None


def test_an_answer_from_before_a_link_was_lost_says_nothing_of_what_is_told_after_it() -> None:
    borrows = Borrows()
    for _ in range(3):
        borrows.told(A)
    question = borrows.ask(A)
    assert question is not None
    borrows.lost(A)
    assert not borrows.is_unsure(A)
    borrows.told(A)
    borrows.sure(question)
    assert borrows.is_unsure(A)


def test_only_other_owners_have_to_be_sure_before_one_is_told_of_a_drop() -> None:
    borrows = Borrows()
    borrows.told(A)
    assert borrows.before_dropping(A) == set()
    assert borrows.before_dropping(B) == {A}
    borrows.lost(A)
    assert borrows.before_dropping(B) == set()


def test_what_says_that_something_is_held_is_dropped_only_for_a_process_that_has_ended() -> None:
    assert {way for way, (held, _) in TELL.items() if held is Tell.DROP} == {Way.ENDED}
    assert set(TELL) == set(Way)
    # No link is opened to say that nothing is held: the loss of the last link has said so.
    assert all(dropped is not Tell.DIAL for _, dropped in TELL.values())
    assert TELL[Way.DIALLED] == (Tell.QUEUE, Tell.QUEUE)


# -- three processes

Ref = tuple[int, int]  # its owner, and its number there


@dataclass
class Process:
    number: int
    borrows: Borrows = field(default_factory=Borrows)
    # The refs that its program holds, pins for calls, and the refs inside of what it owns.
    held: Counter[Ref] = field(default_factory=Counter[Ref])
    lent: dict[Ref, dict[bytes, int]] = field(default_factory=dict[Ref, dict[bytes, int]])
    holds: dict[Ref, list[Ref]] = field(default_factory=dict[Ref, list[Ref]])
    freed: set[Ref] = field(default_factory=set[Ref])
    # What a call's caller, and the sender of its answer, keep until they hear of it.
    pins: dict[int, list[Ref]] = field(default_factory=dict[int, list[Ref]])
    sent: dict[int, list[Ref]] = field(default_factory=dict[int, list[Ref]])
    # Calls that it runs: the caller, and the refs that came as arguments.
    running: dict[int, tuple[int, list[Ref]]] = field(default_factory=dict[int, tuple[int, list[Ref]]])


def name(process: int) -> bytes:
    return bytes([process])


class Crossings(RuleBasedStateMachine):
    """Processes that pass refs around; a message may be as late as its own link's order allows."""

    def __init__(self) -> None:
        super().__init__()
        self.processes = [Process(number) for number in range(3)]
        self.links = {(a, b): deque[Callable[[], None]]() for a in range(3) for b in range(3) if a != b}
        self.numbers = 0

    def next(self) -> int:
        self.numbers += 1
        return self.numbers

    def send(self, sender: int, to: int, message: Callable[[], None]) -> None:
        self.links[sender, to].append(message)

    # ---- refs

    def take(self, process: Process, ref: Ref) -> None:
        """A ref was unpickled."""
        owner, _ = ref
        assert ref not in self.processes[owner].freed, f"{process.number} was given {ref}, which is gone"
        process.held[ref] += 1
        if owner != process.number and process.held[ref] == 1:
            process.borrows.told(name(owner))
            self.send(process.number, owner, lambda: self.counted(ref, process.number, 1))

    def drop(self, process: Process, ref: Ref) -> None:
        process.held[ref] -= 1
        if process.held[ref]:
            return
        owner, _ = ref
        if owner == process.number:
            self.free_if_unneeded(ref)
            return
        others = {other[0] for other in process.borrows.before_dropping(name(owner))}
        self.when_sure(
            process, others, lambda: self.send(process.number, owner, lambda: self.counted(ref, process.number, -1))
        )

    def counted(self, ref: Ref, borrower: int, delta: int) -> None:
        owner = self.processes[ref[0]]
        if ref in owner.freed:
            return
        if not count(owner.lent.setdefault(ref, {}), name(borrower), delta):
            del owner.lent[ref]
            self.free_if_unneeded(ref)

    def free_if_unneeded(self, ref: Ref) -> None:
        owner = self.processes[ref[0]]
        if not owner.held[ref] and ref not in owner.lent and ref not in owner.freed:
            owner.freed.add(ref)
            for inner in owner.holds.pop(ref, []):
                self.drop(owner, inner)

    def when_sure(self, process: Process, owners: set[int], then: Callable[[], None]) -> None:
        """Have `then` done once these owners know what they were told so far."""
        questions = {owner: question for owner in owners if (question := process.borrows.ask(name(owner)))}
        left = set(questions)

        def ask(owner: int, question: Question) -> None:
            def answered() -> None:
                process.borrows.sure(question)
                left.discard(owner)
                if not left:
                    then()

            self.send(process.number, owner, lambda: self.send(owner, process.number, answered))

        for owner, question in questions.items():
            ask(owner, question)
        if not left:
            then()

    # ---- what programs do

    @rule(seed=st.integers(0, 2**32))
    def go_on(self, seed: int) -> None:
        """Some moves of programs and links, so many that a number stands for all of them."""
        dice = Random(seed)
        # For a while one link is slower than all others.
        slow = dice.randrange(6)
        for _ in range(20):
            who, which, other, keeps = dice.randrange(3), dice.randrange(10), dice.randrange(10), dice.random() < 0.5
            match dice.randrange(12):
                case 0:
                    self.put(who, which, keeps)
                case 1 | 2:
                    self.call(who, 1 + other % 2, which, keeps)
                case 3 | 4:
                    self.answer(who, which, other, keeps)
                case 5 | 6:
                    self.get(who, which, keeps)
                case 7:
                    self.forget(who, which)
                case _:
                    self.deliver([turn for turn in range(6) if turn != slow and dice.random() < 0.5])

    @initialize()
    def begin(self) -> None:
        for process in self.processes:
            self.put(process.number, 0, keeps=True)

    def put(self, who: int, inner: int, keeps: bool) -> None:
        """Make an object, which may hold a ref that the program does not hold any more itself."""
        process = self.processes[who]
        ref = (who, self.next())
        if refs := self.free_to_use(process):
            chosen = refs[inner % len(refs)]
            process.held[chosen] += keeps
            process.holds[ref] = [chosen]
        process.held[ref] += 1

    def call(self, who: int, step: int, which: int, keeps: bool) -> None:
        """Call another process with a ref, and perhaps drop one's own at once."""
        caller, callee = self.processes[who], self.processes[(who + step) % 3]
        refs = self.free_to_use(caller)
        if not refs:
            return
        ref, number = refs[which % len(refs)], self.next()
        caller.held[ref] += 1
        caller.pins[number] = [ref]
        if not keeps:
            self.drop(caller, ref)

        def called() -> None:
            self.take(callee, ref)
            callee.running[number] = (who, [ref])

        self.send(who, callee.number, called)

    def answer(self, who: int, which: int, result: int, keeps: bool) -> None:
        """End a call, with a ref as its result; the program may keep what came as an argument."""
        callee = self.processes[who]
        if not callee.running:
            return
        number = sorted(callee.running)[which % len(callee.running)]
        caller_number, arguments = callee.running.pop(number)
        caller = self.processes[caller_number]
        refs = sorted(+callee.held)
        given = refs[result % len(refs)]
        callee.held[given] += 1
        callee.sent[number] = [given]
        # What goes to the caller itself arrives before the answer does.
        foreign = {owner for owner, _ in arguments} - {who, caller_number}

        def answered() -> None:
            self.take(caller, given)
            for ref in caller.pins.pop(number):
                self.drop(caller, ref)
            owners = {given[0]} - {caller_number, who}
            self.when_sure(caller, owners, lambda: self.send(caller_number, who, lambda: self.taken(callee, number)))

        self.when_sure(callee, foreign, lambda: self.send(who, caller_number, answered))
        if not keeps:
            for ref in arguments:
                self.drop(callee, ref)

    def taken(self, callee: Process, number: int) -> None:
        for ref in callee.sent.pop(number):
            self.drop(callee, ref)

    def get(self, who: int, which: int, keeps: bool) -> None:
        """Fetch a borrowed object and unpickle the refs in it; perhaps drop it then."""
        process = self.processes[who]
        refs = [ref for ref in self.free_to_use(process) if ref[0] != who]
        if not refs:
            return
        ref, number = refs[which % len(refs)], self.next()
        process.held[ref] += 1
        process.pins[number] = [ref]

        def asked() -> None:
            owner = self.processes[ref[0]]
            assert ref not in owner.freed
            inner = list(owner.holds.get(ref, ()))
            self.send(ref[0], who, lambda: came(inner))

        def came(inner: list[Ref]) -> None:
            for one in inner:
                self.take(process, one)
            for one in process.pins.pop(number):
                self.drop(process, one)
            if not keeps and ref in self.free_to_use(process):
                self.drop(process, ref)

        self.send(who, ref[0], asked)

    def forget(self, who: int, which: int) -> None:
        process = self.processes[who]
        if refs := self.free_to_use(process):
            self.drop(process, refs[which % len(refs)])

    def free_to_use(self, process: Process) -> list[Ref]:
        """The refs that the program itself holds: those that nothing else keeps."""
        kept = Counter[Ref]()
        for refs in (*process.pins.values(), *process.sent.values(), *process.holds.values()):
            kept.update(refs)
        for _, refs in process.running.values():
            kept.update(refs)
        return sorted(process.held - kept)

    # ---- the links

    def deliver(self, turns: list[int]) -> None:
        """The next message of one link, and of another: what goes over different links crosses."""
        for turn in turns:
            queue = list(self.links.values())[turn]
            if queue:
                queue.popleft()()

    @invariant()
    def what_somebody_holds_is_there(self) -> None:
        for process in self.processes:
            for ref in +process.held:
                assert ref not in self.processes[ref[0]].freed, f"{process.number} holds {ref}, which is gone"

    def teardown(self) -> None:
        """Once all has arrived and no program holds anything, nothing is kept for anybody."""
        while any(self.links.values()):
            self.deliver([0, 1, 2, 3, 4, 5])
        for process in self.processes:
            while process.running:
                self.answer(process.number, 0, 0, keeps=False)
        while any(self.links.values()) or any(self.free_to_use(process) for process in self.processes):
            for process in self.processes:
                self.forget(process.number, 0)
            self.deliver([0, 1, 2, 3, 4, 5])
            self.what_somebody_holds_is_there()
        for process in self.processes:
            assert not process.lent
            assert not +process.held


TestCrossings = Crossings.TestCase
TestCrossings.settings = settings(max_examples=200 * DEPTH, stateful_step_count=15, deadline=None)
