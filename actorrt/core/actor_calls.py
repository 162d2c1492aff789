"""The caller's side of one actor: which call leaves next, and what becomes of calls whose actor is gone. No I/O.

Where the caller stands with the actor is a state of the table below. Calls leave in the order in which they were made,
at most `window` of them are under way, the others wait in the backlog. A call whose arguments are not there yet keeps
its turn where the actor is ordered; else those behind it overtake it. A call that has to be sent again goes before all
that were made after it.

The calls and the links to actors are the shell's; of a call this file asks what `Outgoing` says. Events here are
methods: what they return is what the shell has to do. Any thread may make calls: the shell has a lock, and those that
say so are under it. All but `admit` and `enqueue` happen on one loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import auto
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from actorrt.exceptions import PendingCallsLimitExceeded

from . import calls
from .call_terms import Limit
from .calls import ENDED, HERE
from .labels import Label

# How many calls beyond its concurrency may lie at an actor; further ones wait at their caller.
WINDOW: Final = 1024
# How long to wait, at first and at most, until the owner is asked again for the place of an actor that is not reached.
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 2.0


class Traits:
    """What callers have to know of an actor's class. Nothing changes it; all that are alike have one (`traits_of`)."""

    __slots__ = ("max_pending", "max_task_retries", "ordered", "window")

    def __init__(self, ordered: bool, concurrency: int, max_task_retries: int, max_pending: int) -> None:
        # A sync actor with one thread starts calls in the order in which they were made, come what may.
        self.ordered = ordered
        self.window = concurrency + WINDOW
        self.max_task_retries = max_task_retries
        # How many calls may be without an outcome; -1 is without limit.
        self.max_pending = max_pending

    @property
    def one_at_a_time(self) -> bool:
        return self.window == WINDOW + 1

    def __reduce__(self) -> tuple[Any, ...]:
        return traits_of, (self.ordered, self.window - WINDOW, self.max_task_retries, self.max_pending)


@lru_cache(maxsize=256)
def traits_of(ordered: bool, concurrency: int, max_task_retries: int, max_pending: int) -> Traits:
    """One for all actors of a kind: there may be a million of them."""
    return Traits(ordered, concurrency, max_task_retries, max_pending)


class State(Label):
    """Where a caller stands with an actor. RESTARTING and RUNNING are for the caller that owns it."""

    # Nobody has asked yet where it is, or it is there no more.
    UNKNOWN = auto()
    # Its owner was asked.
    RESOLVING = auto()
    # Its owner has said where it is: calls go there.
    PLACED = auto()
    # It has no place. The supervisor, in this process, will say when it has one.
    RESTARTING = auto()
    # Calls go to the place that its supervisor has given it; it may be starting there.
    RUNNING = auto()
    DEAD = auto()


class Event(Label):
    # Calls wait to leave.
    WANTED = auto()
    # This process owns it.
    OWNED = auto()
    # Its owner has named a place, and a link leads there.
    FOUND = auto()
    # Its owner has named a place to which no link leads.
    UNREACHABLE = auto()
    # The search has ended without an answer.
    UNANSWERED = auto()
    # Its supervisor has given it a place.
    MOVED = auto()
    # Its supervisor has taken its place from it.
    DISPLACED = auto()
    # The link to its place has ended.
    LOST = auto()
    # The process at its place does not have it.
    ABSENT = auto()
    # It was killed, and may come back.
    KILLED = auto()
    # It will not come back.
    DIED = auto()


class Action(Label):
    NOTHING = auto()
    # Send what may leave: `next_to_send`, `next_to_resolve`.
    SEND = auto()
    # Ask its owner where it is, later than at `incarnation`: `found`, `unreachable`, `unanswered` or `died` follows.
    ASK = auto()
    # Tell its supervisor, which would know if it had ended in any way that is reported.
    REPORT_ABSENT = auto()
    # Fail what waits: `drain`.
    FAIL = auto()


S, E, A = State, Event, Action

