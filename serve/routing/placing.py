"""Where each request of a deployment goes: which replica, or that it waits, or why it goes nowhere. Pure.

Whom a request goes to the policy decides (policy.py). What is decided here holds whichever policy that is, and whatever
it raises or gives:

* A request is with one replica at a time, or waits, or has ended: it is never lost, and never sent twice at once.
* A grant goes back to the policy that gave it, once.
* A replica that has died gets nothing more, though a late list still names it.
* Who was sent and did not start goes before all that wait, and is not refused for want of room in the queue.
* What a policy raises fails the request that it was asked about, and no other one.

The methods are called one at a time. What they give is done by the router, outside of its lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from actorrt.exceptions import ActorError, ActorUnavailableError, TaskError

from ..base.news import DeploymentNews, PolicyKind, ReplicaNews
from ..base.refusals import DRAINING, FULL, OUTDATED, ReplicaRefusedError
from ..exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestRefusedError,
    RequestRouterError,
    RequestStoppedError,
)
from ..policies.policy import NOTHING, Cost, Grant, Policy, QueueFull, Refused, Request
from .unusable import FAILURES, DeploymentGone, Gone, PolicyFailed, Unusable

# A policy that gives so much in a row that is of no use is asked no more until there are news. As many clients may
# have gone at once, whose requests it had granted already.
MOST_MISTAKES: Final = 20_000


class Meaning(NamedTuple):
    """What an error of a call to a replica means: for the replica, and for the request."""

    # It takes no request any more.
    died: bool = False
    # It has no room until it says so.
    filled: bool = False
    # It was there for the request, and is not; else the error is the request's own.
    lost: bool = False
    # The request goes to another one.
    again: bool = False
    # What the request has taken there; None: its cost, as far as is known.
    used: Cost | None = None


# The replica did not start it.
REFUSED: Final[Mapping[int, Meaning]] = {
    FULL: Meaning(filled=True, again=True, used=NOTHING),
    DRAINING: Meaning(died=True, again=True, used=NOTHING),
    OUTDATED: Meaning(again=True, used=NOTHING),
}


def meaning_of(error: BaseException, repeatable: bool) -> Meaning:
    """`repeatable`: the request goes to another one also if the replica that died may have begun it."""
    if isinstance(error, ReplicaRefusedError):
        return REFUSED.get(error.reason, REFUSED[FULL])
    # One that could not be sent says nothing about the replica: the next one could not be sent it either.
    if not isinstance(error, ActorError) or isinstance(error, TaskError):
        return Meaning()
    # Where only the link to it broke it may be where it was.
    died = not isinstance(error, ActorUnavailableError)
    may_have_run: bool = getattr(error, "may_have_run", False)
    again = repeatable or not may_have_run
    return Meaning(died=died, lost=True, again=again, used=None if may_have_run else NOTHING)


R = TypeVar("R", bound=Request)
T = TypeVar("T")


class NotFollowed(Exception):
    """There was no such deployment, and nobody has looked since: it may have been deployed again."""


# Where a request goes, or why it goes nowhere; None: it waits, or that is decided.
Placed: TypeAlias = "tuple[T, Grant] | Exception | None"
# What becomes of one that has waited; with what it is to end, if it runs; and whether the policy is asked on even if
# nobody waits any more.
Step: TypeAlias = "tuple[R, Placed[T], RequestStoppedError | None, bool]"


class Told(NamedTuple, Generic[R, T]):
    """What news mean for those that waited, and the replicas that are new."""

    placed: list[tuple[R, Placed[T]]]
    new: list[T]


class Verdict(NamedTuple, Generic[T]):
    """What an error of a replica leads to: `error` is its caller's; None: it goes to another one, which is `place`."""

    error: BaseException | None
    place: Placed[T]
    # The replica is asked to say when it has room again.
    asks_when_free: bool
    # Others may go now.
    look: bool


class Failures(Protocol):
    """What is to be said of errors of a policy's code."""

    def is_interrupt(self, error: BaseException) -> bool: ...
    def in_a_line(self, error: BaseException) -> str: ...
    def log(self, policy: str, error: BaseException) -> None: ...


