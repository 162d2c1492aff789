"""Run user code on an event loop in the worker's main thread: coroutine actors, async tasks, async process actors.

Calls come from the runtime loop in batches with one wake-up each; replies leave together at the end of a turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import uvloop

from actorrt.wire import codec
from actorrt.wire.messages import (
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
from .definitions import CALL, READY, TERMINATE, method_specs
from .eager import EagerRunner
from .executor import ActorExit, Executor, unknown_method
from .instance import Instance, Limiter
from .link import Link
from .outcomes import serialize_result

if TYPE_CHECKING:
    from .runtime import Runtime

Work = ActorCall | TaskCall | StartActor | StopActor
THREADS: Final = 32


class Gate:
    """A stream's credits on the user's loop; `add` may come from the runtime loop."""

    __slots__ = ("_event", "_loop", "left")

    def __init__(self, loop: asyncio.AbstractEventLoop, credits: int) -> None:
        self._loop = loop
        self.left = credits
        self._event: asyncio.Event | None = None

    def add(self, n: int) -> None:
        self._loop.call_soon_threadsafe(self._add, n)

    def _add(self, n: int) -> None:
        if n == UNLIMITED or self.left == UNLIMITED:
            self.left = UNLIMITED
        else:
            self.left += n
        if self._event is not None:
            self._event.set()

    async def take(self) -> None:
        """One credit; waits while there is none."""
        while self.left == 0:
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        if self.left != UNLIMITED:
            self.left -= 1


class LoopExecutor(Executor):
    """User code as coroutines. `run` is the worker's main thread."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(runtime)
        self.loop: asyncio.AbstractEventLoop = loop or uvloop.new_event_loop()
        self._inbox: deque[tuple[Link, list[Work]]] = deque()
        self._woken = False
        self._handing_over = False
        self._dirty: set[Link] = set()
        self._flush_due = False
        self._eager = EagerRunner(self.loop, self._suspended, self.flush)
        self._threads: ThreadPoolExecutor | None = None
        self._constructing: RunningCall | None = None
        self.thread: threading.Thread = threading.main_thread()
        runtime.on_blocked = self._blocked
        runtime.user_loop_is_here = self._is_here

    def run(self) -> None:
        """Run the user's loop until the worker ends."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    @property
    def busy(self) -> bool:
        """True while calls run here; from any thread."""
        return self._constructing is not None or any(link.serving for link in self.runtime.peers.links.values())

    @property
    def running(self) -> RunningCall | None:
        """The call whose step runs right now, if it is one; from any thread."""
        if self._constructing is not None:
            return self._constructing
        if self._eager.now is not None:
            return self._eager.now
        task = asyncio.current_task(self.loop)
        if task is not None:
            for link in list(self.runtime.peers.links.values()):
                for run in list(link.serving.values()):
                    if run.task is task:
                        return run
        return None

    def flush_from_outside(self) -> None:
        """Send the replies that are ready while the user's loop is stuck; from the runtime loop."""
        for link in list(self.runtime.peers.links.values()):
            link.flush()

    def _is_here(self) -> bool:
        return threading.current_thread() is self.thread

    def _blocked(self, blocked: bool) -> None:
        run = running_call.get()
        if run is not None:
            self.block(run.lease or self.lease, blocked)

    # ---- handing over

    def enqueue(self, link: Link, work: list[Work]) -> None:
        self._inbox.append((link, work))
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Take one frame's work; the rest comes in turns of its own, so that what runs already has its turns between."""
        self._woken = False
        inbox = self._inbox
        if not inbox:
            return
        link, work = inbox.popleft()
        self._handing_over = True
        try:
            for message in work:
                self._take_one(link, message)
            self._eager.run_queued()
        finally:
            self._handing_over = False
            if inbox and not self._woken:
                self._woken = True
                self.loop.call_soon(self._drain)

    def _take_one(self, link: Link, message: Work) -> None:
        if type(message) is ActorCall:
            self._call(link, message)
        elif isinstance(message, TaskCall):
            self._task(link, message)
        elif isinstance(message, StartActor):
            self._start(link, message)
        elif isinstance(message, StopActor):
            # After what came before it.
            self._eager.run_queued()
            self._stop(message)

    def reply(self, link: Link, message: AnyMessage) -> None:
        """Queue an outcome; all of this turn leave together."""
        link.push(message)
        self._dirty.add(link)
        # What a first step replies is flushed when the first steps are done.
        if not self._flush_due and self._eager.now is None:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flush_due = False
        dirty = self._dirty
        while dirty:
            dirty.pop().flush()

    # ---- actors

    def _start(self, link: Link, start: StartActor) -> None:
        process = start.process
        try:
            cls = self.function(start.cls)
        except BaseException as error:
            instance = Instance(link, start, f"actor {start.actor.hex()}", process)
            self._failed(link, start, instance, error)
            return
        title = actor_title(cls, start)
        instance = Instance(link, start, title, process)
        instance.cls = cls
        self.instances[start.actor] = instance
        if process:
            self.runtime.only_actor = instance
            self.describe(title)
            self.lease = start.lease
            self.runtime.lease_is(start.lease, start.resources)
        if start.slots is None:
            run = RunningCall(link, start.seq, f"{cls.__name__}.__init__", instance, start.lease)
            self._construct(run, start, instance)
        else:
            self.loop.create_task(self._construct_later(link, start, instance))

    async def _construct_later(self, link: Link, start: StartActor, instance: Instance) -> None:
        run = RunningCall(link, start.seq, f"{instance.cls.__name__}.__init__", instance, start.lease)
        try:
            segments = self.segment_entries(start)
            for entry in segments:
                await self.runtime.map_segment(entry)
            arguments = self.arguments(start, segments)
        except BaseException as error:
            self._failed(link, start, instance, error)
            return
        self._construct(run, start, instance, arguments)

    def _construct(
        self, run: RunningCall, start: StartActor, instance: Instance, arguments: tuple[Any, Any] | None = None
    ) -> None:
        token = running_call.set(run)
        self._constructing = run
        try:
            args, kwargs = arguments or self.plain_arguments(start) or ((), None)
            instance.target = instance.cls(*args, **kwargs) if kwargs else instance.cls(*args)
        except BaseException as error:
            self._failed(run.link, start, instance, error)
            return
        finally:
            self._constructing = None
            running_call.reset(token)
        instance.ready = True
        self.reply(run.link, Reply(start.seq, _NONE))
        self._resume(instance)

    def _failed(self, link: Link, start: StartActor, instance: Instance, error: BaseException) -> None:
        run = RunningCall(link, start.seq, f"{instance.title}.__init__", instance)
        instance.failed = True
        self.instances.pop(start.actor, None)
        self.reply(link, self.outcomes.failure(run, error))
        for waiting in self._waiting(instance):
            self.reply(waiting[0], self.outcomes.no_actor(waiting[1].seq))

    @staticmethod
    def _waiting(instance: Instance) -> list[tuple[Link, ActorCall]]:
        found: list[tuple[Link, ActorCall]] = []
        for limiter in (instance.limiter, *(instance.groups or {}).values()):
            if limiter.waiting:
                found += limiter.waiting
                limiter.waiting = None
        return found

    def _resume(self, instance: Instance) -> None:
        for limiter in (instance.limiter, *(instance.groups or {}).values()):
            self._next(instance, limiter)

    def _next(self, instance: Instance, limiter: Limiter) -> None:
        while limiter.waiting and limiter.running < limiter.limit:
            link, call = limiter.waiting.popleft()
            if not link.closed:
                self._begin(link, call, instance, limiter)
        if instance.stopping and instance.idle():
            self._drop(instance)

    def _stop(self, message: StopActor) -> None:
        instance = self.instances.get(message.actor)
        if instance is None:
            return
        if message.graceful and (not instance.ready or not instance.idle()):
            instance.stopping = True
        elif message.graceful:
            self._drop(instance)
        else:
            self._end(instance)

    def stop_instance(self, instance: Instance) -> None:
        self.loop.call_soon_threadsafe(self._end, instance)

    def _end(self, instance: Instance) -> None:
        """End it now: running calls are cancelled, waiting ones refused."""
        for waiting in self._waiting(instance):
            self.reply(waiting[0], self.outcomes.no_actor(waiting[1].seq))
        for run in list(instance.calls or ()):
            run.cancelled = True
            if run.task is not None:
                run.task.cancel()
        self._drop(instance)

    def _drop(self, instance: Instance) -> None:
        self.instances.pop(instance.actor, None)
        instance.failed = True
        instance.target = None
        if instance.process:
            self.runtime.leave()

    # ---- calls

    def _call(self, link: Link, call: ActorCall) -> None:
        instance = self.instances.get(call.actor)
        if instance is None:
            self.reply(link, self.outcomes.no_actor(call.seq))
            return
        try:
            limiter = instance.limiter_of(call.method, call.group)
        except ValueError as error:
            self.reply(link, self.outcomes.failure(RunningCall(link, call.seq, call.method, instance), error))
            return
        if not instance.ready or limiter.running >= limiter.limit:
            if limiter.waiting is None:
                limiter.waiting = deque()
            limiter.waiting.append((link, call))
            link.waiting[call.seq] = (limiter, call)
            return
        self._begin(link, call, instance, limiter)

    def _begin(self, link: Link, call: ActorCall, instance: Instance, limiter: Limiter) -> None:
        if link.waiting:
            link.waiting.pop(call.seq, None)
        limiter.running += 1
        run = RunningCall(link, call.seq, call.method, instance)
        start = self._eager.start if self._handing_over else self._eager.start_soon
        start(run, self._run_method(run, call, instance, limiter))

    def _suspended(self, run: RunningCall) -> None:
        """A call goes on later: from now on it can be found and cancelled."""
        run.link.serving[run.seq] = run
        instance: Instance | None = run.actor
        if instance is not None:
            if instance.calls is None:
                instance.calls = set()
            instance.calls.add(run)

    def _finished(self, run: RunningCall) -> None:
        if run.task is not None:
            run.link.serving.pop(run.seq, None)
            if run.actor is not None and run.actor.calls is not None:
                run.actor.calls.discard(run)

    async def _run_method(self, run: RunningCall, call: ActorCall, instance: Instance, limiter: Limiter) -> None:
        running_call.set(run)
        link = run.link
        owners: list[bytes] = []
        outcome: AnyMessage
        try:
            if instance.failed:
                raise ActorGone
            if call.slots is None:
                with self.noting_borrows(owners) if len(call.args) > _MAYBE_REFS else _NOTHING:
                    value = codec.deserialize(call.args)
                if type(value) is list:
                    args, kwargs = value
                else:
                    args, kwargs = value, _NO_KWARGS
            else:
                segments = self.segment_entries(call)
                for entry in segments:
                    await self.runtime.map_segment(entry)
                with self.noting_borrows(owners):
                    args, kwargs = self.arguments(call, segments)
            method = self._method(instance, call.method)
            if threaded(instance.cls, call.method):
                context = contextvars.copy_context()
                result = await self.loop.run_in_executor(self.threads, partial(context.run, method, *args, **kwargs))
            else:
                result = method(*args, **kwargs)
                if type(result) is CoroutineType or inspect.isawaitable(result):
                    result = await result
            if call.credits:
                outcome = await self._stream(run, result, call.credits)
            elif call.returns == 1 and (data := codec.dumps_atom(result)) is not None:
                outcome = Reply(call.seq, data)
            elif call.returns == 1 and self.outcomes.is_small(serialized := serialize_result(result, run.name)):
                outcome = Reply(call.seq, codec.pack(serialized))
            else:
                outcome = await self._large(run, result, call.returns)
        except asyncio.CancelledError as error:
            if run.cancelled:
                outcome = self.outcomes.cancelled(call.seq) if not instance.failed else self.outcomes.no_actor(call.seq)
            else:
                outcome = self.outcomes.failure(run, error)
        except ActorGone:
            outcome = self.outcomes.no_actor(call.seq)
        except ActorExit:
            self.ended(instance, "it left by exit_actor")
            outcome = self.outcomes.no_actor(call.seq)
            self.loop.call_soon(self._end, instance)
        except BaseException as error:
            outcome = self.outcomes.failure(run, error)
        if owners and (foreign := self.foreign(link, owners)):
            await self.runtime.call_async(self.runtime.objects.confirm(foreign))
        self._finished(run)
        if not link.closed:
            self.reply(link, outcome)
        limiter.running -= 1
        if limiter.waiting or instance.stopping:
            self._next(instance, limiter)

    @property
    def threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="actorrt-method")
        return self._threads

    def _method(self, instance: Instance, name: str) -> Any:
        if name.startswith("__") and name in BUILT_IN_METHODS:
            return partial(BUILT_IN_METHODS[name], instance)
        method = getattr(instance.target, name, None)
        if method is None:
            raise unknown_method(instance, name)
        return method

    async def _large(self, run: RunningCall, result: Any, returns: int) -> AnyMessage:
        """An outcome that may have to write segments: in a thread, so that the loop goes on."""
        return await self.loop.run_in_executor(self.threads, self.outcomes.success, run, result, returns)

    async def _stream(self, run: RunningCall, result: Any, credits: int) -> AnyMessage:
        """Send the items of a generator as they come, within the credits."""
        gate = run.gate = Gate(self.loop, credits)
        index = 0
        if hasattr(result, "__aiter__"):
            try:
                async for value in result:
                    await gate.take()
                    self.reply(run.link, self.outcomes.item(run, index, value))
                    index += 1
            finally:
                close = getattr(result, "aclose", None)
                if close is not None:
                    await close()
        elif hasattr(result, "__iter__"):
            try:
                for value in result:
                    await gate.take()
                    self.reply(run.link, self.outcomes.item(run, index, value))
                    index += 1
                    # Each item is a turn of its own: others run in between, and a cancellation arrives.
                    await asyncio.sleep(0)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        else:
            raise TypeError(f"{run.name} should stream and returned {type(result).__name__}, which is no generator")
        return Outcome(run.seq, STREAM_END, count=index)

    # ---- tasks

    def _task(self, link: Link, call: TaskCall) -> None:
        run = RunningCall(link, call.seq, call.name, None, call.lease)
        if call.lease:
            self.describe(call.name)
        self._eager.start(run, self._run_task(run, call))

    async def _run_task(self, run: RunningCall, call: TaskCall) -> None:
        running_call.set(run)
        link = run.link
        owners: list[bytes] = []
        try:
            segments = self.segment_entries(call)
            for entry in segments:
                await self.runtime.map_segment(entry)
            with self.noting_borrows(owners):
                args, kwargs = self.arguments(call, segments)
            result = self.function(call.function)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if call.credits:
                outcome = await self._stream(run, result, call.credits)
            elif call.returns == 1 and self.outcomes.is_small(serialized := serialize_result(result, run.name)):
                outcome = Reply(call.seq, codec.pack(serialized))
            else:
                outcome = await self._large(run, result, call.returns)
        except asyncio.CancelledError as error:
            outcome = self.outcomes.cancelled(call.seq) if run.cancelled else self.outcomes.failure(run, error)
        except BaseException as error:
            outcome = self.outcomes.failure(run, error)
        if owners and (foreign := self.foreign(link, owners)):
            await self.runtime.call_async(self.runtime.objects.confirm(foreign))
        self._finished(run)
        if not link.closed:
            self.reply(link, outcome)

    # ---- cancelling

    def cancel(self, link: Link, message: Any) -> None:
        # The call may lie in the inbox still: what was handed over before goes first.
        self.loop.call_soon_threadsafe(self._cancel_here, link, message)

    def _cancel_here(self, link: Link, message: Any) -> None:
        waiting = link.waiting.pop(message.seq, None)
        if waiting is not None:
            limiter, call = waiting
            if limiter.waiting and (link, call) in limiter.waiting:
                limiter.waiting.remove((link, call))
            self.reply(link, self.outcomes.cancelled(message.seq))
            return
        self.runtime.run_soon(partial(Executor.cancel, self, link, message))

    def interrupt(self, run: RunningCall) -> None:
        if run.task is not None:
            self.loop.call_soon_threadsafe(run.task.cancel)