TABLE: Final[Mapping[tuple[State, Event], tuple[State, Action]]] = {
    (S.UNKNOWN, E.WANTED): (S.RESOLVING, A.ASK),
    (S.UNKNOWN, E.OWNED): (S.RESTARTING, A.NOTHING),
    (S.UNKNOWN, E.KILLED): (S.UNKNOWN, A.NOTHING),
    (S.UNKNOWN, E.DIED): (S.DEAD, A.FAIL),
    (S.RESOLVING, E.WANTED): (S.RESOLVING, A.NOTHING),
    (S.RESOLVING, E.FOUND): (S.PLACED, A.SEND),
    (S.RESOLVING, E.UNREACHABLE): (S.RESOLVING, A.ASK),
    (S.RESOLVING, E.UNANSWERED): (S.UNKNOWN, A.NOTHING),
    # An answer that was on its way may name the old place: calls that are sent there come back as not begun.
    (S.RESOLVING, E.KILLED): (S.RESOLVING, A.NOTHING),
    (S.RESOLVING, E.DIED): (S.DEAD, A.FAIL),
    (S.PLACED, E.WANTED): (S.PLACED, A.SEND),
    (S.PLACED, E.LOST): (S.UNKNOWN, A.NOTHING),
    (S.PLACED, E.ABSENT): (S.UNKNOWN, A.NOTHING),
    (S.PLACED, E.KILLED): (S.UNKNOWN, A.NOTHING),
    (S.PLACED, E.DIED): (S.DEAD, A.FAIL),
    (S.RESTARTING, E.WANTED): (S.RESTARTING, A.NOTHING),
    (S.RESTARTING, E.MOVED): (S.RUNNING, A.SEND),
    (S.RESTARTING, E.DISPLACED): (S.RESTARTING, A.NOTHING),
    (S.RESTARTING, E.DIED): (S.DEAD, A.FAIL),
    (S.RUNNING, E.WANTED): (S.RUNNING, A.SEND),
    # A handle that comes back from elsewhere has it said once more.
    (S.RUNNING, E.MOVED): (S.RUNNING, A.SEND),
    (S.RUNNING, E.DISPLACED): (S.RESTARTING, A.NOTHING),
    # The supervisor hears of it too, and will say what follows.
    (S.RUNNING, E.LOST): (S.RESTARTING, A.NOTHING),
    (S.RUNNING, E.ABSENT): (S.RUNNING, A.REPORT_ABSENT),
    (S.RUNNING, E.DIED): (S.DEAD, A.FAIL),
    # Dead is dead: whatever was under way when it died may still arrive.
    (S.DEAD, E.WANTED): (S.DEAD, A.FAIL),
    **{(S.DEAD, event): (S.DEAD, A.NOTHING) for event in Event if event not in (E.WANTED, E.OWNED)},
}
# The supervisor of the actor is in this process.
OWNED: Final = frozenset({S.RESTARTING, S.RUNNING})
# Without a place, calls wait.
SENDING: Final = frozenset({S.PLACED, S.RUNNING})
# To look a member up in its class takes longer than the rest of a step: there may be a million actors.
_UNKNOWN: Final = State.UNKNOWN
_NOTHING: Final = Action.NOTHING
_MOVED: Final = Event.MOVED
_WANTED: Final = Event.WANTED


class TransitionError(Exception):
    """An event that cannot happen in this state: a bug of ours."""


class Link(Protocol):
    """A way to the process of an actor. It may be closed (`closed` is true) before its end is reported (`lost`)."""

    @property
    def closed(self) -> object: ...


class Outgoing(Protocol):
    """A call, as far as its order is concerned. Its life is that of core/calls.py."""

    # Which life of the actor it was sent to; -1: to none yet.
    incarnation: int

    @property
    def state(self) -> calls.State: ...
    @property
    def number(self) -> int:
        """It grows with each call of a process."""
        ...

    @property
    def waiting(self) -> object:
        """The arguments that are not there yet; None if it can leave."""
        ...

    def on(self, event: calls.Event, /) -> calls.Action: ...
    def on_cancel(self, force: bool, /) -> calls.Action: ...
    def on_late(self, limit: Limit, /) -> calls.Action: ...


