"""How far the answer to a request has come, as a transition table. Pure.

A request whose answer is at its end does nothing more, whatever comes. `HttpRequest` writes down the states of the rows
that each request takes without a look into the table: its tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Answer(Enum):
    WAITED_FOR = "WAITED_FOR"  # nothing has been written
    BEGUN = "BEGUN"  # some of it has been written
    LENT = "LENT"  # another process writes it, or may have done so
    OVER = "OVER"  # nothing more may be written


class AnswerEvent(Enum):
    PART = "PART"
    LEND = "LEND"
    TAKE_BACK = "TAKE_BACK"  # the process that it was lent to has gone, and had written nothing
    END = "END"  # the whole of it, or the rest, or it is cut off, or its client has gone


_A, _E = Answer, AnswerEvent
TABLE: Final[Mapping[tuple[Answer, AnswerEvent], Answer]] = {
    (_A.WAITED_FOR, _E.PART): _A.BEGUN,
    (_A.WAITED_FOR, _E.LEND): _A.LENT,
    (_A.WAITED_FOR, _E.END): _A.OVER,
    (_A.BEGUN, _E.PART): _A.BEGUN,
    (_A.BEGUN, _E.END): _A.OVER,
    # The borrower has refused, too late to be sure that it had written nothing.
    (_A.LENT, _E.PART): _A.LENT,
    (_A.LENT, _E.TAKE_BACK): _A.WAITED_FOR,
    (_A.LENT, _E.END): _A.OVER,
}


class AnswerError(Exception):
    """What cannot happen to an answer that is so far: an error of ours, never of a client."""

    def __init__(self, answer: Answer, event: AnswerEvent) -> None:
        super().__init__(answer, event)
        self.answer, self.event = answer, event

    def __str__(self) -> str:
        return f"an answer that is {self.answer.value} cannot have {self.event.value}"


def after(answer: Answer, event: AnswerEvent) -> Answer:
    """AnswerError if the table has no such row."""
    try:
        return TABLE[answer, event]
    except KeyError:
        raise AnswerError(answer, event) from None