class RuntimeLoopExecutor(LoopExecutor):
    """Runs an actor's coroutines on the runtime's own loop: no hop between threads, and nobody to rescue a blocked loop."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, runtime.loop)
        self.thread = runtime.thread
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()

    def enqueue(self, link: Link, work: list[Work]) -> None:
        # A frame is being received, outside of any task: its calls can run their first steps at once.
        self._inbox.append((link, work))
        if not self._woken:
            self._drain()


_NO_KWARGS: Final[dict[str, Any]] = {}
_NONE: Final = codec.serialize(None).data
# Pickled arguments shorter than this cannot hold a ref.
_MAYBE_REFS: Final = 40


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


_NOTHING: Final = _Nothing()


def _call_with(instance: Instance, function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(instance.target, *args, **kwargs)


def _ready(_: Instance) -> bool:
    return True


def _terminate(_: Instance) -> None:
    raise ActorExit


BUILT_IN_METHODS: Final = {CALL: _call_with, READY: _ready, TERMINATE: _terminate}


class ActorGone(Exception):
    """The actor ended between the arrival of a call and its start."""


@lru_cache(maxsize=1024)
def _threaded_methods(cls: type) -> frozenset[str]:
    return frozenset(name for name, spec in method_specs(cls).items() if spec.thread)


def threaded(cls: type, method: str) -> bool:
    """True for a method that is marked to run in a thread."""
    return method in _threaded_methods(cls)


def actor_title(cls: Any, start: StartActor) -> str:
    name = getattr(cls, "__name__", "actor")
    return f"{name}({start.name})" if start.name else name