C = TypeVar("C", bound=Outgoing)
L = TypeVar("L", bound=Link)


class Sorted(NamedTuple, Generic[C]):
    """What is to be done with calls that have ended without an outcome."""

    # They go again, before all later ones.
    again: list[C]
    # They fail with what has become of their actor, once that is known: then `sort(calls, LOST)` comes once more.
    failed: list[C]
    # They end as cancelled, or for a limit of theirs.
    cancelled: list[C]
    # They go again once their pauses are over: `resume`.
    paused: list[C]


def sort(under_way: Iterable[C], event: calls.Event) -> Sorted[C]:
    """What becomes of calls that were under way, by their lives."""
    found: Sorted[C] = Sorted([], [], [], [])
    for call in under_way:
        match call.on(event):
            case calls.Action.AGAIN:
                found.again.append(call)
            case calls.Action.PAUSE:
                found.paused.append(call)
            case calls.Action.REPORT:
                found.failed.append(call)
            case calls.Action.END_CANCELLED:
                found.cancelled.append(call)
            case _:
                pass
    return found


def _both(one: Sorted[C], other: Sorted[C]) -> Sorted[C]:
    return Sorted(*(first + second for first, second in zip(one, other, strict=True)))


def may_live(*, said_goodbye: bool, has_ended: bool, node_is_gone: bool) -> bool:
    """Whether a process to which there is no link may live: a link that is down says nothing about that.

    It has not said goodbye, its node has not said that it has ended, and its node, with which it ends, is there.
    """
    return not (said_goodbye or has_ended or node_is_gone)


def look_again_after(rounds: int, lives: bool) -> float:
    """For how many seconds to wait before the owner of an actor is asked again for its place, when no link leads to the
    one that it has named. `lives`: its process may live, and this was found so for the `rounds`-th time."""
    # The owner of an actor whose process has ended waits itself until it knows of another place.
    return min(LONGEST_LOOK_S, FIRST_LOOK_S * 2.0 ** min(rounds, 16)) if lives else 0.0


