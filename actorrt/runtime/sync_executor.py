"""Run user code in the worker's main thread, one call at a time: `def` tasks, and actors with only `def` methods.

A threaded actor's calls run in threads of its own. What waits here can be given back to its caller: when the running
task blocks in `get`, or runs long, tasks behind it go to another worker.
"""

from __future__ import annotations

import contextvars
import inspect
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from actorrt.wire import codec
from actorrt.wire.messages import (
    GIVEN_BACK,
    STREAM_END,
    UNLIMITED,
    ActorCall,
    AnyMessage,
    Outcome,
    Reply,
    StartActor,
    StopActor,
    TaskCall,
)

from .context import RunningCall, running_call
from .executor import ActorExit, Executor, unknown_method
from .instance import Instance
from .link import Link
from .loop_executor import BUILT_IN_METHODS, Work, actor_title

if TYPE_CHECKING:
    from .runtime import Runtime

# A task that runs for so long has those behind it given back.
LONG_TASK_S: Final = 0.02


class Gate:
    """A stream's credits in a thread."""

    def __init__(self, credits: int) -> None:
        self._left = credits
        self._changed = threading.Condition()
        self.cancelled = False

    def add(self, n: int) -> None:
        with self._changed:
            self._left = UNLIMITED if UNLIMITED in (n, self._left) else self._left + n
            self._changed.notify()

    def cancel(self) -> None:
        with self._changed:
            self.cancelled = True
            self._changed.notify()

    def take(self) -> None:
        with self._changed:
            while self._left == 0 and not self.cancelled:
                self._changed.wait()
            if self.cancelled:
                raise KeyboardInterrupt
            if self._left != UNLIMITED:
                self._left -= 1


