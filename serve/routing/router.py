"""The router of one deployment in this process: finds a replica for each request, or lets it wait, or refuses it.

What is decided is the policy's (policy.py); this adds the replicas' handles, a lock, what is done when one refuses or
dies, and that no request is lost by a policy that fails or makes way for another. Its methods may be called from any
thread. A request is sent outside of the lock.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from actorrt import ObjectRef, exceptions

from ..base.connection import Connection, connect
from ..base.news import SERVE_ENDED, DeploymentNews, PolicyKind
from ..base.refusals import DRAINING, OUTDATED, ReplicaRefusedError
from ..base.user_errors import in_a_line, is_interrupt, with_frames
from ..declaration.spec import DeploymentId
from ..exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestRefusedError,
    RequestRouterError,
    RequestStoppedError,
)
from ..policies.policy import NOTHING, Cost, Grant, Policy, PolicyContext, QueueFull, Refused, Request
from ..policies.routing import PowerOfTwo
from .policy_maker import FAILURES, DeploymentGone, Gone, PolicyFailed, Unusable, make_policy
from .target import Target

logger = logging.getLogger("actorrt.serve")

# A policy that gives so much at a time that is of no use is asked no more until there are news. As many clients may
# have gone at once, whose requests it had granted already.
MOST_MISTAKES: Final = 20_000


class Pending(Request, Protocol):
    """A request as the router sees it. Hashable by identity. Neither method may raise."""

    def send(self, target: Target, grant: Grant) -> None: ...
    def fail(self, error: Exception) -> None: ...


# Where a request goes, or why it goes nowhere; None: it waits.
Placed: TypeAlias = "tuple[Target, Grant] | Exception | None"


class _Sending(threading.local):
    """Whether this thread is at it."""

    now = False


class Router:
    def __init__(self, connection: Connection, deployment: DeploymentId) -> None:
        self.deployment = deployment
        self._lock = threading.Lock()
        self._sending = _Sending()
        self._context = PolicyContext(str(deployment), random.Random().random, time.monotonic, self._ready)
        self._policy: Policy
        self._kind: PolicyKind | None
        self._name = PolicyKind().name
        # Those that the policy has and that have no grant, in their order: it answers for them, and this for it.
        self._waiting: OrderedDict[Pending, None] = OrderedDict()
        self._targets: dict[str, Target] = {}
        self._dead: set[str] = set()
        self._watched: set[str] = set()
        # The thread that is to look whether the policy has given grants.
        self._looker: threading.Thread | None = None
        self._deliver = connection.deliver
        # Who waits for the first news; None: there was some.
        self._on_told: list[Callable[[], object]] | None = []
        self._topic = ("deployment", *deployment)
        # None from the news on that there is no such deployment, until the next request.
        self._connection: Connection | None = None
        self._listen(connection)

    # News from the controller.

    def _listen(self, connection: Connection) -> None:
        """Follow what becomes of the deployment. This process's other handles may have another router of it by now."""
        with self._lock:
            if self._connection is not None:
                return
            self._connection, self._deliver = connection, connection.deliver
            # Until it is known which policy it has: without a replica all requests wait.
            self._policy, self._kind = PowerOfTwo(self._context), None
            if self._on_told is None:
                self._on_told = []
        with _lock:
            _routers.setdefault((connection.name, self.deployment), self)
        connection.listen(self._topic, self._told, SERVE_ENDED)

    def _leave(self) -> None:
        """There is nothing to follow any more: no call of this router stays with the controller."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with _lock:
                if _routers.get((connection.name, self.deployment)) is self:
                    del _routers[connection.name, self.deployment]
            connection.leave(self._topic, self._told)

    def _told(self, news: DeploymentNews) -> None:
        # User code is loaded outside of the lock.
        other = None
        if not news.reason and news.policy != self._kind:
            other = make_policy(news.policy, self._context)
        with self._lock:
            self._name = news.policy.name
            self._dead.intersection_update(each.id for each in news.replicas)
            news = news._replace(replicas=tuple(each for each in news.replicas if each.id not in self._dead))
            known = self._targets
            self._targets = {each.id: known.get(each.id) or Target(each.id, each.handle) for each in news.replicas}
            new = [target for id, target in self._targets.items() if id not in self._watched]
            self._watched = set(self._targets)
            placed: list[tuple[Pending, Placed]] = []
            if news.reason:
                self._replace_policy(Gone(news.reason), None)
                waiting, self._waiting = self._waiting, OrderedDict()
                placed = [(request, self._place(request)) for request in waiting]
            elif other is not None:
                placed = self._change_policy(other, news)
            else:
                self._update(news)
            on_told, self._on_told = self._on_told, None
        for callback in on_told or ():
            callback()
        for request, place in placed:
            self._act(request, place)
        if news.reason:
            self._leave()
            return
        for target in new:
            self._watch(target)
        self._send_waiting()

    def _change_policy(self, policy: Policy, news: DeploymentNews) -> list[tuple[Pending, Placed]]:
        """Have another policy, which gets all that wait. None of them is too many, if they were taken by one before."""
        first = self._kind is None
        self._replace_policy(policy, None if isinstance(policy, Unusable) else news.policy)
        self._update(news if first else news._replace(max_queued=-1))
        waiting, self._waiting = self._waiting, OrderedDict()
        placed = [(request, self._place(request)) for request in waiting]
        if not first:
            self._update(news)
        return placed

    def _replace_policy(self, policy: Policy, kind: PolicyKind | None) -> None:
        before, self._policy, self._kind = self._policy, policy, kind
        self._tell(before.close)

    def _update(self, news: DeploymentNews) -> None:
        try:
            self._policy.update(news)
        except FAILURES as error:
            # It does not know where to send. With the next news another one is made.
            self._log(error)
            self._replace_policy(Unusable(in_a_line(error)), None)

    def _watch(self, target: Target) -> None:
        # The call fails when the replica has died, whether or not this process has requests there. Where only the link
        # to it broke it is made again.
        ref: ObjectRef[None] = target.handle.until_death.options(max_task_retries=-1).remote()
        ref.add_done_callback(partial(self._died, target.id), here=True)

    def _died(self, id: str, _: object = None) -> None:
        with self._lock:
            if self._targets.pop(id, None) is not None:
                self._dead.add(id)
                self._tell(self._policy.died, id)

    def targets(self) -> dict[str, Target]:
        """All replicas that serve, as far as is known by now."""
        with self._lock:
            return dict(self._targets)

    def when_told(self, callback: Callable[[], object]) -> None:
        """Call it once there was news of the replicas, on whatever thread that comes; now if there was."""
        if self._connection is None:
            self._listen(connect())
        with self._lock:
            if self._on_told is not None:
                self._on_told.append(callback)
                return
        callback()

    # Requests.

    def submit(self, request: Pending) -> None:
        """Send it or let it wait. RequestRefusedError, RequestRouterError or DeploymentUnavailableError if neither."""
        grant = None
        try:
            with self._lock:
                grant = self._policy.submit(request)
                if grant is None:
                    self._waiting[request] = None
                    return
                target = self._targets[grant.replica]
        except FAILURES as error:
            self._submit_failed(request, grant, error)
        else:
            request.send(target, grant)

    def _submit_failed(self, request: Pending, grant: Grant | None, error: BaseException) -> None:
        if is_interrupt(error):
            with self._lock:
                self._waiting.pop(request, None)
                if grant is not None:
                    self._tell(grant.policy.release, grant, NOTHING)
                else:
                    self._tell(self._policy.withdraw, request)
            raise error
        has_left = isinstance(error, DeploymentGone) and self._connection is None
        if has_left:
            # It may have been deployed again.
            self._listen(connect())
        with self._lock:
            place = self._place(request) if has_left else self._misplaced(request, grant, error)
        if isinstance(place, Exception):
            raise place from None
        self._act(request, place)

    def withdraw(self, request: Pending) -> bool:
        """It is not wanted any more. False if it was sent already."""
        with self._lock:
            if request not in self._waiting:
                return False
            was_first = next(iter(self._waiting)) is request
            del self._waiting[request]
            self._tell(self._policy.withdraw, request)
        if was_first and self._waiting:
            # Those behind it may have waited for it alone.
            self._send_waiting()
        return True

    def released(self, grant: Grant, used: Cost | None = None) -> None:
        """A request has ended; the next one may go. `used` says what it took, if that is known."""
        with self._lock:
            self._tell(grant.policy.release, grant, used)
            if not self._waiting:
                return
        self._send_waiting()

    def _ready(self) -> None:
        """The policy may have given grants. Called on any thread, perhaps within one of the policy's methods."""
        if self._deliver is not None:
            with suppress(RuntimeError):  # its loop is closed, with all that waited
                self._deliver(self._send_waiting)
        elif self._lock.acquire(blocking=False):
            self._lock.release()
            self._send_waiting()
        elif self._looker is None:
            # Whoever has the lock does not look any more; it may be this very thread.
            looker = self._looker = threading.Thread(target=self._look_later, name="actorrt-router", daemon=True)
            looker.start()

    def _look_later(self) -> None:
        self._looker = None
        self._send_waiting()

    def _send_waiting(self) -> None:
        # One that cannot be sent gives its slot back within `send`: whoever sends already sees to the next one too.
        # Were it sent from there, as many of them as wait would be as many calls deep.
        if self._sending.now:
            return
        self._sending.now = True
        mistakes = 0
        try:
            while True:
                found: Any = None
                try:
                    with self._lock:
                        if (found := self._policy.next()) is None:
                            return
                        request, grant = found
                        target = self._targets[grant.replica]
                        del self._waiting[request]
                except FAILURES as error:
                    if is_interrupt(error):
                        raise
                    mistakes += 1
                    if not self._go_on_after(found, error, mistakes):
                        return
                else:
                    request.send(target, grant)
                    if not self._waiting:
                        return
        finally:
            self._sending.now = False

    def _go_on_after(self, found: Any, error: BaseException, mistakes: int) -> bool:
        """`next` has failed, or has given what cannot be sent: a request for it, or the one that has waited longest,
        gets an answer. False if there is nothing more to be had.
        """
        stop = None
        with self._lock:
            if mistakes > MOST_MISTAKES:
                self._replace_policy(Unusable("it makes one mistake after the other"), None)
            request, grant = _pair(found)
            place: Placed = None
            if request in self._waiting:
                del self._waiting[request]
                place = self._misplaced(request, grant, error)
            elif isinstance(grant, Grant):
                # The request was withdrawn as its grant was on its way.
                self._tell(grant.policy.release, grant, NOTHING)
            elif isinstance(grant, Refused):
                # It was sent, and its policy wants its place.
                stop = getattr(request, "stop", None)
            elif self._waiting:
                request, _ = self._waiting.popitem(last=False)
                self._tell(self._policy.withdraw, request)
                place = self._misplaced(request, None, error)
            else:
                self._log(error)
                return False
        if stop is not None and isinstance(grant, Refused):
            stop(self._refusal(grant, RequestStoppedError))
        self._act(request, place)
        return True

    def refused(self, request: Pending, target: Target, grant: Grant | None, reason: int) -> None:
        """The replica did not start it: it goes to another, before all that wait."""
        if reason == DRAINING:
            self._died(target.id)
        elif reason != OUTDATED:
            with self._lock:
                self._tell(self._policy.filled, target.id)
            ref: ObjectRef[None] = target.handle.until_free.remote()
            ref.add_done_callback(partial(self._emptied, target.id), here=True)
        self._again(request, grant, NOTHING)

    def _emptied(self, id: str, _: object = None) -> None:
        with self._lock:
            self._tell(self._policy.emptied, id)
        self._send_waiting()

    def _again(self, request: Pending, grant: Grant | None, used: Cost | None) -> None:
        with self._lock:
            if grant is not None:
                self._tell(grant.policy.release, grant, used)
            place = self._place_again(request)
        self._act(request, place)

    def failed(
        self, request: Pending, target: Target, grant: Grant | None, error: BaseException, repeatable: bool = False
    ) -> BaseException | None:
        """Judge an error of a call to a replica: None if the request goes to another one, else what its caller gets.

        The grant is released in either case; None: it was already. `repeatable`: to another one also if the replica
        that died may have begun it.
        """
        if isinstance(error, ReplicaRefusedError):
            self.refused(request, target, grant, error.reason)
            return None
        # One that could not be sent says nothing about the replica: the next one could not be sent it either.
        if isinstance(error, exceptions.ActorError) and not isinstance(error, exceptions.TaskError):
            if not isinstance(error, exceptions.ActorUnavailableError):
                self._died(target.id)
            # Else only the link to it broke: it may be where it was.
            may_have_run = getattr(error, "may_have_run", False)
            if repeatable or not may_have_run:
                self._again(request, grant, None if may_have_run else NOTHING)
                return None
            error = ReplicaUnavailableError(str(self.deployment), target.id, str(getattr(error, "cause", error)))
        if grant is not None:
            self.released(grant)
        return error

    def statistics(self) -> dict[str, Any]:
        """How many requests wait, which policy there is, and what it has to say."""
        with self._lock:
            try:
                ongoing = dict(self._policy.statistics())
            except FAILURES:
                ongoing = {}
            return {"queued": len(self._waiting), "policy": self._name, "ongoing": ongoing}

    # What a policy gives, or fails to. All of this is called with the lock.

    def _tell(self, method: Callable[..., object], *args: object) -> None:
        """What the policy makes of it is of no consequence for the request, or for others."""
        try:
            method(*args)
        except FAILURES as error:
            if is_interrupt(error):
                raise
            self._log(error)

    def _log(self, error: BaseException) -> None:
        if not isinstance(error, PolicyFailed | DeploymentGone):
            logger.error("the request router %s of %s failed:\n%s", self._name, self.deployment, with_frames(error))

    def _place(self, request: Pending) -> Placed:
        grant = None
        try:
            if (grant := self._policy.submit(request)) is None:
                self._waiting[request] = None
                return None
            return self._targets[grant.replica], grant
        except FAILURES as error:
            return self._misplaced(request, grant, error)

    def _place_again(self, request: Pending) -> Placed:
        grant = None
        try:
            if (grant := self._policy.again(request)) is None:
                self._waiting[request] = None
                self._waiting.move_to_end(request, last=False)
                return None
            return self._targets[grant.replica], grant
        except FAILURES as error:
            return self._misplaced(request, grant, error, tried_again=True)

    def _refusal(self, refused: Refused, kind: type[RequestRefusedError] = RequestRefusedError) -> RequestRefusedError:
        name = str(self.deployment)
        if isinstance(refused, QueueFull):
            found = BackPressureError(name, refused.queued, refused.limit, refused.retry_after_s or 0.0)
        else:
            found = kind(name, refused.reason, refused.retry_after_s, refused.status, refused.ticket)
        found.queue_ms = refused.queue_ms
        return found

    def _misplaced(self, request: Pending, grant: object, error: BaseException, tried_again: bool = False) -> Placed:
        """What becomes of a request that was refused, or got what is no grant of a replica that is there."""
        if isinstance(error, DeploymentGone):
            return DeploymentUnavailableError(str(self.deployment), str(error))
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
        self._tell(self._policy.withdraw, request)
        return self._failure(error)

    def _failure(self, error: BaseException) -> RequestRouterError:
        self._log(error)
        cause = str(error) if isinstance(error, PolicyFailed) else in_a_line(error)
        return RequestRouterError(str(self.deployment), self._name, cause)

    @staticmethod
    def _act(request: Pending, place: Placed) -> None:
        """Without the lock."""
        if isinstance(place, Exception):
            request.fail(place)
        elif place is not None:
            request.send(*place)


def _pair(found: Any) -> tuple[Any, Any]:
    """Request and grant, as far as `next` has given any."""
    try:
        request, grant = found
        hash(request)
    except FAILURES:
        return None, None
    return request, grant


# A router that is made may learn at once that there is no such deployment, and leave.
_lock = threading.RLock()
_routers: dict[tuple[str, DeploymentId], Router] = {}


def router_of(deployment: DeploymentId) -> Router:
    """This process's router of a deployment, shared by all handles. ServeError if Serve does not run."""
    connection = connect()
    key = (connection.name, deployment)
    with _lock:
        found = _routers.get(key)
        if found is None:
            for stale in [each for each in _routers if each[0] != connection.name]:
                del _routers[stale]
            found = _routers[key] = Router(connection, deployment)
        return found
