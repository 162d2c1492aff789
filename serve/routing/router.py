"""The router of one deployment in this process: finds a replica for each request, or lets it wait, or refuses it.

Where a request goes is decided in placing.py, by the policy (policy.py). This adds the replicas' handles, a lock, and
what is done: a request is sent outside of the lock. Its methods may be called from any thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias

from actorrt import ObjectRef

from ..base.connection import Connection, connect
from ..base.news import SERVE_ENDED, DeploymentNews, ReplicaNews
from ..base.refusals import ReplicaRefusedError
from ..base.user_errors import in_a_line, is_interrupt, with_frames
from ..declaration.spec import DeploymentId
from ..exceptions import RequestStoppedError
from ..policies.policy import Cost, Grant, PolicyContext, Request
from ..policies.routing import PowerOfTwo
from .placing import NotFollowed, Placing, Verdict
from .policy_maker import make_policy
from .target import Target

logger = logging.getLogger("actorrt.serve")


class Pending(Request, Protocol):
    """A request as the router sees it. Hashable by identity. Neither method may raise."""

    def send(self, target: Target, grant: Grant) -> None: ...
    def fail(self, error: Exception) -> None: ...


# Where a request goes, or why it goes nowhere; None: it waits.
Placed: TypeAlias = "tuple[Target, Grant] | Exception | None"


class _Sending(threading.local):
    """Whether this thread is at it."""

    now = False


class _Failures:
    """What is said of errors of a policy's code."""

    def __init__(self, deployment: DeploymentId) -> None:
        self._deployment = deployment

    is_interrupt = staticmethod(is_interrupt)
    in_a_line = staticmethod(in_a_line)

    def log(self, policy: str, error: BaseException) -> None:
        logger.error("the request router %s of %s failed:\n%s", policy, self._deployment, with_frames(error))


def _target(news: ReplicaNews) -> Target:
    return Target(news.id, news.handle)


class Router:
    def __init__(self, connection: Connection, deployment: DeploymentId) -> None:
        self.deployment = deployment
        self._lock = threading.Lock()
        self._sending = _Sending()
        self._context = PolicyContext(str(deployment), random.Random().random, time.monotonic, self._ready)
        self._placing: Placing[Pending, Target] = Placing(str(deployment), _Failures(deployment), _target)
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
            self._placing.follow(PowerOfTwo(self._context))
            if self._on_told is None:
                self._on_told = []
        with _lock:
            _routers.setdefault((connection.name, self.deployment), self)
        connection.listen(self._topic, self._told, SERVE_ENDED)

    def _leave(self) -> None:
        """There is nothing to follow any more: no call of this router stays with the controller."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._placing.left()
        if connection is not None:
            with _lock:
                if _routers.get((connection.name, self.deployment)) is self:
                    del _routers[connection.name, self.deployment]
            connection.leave(self._topic, self._told)

    def _told(self, news: DeploymentNews) -> None:
        # User code is loaded outside of the lock.
        other = make_policy(news.policy, self._context) if self._placing.wants_policy(news) else None
        with self._lock:
            placed, new = self._placing.told(news, other)
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

    def _watch(self, target: Target) -> None:
        # The call fails when the replica has died, whether or not this process has requests there. Where only the link
        # to it broke it is made again.
        ref: ObjectRef[None] = target.handle.until_death.options(max_task_retries=-1).remote()
        ref.add_done_callback(partial(self._died, target.id), here=True)

    def _died(self, id: str, _: object = None) -> None:
        with self._lock:
            self._placing.died(id)

    def targets(self) -> dict[str, Target]:
        """All replicas that serve, as far as is known by now."""
        with self._lock:
            return dict(self._placing.targets)

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
        with self._lock:
            place = self._placing.submit(request)
        if place is None:
            return
        if isinstance(place, tuple):
            target, grant = place
            request.send(target, grant)
            return
        if isinstance(place, NotFollowed):
            self._listen(connect())
            with self._lock:
                place = self._placing.place(request)
        if isinstance(place, Exception):
            raise place from None
        self._act(request, place)

    def withdraw(self, request: Pending) -> bool:
        """It is not wanted any more. False if it was sent already."""
        with self._lock:
            waited, others_may_go = self._placing.withdraw(request)
        if others_may_go:
            self._send_waiting()
        return waited

    def released(self, grant: Grant, used: Cost | None = None) -> None:
        """A request has ended; the next one may go. `used` says what it took, if that is known."""
        with self._lock:
            if not self._placing.released(grant, used):
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
        try:
            while True:
                with self._lock:
                    step = self._placing.next()
                if step is None:
                    return
                request, place, stop, asks_on = step
                if stop is not None:
                    _stop(request, stop)
                if isinstance(place, tuple):
                    request.send(*place)
                else:
                    self._act(request, place)
                if not (asks_on or self._placing.waiting):
                    return
        finally:
            self._sending.now = False

    def refused(self, request: Pending, target: Target, grant: Grant | None, reason: int) -> None:
        """The replica did not start it: it goes to another, before all that wait."""
        self.failed(request, target, grant, ReplicaRefusedError(reason))

    def _emptied(self, id: str, _: object = None) -> None:
        with self._lock:
            self._placing.emptied(id)
        self._send_waiting()

    def failed(
        self, request: Pending, target: Target, grant: Grant | None, error: BaseException, repeatable: bool = False
    ) -> BaseException | None:
        """Judge an error of a call to a replica: None if the request goes to another one, else what its caller gets.

        The grant is released in either case; None: it was already. `repeatable`: to another one also if the replica
        that died may have begun it.
        """
        with self._lock:
            verdict: Verdict[Target] = self._placing.failed(request, target.id, grant, error, repeatable)
        if verdict.asks_when_free:
            ref: ObjectRef[None] = target.handle.until_free.remote()
            ref.add_done_callback(partial(self._emptied, target.id), here=True)
        if verdict.look:
            self._send_waiting()
        self._act(request, verdict.place)
        return verdict.error

    def statistics(self) -> dict[str, Any]:
        """How many requests wait, which policy there is, and what it has to say."""
        with self._lock:
            return self._placing.statistics()

    @staticmethod
    def _act(request: Pending, place: Placed) -> None:
        """Without the lock."""
        if isinstance(place, Exception):
            request.fail(place)
        elif place is not None:
            request.send(*place)


def _stop(request: Any, error: RequestStoppedError) -> None:
    """Not every request can be stopped, and what the policy gave may be none."""
    stop = getattr(request, "stop", None)
    if stop is not None:
        stop(error)


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
