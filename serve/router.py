"""The router of one deployment in this process: finds a replica for each request, or lets it wait, or refuses it.

What is decided is in routing.py; this adds the replicas' handles, a lock, and what is done when one refuses or dies.
Its methods may be called from any thread. A request is sent outside of the lock.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import ActorHandle, ObjectRef, exceptions

from .connection import Connection, connect
from .exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from .refusals import DRAINING, ReplicaRefusedError
from .routing import QueueFull, Routing, Slots
from .spec import DeploymentId
from .topics import SERVE_ENDED

if TYPE_CHECKING:
    from .loan import Lender

# So many batches of a streamed response may be under way; those that are made meanwhile become one.
STREAM_WINDOW: Final = 4
# And so many messages of a websocket, or values of a generator: whoever is slow to take them holds no more.
ITEM_WINDOW: Final = 32
# Names that were asked for and that may not be methods at all.
MANY_NAMES: Final = 256


class Target:
    """A replica with what is called on it."""

    __slots__ = (
        "_calls",
        "_streams",
        "aside",
        "code_ended",
        "drop_stream",
        "gone",
        "handle",
        "http",
        "id",
        "lender",
        "may_lend",
        "stream",
        "websocket",
        "websocket_message",
    )

    def __init__(self, id: str, handle: ActorHandle[Any]) -> None:
        self.id = id
        self.handle = handle
        self.http = handle.http
        self.gone = handle.http_gone
        self.code_ended = handle.http_code_ended
        self.stream = handle.http_stream.options(num_returns="streaming", generator_backpressure=STREAM_WINDOW)
        self.drop_stream = handle.http_drop
        self.websocket = handle.websocket.options(num_returns="streaming", generator_backpressure=ITEM_WINDOW)
        self.websocket_message = handle.websocket_message
        self.aside = handle.aside
        # By which its large responses get its clients' sockets, once one was opened, which is tried if it may.
        self.lender: Lender | None = None
        self.may_lend = True
        self._calls: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}

    def call(self, method: str) -> Any:
        """What calls a method of the deployment; errors know it by its name there."""
        found = self._calls.get(method)
        if found is None:
            if len(self._calls) >= MANY_NAMES:
                self._calls.clear()
            found = self._calls[method] = self.handle.call.options(name=method)
        return found

    def call_stream(self, method: str) -> Any:
        found = self._streams.get(method)
        if found is None:
            if len(self._streams) >= MANY_NAMES:
                self._streams.clear()
            found = self._streams[method] = self.handle.call_stream.options(
                name=method, num_returns="streaming", generator_backpressure=ITEM_WINDOW
            )
        return found


class Pending(Protocol):
    """A request as the router sees it. Hashable by identity. Neither method may raise."""

    def send(self, target: Target, slots: Slots) -> None: ...
    def fail(self, error: Exception) -> None: ...


class Router:
    def __init__(self, connection: Connection, deployment: DeploymentId) -> None:
        self.deployment = deployment
        self._lock = threading.Lock()
        self._sending = threading.local()
        self._routing: Routing[Pending] = Routing(random.Random().random)
        self._targets: dict[str, Target] = {}
        self._watched: set[str] = set()
        self._gone = ""
        # Whether the limits are known.
        self._is_told = False
        self._on_told: list[Callable[[], object]] = []
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
            self._connection, self._gone, self._is_told = connection, "", False
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

    def _told(self, value: Any) -> None:
        """(reason, max_ongoing, max_queued, ((id, handle), ...)); a reason means that there is no such deployment."""
        reason, max_ongoing, max_queued, replicas = value
        with self._lock:
            self._gone = reason
            self._routing.max_ongoing = max_ongoing
            self._routing.max_queued = max_queued
            known = self._targets
            self._targets = {id: known.get(id) or Target(id, handle) for id, handle in replicas}
            self._routing.update(self._targets)
            new = [target for id, target in self._targets.items() if id not in self._watched]
            self._watched = set(self._targets)
            waiting = self._routing.drop_waiting() if reason else []
            on_told, self._on_told = self._on_told, []
        for request in waiting:
            request.fail(DeploymentUnavailableError(str(self.deployment), reason))
        for callback in on_told:
            callback()
        if reason:
            self._leave()
            return
        for target in new:
            self._watch(target)
        self._send_waiting()
        self._refuse_excess()

    def _refuse_excess(self) -> None:
        """Requests were taken before it was known how many may wait: those that are too many learn it now."""
        with self._lock:
            first, self._is_told = not self._is_told, True
            excess = self._routing.drop_excess() if first else []
            limit = self._routing.max_queued
        for request in excess:
            request.fail(BackPressureError(str(self.deployment), limit, limit))

    def _watch(self, target: Target) -> None:
        # The call fails as soon as the replica's socket closes, whether or not this process has requests there.
        ref: ObjectRef[None] = target.handle.until_death.remote()
        ref.add_done_callback(partial(self._died, target.id), here=True)

    def _died(self, id: str, _: object = None) -> None:
        with self._lock:
            self._routing.died(id)

    def targets(self) -> dict[str, Target]:
        """All replicas that serve, as far as is known by now."""
        with self._lock:
            return dict(self._targets)

    def when_told(self, callback: Callable[[], object]) -> None:
        """Call it once there was news of the replicas, on whatever thread that comes; now if there was."""
        if self._connection is None:
            self._listen(connect())
        with self._lock:
            if not self._is_told and not self._gone:
                self._on_told.append(callback)
                return
        callback()

    # Requests.

    def submit(self, request: Pending) -> None:
        """Send it or let it wait. BackPressureError or DeploymentUnavailableError if neither is possible."""
        if self._connection is None:
            # It may have been deployed again.
            self._listen(connect())
        with self._lock:
            if self._gone:
                raise DeploymentUnavailableError(str(self.deployment), self._gone)
            try:
                slots = self._routing.submit(request)
            except QueueFull as full:
                raise BackPressureError(str(self.deployment), full.queued, full.limit) from None
            if slots is None:
                return
            target = self._targets[slots.id]
        request.send(target, slots)

    def withdraw(self, request: Pending) -> bool:
        """It is not wanted any more. False if it was sent already."""
        with self._lock:
            return self._routing.withdraw(request)

    def released(self, slots: Slots) -> None:
        """A request has ended; the next one may go."""
        with self._lock:
            self._routing.release(slots)
            if not self._routing.queued:
                return
        self._send_waiting()

    def _send_waiting(self) -> None:
        # One that cannot be sent gives its slot back within `send`: whoever sends already sees to the next one too.
        # Were it sent from there, as many of them as wait would be as many calls deep.
        if getattr(self._sending, "now", False):
            return
        self._sending.now = True
        try:
            while True:
                with self._lock:
                    found = self._routing.next_waiting()
                    if found is None:
                        return
                    request, slots = found
                    target = self._targets[slots.id]
                request.send(target, slots)
        finally:
            self._sending.now = False

    def refused(self, request: Pending, target: Target, slots: Slots | None, reason: int) -> None:
        """The replica did not start it: it goes to another, before all that wait."""
        with self._lock:
            if reason == DRAINING:
                self._routing.died(target.id)
            else:
                self._routing.filled(target.id)
        if reason != DRAINING:
            ref: ObjectRef[None] = target.handle.until_free.remote()
            ref.add_done_callback(partial(self._emptied, target.id), here=True)
        self._again(request, slots)

    def _emptied(self, id: str, _: object = None) -> None:
        with self._lock:
            self._routing.emptied(id)
        self._send_waiting()

    def _again(self, request: Pending, slots: Slots | None) -> None:
        with self._lock:
            if slots is not None:
                self._routing.release(slots)
            gone = self._gone
            found = None if gone else self._routing.again(request)
            target = self._targets[found.id] if found is not None else None
        if gone:
            request.fail(DeploymentUnavailableError(str(self.deployment), gone))
        elif target is not None and found is not None:
            request.send(target, found)

    def failed(
        self, request: Pending, target: Target, slots: Slots | None, error: BaseException, repeatable: bool = False
    ) -> BaseException | None:
        """Judge an error of a call to a replica: None if the request goes to another one, else what its caller gets.

        The slot is given back in either case; None: it was already. `repeatable`: to another one also if the replica
        that died may have begun it.
        """
        if isinstance(error, ReplicaRefusedError):
            self.refused(request, target, slots, error.reason)
            return None
        # One that could not be sent says nothing about the replica: the next one could not be sent it either.
        if isinstance(error, exceptions.ActorError) and not isinstance(error, exceptions.TaskError):
            self._died(target.id)
            may_have_run = getattr(error, "may_have_run", False)
            if repeatable or not may_have_run:
                self._again(request, slots)
                return None
            error = ReplicaUnavailableError(str(self.deployment), target.id, str(getattr(error, "cause", error)))
        if slots is not None:
            self.released(slots)
        return error

    def statistics(self) -> dict[str, Any]:
        with self._lock:
            return {"queued": self._routing.queued, "ongoing": self._routing.statistics()}


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
