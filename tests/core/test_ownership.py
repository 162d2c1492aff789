"""The borrow protocol: how an object stands, counts and questions, and processes whose messages cross and that die."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorrt.core.ownership import (
    TABLE,
    TELL,
    Action,
    Book,
    Borrows,
    Event,
    Outbox,
    Question,
    Standing,
    Tell,
    Way,
    count,
)
from actorrt.types import ProcessId

from ..depth import DEPTH

A, B, OWNER = ProcessId(b"alice..."), ProcessId(b"bob....."), ProcessId(b"owner...")


@given(deltas=st.lists(st.tuples(st.sampled_from([A, B]), st.booleans())))
def test_an_object_is_borrowed_while_a_process_has_more_borrows_than_returns(
    deltas: list[tuple[ProcessId, bool]],
) -> None:
    borrowers: dict[ProcessId, int] = {}
    expected = Counter[ProcessId]()
    for borrower, more in deltas:
        if not more and not expected[borrower]:
            # A return of what is not counted changes nothing.
            assert count(borrowers, borrower, -1) == bool(+expected)
            continue
        expected[borrower] += 1 if more else -1
        assert count(borrowers, borrower, 1 if more else -1) == bool(+expected)
    assert borrowers == dict(+expected)


# -- how an object stands


def test_a_ref_to_what_is_here_is_unpickled_without_any_other_step() -> None:
    here = (Standing.OWN, Standing.LENT, Standing.BORROWED)
    assert [TABLE[standing, Event.UNPICKLED] for standing in here] == [(standing, ()) for standing in here]


def test_an_own_object_is_kept_from_its_first_loan_to_its_last() -> None:
    kept = {pair: actions for pair, (_, actions) in TABLE.items() if Action.KEEP in actions or Action.LET_GO in actions}
    assert kept == {
        (Standing.OWN, Event.LENT): (Action.KEEP,),
        (Standing.LENT, Event.RETURNED_LAST): (Action.LET_GO,),
    }


def test_an_object_changes_its_owner_never() -> None:
    own = {Standing.GONE, Standing.OWN, Standing.LENT}
    assert all((standing in own) == (after in own) for (standing, _), (after, _) in TABLE.items())


def test_only_what_is_new_here_is_borrowed_and_only_what_is_gone_is_said_to_be() -> None:
    assert [pair for pair, (_, actions) in TABLE.items() if Action.BORROW in actions] == [
        (Standing.UNKNOWN, Event.UNPICKLED)
    ]
    assert [pair for pair, (_, actions) in TABLE.items() if Action.BE_GONE in actions] == [
        (Standing.GONE, Event.UNPICKLED)
    ]


def test_a_ref_that_nobody_keeps_for_a_copy_is_pinned() -> None:
    for (_, event), (_, actions) in TABLE.items():
        assert (Action.PIN in actions) == (event is Event.PINNED)


def test_the_table_has_a_row_for_all_that_can_happen() -> None:
    for number, loans in enumerate([0, 1, 2]):
        for is_here in (True, False):
            for owner in (OWNER, A):
                book = Book(OWNER)
                for borrower in (A, B)[:loans]:
                    book.lent(number, borrower, is_here)
                book.unpickled((owner, number), is_here)
                # What is pickled is here.
                book.exported((owner, number), collected=is_here)
                for borrower in (A, A, B, B):
                    book.returned(number, borrower, is_here)
                book.lent(number, A, is_here)
                book.ended(A)


LOANS = st.tuples(st.sampled_from([A, B]), st.integers(1, 3), st.sampled_from(["lent", "returned", "ended"]))


@given(events=st.lists(LOANS, max_size=40), gone=st.sets(st.integers(1, 3)))
def test_a_book_keeps_what_is_borrowed_and_nothing_else(
    events: list[tuple[ProcessId, int, str]], gone: set[int]
) -> None:
    book, kept, expected = Book(OWNER), set[int](), dict[int, Counter[ProcessId]]()

    def perform(seq: int, actions: Iterable[Action]) -> None:
        for action in actions:
            if action is Action.KEEP:
                assert seq not in kept
                kept.add(seq)
            elif action is Action.LET_GO:
                kept.remove(seq)

    for borrower, seq, what in events:
        counts = expected.setdefault(seq, Counter())
        if what == "ended":
            for other in expected.values():
                del other[borrower]
            for number, actions in book.ended(borrower):
                perform(number, actions)
        elif what == "lent":
            counts[borrower] += seq not in gone
            perform(seq, book.lent(seq, borrower, seq not in gone))
        else:
            counts[borrower] -= counts[borrower] > 0
            perform(seq, book.returned(seq, borrower, seq not in gone))
        assert kept == {seq for seq, counts in expected.items() if +counts}
        assert book.lends == bool(kept)
        assert book.loans == (len(kept), sum(len(+counts) for counts in expected.values()))


# -- what owners surely know


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


class Telling(RuleBasedStateMachine):
    """Messages to an owner, the link to which is opened and lost."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Outbox[int] = Outbox()
        self.linked = self.ended = False
        self.dials = 0
        self.numbers = 0
        self.said: list[int] = []
        self.arrived: list[int] = []

    @rule(held=st.booleans())
    def tell(self, held: bool) -> None:
        self.numbers += 1
        tell = self.outbox.tell(OWNER, self.numbers, held, self.linked, self.ended)
        if tell is Tell.SEND:
            assert self.linked
            self.arrived.append(self.numbers)
        if tell is Tell.DIAL:
            assert held
            self.dials += 1
        if tell is Tell.DROP:
            assert not self.linked
            assert self.ended or not held
        else:
            self.said.append(self.numbers)

    @rule(opened=st.booleans())
    def dial_ends(self, opened: bool) -> None:
        if self.dials:
            self.dials -= 1
            self.linked = self.linked or (opened and not self.ended)
            came = self.outbox.take(OWNER)
            if self.linked:
                self.arrived += came
            else:
                self.said.clear()
                self.arrived.clear()

    @rule()
    def peer_dials(self) -> None:
        # The link is there before whoever dials hears of it: what waits goes first.
        self.linked = not self.ended

    @rule(dies=st.booleans())
    def lost(self, dies: bool) -> None:
        self.linked, self.ended = False, self.ended or dies
        self.outbox.take(OWNER)
        self.said.clear()
        self.arrived.clear()

    @invariant()
    def all_comes_in_order(self) -> None:
        assert self.arrived == self.said[: len(self.arrived)]
        assert len(self.arrived) + len(self.outbox) == len(self.said)


