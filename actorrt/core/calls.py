"""The life of a call as its caller decides it: a table, the one rule of retries, and a small class. No I/O.

HERE --SENT--> AWAY --ANSWERED--> ENDED, and back to HERE when it is to be sent again. A call ends exactly once. What
holds for tasks, async tasks, calls of actors and local mode alike:

* A call that surely did not begin is sent again, and that counts for nothing.
* A call that may have run is sent again while it has attempts left (`max_retries`, `max_task_retries`; -1 is without
  limit), and that takes one of them: for a callee that is lost always, for an error of its code where
  `retry_exceptions` names it.
* A call that had ended before its callee was lost, so that only its answer is gone, is sent again while it has
  attempts left and takes none: it was not what its callee died of.
* A call that its caller wants cancelled is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from typing import Final, NamedTuple

from actorrt.exceptions import TaskError

from .labels import Label

# True: whatever error its code raises. Else the classes of errors; () and False are none.
RetryOn = bool | tuple[type[BaseException], ...]


class State(Label):
    # With its caller: it waits for its arguments, for a worker, or for its actor's place.
    HERE = auto()
    # With its callee, as far as its caller knows.
    AWAY = auto()
    ENDED = auto()


class Wish(IntEnum):
    """What its caller wants of a call beside its outcome. It only grows, and any thread may make it grow."""

    NONE = 0
    CANCEL = 1
    # Its process may be ended for it.
    FORCE = 2


class Event(Label):
    # It is handed to a callee.
    SENT = auto()
    # Its caller wants it cancelled.
    CANCEL = auto()
    # The callee has sent values, or the end of a stream.
    ANSWERED = auto()
    # Its code raised an error that it is to be repeated for, if it may.
    RAISED = auto()
    # It failed with any other error.
    FAILED = auto()
    # The callee says that it was cancelled there.
    STOPPED = auto()
    # It has come back, or its callee is lost, and it surely had not begun.
    UNBEGUN = auto()
    # Its callee is lost, and it may have been what was running.
    LOST = auto()
    # Its callee is lost; it had ended before, and the answer was on its way.
    UNHEARD = auto()
    # Nothing will come of it: its caller ends, no worker can be had, its actor is dead, an argument of it failed.
    GIVEN_UP = auto()


class Action(Label):
    NOTHING = auto()
    # Send it again as soon as that can be done, before what was called later.
    AGAIN = auto()
    # Send the cancellation after it.
    SEND_CANCEL = auto()
    # Go on waiting: what its callee said is not the last word.
    WAIT = auto()
    # Give the values to the waiters.
    SETTLE = auto()
    # End it with the error at hand.
    FAIL = auto()
    # End it as cancelled.
    END_CANCELLED = auto()
    # End it with what has become of its callee, once that is known: then LOST comes once more.
    REPORT = auto()


class Row(NamedTuple):
    # Its caller wants it cancelled.
    asked: tuple[State, Action]
    # Else: it has attempts left.
    left: tuple[State, Action]
    # Else.
    spent: tuple[State, Action]


def _always(state: State, action: Action) -> Row:
    return Row((state, action), (state, action), (state, action))


S, E, A = State, Event, Action

TABLE: Final[Mapping[tuple[State, Event], Row]] = {
    # Another thread may have seen it AWAY, and have asked, in the moment in which it came back.
    (S.HERE, E.SENT): Row((S.AWAY, A.SEND_CANCEL), (S.AWAY, A.NOTHING), (S.AWAY, A.NOTHING)),
    (S.HERE, E.CANCEL): _always(S.ENDED, A.END_CANCELLED),
    (S.HERE, E.GIVEN_UP): _always(S.ENDED, A.FAIL),
    # As often as it is asked: a later one may come with force. What has become of the call, its callee says.
    (S.AWAY, E.CANCEL): _always(S.AWAY, A.SEND_CANCEL),
    # The answer and the cancellation have crossed: what came, came.
    (S.AWAY, E.ANSWERED): _always(S.ENDED, A.SETTLE),
    (S.AWAY, E.RAISED): Row((S.ENDED, A.FAIL), (S.HERE, A.AGAIN), (S.ENDED, A.FAIL)),
    (S.AWAY, E.FAILED): _always(S.ENDED, A.FAIL),
    # Where its caller did not ask, its process is being ended: the loss of the callee will follow, and say why.
    (S.AWAY, E.STOPPED): Row((S.ENDED, A.END_CANCELLED), (S.AWAY, A.WAIT), (S.AWAY, A.WAIT)),
    (S.AWAY, E.UNBEGUN): Row((S.ENDED, A.END_CANCELLED), (S.HERE, A.AGAIN), (S.HERE, A.AGAIN)),
    (S.AWAY, E.LOST): Row((S.ENDED, A.END_CANCELLED), (S.HERE, A.AGAIN), (S.AWAY, A.REPORT)),
    (S.AWAY, E.UNHEARD): Row((S.ENDED, A.END_CANCELLED), (S.HERE, A.AGAIN), (S.AWAY, A.REPORT)),
    (S.AWAY, E.GIVEN_UP): _always(S.ENDED, A.FAIL),
    # A call ends once: what crosses its end, or comes late, changes nothing.
    **{(S.ENDED, event): _always(S.ENDED, A.NOTHING) for event in Event if event is not E.SENT},
}
# Being sent again after these takes an attempt.
COUNTED: Final = frozenset({E.RAISED, E.LOST})
# After these it may have run.
RAN: Final = frozenset({E.RAISED, E.LOST, E.UNHEARD})


# To look a member up in its class costs as much as all else that a call's way through its states does.
HERE: Final = State.HERE
AWAY: Final = State.AWAY
ENDED: Final = State.ENDED
NO_WISH: Final = Wish.NONE


class CallError(Exception):
    """An event that cannot happen to a call in this state: a bug of ours."""


class CallLife:
    """One call's state. Several threads may send calls: a lock keeps the events of those that are HERE apart. All
    others happen on one loop, except for `ask`."""

    __slots__ = ("attempts_left", "may_have_run", "retry_on", "state", "wish")

    def __init__(self) -> None:
        self.state = HERE
        self.wish = NO_WISH
        self.attempts_left = 0
        self.retry_on: RetryOn = False
        # It was sent again though it may have run.
        self.may_have_run = False

    @property
    def done(self) -> bool:
        return self.state is ENDED

    @property
    def may_be_repeated(self) -> bool:
        """For an error of its code."""
        return bool(self.retry_on and self.attempts_left) and not self.wish

    def on(self, event: Event) -> Action:
        """Apply `event`; what to do now. Raises CallError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise CallError(f"{event.name} cannot happen to a call that is {self.state.name}")
        after, action = row.asked if self.wish else row.left if self.attempts_left else row.spent
        if action is Action.AGAIN:
            if event in COUNTED and self.attempts_left > 0:
                self.attempts_left -= 1
            self.may_have_run = self.may_have_run or event in RAN
        self.state = after
        return action

    def on_cancel(self, force: bool) -> Action:
        """Its caller wants it cancelled; on the loop: SEND_CANCEL, END_CANCELLED, or NOTHING."""
        self.ask(force)
        return self.on(Event.CANCEL)

    def came_back(self, event: Event) -> Action:
        """It has come back without an answer, and what has become of its callee is known: AGAIN, FAIL with that,
        END_CANCELLED, or NOTHING."""
        action = self.on(event)
        return self.on(Event.GIVEN_UP) if action is Action.REPORT else action

    # ---- the rows that every call takes, without looking them up; a shell may write them out

    def sent(self) -> None:
        """SENT to a call that is HERE. If it is wanted cancelled, the cancellation follows."""
        self.state = AWAY

    def answered(self) -> bool:
        """ANSWERED; False if it had ended before."""
        if self.state is ENDED:
            return False
        self.state = ENDED
        return True

    def ask(self, force: bool) -> None:
        """Note that its caller wants it cancelled, from any thread; CANCEL follows on the loop."""
        wish = Wish.FORCE if force else Wish.CANCEL
        if wish > self.wish:
            self.wish = wish

    def raised(self, load: Callable[[], BaseException | None]) -> Action:
        """Its code raised an error; `load()` gives it, or None if it cannot be read, and is called only if it counts
        which one it was."""
        again = self.may_be_repeated and (self.retry_on is True or _is_among(self.retry_on, load()))
        return self.on(Event.RAISED if again else Event.FAILED)


def _is_among(classes: RetryOn, error: BaseException | None) -> bool:
    # The code raised it itself, or a task did that it waited for.
    cause = error.root_cause if isinstance(error, TaskError) else error
    return not isinstance(classes, bool) and isinstance(cause, classes)
