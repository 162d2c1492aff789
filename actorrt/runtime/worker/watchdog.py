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
from typing import Any, Final

import cloudpickle

from actorrt import version
from actorrt.core.block_report import Last, Sight, is_on_purpose, others_elsewhere, report, title_of
from actorrt.core.watchdog import Alarm, Watch
from actorrt.wire.messages import LoopBlocked

from ..links.running import RunningCall
from .actor_methods import Mark, mark_of
from .executor import Executor
from .host import Host
from .instance import Instance
from .loop_executor import LoopExecutor

MOST_FRAMES: Final = 8
# Whose frames are no user's: the runtime's own, and what it runs users' code and loads it with.
_PACKAGES: Final = (version, asyncio, concurrent, cloudpickle, importlib)
_NOT_USERS: Final = (
    *(f"{os.path.dirname(inspect.getfile(package))}{os.sep}" for package in _PACKAGES),
    *(inspect.getfile(module) for module in (pickle, threading, contextlib)),
    "<frozen ",
)
# Python's own modules are nobody's where no user calls them: the runtime uses them too.
_STDLIB: Final = f"{os.path.dirname(os.__file__)}{os.sep}"
_INSTALLED: Final = tuple(f"{_STDLIB}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))


def watch(host: Host, executor: Executor) -> None:
    """Watch the user's loop of this worker, if it has one, from the runtime's."""
    limit_s = host.settings.block_report_s
    # One whose loop is the runtime's own can't be watched from there.
    if isinstance(executor, LoopExecutor) and executor.loop is not host.thread.loop and limit_s > 0:
        Watchdog(host, executor, limit_s).start()


class Watchdog:
    """Watches one worker's user loop from the runtime loop. What it finds is decided in core/watchdog.py."""

    def __init__(self, host: Host, executor: LoopExecutor, limit_s: float) -> None:
        self._host = host
        self._thread = host.thread
        self._loop = host.thread.loop
        self._executor = executor
        self._user_loop = executor.loop
        self._excuses = executor.excuses
        self._watch = Watch(limit_s)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._executor.watch_work(self._wake)
        self._thread.run_soon(self._look)

    def _wake(self) -> None:
        """Work is about to be handed to the loop: look soon; runtime loop."""
        if self._watch.work() and self._timer is not None:
            self._timer.cancel()
            self._next(busy=True)
            self._arm(True, self._loop.time())
            # Behind the work, so that it is answered when the first steps have been done.
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        number = self._watch.ask(self._loop.time())
        if number is not None:
            self._user_loop.call_soon_threadsafe(self._watch.answer, number)

    def _next(self, busy: bool) -> None:
        delay = self._watch.next_look(self._loop.time(), busy, _waited_for_cpu() if busy else 0.0)
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        if self._thread.closing:
            faulthandler.cancel_dump_traceback_later()
            return
        now = self._loop.time()
        # Until the worker has joined its node, its loop does not run.
        late_s = self._watch.look(now, self._user_loop.is_running())
        late = self._watch.is_late
        if late_s is not None:
            self._look_closer(now, late_s)
        if not late:
            self._say("", False)
        busy = self._watch.looked(now, late, self._executor.busy)
        if busy:
            self._ask()
        self._arm(busy, now)
        self._next(busy)

    def _look_closer(self, now: float, late_s: float) -> None:
        """The loop does not answer, or this look is late, for want of a CPU or of the GIL."""
        executor = self._executor
        # In this order: the loop goes on meanwhile, and what may block it is excused when it ends.
        run = executor.running
        where = _where()
        on_purpose = self._excuses.holds or (_on_purpose(run) if run is not None else _task_on_purpose(executor))
        excused_until = self._excuses.until
        executor.flush_from_outside()
        waited = _waited_for_cpu() if self._watch.counts_cpu(late_s) else 0.0
        found = self._watch.find(now, late_s, on_purpose=on_purpose, excused_until=excused_until, waited_for_cpu=waited)
        if found.blocked_s is not None:
            self._announce(executor, run, where, on_purpose, found.blocked_s)
        if found.tell_s is not None and (what := _report(executor, run, where, found.kept_the_gil)):
            self._watch.tell()
            blocked_ms = max(found.tell_s, self._watch.limit_s) * 1000
            sys.stderr.write(f"actorrt: the event loop has been blocked for {blocked_ms:.0f} ms by {what}")

    def _announce(
        self, executor: LoopExecutor, run: RunningCall | None, where: Where, on_purpose: bool, blocked_s: float
    ) -> None:
        """Have others go elsewhere, while the loop of this worker is blocked."""
        told = others_elsewhere(
            _who(executor, run),
            blocked_s,
            users=bool(where.frames) and not where.importing,
            on_purpose=on_purpose,
            holds_up=executor.holds_up,
            has_process=self._has_process(),
        )
        if told is not None:
            self._say(told.by, told.harmful)
            executor.give_back()

    def _has_process(self) -> bool:
        """Whether an actor has this process for itself: only its own callers wait for it."""
        tenancy = self._host.tenancy
        return tenancy.actor is not None or bool(tenancy.lease)

    def _say(self, by: str, harmful: bool) -> None:
        # Nothing is said before this worker has joined its node.
        if self._watch.says(by, harmful) and not (node := self._host.node).closed:
            node.post(LoopBlocked(by, harmful))

    def _arm(self, busy: bool, now: float) -> None:
        """Push the moment back at which faulthandler speaks, if it comes near."""
        match self._watch.alarm(now, busy):
            case Alarm.PUT_OFF:
                faulthandler.dump_traceback_later(self._watch.alarm_s, file=sys.__stderr__ or sys.stderr)
            case Alarm.TURN_OFF:
                faulthandler.cancel_dump_traceback_later()
            case Alarm.KEEP:
                pass


def _report(executor: LoopExecutor, run: RunningCall | None, where: Where, kept_the_gil: bool) -> str:
    last = executor.last
    seen = bool(where.frames)
    return report(
        Sight(_who(executor, run), seen, where.importing, where.line() if seen else "", where.text()),
        None if last is None else Last(_title(last), _on_purpose(last)),
        _others(executor, run),
        kept_the_gil=kept_the_gil,
    )


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
    return title_of(run.name, None if run.actor is None else run.actor.title)


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
        for instance in list(executor.actors.instances.values()):
            if task in (instance.tasks or ()):
                return instance, task
    return None, task


def _others(executor: LoopExecutor, run: RunningCall | None) -> list[str]:
    """Whom the loop has besides."""
    own = None if run is None else run.actor
    return [instance.title for instance in list(executor.actors.instances.values()) if instance is not own]


def _on_purpose(run: RunningCall) -> bool:
    actor: Instance | None = run.actor
    if actor is None:
        return False
    return is_on_purpose(actor.has_process, actor.is_being_made, mark_of(actor.cls, run.name) is Mark.MAY_BLOCK)


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
