"""Questions over a link and their answers: what becomes of each. Nothing here waits.

Who asks gives a question its number. An answer or a refusal ends it, and so does the end of the link; an asker that
does not wait any more withdraws it. An answer that nobody waits for goes back, since it may have granted something.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from actorrt import exceptions

from .messages import Answer, AnyMessage, Ask, Refusal, Unreadable, Withdraw, encode_batch, tag_of

_ASK: Final = tag_of(Ask)
_ANSWERS: Final = frozenset({tag_of(Answer), tag_of(Refusal)})
# What a link answers, or hands to who has asked; all else is for who has the link.
DIALOGUE: Final = frozenset({Answer, Refusal, Ask, Withdraw})


class State(enum.Enum):
    """A question of this end."""

    WAITING = "waiting"
    # What has come is there for the asker, who has not looked at it.
    ANSWERED = "answered"
    FAILED = "failed"
    # The asker has looked, or has gone.
    OVER = "over"


class Event(enum.Enum):
    ANSWERED = "answered"
    # The same, and the asker was cancelled in this very turn.
    UNAWAITED = "answered, and nobody waits"
    FAILED = "failed"  # it was refused, cannot be sent or read, or the link has ended
    CANCELLED = "cancelled"


class Action(enum.Enum):
    NOTHING = "nothing"
    GIVE = "give the asker its answer"
    RAISE = "raise the error where it is asked"
    WITHDRAW = "withdraw the question"
    TAKE_BACK = "give back what the answer grants"


TABLE: Final[Mapping[tuple[State, Event], tuple[State, Action]]] = {
    (State.WAITING, Event.ANSWERED): (State.ANSWERED, Action.GIVE),
    (State.WAITING, Event.UNAWAITED): (State.OVER, Action.TAKE_BACK),
    (State.WAITING, Event.FAILED): (State.FAILED, Action.RAISE),
    (State.WAITING, Event.CANCELLED): (State.OVER, Action.WITHDRAW),
    # The answer and the cancellation came in one turn.
    (State.ANSWERED, Event.CANCELLED): (State.OVER, Action.TAKE_BACK),
    (State.FAILED, Event.CANCELLED): (State.OVER, Action.NOTHING),
    (State.OVER, Event.CANCELLED): (State.OVER, Action.NOTHING),
    # A question ends once; whatever an answer grants is not lost for that.
    **{
        (state, event): (state, action)
        for state in (State.ANSWERED, State.FAILED, State.OVER)
        for event, action in (
            (Event.ANSWERED, Action.TAKE_BACK),
            (Event.UNAWAITED, Action.TAKE_BACK),
            (Event.FAILED, Action.NOTHING),
        )
    },
}


class Questions:
    """The questions that one end has asked."""

    def __init__(self) -> None:
        self._last = 0
        self._states: dict[int, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def ask(self) -> int:
        """The number of a new question. `over` follows."""
        self._last += 1
        self._states[self._last] = State.WAITING
        return self._last

    def on(self, number: int, event: Event) -> Action:
        """What to do now."""
        state, action = TABLE[self._states.get(number, State.OVER), event]
        if number in self._states:
            self._states[number] = state
        return action

    def over(self, number: int) -> None:
        """The asker has looked at what came, or has gone."""
        self._states.pop(number, None)

    def all(self) -> list[int]:
        """The numbers of those that are not over."""
        return list(self._states)


# ---- what cannot be said


class Failed(NamedTuple):
    """A question of this end fails with an error."""

    number: int
    error: Exception


def refusal_of(number: int, error: Exception) -> Refusal:
    """What the asker is told for an error. One that holds what is no plain value, or is none of ours, as its text."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, exceptions.ActorrtError):
        return Refusal(number, "ActorrtError", [text])
    refusal = Refusal(number, type(error).__name__, list(error.args))
    try:
        encode_batch([refusal])
    except Exception:
        return Refusal(number, "ActorrtError", [_plain(text)])
    return refusal


def error_in(refusal: Refusal) -> Exception:
    """The error that a refusal stands for."""
    kind = getattr(exceptions, refusal.error, exceptions.ActorrtError)
    try:
        return kind(*refusal.args)
    except TypeError:
        return exceptions.ActorrtError(f"{refusal.error}: {refusal.args}")


def unsendable(message: AnyMessage, why: str) -> Failed | Refusal | None:
    """A message cannot be written: who fails for that, here or at the other end. None: it is no part of a dialogue."""
    if isinstance(message, Ask):
        what = f"the question {type(message.body).__name__}"
        return Failed(message.rid, exceptions.NotSentError(what, why))
    if isinstance(message, Answer | Refusal):
        return Refusal(message.rid, "NotSentError", ["the answer", _plain(why)])
    return None


def unreadable(message: Unreadable, why: str) -> Failed | Refusal | None:
    """The same for one that came and means nothing here; `why`: what to say of it on this side."""
    if message.tag == _ASK:
        return Refusal(message.number, "NotSentError", ["the question", message.why])
    if message.tag in _ANSWERS:
        return Failed(message.number, exceptions.ActorrtError(why))
    return None


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()


# ---- among other messages


def in_parts(messages: Iterable[AnyMessage]) -> list[AnyMessage | list[AnyMessage]]:
    """Messages of a dialogue one by one, and those between them together: order counts between the two."""
    parts: list[AnyMessage | list[AnyMessage]] = []
    others: list[AnyMessage] = []
    for message in messages:
        if type(message) in DIALOGUE:
            if others:
                parts.append(others)
                others = []
            parts.append(message)
        else:
            others.append(message)
    if others:
        parts.append(others)
    return parts
