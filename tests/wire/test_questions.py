"""Questions and answers over a link: each row, what cannot be said, and two ends whose words cross."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt import exceptions
from actorrt.wire.messages import (
    Answer,
    AnyMessage,
    Ask,
    Borrow,
    Done,
    Ping,
    Refusal,
    Unreadable,
    Withdraw,
    encode_batch,
    tag_of,
)
from actorrt.wire.questions import (
    DIALOGUE,
    TABLE,
    Action,
    Event,
    Failed,
    Questions,
    State,
    error_in,
    in_parts,
    refusal_of,
    unreadable,
    unsendable,
)

from ..depth import DEPTH


def test_every_pair_is_in_the_table() -> None:
    assert set(TABLE) == {(state, event) for state in State for event in Event}


def test_an_asker_is_told_once() -> None:
    told = {(state, event) for (state, event), (_, action) in TABLE.items() if action in (Action.GIVE, Action.RAISE)}
    assert told == {(State.WAITING, Event.ANSWERED), (State.WAITING, Event.FAILED)}


def test_an_answer_is_given_or_taken_back_and_never_lost() -> None:
    for (_, event), (_, action) in TABLE.items():
        if event in (Event.ANSWERED, Event.UNAWAITED):
            assert action in (Action.GIVE, Action.TAKE_BACK)


def test_a_cancellation_in_the_turn_of_the_answer_gives_back_what_it_grants() -> None:
    questions = Questions()
    number = questions.ask()
    assert questions.on(number, Event.ANSWERED) is Action.GIVE
    assert questions.on(number, Event.CANCELLED) is Action.TAKE_BACK
    questions.over(number)
    assert questions.on(number, Event.ANSWERED) is Action.TAKE_BACK
    assert len(questions) == 0


def test_an_answer_right_behind_a_cancellation_is_not_withdrawn_too() -> None:
    questions = Questions()
    number = questions.ask()
    assert questions.on(number, Event.UNAWAITED) is Action.TAKE_BACK
    assert questions.on(number, Event.CANCELLED) is Action.NOTHING


def test_nothing_is_withdrawn_over_a_link_that_has_ended() -> None:
    questions = Questions()
    number = questions.ask()
    for each in questions.all():
        assert questions.on(each, Event.FAILED) is Action.RAISE
    assert questions.on(number, Event.CANCELLED) is Action.NOTHING


@pytest.mark.parametrize(
    "error", [exceptions.LinkError("why"), exceptions.NotSentError("the call", "why"), exceptions.ActorrtError("odd")]
)
def test_an_error_of_ours_arrives_as_it_is(error: Exception) -> None:
    back = error_in(refusal_of(7, error))
    assert (type(back), back.args) == (type(error), error.args)


@pytest.mark.parametrize("error", [KeyError("k"), exceptions.ActorrtError(object()), exceptions.ActorrtError("\ud800")])
def test_any_other_error_arrives_as_its_text(error: Exception) -> None:
    refusal = refusal_of(7, error)
    assert encode_batch([refusal])
    back = error_in(refusal)
    assert type(back) is exceptions.ActorrtError
    assert str(back).startswith(type(error).__name__)


def test_an_error_that_this_version_cannot_make_says_what_it_was() -> None:
    assert str(error_in(Refusal(1, "NotSentError", []))) == "NotSentError: []"
    assert str(error_in(Refusal(1, "NewerError", ["why"]))) == "why"


def test_what_cannot_be_sent_or_read_fails_where_somebody_waits_for_it() -> None:
    found = unsendable(Ask(3, Ping()), "why")
    assert isinstance(found, Failed)
    assert (found.number, str(found.error)) == (3, "the question Ping was not sent: why")
    assert unsendable(Answer(3, Done()), "a \ud800") == Refusal(3, "NotSentError", ["the answer", "a ?"])
    assert unsendable(Borrow(1), "why") is None
    assert unreadable(Unreadable(tag_of(Ask), 3, "odd"), "why") == Refusal(3, "NotSentError", ["the question", "odd"])
    for kind in (Answer, Refusal):
        found = unreadable(Unreadable(tag_of(kind), 3, "odd"), "why")
        assert isinstance(found, Failed)
        assert (found.number, str(found.error)) == (3, "why")
    assert unreadable(Unreadable(tag_of(Borrow), 3, "odd"), "why") is None


MESSAGES: Final = st.lists(
    st.sampled_from([Borrow(1), Borrow(2), Ask(1, Ping()), Answer(1, Done()), Withdraw(2), Refusal(1, "", [])]),
    max_size=8,
)


@given(messages=MESSAGES)
def test_the_parts_of_a_batch_are_the_batch_in_order(messages: list[AnyMessage]) -> None:
    parts = in_parts(messages)
    together: list[Any] = []
    for part in parts:
        together += part if isinstance(part, list) else [part]
        assert type(part) in DIALOGUE or isinstance(part, list)
    assert together == messages
    pairs = pairwise(parts)
    assert not any(isinstance(first, list) and isinstance(second, list) for first, second in pairs)


class Words(RuleBasedStateMachine):
    """Whatever crosses, each asker hears once, and what was granted is held by an asker or was given back."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = Questions()
        self.there: deque[AnyMessage] = deque()
        self.back: deque[AnyMessage] = deque()
        # Askers: those that wait, and those that are cancelled or told and have not run since.
        self.waiting: set[int] = set()
        self.cancelled: set[int] = set()
        self.told: dict[int, str] = {}
        self.answering: set[int] = set()
        self.granted = 0
        self.held = 0
        self.given_back = 0
        self.ended = False

    @precondition(lambda self: not self.ended)
    @rule()
    def ask(self) -> None:
        number = self.questions.ask()
        self.waiting.add(number)
        self.there.append(Ask(number, Ping()))

    @precondition(lambda self: self.there and not self.ended)
    @rule()
    def peer_reads(self) -> None:
        message = self.there.popleft()
        if isinstance(message, Ask):
            self.answering.add(message.rid)
        elif isinstance(message, Withdraw):
            self.answering.discard(message.rid)

    @precondition(lambda self: self.answering and not self.ended)
    @rule(data=st.data(), refuses=st.booleans())
    def peer_answers(self, data: st.DataObject, refuses: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.answering)))
        self.answering.remove(number)
        if not refuses:
            self.granted += 1
        self.back.append(refusal_of(number, ValueError()) if refuses else Answer(number, Done()))

    @precondition(lambda self: self.back and not self.ended)
    @rule()
    def reads(self) -> None:
        message = self.back.popleft()
        assert isinstance(message, Answer | Refusal)
        number = message.rid
        event = Event.FAILED
        if isinstance(message, Answer):
            event = Event.ANSWERED if number in self.waiting else Event.UNAWAITED
        match self.questions.on(number, event):
            case Action.GIVE:
                self.tell(number, "answer")
                self.held += 1
            case Action.RAISE:
                if number in self.waiting:
                    self.tell(number, "error")
            case Action.TAKE_BACK:
                self.given_back += 1
            case action:
                assert action is Action.NOTHING

    def tell(self, number: int, what: str) -> None:
        self.waiting.remove(number)
        self.told[number] = what

    @precondition(lambda self: self.waiting or self.told)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting | set(self.told))))
        self.waiting.discard(number)
        self.cancelled.add(number)

    @precondition(lambda self: self.cancelled or self.told)
    @rule(data=st.data())
    def asker_runs(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.cancelled | set(self.told))))
        if number in self.cancelled:
            self.cancelled.remove(number)
            match self.questions.on(number, Event.CANCELLED):
                case Action.WITHDRAW:
                    assert number not in self.told
                    assert not self.ended
                    self.there.append(Withdraw(number))
                case Action.TAKE_BACK:
                    assert self.told[number] == "answer"
                    self.held -= 1
                    self.given_back += 1
                case action:
                    assert action is Action.NOTHING
        self.told.pop(number, None)
        self.questions.over(number)

    @rule(happens=st.integers(min_value=0, max_value=9))
    def link_ends(self, happens: int) -> None:
        if happens:
            return
        self.ended = True
        for number in self.questions.all():
            if self.questions.on(number, Event.FAILED) is Action.RAISE and number in self.waiting:
                self.tell(number, "error")
        assert not self.waiting

    @invariant()
    def nothing_that_was_granted_is_lost(self) -> None:
        on_its_way = sum(isinstance(message, Answer) for message in self.back)
        assert self.granted == self.held + self.given_back + on_its_way

    @invariant()
    def only_questions_whose_asker_is_there_are_known(self) -> None:
        assert set(self.questions.all()) == self.waiting | self.cancelled | set(self.told)


TestWords = Words.TestCase
TestWords.settings = settings(max_examples=100 * DEPTH, stateful_step_count=40, deadline=None)
