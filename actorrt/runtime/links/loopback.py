"""The link of a process to itself: what it sends comes to it, without a connection, bytes or another thread's turn.

Messages that the thread of the flush takes come at once, in that thread; all others on the runtime loop, where they
keep their order. Calls between the coroutine actors of one worker go this way.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import repeat, starmap
from typing import Any, Final

from actorrt.wire.link import End, Ending, State
from actorrt.wire.messages import AnyMessage, Hello, Reply

from .link import Keeper, Link, Receiver

# Takes those of the messages in front that the calling thread can take at once, and leaves the others; from any thread.
TakeHere = Callable[[Link, deque[AnyMessage]], None]
# Frames of pipes are counted by nobody: nothing of them can be lost.
_NEVER: Final = sys.maxsize


class Loopback(Link):
    """Both ends of a link in one: a call that is under way here is served here too. It is open until it is closed."""

    is_loopback = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        keeper: Keeper,
        hello: Hello,
        link: bytes,
        take_here: TakeHere,
    ) -> None:
        self._take_here = take_here
        super().__init__(loop, receiver, keeper, hello, End(link, State.OPEN), None)
        self._look_at = _NEVER
        # What is on its way to the runtime loop: messages, and frames of pipes. Nothing overtakes it.
        self._under_way: deque[AnyMessage | bytes] = deque()

    def flush(self) -> None:
        """Deliver all that is queued, from any thread. Returns at once where another thread does so: it goes on."""
        queue = self._queue
        piped = self._piped
        while (queue or piped) and self._outlet.obstacle is None:
            if not self._lock.acquire(blocking=False):
                return
            try:
                if queue and not self._under_way and not self._along:
                    # What follows belongs to other calls than the one whose code has come to flush.
                    Context().run(self._take_here, self, queue)
                if queue or piped:
                    self._send_to_loop()
            except IndexError:
                # It has ended in this moment, with all that was queued.
                if not self.closed:
                    raise
            finally:
                self._lock.release()

    def _send_to_loop(self) -> None:
        under_way = self._under_way
        if self._along:
            while self._queue:
                message = self._queue.popleft()
                if type(message) is Reply and (frame := self._along.pop(message.seq, None)) is not None:
                    under_way.append(b"".join(frame.buffers))
                under_way.append(message)
        else:
            _move(self._queue, under_way)
        while self._piped:
            pipe = self._piped.popleft()
            parts, _, more = pipe.next_piece()
            under_way.append(b"".join(parts))
            if more:
                self._piped.append(pipe)
            elif parts:
                pipe.sent()
        with contextlib.suppress(RuntimeError):
            # The loop may be closed already.
            self.loop.call_soon_threadsafe(self._arrive, context=Context())

    def _arrive(self) -> None:
        under_way = self._under_way
        if self.closed:
            under_way.clear()
            return
        arriving = list(under_way)
        messages: list[AnyMessage] = []
        try:
            for one in arriving:
                if isinstance(one, bytes):
                    self._take(messages)
                    messages = []
                    self.feed_data(one)
                else:
                    messages.append(_own(one))
            self._take(messages)
        finally:
            # Not before: until they have come, whatever is sent goes behind them.
            for _ in arriving:
                if under_way:
                    under_way.popleft()

    def close(self) -> None:
        self.flush()
        self.finish(Ending.GOODBYE)

    def finish(self, ending: Ending) -> None:
        # Another thread that flushes now stops at this.
        self._outlet.let_go()
        super().finish(ending)
        self._under_way.clear()

    def abandon(self) -> None:
        super().abandon()
        self._under_way.clear()


def _move(source: deque[Any], target: deque[Any]) -> None:
    """As one step for an interrupt: nothing is lost between the two."""
    target.extend(starmap(source.popleft, repeat((), len(source))))


def _own(message: Any) -> Any:
    """The callee counts credits in a message; its caller may send the same one again."""
    return copy.copy(message) if getattr(message, "credits", 0) else message
