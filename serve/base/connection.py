"""This process's connection to Serve: the controller, and the topics that it tells about.

A topic has a version and a value. One pending call a topic waits at the controller for the next version, so news
arrive as soon as there are any, and by asking again a process says that it has acted on the last.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from actorrt import ActorHandle, ObjectRef, exceptions, get, get_actor, get_runtime_context, is_initialized, shutdown

from ..exceptions import ServeError
from .background import later

logger = logging.getLogger("actorrt.serve")

NAMESPACE: Final = "actorrt.serve"
CONTROLLER: Final = "controller"

# A call to the controller is repeated so often; one that it dies of each time is an error.
MOST_REPEATS: Final = 10
# News that cannot be read here are asked for again after so long.
UNREADABLE_S: Final = 1.0

T = TypeVar("T")

Topic = tuple[str, ...]
Listener = Callable[[Any], None]


class Connection:
    """What this process knows of Serve. Listeners are called on the thread that brings the news."""

    def __init__(self, controller: ActorHandle[Any], runtime: str) -> None:
        self.controller = controller
        self.runtime = runtime
        self.name = uuid.uuid4().hex[:12]
        self.closed = False
        # How to have something called where this process's requests are sent from, if any thread but one must not.
        self.deliver: Callable[[Callable[[], None]], object] | None = None
        self._lock = threading.Lock()
        self._listeners: dict[Topic, list[Listener]] = {}
        self._values: dict[Topic, Any] = {}
        # What listeners are told when the controller has ended for good.
        self._last: dict[Topic, Any] = {}

    def listen(self, topic: Topic, listener: Listener, last: Any = None) -> None:
        """Have `listener(value)` called with the present value and each later one, and with `last`, unless that is
        None, when Serve has ended.
        """
        with self._lock:
            first = topic not in self._listeners
            self._listeners.setdefault(topic, []).append(listener)
            self._last[topic] = last
            known, value = topic in self._values, self._values.get(topic)
        if first:
            self._ask(topic, 0)
        elif known:
            listener(value)

    def leave(self, topic: Topic, listener: Listener) -> None:
        """Called by a listener that is being told: this was the last value for it."""
        with self._lock:
            self._listeners[topic].remove(listener)

    def _has_listeners(self, topic: Topic) -> bool:
        """Whether to ask for the next value; if not, the topic is forgotten here."""
        with self._lock:
            if self._listeners[topic]:
                return True
            del self._listeners[topic], self._last[topic]
            self._values.pop(topic, None)
            return False

    def _ask(self, topic: Topic, version: int) -> None:
        ref: ObjectRef[Any] = self.controller.listen.remote(self.name, topic, version)
        ref.add_done_callback(partial(self._told, topic), here=True)

    def _told(self, topic: Topic, ref: ObjectRef[Any]) -> None:
        if self.closed:
            return
        try:
            version, value = ref.peek()
        except exceptions.ActorUnavailableError:
            # It is being restarted; the question waits until it is there again. It may count anew.
            self._ask(topic, 0)
            return
        except exceptions.ActorrtError as error:
            logger.debug("no more news of %s: %s", topic, error)
            if isinstance(error, exceptions.ActorDiedError) and (last := self._last.get(topic)) is not None:
                self._tell(topic, last)
            return
        except Exception:
            # Another version may be one that can be read here.
            logger.exception("news of %s cannot be read", topic)
            self._ask_later(topic)
            return
        self._tell(topic, value)
        if self._has_listeners(topic):
            self._ask(topic, version)
        else:
            self.controller.leave.remote(self.name, topic)

    def _tell(self, topic: Topic, value: Any) -> None:
        with self._lock:
            self._values[topic] = value
            listeners = list(self._listeners[topic])
        for listener in listeners:
            try:
                listener(value)
            except Exception:
                logger.exception("news of %s could not be acted on", topic)

    def _ask_later(self, topic: Topic) -> None:
        later(UNREADABLE_S, partial(self._ask_again, topic))

    def _ask_again(self, topic: Topic) -> None:
        if not self.closed and is_initialized():
            self._ask(topic, 0)


_lock = threading.Lock()
_connection: Connection | None = None


def set_controller(controller: ActorHandle[Any]) -> Connection:
    """Connect this process; an older connection is forgotten."""
    global _connection
    with _lock:
        if _connection is not None:
            _connection.closed = True
        _connection = Connection(controller, get_runtime_context().get_worker_id())
        return _connection


def disconnect() -> None:
    global _connection
    with _lock:
        if _connection is not None:
            _connection.closed = True
        _connection = None


def connected() -> Connection | None:
    """The connection, if there is one that belongs to the runtime which this process has now."""
    found = _connection
    # To ask for the context begins a session where there is none.
    if found is None or not is_initialized() or found.runtime != get_runtime_context().get_worker_id():
        return None
    return found


def connect() -> Connection:
    """The connection to the Serve instance that runs. ServeError if there is none.

    In a program that has not called `init` this does so, to look; if there is nothing, the program is as it was before.
    """
    only_to_look = not is_initialized()
    if (found := connected()) is not None:
        return found
    try:
        controller = get_actor(CONTROLLER, namespace=NAMESPACE)
    except ValueError:
        if only_to_look:
            shutdown()
        raise ServeError("Serve is not running here: call serve.run() or serve.start() first") from None
    return set_controller(controller)


def ask(call: Callable[[ActorHandle[Any]], ObjectRef[T]], find: Callable[[], Connection] = connect) -> T:
    """The controller's answer to `call(controller)`, which may be made twice: it is repeated if the controller is
    restarted meanwhile, and with the one that `find` gives if this process knew only one that has ended.

    ServeError if the controller ends again and again under the call.
    """
    known = connected()
    for _ in range(MOST_REPEATS):
        found = find()
        try:
            return get(call(found.controller))
        except exceptions.ActorUnavailableError as error:
            logger.debug("the controller is restarted and is asked again: %s", error)
        except exceptions.ActorDiedError:
            if found is not known:
                raise
            known = None
            disconnect()
    raise ServeError(f"the controller of Serve was restarted {MOST_REPEATS} times under one call")