TestTelling = Telling.TestCase
TestTelling.settings = settings(max_examples=100 * DEPTH, stateful_step_count=30, deadline=None)


# -- processes that pass refs around

Ref = tuple[ProcessId, int]  # its owner, and its number there


@dataclass
class Process:
    name: ProcessId
    book: Book = field(init=False)
    borrows: Borrows = field(default_factory=Borrows)
    # The refs that its program holds, pins for calls, and the refs inside of what it owns.
    held: Counter[Ref] = field(default_factory=Counter[Ref])
    # What others borrow, which keeps it.
    kept: set[int] = field(default_factory=set[int])
    holds: dict[Ref, list[Ref]] = field(default_factory=dict[Ref, list[Ref]])
    freed: set[Ref] = field(default_factory=set[Ref])
    # What a call's caller, and the sender of its answer, keep until they hear of it: of whom, and the refs.
    pins: dict[int, tuple[ProcessId, Ref]] = field(default_factory=dict[int, tuple[ProcessId, Ref]])
    sent: dict[int, tuple[ProcessId, Ref]] = field(default_factory=dict[int, tuple[ProcessId, Ref]])
    # Calls that it runs: the caller, and the ref that came as an argument.
    running: dict[int, tuple[ProcessId, Ref]] = field(default_factory=dict[int, tuple[ProcessId, Ref]])
    # What it does when an owner answers that it knows all that it was told, or can be asked no more.
    asked: dict[ProcessId, list[Callable[[], None]]] = field(default_factory=dict[ProcessId, list[Callable[[], None]]])

    def __post_init__(self) -> None:
        self.book = Book(self.name)

    def has(self, ref: Ref) -> bool:
        """It finds the object: it is held, or others borrow it."""
        owner, number = ref
        return self.held[ref] > 0 or (owner == self.name and number in self.kept)


