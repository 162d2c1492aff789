"""The stream between a router and the queue: one call that lasts, with bytes both ways beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from actorrt import ActorHandle, ObjectRef, Pipe, cancel, exceptions

from ..base.background import later
from .messages import Messages

logger = logging.getLogger("actorrt.serve")

# Of bytes that have come, so many are told at once to have been taken.
ROOM_STEP: Final = 128 * 1024
# A session that ended is begun again after so long, where nothing says when.
AGAIN_S: Final = 0.2
# After the next one twice as long, up to this, until one has lasted that long.
MOST_AGAIN_S: Final = 5.0


class Ends(Protocol):
    """What a session tells, on the runtime's thread or, where it cannot begin at all, on that of who began it."""

    def opened(self) -> None: ...
    def came(self, data: bytes) -> None: ...
    def closed(self) -> None: ...


class Session:
    """What a router says to a queue and is told; begun again and again until it is left."""

    def __init__(self, queue: ActorHandle[Any], router: str, ends: Ends) -> None:
        self._queue = queue
        self._router = router
        self._ends = ends
        self._left = False
        self._pipe: Pipe | None = None
        self._ref: ObjectRef[Any] | None = None
        self._messages = Messages()
        self._taken = 0
        self._receiver: _Receiver | None = None
        self._begun_at = 0.0
        # Sessions that did not last, one after the other.
        self._short = 0
        self._begin()

    def _begin(self) -> None:
        if self._left:
            return
        self._messages, self._pipe, self._taken = Messages(), None, 0
        receiver = self._receiver = _Receiver(self)
        self._begun_at = monotonic()
        try:
            ref: ObjectRef[Any] = self._queue.session.remote_piped(receiver, self._router)
        except exceptions.ActorrtError as error:
            logger.debug("the capacity queue cannot be asked: %s", error)
            self._again()
            return
        self._ref = ref
        ref.add_done_callback(partial(self._ended, receiver), here=True)

    def _ended(self, receiver: _Receiver, ref: ObjectRef[Any]) -> None:
        if self._ref is not ref:
            return
        receiver.forget()
        error = ref.exception()
        self._ref = self._pipe = None
        if self._left:
            return
        self._ends.closed()
        level = logging.WARNING if isinstance(error, exceptions.TaskError) else logging.DEBUG
        logger.log(level, "the capacity queue went: %s", error)
        if isinstance(error, exceptions.ActorUnavailableError):
            self._begin()  # it waits until the queue is there again
        else:
            # Where it has ended for good the controller tells of another one, and this session is left.
            self._again()

    def _again(self) -> None:
        self._short = 0 if monotonic() - self._begun_at >= MOST_AGAIN_S else self._short + 1
        later(pause_s(self._short), self._begin)

    def write(self, data: bytes) -> None:
        """Send it; lost if there is no stream just now."""
        if (pipe := self._pipe) is not None:
            pipe.write(data)

    def leave(self) -> None:
        """End it: the queue takes it for the router's end. Nothing more is told of it, though its call may last."""
        self._left = True
        if self._receiver is not None:
            self._receiver.forget()
        self._end()

    def _end(self) -> None:
        if (ref := self._ref) is not None:
            with suppress(exceptions.ActorrtError):
                cancel(ref)

    def has_room(self, pipe: Pipe) -> None:
        if self._pipe is None:
            self._pipe = pipe
            self._ends.opened()

    def arrived(self, pipe: Pipe, data: memoryview) -> None:
        self._taken += len(data)
        if self._taken >= ROOM_STEP:
            taken, self._taken = self._taken, 0
            pipe.grant(taken)
        try:
            for message in self._messages.feed(data):
                self._ends.came(message)
        except Exception:
            logger.exception("what the capacity queue says cannot be read, and its session begins anew")
            if self._receiver is not None:
                self._receiver.forget()
            self._end()


def pause_s(short: int) -> float:
    """Before a session is begun after so many that did not last."""
    return min(MOST_AGAIN_S, AGAIN_S * 2.0 ** max(0, min(short, 16) - 1))


class _Receiver:
    """Of one call: what still comes of an earlier one goes nowhere."""

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session

    def forget(self) -> None:
        self.session = None

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        if self.session is not None:
            self.session.arrived(pipe, data)

    def has_room(self, pipe: Pipe) -> None:
        if self.session is not None:
            self.session.has_room(pipe)


class Turns:
    """Has something done once at the end of this turn of the thread's loop, or a little later; at once where the thread
    has none.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._due: asyncio.AbstractEventLoop | None = None
        self._due_later: asyncio.AbstractEventLoop | None = None

    def soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._work()
            return
        if self._due is not loop:
            self._due = loop
            loop.call_soon(self._run)

    def _run(self) -> None:
        self._due = None
        self._work()

    def within(self, seconds: float) -> None:
        """Have it done in so long at the latest."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._work()
            return
        if self._due is not loop and self._due_later is not loop:
            self._due_later = loop
            loop.call_later(seconds, self._run_later)

    def _run_later(self) -> None:
        self._due_later = None
        self._work()