class Placing(Generic[R, T]):
    def __init__(self, deployment: str, failures: Failures, make: Callable[[ReplicaNews], T]) -> None:
        """`make`: what requests are sent to, of a replica that is new."""
        self._deployment = deployment
        self._failures = failures
        self._make = make
        self.policy: Policy
        self._kind: PolicyKind | None = None
        self._name = PolicyKind().name
        # Those that the policy has and that have no grant, in their order: it answers for them, and this for it.
        self.waiting: OrderedDict[R, None] = OrderedDict()
        self.targets: dict[str, T] = {}
        self._dead: set[str] = set()
        self._watched: set[str] = set()
        # Whether there are news to come.
        self._is_followed = False
        self._mistakes = 0

    # News.

    def follow(self, policy: Policy) -> None:
        """News are to come. Until it is known which policy it has, this one, which has no replica: all wait."""
        self.policy, self._kind, self._is_followed = policy, None, True

    def left(self) -> None:
        """Nobody follows the news any more."""
        self._is_followed = False

    def wants_policy(self, news: DeploymentNews) -> bool:
        """Whether another policy is to be made for them."""
        return not news.reason and news.policy != self._kind

    def told(self, news: DeploymentNews, other: Policy | None) -> Told[R, T]:
        """`other`: the policy that was made for these news. By some the deployment is gone."""
        self._name = news.policy.name
        self._dead.intersection_update(each.id for each in news.replicas)
        news = news._replace(replicas=tuple(each for each in news.replicas if each.id not in self._dead))
        known, self.targets = self.targets, {}
        for each in news.replicas:
            self.targets[each.id] = known[each.id] if each.id in known else self._make(each)
        new = [target for id, target in self.targets.items() if id not in self._watched]
        self._watched = set(self.targets)
        if news.reason:
            self._replace_policy(Gone(news.reason), None)
            return Told(self._place_all(), [])
        if other is not None:
            return Told(self._change_policy(other, news), new)
        self._update(news)
        return Told([], new)

    def _change_policy(self, policy: Policy, news: DeploymentNews) -> list[tuple[R, Placed[T]]]:
        """Have another policy, which gets all that wait. None of them is too many, if they were taken by one before."""
        first = self._kind is None
        self._replace_policy(policy, None if isinstance(policy, Unusable) else news.policy)
        self._update(news if first else news._replace(max_queued=-1))
        placed = self._place_all()
        if not first:
            self._update(news)
        return placed

    def _place_all(self) -> list[tuple[R, Placed[T]]]:
        waiting, self.waiting = self.waiting, OrderedDict()
        return [(request, self.place(request)) for request in waiting]

    def _replace_policy(self, policy: Policy, kind: PolicyKind | None) -> None:
        before, self.policy, self._kind = self.policy, policy, kind
        self._tell(before.close)

    def _update(self, news: DeploymentNews) -> None:
        try:
            self.policy.update(news)
        except FAILURES as error:
            # It does not know where to send. With the next news another one is made.
            self._log(error)
            self._replace_policy(Unusable(self._failures.in_a_line(error)), None)

    def died(self, id: str) -> None:
        """A replica has, or takes no request any more."""
        if self.targets.pop(id, None) is not None:
            self._dead.add(id)
            self._tell(self.policy.died, id)

    def emptied(self, id: str) -> None:
        """A replica that had no room has some."""
        self._tell(self.policy.emptied, id)

    # Requests.

    def submit(self, request: R, is_first: bool = True) -> Placed[T]:
        """Where it goes; NotFollowed if nobody follows the news. Raises an interrupt, and has forgotten it then."""
        grant = None
        try:
            if (grant := self.policy.submit(request)) is None:
                self.waiting[request] = None
                return None
            return self.targets[grant.replica], grant
        except FAILURES as error:
            if is_first and self._failures.is_interrupt(error):
                self._forget(request, grant)
                raise
            if is_first and isinstance(error, DeploymentGone) and not self._is_followed:
                return NotFollowed()
            return self._misplaced(request, grant, error)

    def place(self, request: R) -> Placed[T]:
        """The same, of one that was taken before, or for which the news have been looked for. Raises nothing."""
        return self.submit(request, is_first=False)

    def _forget(self, request: R, grant: Grant | None) -> None:
        self.waiting.pop(request, None)
        if grant is not None:
            self._tell(grant.policy.release, grant, NOTHING)
        else:
            self._tell(self.policy.withdraw, request)

    def withdraw(self, request: R) -> tuple[bool, bool]:
        """It is not wanted any more. Whether it waited, or else was sent already; and whether others may go now."""
        if request not in self.waiting:
            return False, False
        was_first = next(iter(self.waiting)) is request
        del self.waiting[request]
        self._tell(self.policy.withdraw, request)
        # Those behind it may have waited for it alone.
        return True, was_first and bool(self.waiting)

    def released(self, grant: Grant, used: Cost | None) -> bool:
        """A request has ended. Whether the next one may go."""
        try:
            grant.policy.release(grant, used)
        except FAILURES as error:
            self._failed_to_hear(error)
        return bool(self.waiting)

    def next(self) -> Step[R, T] | None:
        """What becomes of one that waits, as far as the policy has something to give. None: nothing more."""
        found: Any = None
        try:
            if (found := self.policy.next()) is None:
                self._mistakes = 0
                return None
            request, grant = found
            target = self.targets[grant.replica]
            del self.waiting[request]
            self._mistakes = 0
        except FAILURES as error:
            if self._failures.is_interrupt(error):
                raise
            return self._mistaken(found, error)
        return request, (target, grant), None, False

    def _mistaken(self, found: Any, error: BaseException) -> Step[R, T] | None:
        """`next` has failed, or has given what cannot be sent: a request for it, or the one that has waited longest,
        gets an answer.
        """
        self._mistakes += 1
        if self._mistakes > MOST_MISTAKES:
            self._replace_policy(Unusable("it makes one mistake after the other"), None)
        request, grant = _pair(found)
        place: Placed[T] = None
        stop = None
        if request in self.waiting:
            del self.waiting[request]
            place = self._misplaced(request, grant, error)
        elif isinstance(grant, Grant):
            # The request was withdrawn as its grant was on its way.
            self._tell(grant.policy.release, grant, NOTHING)
        elif isinstance(grant, Refused):
            # It was sent, and its policy wants its place.
            stop = self._stopped(grant)
        elif self.waiting:
            request, _ = self.waiting.popitem(last=False)
            self._tell(self.policy.withdraw, request)
            place = self._misplaced(request, None, error)
        else:
            self._mistakes = 0
            self._log(error)
            return None
        return request, place, stop, True

    def failed(self, request: R, id: str, grant: Grant | None, error: BaseException, repeatable: bool) -> Verdict[T]:
        """A replica has answered with an error, or is gone. None for `grant`: it was released already."""
        meaning = meaning_of(error, repeatable)
        if meaning.died:
            self.died(id)
        if meaning.filled:
            self._tell(self.policy.filled, id)
        if meaning.again:
            if grant is not None:
                self._tell(grant.policy.release, grant, meaning.used)
            return Verdict(None, self._place_again(request), meaning.filled, look=False)
        if meaning.lost:
            error = ReplicaUnavailableError(self._deployment, id, str(getattr(error, "cause", error)))
        return Verdict(error, None, asks_when_free=False, look=grant is not None and self.released(grant, None))

    def statistics(self) -> dict[str, Any]:
        """How many requests wait, which policy there is, and what it has to say."""
        try:
            ongoing = dict(self.policy.statistics())
        except FAILURES:
            ongoing = {}
        return {"queued": len(self.waiting), "policy": self._name, "ongoing": ongoing}

    # What a policy gives, or fails to.

    def _tell(self, method: Callable[..., object], *args: object) -> None:
        """What the policy makes of it is of no consequence for the request, or for others."""
        try:
            method(*args)
        except FAILURES as error:
            self._failed_to_hear(error)

    def _failed_to_hear(self, error: BaseException) -> None:
        if self._failures.is_interrupt(error):
            raise error
        self._log(error)

    def _log(self, error: BaseException) -> None:
        if not isinstance(error, PolicyFailed | DeploymentGone):
            self._failures.log(self._name, error)

    def _place_again(self, request: R) -> Placed[T]:
        grant = None
        try:
            if (grant := self.policy.again(request)) is None:
                self.waiting[request] = None
                self.waiting.move_to_end(request, last=False)
                return None
            return self.targets[grant.replica], grant
        except FAILURES as error:
            return self._misplaced(request, grant, error, tried_again=True)

    def _misplaced(self, request: R, grant: object, error: BaseException, tried_again: bool = False) -> Placed[T]:
        """What becomes of a request that was refused, or got what is no grant of a replica that is there."""
        if isinstance(error, DeploymentGone):
            return DeploymentUnavailableError(self._deployment, str(error))
        if isinstance(error, Refused):
            return self._refusal(error)
        if isinstance(grant, Refused):
            return self._misplaced(request, None, grant)
        if isinstance(grant, Grant):
            self._tell(grant.policy.release, grant, NOTHING)
            if not tried_again:
                # The replica has gone just now, and the grant was on its way.
                return self._place_again(request)
            error = PolicyFailed(f"it gave two grants of replicas that are not there, {grant.replica!r} at last")
        elif grant is not None:
            error = PolicyFailed(f"it gave a {type(grant).__name__} in the place of a Grant")
        self._tell(self.policy.withdraw, request)
        return self._failure(error)

    def _failure(self, error: BaseException) -> RequestRouterError:
        self._log(error)
        cause = str(error) if isinstance(error, PolicyFailed) else self._failures.in_a_line(error)
        return RequestRouterError(self._deployment, self._name, cause)

    def _refusal(self, refused: Refused) -> RequestRefusedError:
        if isinstance(refused, QueueFull):
            found = BackPressureError(self._deployment, refused.queued, refused.limit, refused.retry_after_s or 0.0)
        else:
            found = RequestRefusedError(self._deployment, *_words(refused))
        found.queue_ms = refused.queue_ms
        return found

    def _stopped(self, refused: Refused) -> RequestStoppedError:
        found = RequestStoppedError(self._deployment, *_words(refused))
        found.queue_ms = refused.queue_ms
        return found


def _words(refused: Refused) -> tuple[str, float | None, int, str]:
    return refused.reason, refused.retry_after_s, refused.status, refused.ticket


def _pair(found: Any) -> tuple[Any, Any]:
    """Request and grant, as far as `next` has given any."""
    try:
        request, grant = found
        hash(request)
    except FAILURES:
        return None, None
    return request, grant