class Crossings(RuleBasedStateMachine):
    """Processes that pass refs around; a message may be as late as its own link's order allows."""

    number_of_processes = 3

    def __init__(self) -> None:
        super().__init__()
        names = [ProcessId(bytes([number])) for number in range(self.number_of_processes)]
        self.processes = {name: Process(name) for name in names}
        # In order: another order of the links would be another story for the same dice.
        self.links = {(a, b): deque[Callable[[], None]]() for a in names for b in names if a != b}
        self.numbers = 0
        # Refs that were on their way when a process died: nobody kept them for whoever was about to get them.
        self.at_risk: set[Ref] = set()

    def next(self) -> int:
        self.numbers += 1
        return self.numbers

    def send(self, sender: ProcessId, to: ProcessId, message: Callable[[], None]) -> None:
        if sender in self.processes and to in self.processes:
            self.links[sender, to].append(message)

    def check(self, ref: Ref, what: str) -> None:
        """What is held is there, unless a death has torn it apart."""
        owner = self.processes.get(ref[0])
        assert owner is None or ref in self.at_risk or ref not in owner.freed, f"{what} {ref}, which is gone"

    # ---- refs

    def take(self, process: Process, ref: Ref) -> None:
        """A ref was unpickled."""
        self.check(ref, f"{process.name} was given")
        owner, _ = ref
        for action in process.book.unpickled(ref, process.has(ref)):
            if action is Action.BORROW:
                process.borrows.told(owner)
                self.send(process.name, owner, lambda: self.counted(ref, process.name, more=True))
        process.held[ref] += 1

    def drop(self, process: Process, ref: Ref) -> None:
        process.held[ref] -= 1
        if process.held[ref]:
            return
        owner, _ = ref
        if owner == process.name:
            self.free_if_unneeded(process, ref)
            return
        others = process.borrows.before_dropping(owner)

        def tell() -> None:
            self.send(process.name, owner, lambda: self.counted(ref, process.name, more=False))

        self.when_sure(process, others, tell)

    def counted(self, ref: Ref, borrower: ProcessId, more: bool) -> None:
        owner, number = self.processes[ref[0]], ref[1]
        happens = owner.book.lent if more else owner.book.returned
        self.perform(owner, number, happens(number, borrower, ref not in owner.freed))

    def perform(self, owner: Process, number: int, actions: Iterable[Action]) -> None:
        for action in actions:
            if action is Action.KEEP:
                owner.kept.add(number)
            else:
                assert action is Action.LET_GO
                owner.kept.remove(number)
                self.free_if_unneeded(owner, (owner.name, number))

    def free_if_unneeded(self, owner: Process, ref: Ref) -> None:
        if not owner.has(ref) and ref not in owner.freed:
            owner.freed.add(ref)
            for inner in owner.holds.pop(ref, []):
                self.drop(owner, inner)

    def when_sure(self, process: Process, owners: Iterable[ProcessId], then: Callable[[], None]) -> None:
        """Have `then` done once these owners know what they were told so far."""
        questions = {owner: question for owner in sorted(owners) if (question := process.borrows.ask(owner))}
        left = set(questions)

        def ask(owner: ProcessId, question: Question) -> None:
            def answered() -> None:
                if answered in process.asked.get(owner, ()):
                    process.asked[owner].remove(answered)
                    process.borrows.sure(question)
                    left.discard(owner)
                    if not left:
                        then()

            process.asked.setdefault(owner, []).append(answered)
            self.send(process.name, owner, lambda: self.send(owner, process.name, answered))
            if owner not in self.processes and not self.links[owner, process.name]:
                answered()

        for owner, question in questions.items():
            ask(owner, question)
        if not questions:
            then()

    # ---- what programs do

    @rule(seed=st.integers(0, 2**32))
    def go_on(self, seed: int) -> None:
        """Some moves of programs and links, so many that a number stands for all of them."""
        dice = Random(seed)
        # For a while one link is slower than all others.
        slow = dice.randrange(len(self.links))
        for _ in range(30):
            who, which, other = dice.choice(list(self.processes)), dice.randrange(10), dice.randrange(10)
            keeps = dice.random() < 0.5
            match dice.randrange(16):
                case 0 | 15:
                    self.put(who, which, keeps)
                case 1 | 2:
                    self.call(who, other, which, keeps)
                case 3 | 4:
                    self.answer(who, which, other, keeps)
                case 5 | 6 | 7:
                    self.get(who, which, keeps)
                # What is dropped early shows who else keeps it.
                case 8 | 9 | 10:
                    self.forget(who, which)
                case _:
                    self.deliver([turn for turn in range(len(self.links)) if turn != slow and dice.random() < 0.9])

    @initialize()
    def begin(self) -> None:
        for name in self.processes:
            self.put(name, 0, keeps=True)

    def put(self, who: ProcessId, inner: int, keeps: bool) -> None:
        """Make an object, which may hold a ref that the program does not hold any more itself."""
        process = self.processes[who]
        ref = (who, self.next())
        if refs := self.free_to_use(process):
            chosen = refs[inner % len(refs)]
            process.held[chosen] += keeps
            process.holds[ref] = [chosen]
        process.held[ref] += 1

    def call(self, who: ProcessId, step: int, which: int, keeps: bool) -> None:
        """Call another process with a ref, and perhaps drop one's own at once."""
        caller = self.processes[who]
        others = [process for process in self.processes.values() if process is not caller]
        refs = self.free_to_use(caller)
        if not refs or not others:
            return
        callee, ref, number = others[step % len(others)], refs[which % len(refs)], self.next()
        assert Action.PIN not in caller.book.exported(ref, collected=True)
        caller.held[ref] += 1
        caller.pins[number] = (callee.name, ref)
        if not keeps:
            self.drop(caller, ref)

        def called() -> None:
            self.take(callee, ref)
            callee.running[number] = (who, ref)

        self.send(who, callee.name, called)

    def answer(self, who: ProcessId, which: int, result: int, keeps: bool) -> None:
        """End a call, with a ref as its result; the program may keep what came as an argument."""
        callee = self.processes[who]
        if not callee.running:
            return
        number = sorted(callee.running)[which % len(callee.running)]
        caller, argument = callee.running.pop(number)
        refs = sorted(+callee.held)
        given = refs[result % len(refs)]
        callee.held[given] += 1
        callee.sent[number] = (caller, given)
        # What goes to the caller itself arrives before the answer does.
        foreign = {argument[0]} - {who, caller}

        def answered() -> None:
            process = self.processes[caller]
            self.take(process, given)
            self.let_go(process, process.pins, number)
            taken = partial(self.let_go, callee, callee.sent, number)
            self.when_sure(process, {given[0]} - {caller, who}, lambda: self.send(caller, who, taken))

        self.when_sure(callee, foreign, lambda: self.send(who, caller, answered))
        if caller not in self.processes and not self.links[caller, who]:
            self.let_go(callee, callee.sent, number)
        if not keeps:
            self.drop(callee, argument)

    def let_go(self, process: Process, kept: dict[int, tuple[ProcessId, Ref]], number: int) -> None:
        if number in kept:
            _, ref = kept.pop(number)
            self.drop(process, ref)

    def get(self, who: ProcessId, which: int, keeps: bool) -> None:
        """Fetch a borrowed object and unpickle the refs in it; perhaps drop it then."""
        process = self.processes[who]
        refs = [ref for ref in self.free_to_use(process) if ref[0] != who and ref[0] in self.processes]
        if not refs:
            return
        ref, number = refs[which % len(refs)], self.next()
        process.held[ref] += 1
        process.pins[number] = (ref[0], ref)

        def asked() -> None:
            self.check(ref, f"{who} asked for")
            inner = list(self.processes[ref[0]].holds.get(ref, ()))
            self.send(ref[0], who, lambda: came(inner))

        def came(inner: list[Ref]) -> None:
            for one in inner:
                self.take(process, one)
            self.let_go(process, process.pins, number)
            if not keeps and ref in self.free_to_use(process):
                self.drop(process, ref)

        self.send(who, ref[0], asked)

    def forget(self, who: ProcessId, which: int) -> None:
        process = self.processes[who]
        if refs := self.free_to_use(process):
            self.drop(process, refs[which % len(refs)])

    def free_to_use(self, process: Process) -> list[Ref]:
        """The refs that the program itself holds: those that nothing else keeps."""
        kept = Counter[Ref]()
        for refs in process.holds.values():
            kept.update(refs)
        for others in (process.pins, process.sent, process.running):
            kept.update(ref for _, ref in others.values())
        return sorted(process.held - kept)

    # ---- the links

    def deliver(self, turns: list[int]) -> None:
        """The next message of one link, and of another: what goes over different links crosses."""
        for turn in turns:
            (_, to), queue = list(self.links.items())[turn]
            if queue:
                message = queue.popleft()
                if to in self.processes:
                    message()

    def deliver_all(self) -> None:
        self.deliver(list(range(len(self.links))))

    @invariant()
    def what_somebody_holds_is_there(self) -> None:
        for process in self.processes.values():
            for ref in +process.held:
                self.check(ref, f"{process.name} holds")

    def teardown(self) -> None:
        """Once all has arrived and no program holds anything, nothing is kept for anybody."""
        while any(self.links.values()):
            self.deliver_all()
        for name, process in self.processes.items():
            while process.running:
                self.answer(name, 0, 0, keeps=False)
        while any(self.links.values()) or any(map(self.free_to_use, self.processes.values())):
            for name in self.processes:
                self.forget(name, 0)
            self.deliver_all()
            self.what_somebody_holds_is_there()
        for process in self.processes.values():
            assert not process.kept
            assert not process.book.lends
            assert not +process.held


