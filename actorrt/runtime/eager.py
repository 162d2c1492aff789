"""Run coroutines without a task each: most calls end in their first step.

The first step of each call is run at once, one after the other, each in a context of its own, under the identity of a
task that is parked for this. A call that suspends takes that task over and goes on in it, and a new one is parked.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
from asyncio.tasks import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final

from .context import RunningCall

# So many calls are run before their replies are sent, if the queue is that long.
FLUSH_EVERY: Final = 128

Work = Coroutine[Any, Any, None]


class EagerRunner:
    """Runs calls on one loop. `on_suspend(run)` is called when one needs a task; `flush()` when replies are ready.

    `enter_task` and `leave_task` are asyncio's own hooks for those who step coroutines themselves.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_suspend: Callable[[RunningCall], None],
        flush: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._queue: deque[tuple[RunningCall, Work]] = deque()
        # The call whose step runs right now.
        self.now: RunningCall | None = None
        self._parked: _Parked | None = None
        self._on_suspend = on_suspend
        self._flush = flush

    def start(self, run: RunningCall, work: Work) -> None:
        """Queue a call's coroutine, which must not raise; it runs with the next `run_queued`."""
        self._queue.append((run, work))

    def start_soon(self, run: RunningCall, work: Work) -> None:
        """The same from outside of a hand-over."""
        if not self._queue:
            self._loop.call_soon(self.run_queued)
        self._queue.append((run, work))

    def run_queued(self) -> None:
        """Run the first step of everything that is queued. Called by the loop, outside of any task."""
        queue = self._queue
        count = 0
        while queue:
            run, work = queue.popleft()
            parked = self._parked
            if parked is None or parked.spoilt:
                parked = self._parked = _Parked(self._loop)
            context = copy_context()
            self.now = run
            enter_task(self._loop, parked.task)
            try:
                waits_for = context.run(work.send, None)
            except StopIteration:
                count += 1
                if count == FLUSH_EVERY:
                    count = 0
                    self._flush()
            else:
                self._parked = None
                run.task = parked.task
                self._on_suspend(run)
                parked.adopt(context, work, waits_for)
            finally:
                leave_task(self._loop, parked.task)
                self.now = None
        self._flush()


class _Parked:
    """A task that waits to be given a coroutine that has run its first step already."""

    __slots__ = ("_adopted", "_begun", "_loop", "_rescuer", "_wake", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._begun = False
        self._rescuer: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] = loop.create_future()
        self._adopted: tuple[Context, Work, Any] | None = None
        # In a context of its own: the call that is running just now has nothing to do with it.
        self.task = loop.create_task(self._run(), context=Context())

    @property
    def spoilt(self) -> bool:
        """True if a call has cancelled its own task and ended: that is not for the next one."""
        return self.task.done() or bool(self.task.cancelling())

    def adopt(self, context: Context, work: Work, waits_for: Any) -> None:
        self._adopted = (context, work, waits_for)
        if not self._begun:
            self.task.add_done_callback(self._rescue)
        if not self._wake.done():
            self._wake.set_result(None)

    def _rescue(self, _: asyncio.Task[None]) -> None:
        # A task that is cancelled before its own first step never takes it: another call of the same batch may do that.
        if not self._begun and self._adopted is not None:
            self._rescuer = self._loop.create_task(self._finish(asyncio.CancelledError()), context=Context())

    async def _finish(self, error: BaseException | None) -> None:
        assert self._adopted is not None
        await _Rest(*self._adopted, error)

    async def _run(self) -> None:
        self._begun = True
        try:
            await self._wake
        except asyncio.CancelledError as error:
            if self._adopted is None:
                raise
            await self._finish(error)
            return
        await self._finish(None)


class _Rest:
    """Drives a coroutine that has suspended to its end, as a task would, in its own context."""

    __slots__ = ("_context", "_error", "_waits_for", "_work")

    def __init__(self, context: Context, work: Work, waits_for: Any, error: BaseException | None) -> None:
        self._context = context
        self._work = work
        self._waits_for = waits_for
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        run, work, waits_for = self._context.run, self._work, self._waits_for
        error = self._error
        if error is not None:
            # Cancelled before this task came to wait for it.
            _disown(waits_for)
        try:
            while True:
                if error is None:
                    try:
                        sent = yield waits_for
                    except GeneratorExit:
                        run(work.close)
                        raise
                    except BaseException as raised:
                        error = raised
                        continue
                    waits_for = run(work.send, sent)
                else:
                    raised, error = error, None
                    waits_for = run(work.throw, raised)
        except StopIteration:
            return


def _disown(waits_for: Any) -> None:
    """Nobody will wait for this future: cancel it, as a cancelled task would have."""
    cancel = getattr(waits_for, "cancel", None)
    if cancel is not None:
        waits_for._asyncio_future_blocking = False
        cancel()
