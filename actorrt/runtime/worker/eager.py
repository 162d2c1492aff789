"""Run coroutines without a task each: most calls end in their first step.

The first step of each call is run at once, one after the other, each in a context of its own, under the identity of a
task that is parked for this. A call that suspends takes that task over and goes on in it, and a new one is parked. So
it is if a call ends but somebody has got hold of the task: that one ends too and is not for the next call.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
from asyncio.tasks import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from enum import Enum, auto
from sys import getrefcount
from typing import Any, Final, Self
from weakref import getweakrefcount

from ..links.running import RunningCall

# So many calls are run before their replies are sent, if the queue is that long.
FLUSH_EVERY: Final = 128

Work = Coroutine[Any, Any, None]


class _Traces(Enum):
    """What a later call with the same task could tell."""

    NONE = auto()
    LEFT = auto()
    # The call has ended in its first step; the task itself may end in the next turn only.
    ENDED = auto()


class _State(Enum):
    """The life of a parked coroutine:

    PARKED --> ADOPTED or ADOPTED_UNMARKED --its task takes over--> TAKEN_OVER
    PARKED --not for the next call--> OVER
    """

    PARKED = auto()
    # It has a call's coroutine, of which its task does not know yet.
    ADOPTED = auto()
    # The same, and the mark of the coroutine's await is off until the task begins.
    ADOPTED_UNMARKED = auto()
    # The task steps the adopted coroutine, and nothing else is left to do.
    TAKEN_OVER = auto()
    OVER = auto()


_UNTOUCHED: Final = _Traces.NONE
_TOUCHED: Final = _Traces.LEFT
_ENDED: Final = _Traces.ENDED
_PARKED: Final = _State.PARKED
_ADOPTED: Final = _State.ADOPTED
_ADOPTED_UNMARKED: Final = _State.ADOPTED_UNMARKED
_TAKEN_OVER: Final = _State.TAKEN_OVER
_OVER: Final = _State.OVER


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
        self.last: RunningCall | None = None
        self._parked: _Parked | None = None
        self._on_suspend = on_suspend
        self._flush = flush

    def forked(self, leave: Callable[..., Any]) -> None:
        """In a fork of this process: a call that suspends is the parent's."""
        self._on_suspend = leave

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
        loop = self._loop
        count = 0
        while True:
            parked = self._parked
            # Has the last call, or who looked at all tasks of the loop, left traces on it?
            if parked is not None and (
                parked.task.traces is not _UNTOUCHED
                or getrefcount(parked.task) != parked.references
                or getweakrefcount(parked.task) != parked.weak_references
            ):
                parked.end()
                parked = self._parked = None
            if not queue:
                break
            run, work = queue.popleft()
            if parked is None:
                parked = self._parked = _Parked(loop)
            context = copy_context()
            self.now = self.last = run
            ended = False
            waits_for = None
            enter_task(loop, parked.task)
            try:
                waits_for = context.run(work.send, None)
            except StopIteration:
                ended = True
            finally:
                leave_task(loop, parked.task)
                self.now = None
            if ended:
                count += 1
                if count == FLUSH_EVERY:
                    count = 0
                    self._flush()
            else:
                self._parked = None
                run.runs_in(parked.task)
                self._on_suspend(run)
                parked.adopt(context, work, waits_for)
        self._flush()


class _CallTask(asyncio.Task[None]):
    """A task that knows whether it was used in a way that a later call with the same task could tell."""

    __slots__ = ("traces",)

    traces: _Traces

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        super().__init__(work, loop=loop, context=context)
        super().__setattr__("traces", _UNTOUCHED)

    def __setattr__(self, name: str, value: Any) -> None:
        self._touch()
        super().__setattr__(name, value)

    def _touch(self) -> None:
        if self.traces is _UNTOUCHED:
            super().__setattr__("traces", _TOUCHED)

    def ended(self) -> None:
        """Its call has ended in its first step."""
        super().__setattr__("traces", _ENDED)

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
        self._touch()
        super().add_done_callback(*args, **kwargs)

    def set_name(self, value: object, /) -> None:
        self._touch()
        super().set_name(value)

    def cancel(self, msg: Any | None = None) -> bool:
        self._touch()
        return self.traces is not _ENDED and super().cancel(msg)