class Deaths(Crossings):
    """The same, and processes die: what they borrowed goes, and what others still pass around stays."""

    number_of_processes = 4

    @rule(which=st.integers(0, 3))
    def dies(self, which: int) -> None:
        if len(self.processes) == 2:
            return
        name = list(self.processes)[which % len(self.processes)]
        self.note_what_is_torn(name)
        del self.processes[name]
        for process in self.processes.values():
            self.links[process.name, name].clear()
            # What it has said last arrives, and then that there will be nothing more.
            self.links[name, process.name].append(partial(self.lost, process, name))

    def note_what_is_torn(self, dying: ProcessId) -> None:
        """Refs whose owner does not surely know of a borrower: who kept them for it may be the one that dies."""
        torn = [
            ref for process in self.processes.values() for ref in +process.held if process.borrows.is_unsure(ref[0])
        ]
        for process in self.processes.values():
            for kept in (process.pins, process.sent):
                torn += [ref for other, ref in kept.values() if dying in (other, process.name)]
            torn += [ref for caller, ref in process.running.values() if dying in (caller, process.name)]
        # With an object goes what lies in it.
        while torn:
            ref = torn.pop()
            if ref not in self.at_risk:
                self.at_risk.add(ref)
                owner = self.processes.get(ref[0])
                torn += () if owner is None else owner.holds.get(ref, ())

    def lost(self, process: Process, name: ProcessId) -> None:
        """The last of a link to a process that has ended."""
        process.borrows.lost(name)
        for answered in list(process.asked.get(name, ())):
            answered()
        for number, actions in process.book.ended(name):
            self.perform(process, number, actions)
        for kept in (process.pins, process.sent, process.running):
            for number in [number for number, (other, _) in kept.items() if other == name]:
                self.let_go(process, kept, number)


TestCrossings = Crossings.TestCase
TestCrossings.settings = settings(max_examples=400 * DEPTH, stateful_step_count=15, deadline=None)
TestDeaths = Deaths.TestCase
TestDeaths.settings = settings(max_examples=400 * DEPTH, stateful_step_count=15, deadline=None)
