"""Report a user loop that is blocked: which actor, which method, which line.

A thread of the runtime looks at the user's loop now and then. While that loop is stuck in one step for longer than
`block_report_s`, one line is logged with the stack; replies that are ready are sent in the meantime.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Final

from .loop_executor import LoopExecutor
from .sync_executor import SyncExecutor

if TYPE_CHECKING:
    from .runtime import Runtime

_OWN_CODE: Final = os.path.dirname(os.path.dirname(__file__))
# How often a loop that runs nothing is looked at: its actors may have background tasks.
IDLE_PERIOD_S: Final = 0.5


class Watchdog:
    """Watches one worker's user loop from the runtime loop."""

    def __init__(self, runtime: Runtime, executor: LoopExecutor | SyncExecutor) -> None:
        self._runtime = runtime
        self._executor = executor
        self._period = runtime.settings.block_report_s
        self._beat = 0
        self._seen = 0
        self._since = 0.0
        self._reported = False

    def start(self) -> None:
        if (
            isinstance(self._executor, LoopExecutor)
            and self._executor.loop is not self._runtime.loop
            and self._period > 0
        ):
            self._runtime.run_soon(self._tick)

    def _answered(self, beat: int) -> None:
        self._seen = beat

    def _tick(self) -> None:
        loop = self._runtime.loop
        executor = self._executor
        assert isinstance(executor, LoopExecutor)
        if self._runtime.closing:
            return
        if self._seen == self._beat:
            self._reported = False
            self._beat += 1
            self._since = loop.time()
            executor.loop.call_soon_threadsafe(self._answered, self._beat)
        elif loop.time() - self._since >= self._period * 0.9:
            executor.flush_from_outside()
            if not self._reported:
                self._reported = True
                self._report(executor)
        late = self._seen != self._beat
        loop.call_later(self._period / 2 if late or executor.busy else IDLE_PERIOD_S, self._tick)

    def _report(self, executor: LoopExecutor) -> None:
        main = threading.main_thread().ident
        frame = sys._current_frames().get(main) if main is not None else None  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return
        stack = traceback.extract_stack(frame)
        mine = [line for line in stack if not line.filename.startswith((_OWN_CODE, "<frozen"))]
        if not mine:
            # Only the runtime itself is busy: nothing that a user could do better.
            return
        run = executor.running
        what = "a call"
        if run is not None:
            title = "" if run.actor is None else f"{run.actor.title}."
            what = f"{title}{run.name}"
        text = "".join(traceback.format_list(mine[-8:]))
        sys.stderr.write(
            f"actorrt: the event loop has been blocked for {self._period * 1000:.0f} ms by {what}; "
            f"use await, or @method(thread=True) for code that blocks\n{text}"
        )
