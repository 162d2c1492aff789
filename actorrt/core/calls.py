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
* Nor is one under which MOST_DEATHS workers in a row have died, whatever attempts it has left: it is what they die of.
* What is sent again though it may have run waits before that for the pause that its policy names, if it has one.
* A call whose time is over ends at once, and its callee is told to cancel it; one that has not begun in time is taken
  back, and goes on if it has begun after all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from typing import Final, NamedTuple

from actorrt.exceptions import TaskError

from .call_terms import CallTerms, Limit, RetryOn
from .labels import Label

# After so many deaths in a row of the processes that ran it, a call fails.
MOST_DEATHS: Final = 3


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
    # The same, and its callee is known to have died.
    DIED = auto()
    # Its callee is lost; it had ended before, and the answer was on its way.
    UNHEARD = auto()
    # Nothing will come of it: its caller ends, no worker can be had, its actor is dead, an argument of it failed.
    GIVEN_UP = auto()
    # The time that it has in all is over.
    LATE = auto()
    # The time that it has to begin is over, and it is not known to have begun.
    START_LATE = auto()
    # Its callee has taken it back for that, before it began.
    WITHDRAWN = auto()


class Action(Label):
    NOTHING = auto()
    # Send it again as soon as that can be done, before what was called later.
    AGAIN = auto()
    # The same, after a pause: `pause_s`.
    PAUSE = auto()
    # Send the cancellation after it.
    SEND_CANCEL = auto()
    # Go on waiting: what its callee said is not the last word.
    WAIT = auto()
    # Give the values to the waiters.
    SETTLE = auto()
    # End it with the error at hand.
    FAIL = auto()
    # End it as cancelled, or with what its limits say: `ended_by`.
    END_CANCELLED = auto()
    # The same, and send the cancellation after it.
    CUT = auto()
    # Have its callee take it back, if it has not begun.
    WITHDRAW = auto()
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
    (S.AWAY, E.DIED): Row((S.ENDED, A.END_CANCELLED), (S.HERE, A.AGAIN), (S.AWAY, A.REPORT)),
    (S.AWAY, E.UNHEARD): Row((S.ENDED, A.END_CANCELLED), (S.HERE, A.AGAIN), (S.AWAY, A.REPORT)),
    (S.AWAY, E.GIVEN_UP): _always(S.ENDED, A.FAIL),
    (S.HERE, E.LATE): _always(S.ENDED, A.END_CANCELLED),
    # Whatever its callee makes of the cancellation, and when, is too late.
    (S.AWAY, E.LATE): _always(S.ENDED, A.CUT),
    (S.HERE, E.START_LATE): _always(S.ENDED, A.END_CANCELLED),
    (S.AWAY, E.START_LATE): _always(S.AWAY, A.WITHDRAW),
    (S.AWAY, E.WITHDRAWN): _always(S.ENDED, A.END_CANCELLED),
    # A call ends once: what crosses its end, or comes late, changes nothing.
    **{(S.ENDED, event): _always(S.ENDED, A.NOTHING) for event in Event if event is not E.SENT},
}
# Being sent again after these takes an attempt.
COUNTED: Final = frozenset({E.RAISED, E.LOST, E.DIED})
# After these it may have run.
RAN: Final = frozenset({E.RAISED, E.LOST, E.DIED, E.UNHEARD})


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

    __slots__ = ("attempts_left", "deaths", "may_have_run", "state", "terms", "wish")

    def __init__(self) -> None:
        self.state = HERE
        self.wish = NO_WISH
        self.attempts_left = 0
        # What errors of its code it is repeated for, if that is all that its options say of it.
        self.terms: RetryOn | CallTerms = False
        # It was sent again though it may have run.
        self.may_have_run = False
        # How many processes in a row have died under it.
        self.deaths = 0

    @property
    def done(self) -> bool:
        return self.state is ENDED

    @property
    def may_be_repeated(self) -> bool:
        """For an error of its code."""
        terms = self.terms
        named = terms.retry_on if isinstance(terms, CallTerms) else terms
        return bool(named and self.attempts_left) and not self.wish

    @property
    def pause_s(self) -> float:
        """For how many seconds it waits before it goes again (PAUSE)."""
        return self.terms.pause_s if isinstance(self.terms, CallTerms) else 0.0

    @property
    def ended_by(self) -> Limit | None:
        """Of a call that ends by END_CANCELLED or CUT: the limit that has ended it; None: its caller has."""
        terms = self.terms
        if not isinstance(terms, CallTerms) or (self.wish and terms.over is not Limit.TIMEOUT):
            return None
        return terms.over

    def on(self, event: Event) -> Action:
        """Apply `event`; what to do now. Raises CallError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise CallError(f"{event.name} cannot happen to a call that is {self.state.name}")
        if event is Event.DIED:
            self.deaths += 1
        if self.wish or (event is Event.UNBEGUN and self._is_unwanted_unbegun):
            after, action = row.asked
        else:
            after, action = row.left if self.attempts_left and self.deaths < MOST_DEATHS else row.spent
        if action is Action.AGAIN:
            if event in COUNTED and self.attempts_left > 0:
                self.attempts_left -= 1
            if event in RAN:
                self.may_have_run = True
                if event is Event.RAISED:
                    # It came to an end there.
                    self.deaths = 0
                if isinstance(self.terms, CallTerms) and self.terms.takes_pause():
                    action = Action.PAUSE
        self.state = after
        return action

    @property
    def _is_unwanted_unbegun(self) -> bool:
        """It was to be taken back if it had not begun, and comes back by itself."""
        return isinstance(self.terms, CallTerms) and self.terms.over is Limit.START and not self.may_have_run

    def on_late(self, limit: Limit) -> Action:
        """This limit of it is over: END_CANCELLED, CUT, WITHDRAW, or NOTHING."""
        terms = self.terms
        if not isinstance(terms, CallTerms) or (limit is Limit.START and self.may_have_run):
            # It has begun in time, and begins once more.
            return Action.NOTHING
        began = limit is Limit.TIMEOUT and (self.may_have_run or self.state is AWAY)
        action = self.on(Event.LATE if limit is Limit.TIMEOUT else Event.START_LATE)
        if action is not Action.NOTHING:
            terms.is_over(limit, began)
        return action

    def on_cancel(self, force: bool) -> Action:
        """Its caller wants it cancelled; on the loop: SEND_CANCEL, END_CANCELLED, or NOTHING."""
        self.ask(force)
        return self.on(Event.CANCEL)

    def came_back(self, event: Event) -> Action:
        """It has come back without an answer, and what has become of its callee is known: AGAIN, PAUSE, FAIL with
        that, END_CANCELLED, or NOTHING."""
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
        return self.on(Event.RAISED if self.may_be_repeated and self._repeats_for(load) else Event.FAILED)

    def _repeats_for(self, load: Callable[[], BaseException | None]) -> bool:
        terms = self.terms
        named, never = (terms.retry_on, terms.never_for) if isinstance(terms, CallTerms) else (terms, ())
        if named is True and not never:
            return True
        error = load()
        # The code raised it itself, or a task did that it waited for.
        cause = error.root_cause if isinstance(error, TaskError) else error
        if isinstance(cause, never):
            return False
        return named is True or (not isinstance(named, bool) and isinstance(cause, named))
