"""Report a user loop that is blocked: which actor, which method, which line.

The runtime's thread looks at the user's loop while it has work. Once the loop has been stuck in one step for
`block_report_s`, that is told, once, with the stack; replies that are ready are sent in the meantime. C code that keeps
the GIL stops this thread too: then it is told as soon as the GIL is free, or, if that takes for ever, by faulthandler's
thread, which needs no GIL.
"""

from __future__ import annotations

import asyncio
import concurrent
import contextlib
import faulthandler
import importlib
import inspect
import os
import pickle
import sys
import threading
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

import actorrt
from actorrt.wire.messages import LoopBlocked

from ..links.running import RunningCall
from .actor_methods import Mark, mark_of
from .instance import Instance
from .loop_executor import LoopExecutor
from .sync_executor import SyncExecutor

if TYPE_CHECKING:
    from ..owner.runtime import Runtime

# How often a loop that runs nothing is looked at: its actors may have background tasks.
IDLE_PERIOD_S: Final = 0.5
# Looks within `block_report_s`. A step that began just after a look is found by the time it has lasted for as long.
LOOKS: Final = 4
# An import, or work of the runtime's own, that lasts for so long has others go elsewhere.
LONG_WORK_S: Final = 1.0
MOST_FRAMES: Final = 8
MOST_NAMED: Final = 20
# Whose frames are no user's: the runtime's own, and what it runs users' code and loads it with.
_PACKAGES: Final = (actorrt, asyncio, concurrent, cloudpickle, importlib)
_NOT_USERS: Final = (
    *(f"{os.path.dirname(inspect.getfile(package))}{os.sep}" for package in _PACKAGES),
    *(inspect.getfile(module) for module in (pickle, threading, contextlib)),
    "<frozen ",
)
# Python's own modules are nobody's where no user calls them: the runtime uses them too.
_STDLIB: Final = f"{os.path.dirname(os.__file__)}{os.sep}"
_INSTALLED: Final = tuple(f"{_STDLIB}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))
# While this thread is stopped for so many times `block_report_s`, faulthandler speaks.
GIL_FACTOR: Final = 20


class Watchdog:
    """Watches one worker's user loop from the runtime loop."""

    def __init__(self, runtime: Runtime, executor: LoopExecutor | SyncExecutor) -> None:
        self._runtime = runtime
        self._executor = executor
        self._limit = runtime.settings.block_report_s
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._idle = True
        self._new_work = False
        # The number of the last question whether the loop still turns, and of the last answer.
        self._asked = 0
        self._answered = 0
        self._since = 0.0
        # The question during which it was told that the loop is blocked: that is told once.
        self._told = -1
        self._looked = 0.0
        # As it was at the last look.
        self._waited_for_cpu = 0.0
        self._gil_armed = 0.0
        # What the node was told last of what blocks the loop.
        self._said: tuple[str, bool] = ("", False)

    def start(self) -> None:
        # One whose loop is the runtime's own can't be watched from there.
        if (
            isinstance(self._executor, LoopExecutor)
            and self._executor.loop is not self._runtime.thread.loop
            and self._limit > 0
        ):
            self._executor.on_work = self._wake
            self._runtime.thread.run_soon(self._look)

    def _wake(self) -> None:
        """Work is about to be handed to the loop: look soon; runtime loop."""
        self._new_work = True
        if self._idle and self._timer is not None:
            self._timer.cancel()
            self._next(busy=True)
            self._arm(True, self._runtime.thread.loop.time())
            # Behind the work, so that it is answered when the first steps have been done.
            self._runtime.thread.loop.call_soon(self._ask)

    def _ask(self) -> None:
        executor = self._executor
        assert isinstance(executor, LoopExecutor)
        if self._answered == self._asked:
            self._asked += 1
            self._since = self._runtime.thread.loop.time()
            executor.loop.call_soon_threadsafe(self._answer, self._asked)

    def _next(self, busy: bool) -> None:
        delay = self._limit / LOOKS if busy else IDLE_PERIOD_S
        loop = self._runtime.thread.loop
        self._idle = not busy
        if busy:
            self._waited_for_cpu = _waited_for_cpu()
        self._due = loop.time() + delay
        self._timer = loop.call_later(delay, self._look)

    def _answer(self, asked: int) -> None:
        self._answered = asked

    def _look(self) -> None:
        executor = self._executor
        assert isinstance(executor, LoopExecutor)
        if self._runtime.thread.closing:
            faulthandler.cancel_dump_traceback_later()
            return
        now = self._runtime.thread.loop.time()
        if not executor.loop.is_running():
            # The worker still joins its node; its loop answers once it runs.
            self._since = now
        late = self._answered != self._asked
        if self._gil_armed and now - self._gil_armed > self._limit * GIL_FACTOR:
            # faulthandler has spoken.
            self._told = self._asked
        delay = 0.0 if self._idle else now - self._due
        if delay > self._limit or (late and now - self._since >= self._limit * (LOOKS - 1) / LOOKS):
            self._look_closer(executor, now, delay)
        # A loop that looks idle is asked once more: a call whose first step blocks is not among those that run.
        if not late:
            self._say("", False)
        busy = late or self._idle or self._new_work or executor.busy
        self._new_work = False
        if busy:
            self._ask()
        self._arm(busy, now)
        self._looked = now
        self._next(busy)

    def _look_closer(self, executor: LoopExecutor, now: float, delay: float) -> None:
        """The loop does not answer, or this look is `delay` seconds late, for want of a CPU or of the GIL."""
        # In this order: the loop goes on meanwhile, and what may block it is excused when it ends.
        run = executor.running
        where = _where()
        on_purpose = executor.loading or (_on_purpose(run) if run is not None else _task_on_purpose(executor))
        excused = executor.excused_until
        executor.flush_from_outside()
        blocked_s = now - max(self._since, excused)
        late = self._answered != self._asked and blocked_s >= self._limit * (LOOKS - 1) / LOOKS
        if late:
            self._announce(executor, run, where, on_purpose, blocked_s)
        if on_purpose:
            self._told = self._asked
            return
        if excused > self._looked:
            # What blocks from then on is another thing than what blocked until then.
            self._told = -1
        if delay > self._limit:
            delay = min(delay, now - excused)
            if delay - (_waited_for_cpu() - self._waited_for_cpu) > self._limit:
                self._tell_once(executor, run, where, delay, kept_the_gil=True)
        elif late:
            self._tell_once(executor, run, where, blocked_s)

    def _announce(
        self, executor: LoopExecutor, run: RunningCall | None, where: Where, on_purpose: bool, blocked_s: float
    ) -> None:
        """Have others go elsewhere, while the loop of this worker is blocked."""
        if self._runtime.tenancy.actor is not None or executor.lease:
            return
        users = bool(where.frames) and not where.importing and not on_purpose
        if users or blocked_s >= LONG_WORK_S:
            by = _who(executor, run) or "the runtime"
            self._say(by, users and executor.holds_up)
            executor.give_back()

    def _say(self, by: str, harmful: bool) -> None:
        if (by, harmful) != self._said and not self._runtime.node.closed:
            self._said = (by, harmful)
            self._runtime.node.post(LoopBlocked(by, harmful))

    def _arm(self, busy: bool, now: float) -> None:
        """Push the moment back at which faulthandler speaks, if it comes near."""
        span = self._limit * GIL_FACTOR
        if now - self._gil_armed < span / 4:
            return
        if busy:
            self._gil_armed = now
            faulthandler.dump_traceback_later(span, file=sys.__stderr__ or sys.stderr)
        elif self._gil_armed:
            self._gil_armed = 0.0
            faulthandler.cancel_dump_traceback_later()

    def _tell_once(
        self,
        executor: LoopExecutor,
        run: RunningCall | None,
        where: Where,
        blocked_s: float,
        kept_the_gil: bool = False,
    ) -> None:
        """Tell who blocks, and at which line of theirs. What is no user's doing is not told."""
        if self._told == self._asked:
            return
        who = _who(executor, run)
        if kept_the_gil and not (who and where.frames):
            # It is over.
            last = executor.last
            if last is None or where.importing or _on_purpose(last):
                return
            who = f"code that kept the GIL and has returned, last of {_title(last)}"
        elif not where.frames:
            return
        self._told = self._asked
        what = f"{max(blocked_s, self._limit) * 1000:.0f} ms by {who or 'a callback'}"
        if where.importing:
            what += f", with an import at {where.line()}: import modules where they are not waited for\n"
        else:
            what += (
                f"; use await, or @method(thread=True) for code that blocks{_held_up(executor, run)}\n{where.text()}"
            )
        sys.stderr.write(f"actorrt: the event loop has been blocked for {what}")


class Where:
    """What the main thread does: the frames of users, the innermost first; and whether it imports something there."""

    def __init__(self, frame: FrameType | None) -> None:
        self.frames: list[FrameType] = []
        self.importing = False
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                # What runs within an import is not what its user wrote.
                self.importing = True
                self.frames.clear()
            elif not name.startswith(_NOT_USERS):
                self.frames.append(frame)
            frame = frame.f_back
        while self.frames and _of_python(self.frames[-1]):
            self.frames.pop()

    def text(self) -> str:
        """Where that is, as tracebacks show it."""
        innermost = self.frames[:MOST_FRAMES]
        return "".join(traceback.format_list([traceback.extract_stack(one, 1)[0] for one in reversed(innermost)]))

    def line(self) -> str:
        at = self.frames[0]
        return f"{at.f_code.co_filename}:{at.f_lineno}, in {at.f_code.co_name}"


def _of_python(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(_STDLIB) and not name.startswith(_INSTALLED)


def _where() -> Where:
    main = threading.main_thread().ident
    return Where(None if main is None else sys._current_frames().get(main))


def _title(run: RunningCall) -> str:
    """A call as its reader knows it."""
    title = "" if run.actor is None else f"{run.actor.title}."
    return run.name if run.name.startswith(title) else f"{title}{run.name}"


def _who(executor: LoopExecutor, run: RunningCall | None) -> str:
    """The call that runs, or the actor whose own task does; "" if nobody knows."""
    if run is not None:
        return _title(run)
    instance, task = _own_task(executor)
    if instance is None or task is None:
        return ""
    return f"{instance.title}, in its task {getattr(task.get_coro(), '__qualname__', '')}"


def _own_task(executor: LoopExecutor) -> tuple[Instance | None, asyncio.Task[Any] | None]:
    """The task that runs now, and the actor that has made it."""
    task = asyncio.current_task(executor.loop)
    if task is not None:
        for instance in list(executor.instances.values()):
            if task in (instance.tasks or ()):
                return instance, task
    return None, task


def _held_up(executor: LoopExecutor, run: RunningCall | None) -> str:
    """Whom the loop has besides."""
    own = None if run is None else run.actor
    titles = [instance.title for instance in list(executor.instances.values()) if instance is not own]
    if not titles:
        return ""
    more = f" and {len(titles) - MOST_NAMED} more" if len(titles) > MOST_NAMED else ""
    return f"; meanwhile it holds up {', '.join(titles[:MOST_NAMED])}{more}"


def _on_purpose(run: RunningCall) -> bool:
    """True for what only its own actor waits for: the constructor of one that has a process to itself, or a method that
    says so."""
    actor: Instance | None = run.actor
    if actor is None:
        return False
    return (actor.process and not actor.ready) or mark_of(actor.cls, run.name) is Mark.MAY_BLOCK


def _task_on_purpose(executor: LoopExecutor) -> bool:
    """True for a task of an actor that runs a method which says that it may block: it is likely that method's."""
    instance, _ = _own_task(executor)
    return instance is not None and any(map(_on_purpose, list(instance.calls or ())))


def _waited_for_cpu() -> float:
    """For how many seconds this thread and the loop's, which may have had the GIL then, could have run and had no CPU;
    0 where the kernel does not say."""
    # The main thread has its process's number. After a fork, Python knows it by that of the thread that forked.
    return sum(map(_waited, ("/proc/thread-self", f"/proc/self/task/{os.getpid()}")))


def _waited(thread: str) -> float:
    try:
        with open(f"{thread}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
