"""Whose turn it is on a client's connection: requests are answered in the order in which they came. Pure."""

from __future__ import annotations

from enum import Enum

from .answer import Answer


class Turn(Enum):
    NOBODY = "NOBODY"
    NEXT = "NEXT"  # of those that wait
    READING = "READING"  # the request whose body is being read
    REFUSAL = "REFUSAL"  # what is wrong with what came last is said, and the connection ends


def turn(*, waiting: int, refused: bool, is_slow: bool, is_ready: bool) -> Turn:
    """Who gets the backend, which has no request. `is_slow`: the client does not take its answers. `is_ready`: of the
    body that is being read so much is here that it is worth a replica's place.
    """
    if refused and not waiting:
        return Turn.REFUSAL
    if is_slow:
        return Turn.NOBODY
    if waiting:
        return Turn.NEXT
    return Turn.READING if is_ready else Turn.NOBODY


class Refusal(Enum):
    NOW = "NOW"
    IN_TURN = "IN_TURN"  # once all that came before has been answered
    LINGER = "LINGER"  # it cannot be said, since the answer is given: what still comes is thrown away
    ABORT = "ABORT"  # nor can it, in the middle of an answer


def refusal(answer: Answer | None, *, others: bool) -> Refusal:
    """How a client is told that what it sends is wrong. `answer`: of this very request, if the backend has it.

    `others`: requests before it have no answer yet.
    """
    if answer is Answer.OVER:
        return Refusal.LINGER
    if answer is not None and answer is not Answer.WAITED_FOR:
        return Refusal.ABORT
    return Refusal.IN_TURN if others else Refusal.NOW