class SyncExecutor(Executor):
    """User code in the main thread. `run` is the worker's main."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._work: deque[tuple[Link, Work]] = deque()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._ended = False
        self._current: RunningCall | None = None
        self._interrupting: RunningCall | None = None
        self._watching: RunningCall | None = None
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._instance: Instance | None = None
        self._lock = threading.Lock()
        runtime.on_blocked = self._blocked

    def run(self) -> None:
        """Take work until the worker ends."""
        signal.signal(signal.SIGINT, self._on_signal)
        while not self._ended:
            try:
                link, work = self._work.popleft()
            except IndexError:
                self._wake.acquire()
                continue
            try:
                self._do(link, work)
            except KeyboardInterrupt:
                # A cancellation that came a moment too late to hit its call.
                continue

    def stop(self) -> None:
        self._ended = True
        self._nudge()

    def _nudge(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        target, self._interrupting = self._interrupting, None
        if target is not None and target is self._current:
            raise KeyboardInterrupt

    # ---- the runtime loop's side

    def enqueue(self, link: Link, work: list[Work]) -> None:
        for message in work:
            self._work.append((link, message))
        self._nudge()
        if len(self._work) > 1 or self._current is not None:
            self._watch()

    def _watch(self) -> None:
        if self._watching is None and self._current is not None:
            self._watching = self._current
            self.runtime.loop.call_later(LONG_TASK_S, self._look)

    def _look(self) -> None:
        watched, self._watching = self._watching, None
        if watched is not None and watched is self._current:
            self._give_back()
        if self._work:
            self._watch()

    def _give_back(self) -> None:
        """Return the tasks that were not started; from any thread."""
        back: list[tuple[Link, TaskCall]] = []
        keep: list[tuple[Link, Work]] = []
        while True:
            try:
                link, work = self._work.popleft()
            except IndexError:
                break
            if isinstance(work, TaskCall):
                back.append((link, work))
            else:
                keep.append((link, work))
        self._work.extendleft(reversed(keep))
        for link, work in back:
            if not link.closed:
                link.post(Outcome(work.seq, GIVEN_BACK))

    def _blocked(self, blocked: bool) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if blocked:
            self._give_back()
        run = self._current
        if run is not None:
            self.block(run.lease, blocked)

    def cancel(self, link: Link, message: Any) -> None:
        if message.seq in link.serving:
            super().cancel(link, message)
            return
        for waiting in list(self._work):
            if waiting[0] is link and not isinstance(waiting[1], StopActor) and waiting[1].seq == message.seq:
                try:
                    self._work.remove(waiting)
                except ValueError:
                    # It was taken just now.
                    self.runtime.loop.call_soon(self.cancel, link, message)
                    return
                link.send(self.outcomes.cancelled(message.seq))

    def interrupt(self, run: RunningCall) -> None:
        if run.gate is not None:
            run.gate.cancel()
        # A method of a sync actor is not interrupted: it can look at is_canceled().
        if run.actor is None and run is self._current:
            self._interrupting = run
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)

    def stop_instance(self, instance: Instance) -> None:
        self.runtime.leave()

    # ---- the user's thread

    def _do(self, link: Link, work: Work) -> None:
        if link.closed:
            return
        if isinstance(work, TaskCall):
            self._task(link, work)
        elif isinstance(work, ActorCall):
            self._call(link, work)
        elif isinstance(work, StartActor):
            self._start(link, work)
        elif self._instance is not None:
            for pool in self._pools.values():
                pool.shutdown()
            self.instances.clear()
            self._instance = None
            self.runtime.leave()

    def _answer(self, run: RunningCall, outcome: AnyMessage) -> None:
        link = run.link
        link.serving.pop(run.seq, None)
        if link.closed:
            return
        link.push(outcome)
        if self._work:
            # More to do here: the runtime loop writes this and what follows soon.
            link.post_flush()
        else:
            link.flush()

    def _task(self, link: Link, call: TaskCall) -> None:
        run = RunningCall(link, call.seq, call.name, None, call.lease)
        link.serving[call.seq] = run
        self.describe(call.name)
        self.runtime.lease_is(call.lease, None)
        self._guarded(run, call, partial(self.function, call.function))

    def _guarded(self, run: RunningCall, call: TaskCall | ActorCall, find: Callable[[], Any]) -> None:
        """Run one call to its outcome, whatever happens."""
        owners: list[bytes] = []
        token = running_call.set(run)
        main = threading.current_thread() is threading.main_thread()
        try:
            try:
                if main:
                    self._current = run
                run.started = True
                if run.cancelled:
                    raise KeyboardInterrupt
                arguments = self._fetch(call, owners)
                outcome = self._outcome(run, call, find(), *arguments)
            finally:
                if main:
                    self._current = None
        except KeyboardInterrupt as error:
            outcome = self.outcomes.cancelled(run.seq) if run.cancelled else self.outcomes.failure(run, error)
        except ActorExit:
            outcome = self.outcomes.no_actor(run.seq)
            self._exit(run)
        except BaseException as error:
            outcome = self.outcomes.failure(run, error)
        finally:
            running_call.reset(token)
        if owners and (foreign := self.foreign(run.link, owners)):
            self.runtime.call_sync(self.runtime.objects.confirm(foreign))
        self._answer(run, outcome)

    def _fetch(self, call: TaskCall | ActorCall | StartActor, owners: list[bytes]) -> tuple[Any, Any]:
        with self.noting_borrows(owners):
            if call.slots is None:
                args, kwargs = self.plain_arguments(call) or ((), None)
                return args, kwargs or {}
            segments = self.segment_entries(call)
            for entry in segments:
                self.runtime.call_sync(self.runtime.segments.map(entry))
            return self.arguments(call, segments)

    def _outcome(
        self, run: RunningCall, call: TaskCall | ActorCall, function: Any, args: Any, kwargs: Any
    ) -> AnyMessage:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{run.name} returned a coroutine where only `def` code runs: declare it `async def`")
        if call.credits:
            return self._stream(run, result, call.credits)
        return self.outcomes.success(run, result, call.returns)

    def _stream(self, run: RunningCall, result: Any, credits: int) -> AnyMessage:
        if not hasattr(result, "__iter__"):
            raise TypeError(f"{run.name} should stream and returned {type(result).__name__}, which is no generator")
        gate = run.gate = Gate(credits)
        index = 0
        try:
            for value in result:
                gate.take()
                run.link.post(self.outcomes.item(run, index, value))
                index += 1
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return Outcome(run.seq, STREAM_END, count=index)

    # ---- actors

    def _start(self, link: Link, start: StartActor) -> None:
        run = RunningCall(link, start.seq, "__init__", None, start.lease)
        token = running_call.set(run)
        try:
            cls = self.function(start.cls)
            instance = Instance(link, start, actor_title(cls, start), True)
            instance.cls = cls
            instance.make_handle = partial(self.runtime.handle_of, instance)
            run.actor = instance
            run.name = f"{cls.__name__}.__init__"
            self.runtime.only_actor = instance
            self.runtime.lease_is(start.lease, start.resources)
            self.describe(instance.title)
            self._current = run
            args, kwargs = self._fetch(start, [])
            instance.target = cls(*args, **kwargs)
        except BaseException as error:
            self._current = None
            link.push(self.outcomes.failure(run, error))
            link.flush()
            return
        finally:
            self._current = None
            running_call.reset(token)
        instance.ready = True
        self._instance = instance
        self.instances[start.actor] = instance
        threads = start.concurrency
        if threads > 1 or start.groups:
            self._pools[""] = ThreadPoolExecutor(threads, thread_name_prefix="actorrt-method")
            for group, limit in (start.groups or {}).items():
                self._pools[group] = ThreadPoolExecutor(limit, thread_name_prefix=f"actorrt-{group}")
        link.push(Reply(start.seq, codec.serialize(None).data))
        link.flush()

    def _call(self, link: Link, call: ActorCall) -> None:
        instance = self._instance
        if instance is None or instance.actor != call.actor:
            link.push(self.outcomes.no_actor(call.seq))
            link.flush()
            return
        run = RunningCall(link, call.seq, call.method, instance)
        link.serving[call.seq] = run
        find = partial(self._method, instance, call.method)
        if not self._pools:
            self._guarded(run, call, find)
            return
        try:
            limiter = instance.limiter_of(call.method, call.group)
        except ValueError as error:
            self._answer(run, self.outcomes.failure(run, error))
            return
        group = next((name for name, known in (instance.groups or {}).items() if known is limiter), "")
        self._pools[group].submit(contextvars.copy_context().run, self._guarded, run, call, find)

    def _method(self, instance: Instance, name: str) -> Any:
        if name in BUILT_IN_METHODS:
            return partial(BUILT_IN_METHODS[name], instance)
        method = getattr(instance.target, name, None)
        if method is None:
            raise unknown_method(instance, name)
        return method

    def _exit(self, run: RunningCall) -> None:
        instance: Instance = run.actor
        self.ended(instance, "it left by exit_actor")
        self._instance = None
        self.instances.clear()
        self.runtime.run_soon(self.runtime.leave)
