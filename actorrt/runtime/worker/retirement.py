"""The end of a worker whose work is done: it takes no more, and stays until nobody needs what it owns.

Others may hold refs to what its tasks or its actor have put, returned or called, and handles to actors that they have
made. It holds no lease meanwhile, and a session that ends does not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from actorrt.core.cancellation import Reach
from actorrt.wire.messages import Retired

from ..links.link import Link
from .executor import Executor
from .host import Host

# How often a worker that is kept by others looks whether it still is, at first and later.
LOOK_S: Final = 0.01
LOOK_AT_LEAST_EVERY_S: Final = 0.5
# How long what runs as the process ends may take for its `finally` blocks.
LEAVE_GRACE_S: Final = 1.0


class Retirement:
    """Begins once, from whatever side it is asked for."""

    def __init__(self, host: Host, drop_actor: Callable[[], None]) -> None:
        """`drop_actor`: what the actor of this process holds goes, and calls find no actor."""
        self._host = host
        self._thread = host.thread
        self._drop_actor = drop_actor
        self._state = _State.WORKS

    def begin(self, finish: bool) -> None:
        """From any thread. `finish`: the calls that were made here end first."""
        if self._state is _State.WORKS:
            self._state = _State.RETIRES
            self._thread.spawn(self._wait_and_leave(finish))

    async def _wait_and_leave(self, finish: bool) -> None:
        host = self._host
        if self._is_needed(finish):
            self._drop_actor()
            host.node.send(Retired())
        pause_s = LOOK_S
        while self._is_needed(finish):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_AT_LEAST_EVERY_S)
        host.program.leave()

    def _is_needed(self, finish: bool) -> bool:
        host = self._host
        if self._thread.closing or host.node.closed:
            return False
        return host.is_borrowed() or (finish and host.has_calls)


async def wind_down(executor: Executor, links: list[Link], run_soon: Callable[[Callable[[], None]], None]) -> None:
    """Cancel what runs, and give it a moment. `run_soon` calls what it is given on this loop, from any thread."""
    ended = asyncio.Event()

    def look() -> None:
        if not any(link.serving for link in links):
            ended.set()

    executor.tell_idle(lambda: run_soon(look))
    for link in links:
        executor.end_calls(list(link.serving.values()), Reach.ALONE)
    look()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_GRACE_S):
            await ended.wait()


class _State(Enum):
    WORKS = auto()
    RETIRES = auto()


def drop_actor(host: Host) -> None:
    """Let go of the actor of this process; in the thread that made it."""
    host.note_last_calls()
    if host.tenancy.end_actor():
        # What it held is closed as when any program ends: files are written to their end.
        gc.collect()
