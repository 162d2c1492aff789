"""The end of a worker whose work is done: it takes no more, and stays until nobody needs what it owns.

Others may hold refs to what its tasks or its actor have put, returned or called, and handles to actors that they have
made. It holds no lease meanwhile, and a session that ends does not wait for it.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Final

from actorrt.wire.messages import Retired

if TYPE_CHECKING:
    from ..owner.runtime import Runtime
    from .loop_executor import LoopExecutor
    from .sync_executor import SyncExecutor

# How often a worker that is kept by others looks whether it still is, at first and later.
LOOK_S: Final = 0.01
LOOK_AT_LEAST_EVERY_S: Final = 0.5


class Retirement:
    """Begins once, from whatever side it is asked for."""

    def __init__(self, runtime: Runtime, executor: LoopExecutor | SyncExecutor) -> None:
        self._runtime = runtime
        self._executor = executor
        self._begun = False

    def begin(self, finish: bool) -> None:
        """From any thread. `finish`: the calls that were made here end first."""
        if not self._begun:
            self._begun = True
            self._runtime.thread.spawn(self._wait_and_leave(finish))

    async def _wait_and_leave(self, finish: bool) -> None:
        runtime = self._runtime
        if self._is_needed(finish):
            self._executor.drop_actor()
            runtime.node.send(Retired())
        pause_s = LOOK_S
        while self._is_needed(finish):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_AT_LEAST_EVERY_S)
        runtime.program.leave()

    def _is_needed(self, finish: bool) -> bool:
        runtime = self._runtime
        if runtime.thread.closing or runtime.node.closed:
            return False
        return runtime.is_borrowed() or (finish and runtime.has_calls)


def drop_actor(runtime: Runtime) -> None:
    """Let go of the actor of this process; in the thread that made it."""
    runtime.note_last_calls()
    if runtime.tenancy.end_actor():
        # What it held is closed as when any program ends: files are written to their end.
        gc.collect()
