"""What the ends of a request, of its client and of its call in a replica lead to, as a transition table. Pure.

    WAITS --> RUNS --a part of its answer--> ANSWERS --the last part, or an end--> LEFT --the end of its call--> ENDED

A request keeps no state of its own for this: whether a call runs and how far the answer has come say it.
What holds for every request:

* Its client gets one answer, whole or cut off, and nothing of a second one behind a part of a first.
* A call that nobody waits for is ended: at once if a part of its answer was written or if its replica does not listen,
  else once its code has had time to end by itself.
* It goes to another replica only while nothing of an answer has reached its client.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from actorrt.exceptions import ActorrtError, TaskCancelledError, TaskError

from ..exceptions import RequestRouterError
from ..http.unavailable import RETRY_AFTER_S, answer_to, client_text
from ..http.unavailable import Answer as Page
from .answer import Answer

# A request that changes nothing by its meaning (RFC 9110, 9.2.1) goes to another replica if its own has died before it
# answered: so often, since the request itself may be what a replica dies of.
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
REPEATS: Final = 2


class State(Enum):
    WAITS = "WAITS"  # its router has it, and no replica
    RUNS = "RUNS"  # a replica has it, and nothing of an answer was written
    ANSWERS = "ANSWERS"  # some of the answer was written
    LENT = "LENT"  # its replica writes the answer to its client's socket, or may have done so
    LEFT = "LEFT"  # its call runs, and nobody waits for an answer
    ENDED = "ENDED"


class Event(Enum):
    # Of the request, by its client, its time and its router, which wants its place back.
    CLIENT_GONE = "CLIENT_GONE"
    TOO_LATE = "TOO_LATE"
    STOPPED = "STOPPED"
    # Of its call: it was cancelled, or has failed; then, of an answer that was lent, whether any of it may be written.
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    UNTOUCHED = "UNTOUCHED"
    TOUCHED = "TOUCHED"
    # The replica knows that nobody waits, and its code may end by itself; or it does not; or the time for that is over.
    HEARD = "HEARD"
    NOT_HEARD = "NOT_HEARD"
    GRACE_OVER = "GRACE_OVER"


class Action(Enum):
    WITHDRAW = "WITHDRAW"  # its router forgets it
    TELL = "TELL"  # its replica hears that nobody waits
    GIVE_TIME = "GIVE_TIME"
    # Its call is cancelled, with all that it has called; or alone, so that the replica tells its code.
    CANCEL = "CANCEL"
    CANCEL_ALONE = "CANCEL_ALONE"
    RELEASE = "RELEASE"  # its place in the replica is free
    REFUSE = "REFUSE"  # its client gets a page
    CUT = "CUT"  # its client sees the answer break off
    # Has the process that the client's socket was lent to gone, and written nothing?
    TAKE_BACK = "TAKE_BACK"
    JUDGE = "JUDGE"  # its router says whether it goes to another replica


S, E, A = State, Event, Action
WRITTEN: Final = (S.ANSWERS, S.LENT)
TABLE: Final[Mapping[tuple[State, Event], tuple[Action, ...]]] = {
    (S.WAITS, E.CLIENT_GONE): (A.WITHDRAW,),
    (S.RUNS, E.CLIENT_GONE): (A.TELL,),
    **{(state, E.CLIENT_GONE): (A.CANCEL_ALONE,) for state in WRITTEN},
    (S.WAITS, E.TOO_LATE): (A.WITHDRAW, A.REFUSE),
    (S.RUNS, E.TOO_LATE): (A.TELL, A.REFUSE),
    **{(state, E.TOO_LATE): (A.CANCEL_ALONE, A.CUT) for state in WRITTEN},
    # It has no place.
    (S.WAITS, E.STOPPED): (),
    (S.RUNS, E.STOPPED): (A.TELL, A.REFUSE),
    **{(state, E.STOPPED): (A.CANCEL_ALONE, A.CUT) for state in WRITTEN},
    (S.LEFT, E.STOPPED): (),
    (S.ENDED, E.STOPPED): (),
    (S.RUNS, E.CANCELLED): (A.RELEASE, A.REFUSE),
    **{(state, E.CANCELLED): (A.RELEASE, A.CUT) for state in WRITTEN},
    (S.LEFT, E.CANCELLED): (A.RELEASE,),
    # Its client could not tell a repetition from a slow answer.
    (S.RUNS, E.FAILED): (A.JUDGE,),
    # The rest cannot come from another replica.
    (S.ANSWERS, E.FAILED): (A.RELEASE, A.CUT),
    (S.LENT, E.FAILED): (A.TAKE_BACK,),
    (S.LEFT, E.FAILED): (A.RELEASE,),
    (S.LENT, E.UNTOUCHED): (A.JUDGE,),
    (S.LENT, E.TOUCHED): (A.RELEASE, A.CUT),
    (S.LEFT, E.HEARD): (A.GIVE_TIME,),
    (S.LEFT, E.NOT_HEARD): (A.CANCEL,),
    (S.LEFT, E.GRACE_OVER): (A.CANCEL,),
    # Its call has ended meanwhile.
    **{(S.ENDED, event): () for event in (E.HEARD, E.NOT_HEARD, E.GRACE_OVER)},
}


class RequestLifeError(Exception):
    """What cannot happen to a request in this state: an error of ours, never of a client."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(state, event)
        self.state, self.event = state, event

    def __str__(self) -> str:
        return f"a request in {self.state.value} cannot have {self.event.value}"


def state_of(runs: bool, answer: Answer) -> State:
    """Of a request whose call `runs`, or not, and whose answer is so far."""
    if answer is Answer.OVER:
        return S.LEFT if runs else S.ENDED
    if not runs:
        return S.WAITS
    return {Answer.WAITED_FOR: S.RUNS, Answer.BEGUN: S.ANSWERS, Answer.LENT: S.LENT}[answer]


def actions(state: State, event: Event) -> tuple[Action, ...]:
    """What is done, in this order. RequestLifeError if the table has no such row."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise RequestLifeError(state, event) from None


def failure(error: BaseException) -> Event:
    """What the error of its call is for a request."""
    return E.CANCELLED if isinstance(error, TaskCancelledError) else E.FAILED


def may_repeat(method: bytes, streams: bool, failures: int) -> bool:
    """Whether a request that a replica may have begun goes to another one, after so many have failed on it.

    A body that `streams` is gone with the replica that took it.
    """
    return not streams and method in SAFE_METHODS and failures <= REPEATS


_PAGES: Final[Mapping[Event, Page]] = {
    E.CANCELLED: Page(503, "the request was cancelled", None),
    E.TOO_LATE: Page(408, "the request took too long", None),
}


def page_after(event: Event, error: BaseException | None) -> Page:
    """What a client gets that has got nothing yet."""
    return _PAGES.get(event) or page(error)


def page(error: BaseException | None) -> Page:
    """What an error is to the client of the request that it ends."""
    if (found := answer_to(error)) is not None:
        return found
    if isinstance(error, ActorrtError) and not isinstance(error, TaskError | RequestRouterError):
        # Not the application's own: a process, or all of the session, has come to its end under the request.
        return Page(503, client_text(error), RETRY_AFTER_S)
    return Page(500, "Internal Server Error", None)
