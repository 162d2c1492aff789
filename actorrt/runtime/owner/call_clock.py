"""The time of calls: the limits that their options name, and their pauses. What follows is decided in core/calls.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from actorrt import exceptions
from actorrt.core.call_terms import Limit, Limits

from ..base.loop_thread import LoopThread
from .calls import Call
from .entries import Entry


class CallClock:
    """Those of one process. A call without limits has no timer; that of any other goes as the call ends."""

    def __init__(self, thread: LoopThread, late: Callable[[Call, Limit], None]) -> None:
        """`late` is told that a limit is over, on the runtime loop."""
        self._thread = thread
        self._late = late
        self._pausing: dict[Call, asyncio.TimerHandle] = {}

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._thread.loop

    @property
    def busy(self) -> bool:
        """True while calls pause; runtime loop."""
        return any(not call.done for call in self._pausing)

    def watch(self, call: Call, limits: Limits) -> None:
        """A call is made now; from any thread."""
        due = [(limit, time.monotonic() + s) for limit in Limit if (s := limits.of(limit)) is not None]
        if due:
            self._thread.run_soon(partial(self._arm, call, due))

    def _arm(self, call: Call, due: list[tuple[Limit, float]]) -> None:
        now = time.monotonic()
        loop = self._loop
        timers = [loop.call_later(max(0.0, at - now), self._late, call, limit) for limit, at in due]

        def ended(_: Entry) -> None:
            if self._thread.on_own_thread():
                _stop(timers)
            else:
                self._thread.run_soon(partial(_stop, timers))

        if not call.entry.add_waiter(ended):
            _stop(timers)

    def pause(self, call: Call) -> None:
        """A call goes again once its pause is over; runtime loop."""
        self._pausing[call] = self._loop.call_later(call.pause_s, self._go_on, call)

    def _go_on(self, call: Call) -> None:
        del self._pausing[call]
        if not call.done:
            call.home.resume(call)

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: nobody is to wait for calls that pause."""
        _stop(self._pausing.values())
        for call in list(self._pausing):
            call.fail(error)
        self._pausing.clear()


def _stop(timers: Iterable[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()