class _Parked(Coroutine[Any, Any, None]):
    """The coroutine of a task that waits to be given one that has run its first step already, and goes on with that.

    No `async def`: a task that is cancelled before its own first step throws into its coroutine, which must hear of it.
    It is also the future that its task waits for meanwhile, so that the task can be woken at once, within this turn.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_loop",
        "_state",
        "_waits_for",
        "_wake",
        "_work",
        "references",
        "task",
        "weak_references",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: Work | None = None
        self._context: Context = Context()
        # What the adopted coroutine waits for, as long as its task does not know of it.
        self._waits_for: Any = None
        self._state = _PARKED
        # Steps the task. None before the task's own first step.
        self._wake: Callable[[Any], None] | None = None
        self._asyncio_future_blocking = False
        # In a context of its own: the call that is running just now has nothing to do with it.
        self.task = _CallTask(self, loop, self._context)
        # While nobody else has any. As the runner counts them: not by a variable.
        self.references = getrefcount(self.task)
        self.weak_references = getweakrefcount(self.task)

    def end(self) -> None:
        """End the task as that of a call that has ended."""
        if self._state is not _OVER:
            self._state = _OVER
            self.task.ended()
            if self._wake is not None:
                self._wake(self)
        self._wake = None
        del self.task

    def adopt(self, context: Context, work: Work, waits_for: Any) -> None:
        self._context = context
        self._work = work
        self._waits_for = waits_for
        self._state = _ADOPTED
        if self._wake is not None:
            self._wake(self)
        elif getattr(waits_for, "_asyncio_future_blocking", False):
            # The mark of an await. Left on until the task begins, it would break the next await of the same future.
            self._state = _ADOPTED_UNMARKED
            waits_for._asyncio_future_blocking = False

    # ---- the coroutine

    def __next__(self) -> Any:
        if self._state is _TAKEN_OVER:
            assert self._work is not None
            return self._context.run(self._work.send, None)
        if self._work is not None:
            return self._hand_over(None)
        if self._state is _OVER:
            raise StopIteration
        self._asyncio_future_blocking = True
        return self

    def send(self, value: Any, /) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None, /) -> Any:
        if self._state is _TAKEN_OVER:
            assert self._work is not None
            return self._context.run(self._work.throw, error)
        if self._work is not None:
            return self._hand_over(error)
        raise error

    def _hand_over(self, error: BaseException | None) -> Any:
        """Have the task take over what the coroutine waits for. `error`: the task was cancelled meanwhile."""
        work, waits_for, task = self._work, self._waits_for, self.task
        assert work is not None
        begun = self._wake is not None
        if self._state is _ADOPTED_UNMARKED:
            waits_for._asyncio_future_blocking = True
        self._state = _TAKEN_OVER
        self._waits_for = self._wake = None
        del self.task
        if waits_for is None and not begun:
            # The turn that it gave up has passed.
            return self._context.run(work.send, None) if error is None else self._context.run(work.throw, error)
        if error is not None:
            # Not for the coroutine yet: what it waits for is to be cancelled first. The task does that.
            task.cancel(*error.args)
            task.uncancel()
        return waits_for

    def close(self) -> None:
        if self._work is not None:
            self._context.run(self._work.close)

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    # What debuggers and libraries ask of a task's coroutine. No `__getattr__`: it makes every other attribute slow.

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self._work, "__qualname__", "a call")

    @property
    def cr_running(self) -> bool:
        return self._state is not _OVER if self._work is None else getattr(self._work, "cr_running", False)

    @property
    def cr_suspended(self) -> bool:
        return getattr(self._work, "cr_suspended", False)

    @property
    def cr_frame(self) -> Any:
        return getattr(self._work, "cr_frame", None)

    @property
    def cr_code(self) -> Any:
        return getattr(self._work, "cr_code", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._work, "cr_await", None)

    # ---- the future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], None], /, *, context: Context) -> None:
        self._wake = wake

    def result(self) -> None:
        pass

    def cancel(self, msg: Any = None) -> bool:
        # During a call's first step its task only notes it, as any task does that runs.
        if self._state is not _OVER and asyncio.current_task(self._loop) is not self.task:
            assert self._wake is not None
            self._state = _OVER
            self._loop.call_soon(self._wake, self)
        return False