class ActorCalls(Generic[C, L]):
    """The calls of one process to one actor."""

    __slots__ = ("backlog", "incarnation", "inflight", "link", "resolving", "state", "title", "traits")

    def __init__(self, title: str, traits: Traits) -> None:
        # What errors call it.
        self.title = title
        self.traits = traits
        self.state = _UNKNOWN
        # Set in the states of SENDING.
        self.link: L | None = None
        # Which of its lives `link` leads to, or led to.
        self.incarnation = -1
        # Calls that were sent and have no outcome yet.
        self.inflight = 0
        # Calls that cannot leave yet, in order.
        self.backlog: deque[C] | None = None
        # Calls whose arguments are awaited. That of an ordered actor is in front of the backlog, others are outside.
        self.resolving: set[C] | None = None

    def on(self, event: Event) -> Action:
        """Apply `event`; what to do now. Raises TransitionError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise TransitionError(f"{event.name} cannot happen to {self.title} while it is {self.state.name}")
        self.state, action = row
        if self.link is not None and self.state not in SENDING:
            self.link = None
        return action

    # ---- a call is made

    def admit(self, call: C) -> L | None:
        """Count a new call as under way, and give the link to send it on at once; None: `enqueue` it. Under the lock.

        Raises PendingCallsLimitExceeded.
        """
        traits = self.traits
        if traits.max_pending >= 0 and call.state is HERE and self.pending >= traits.max_pending:
            raise PendingCallsLimitExceeded(self.title, traits.max_pending)
        link = self.link
        if (
            link is not None
            and call.waiting is None
            and self.backlog is None
            and self.inflight < traits.window
            and not link.closed
            and call.state is HERE
        ):
            self.inflight += 1
            # Written here and below: a method of the call's would cost each call more than all else that is decided.
            call.incarnation = self.incarnation
            return link
        return None

    def enqueue(self, call: C) -> bool:
        """Have a call that is not admitted wait. True if it has to be looked at (`wanted`), else it goes when those in
        front of it go. Under the lock."""
        if call.state is ENDED:
            # Cancelled with its parent in this very moment.
            return False
        first = self.backlog is None
        self._queue().append(call)
        return first or call.waiting is not None

    @property
    def pending(self) -> int:
        """Calls without an outcome."""
        count = self.inflight + len(self.backlog or ())
        return count if self.traits.ordered else count + len(self.resolving or ())

    @property
    def is_waiting(self) -> bool:
        """True while calls have not left, so that it has to be kept, though nobody holds a handle or a ref any more."""
        return self.backlog is not None or self.resolving is not None

    def _queue(self) -> deque[C]:
        if self.backlog is None:
            self.backlog = deque()
        return self.backlog

    # ---- calls leave

    def wanted(self) -> Action:
        """What to do for the calls that wait."""
        return _NOTHING if self.backlog is None else self.on(_WANTED)

    def next_to_send(self) -> C | None:
        """Take the next call from the backlog, to be sent on `link`. None: the next one cannot leave now. Under the
        lock."""
        backlog = self.backlog
        link = self.link
        if backlog is None or link is None or link.closed:
            # Where the link is closed, its end is about to be reported.
            return None
        while backlog:
            call = backlog[0]
            if call.state is ENDED:
                backlog.popleft()
            elif call.waiting is not None or self.inflight >= self.traits.window:
                return None
            else:
                backlog.popleft()
                self.inflight += 1
                call.incarnation = self.incarnation
                return call
        self.backlog = None
        return None

    def next_to_resolve(self) -> C | None:
        """After `next_to_send` has given None: the call whose arguments have to be waited for, if that is why;
        `resolved` follows. Under the lock."""
        backlog = self.backlog
        if not backlog or self.link is None or self.link.closed or backlog[0].waiting is None:
            return None
        call = backlog[0]
        if self.resolving is None:
            self.resolving = {call}
        elif call in self.resolving:
            return None
        else:
            self.resolving.add(call)
        if not self.traits.ordered:
            backlog.popleft()
            self.backlog = backlog or None
        return call

    def resolved(self, call: C) -> None:
        """The arguments of a call are there, or it has ended for one that failed. Under the lock."""
        self._resolves_no_more(call)
        if not self.traits.ordered and call.state is not ENDED:
            self._queue().append(call)

    def _resolves_no_more(self, call: C) -> None:
        if self.resolving is not None:
            self.resolving.discard(call)
            if not self.resolving:
                self.resolving = None

    # ---- calls end

    def answered(self, count: int) -> bool:
        """So many calls less are under way. True if others may leave for that. Under the lock."""
        self.inflight -= count
        return self.backlog is not None

    def taken_back(self) -> None:
        """A call that was sent is not under way any more, and will have no outcome. Under the lock."""
        self.inflight -= 1

    def not_sent(self, call: C) -> None:
        """Who makes this call was interrupted before it was sent: it is not under way, if it was counted. Under the
        lock."""
        if call.incarnation >= 0:
            self.taken_back()

    def cancel(self, call: C, force: bool) -> calls.Action:
        """The caller of a call wants it cancelled; what its life says. Under the lock."""
        return self._unwanted(call, call.on_cancel(force))

    def late(self, call: C, limit: Limit) -> calls.Action:
        """A limit of a call is over; the same. Under the lock."""
        return self._unwanted(call, call.on_late(limit))

    def _unwanted(self, call: C, action: calls.Action) -> calls.Action:
        if action is calls.Action.END_CANCELLED:
            if self.backlog is not None and call in self.backlog:
                self.backlog.remove(call)
                self.backlog = self.backlog or None
            self._resolves_no_more(call)
        return action

    def repeat(self, call: C) -> None:
        """The code of a call has raised an error that it is repeated for. It goes in front of what was called after it,
        which may wait for it. Under the lock."""
        self._came_back(1, [call])

    def resume(self, call: C) -> None:
        """The pause of a call is over, which others have overtaken meanwhile. Under the lock."""
        self._came_back(0, [call])

    def _came_back(self, count: int, again: list[C]) -> None:
        self.inflight -= count
        for call in again:
            backlog = self._queue()
            number = call.number
            place = next((place for place, other in enumerate(backlog) if other.number > number), None)
            if place is None:
                backlog.append(call)
            else:
                backlog.insert(place, call)

    # ---- what is heard of the actor

    def found(self, link: L, incarnation: int) -> Action:
        """Its owner has said where it runs, and `link` leads there. Under the lock."""
        return self._placed(Event.FOUND, link, incarnation)

    def unreachable(self, incarnation: int, may_live: bool) -> Action:
        """Its owner has said where it runs, but no link leads there. It will be elsewhere next; with `may_live` only
        the link is known to have ended, so that it may be where it was."""
        self.incarnation = incarnation - may_live
        return self.on(Event.UNREACHABLE)

    def moved(self, link: L | None, incarnation: int) -> Action:
        """Its supervisor says where it is, or that it has no place. Under the lock."""
        if link is None or link.closed:
            if self.state is not State.DEAD:
                self.incarnation = incarnation
            return self.on(Event.DISPLACED)
        return self._placed(_MOVED, link, incarnation)

    def _placed(self, event: Event, link: L, incarnation: int) -> Action:
        action = self.on(event)
        if self.state in SENDING:
            self.link, self.incarnation = link, incarnation
        return action

    def lost(self, link: L, under_way: Iterable[C], *, begun: bool, may_live: bool) -> Sorted[C]:
        """The link to its process has ended, or one that led to it before, with these calls under way. Under the lock.

        `begun` is False if it surely had run no call there; with `may_live` only the link is known to have ended, so
        that it may be where it was.
        """
        calls_under_way = list(under_way)
        died: list[C] = []
        if begun and not may_live and self.traits.one_at_a_time:
            # They are answered in order, so that it is known which one ran.
            died = calls_under_way[:1]
        others = calls_under_way[len(died) :]
        found = _both(sort(died, calls.Event.DIED), sort(others, calls.Event.LOST if begun else calls.Event.UNBEGUN))
        if self.link is link:
            if may_live and self.state is State.PLACED:
                self.incarnation -= 1
            self.on(Event.LOST)
        self._came_back(len(calls_under_way), found.again)
        return found

    def absent(self, link: L, call: C, *, begun: bool) -> tuple[Sorted[C], Action]:
        """The process behind `link` does not have the actor: what becomes of the call that it was sent, and what to do.
        `begun`: the actor ended while the call ran. Under the lock."""
        found = sort((call,), calls.Event.LOST if begun else calls.Event.UNBEGUN)
        action = Action.NOTHING
        if self.link is link and call.incarnation == self.incarnation:
            action = self.on(Event.ABSENT)
        self._came_back(1, found.again)
        return found, action

    def last_seen(self, failed: Iterable[C], may_live: bool) -> int:
        """What to ask the owner about calls that `failed`: what has become of the actor after this life. With
        `may_live` only the link is known to be gone, so that the same life is an answer too, but where the owner is
        this process, which hears of the loss itself."""
        return max(call.incarnation for call in failed) - (may_live and self.state not in OWNED)

    # ---- the end

    def drain(self) -> list[C]:
        """The calls of the backlog, which fail: the actor is dead. Under the lock."""
        backlog, self.backlog = self.backlog, None
        for call in backlog or ():
            self._resolves_no_more(call)
        return list(backlog or ())

    def close(self) -> list[C]:
        """All calls that have not left, which fail: the process ends. Under the lock."""
        left, self.resolving = self.resolving or set(), None
        waiting = self.drain()
        return [*(call for call in left if call not in waiting), *waiting]
