"""The actors of one event loop: made, called in turn, and ended. How a call runs is in loop_executor.py."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from actorrt.types import ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, Reply, StartActor, StopActor

from ..links.link import Link
from ..links.running import Child, RunningCall, running_call
from ..machine.process import exit_code
from .actor_methods import actor_title
from .executor import ActorExit, exit_cause
from .instance import Instance, Limiter
from .own_class import await_del, give_its_name, has_async_constructor

if TYPE_CHECKING:
    from .loop_executor import LoopExecutor

# How long the calls of a constructor that fails may take before its process is ended.
LAST_CALLS_S: Final = 5.0

Begin = Callable[[Link, ActorCall, Instance, Limiter], None]


class LoopActors:
    """The actors of a LoopExecutor. Everything runs on the user's loop; `begin` starts a call."""

    def __init__(self, executor: LoopExecutor, begin: Begin) -> None:
        self._executor = executor
        self._begin = begin
        # The constructor that runs right now.
        self.constructing: RunningCall | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        Instance.on_exit = self.exits

    def _finalize(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """An object of an actor's class goes; from any thread."""
        if threading.current_thread() is not self._executor.thread:
            self._executor.loop.call_soon_threadsafe(self._spawn, work, Context())
            return None
        # In an empty context: it is no task of the actor, which would end with it.
        return self._spawn(work, Context())

    async def finalized(self, timeout_s: float) -> None:
        """What has gone is finalized, or the time is up."""
        await asyncio.sleep(0)  # what other threads have handed over
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        task = self._executor.loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- making one

    def start(self, link: Link, start: StartActor) -> None:
        """Make the actor; its reply is the outcome of its constructor. Calls may come before."""
        executor = self._executor
        runtime = executor.runtime
        try:
            cls = executor.function(start.cls)
            give_its_name(cls)
            await_del(cls, self._finalize)
        except BaseException as error:
            self._failed(link, start, Instance(link, start, f"actor {start.actor.hex()}", start.process), error)
            return
        title = actor_title(cls, start)
        instance = Instance(link, start, title, start.process)
        instance.cls = cls
        executor.instances[start.actor] = instance
        if link.closed:
            # Its owner is gone; whoever looked for that owner's actors may have been here before.
            self.end(instance)
            return
        if start.process:
            executor.describe(title)
            executor.lease = start.lease
            runtime.tenancy.begin(instance, start.resources)
        run = RunningCall(link, start.seq, f"{cls.__name__}.__init__", instance, start.lease)
        if start.slots is None:
            self._construct(run, start, instance, None)
        else:
            self._spawn(self._construct_later(run, start, instance))

    async def _construct_later(self, run: RunningCall, start: StartActor, instance: Instance) -> None:
        executor = self._executor
        try:
            segments = executor.segment_entries(start)
            for entry in segments:
                await executor.runtime.map_segment(entry)
            with executor.noting_borrows(owners := list[ProcessId]()):
                arguments = executor.arguments(start, segments)
        except BaseException as error:
            self._failed(run.link, start, instance, error)
            return
        self._construct(run, start, instance, (arguments, owners))

    def _construct(
        self,
        run: RunningCall,
        start: StartActor,
        instance: Instance,
        ready: tuple[tuple[Any, Any], list[ProcessId]] | None,
    ) -> None:
        if instance.failed:
            return
        executor = self._executor
        token = running_call.set(run)
        self.constructing = run
        try:
            if ready is None:
                with executor.noting_borrows(owners := list[ProcessId]()):
                    args, kwargs = executor.plain_arguments(start) or ((), None)
            else:
                (args, kwargs), owners = ready
            if waits := has_async_constructor(instance.cls):
                made = instance.cls.__new__(instance.cls, *args, **(kwargs or {}))
                self._spawn_constructor(run, start, instance, made, made.__init__(*args, **(kwargs or {})), owners)
            else:
                instance.target = instance.cls(*args, **kwargs) if kwargs else instance.cls(*args)
        except BaseException as error:
            self._not_made(run, start, instance, error)
            return
        finally:
            if start.process:
                executor.excuse()
            self.constructing = None
            running_call.reset(token)
        if not waits:
            self._constructed(run, start, instance, owners)

    def _spawn_constructor(
        self,
        run: RunningCall,
        start: StartActor,
        instance: Instance,
        made: Any,
        constructor: Coroutine[Any, Any, None],
        owners: list[ProcessId],
    ) -> None:
        run.task = self._executor.loop.create_task(constructor)
        run.link.serving[run.seq] = run

        def ended(task: asyncio.Task[None]) -> None:
            run.link.serving.pop(run.seq, None)
            if instance.failed:
                return
            if task.cancelled():
                self._not_made(run, start, instance, asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                self._not_made(run, start, instance, error)
            else:
                instance.target = made
                self._constructed(run, start, instance, owners)

        run.task.add_done_callback(ended)

    def _constructed(self, run: RunningCall, start: StartActor, instance: Instance, owners: list[ProcessId]) -> None:
        executor = self._executor
        instance.ready = True
        if owners and (foreign := executor.foreign(run.link, owners)):
            self._spawn(self._reply_after(foreign, run.link, start.seq))
        else:
            executor.reply(run.link, Reply(start.seq, _NONE))
        for limiter in instance.limiters():
            self.next(instance, limiter)

    async def _reply_after(self, owners: set[ProcessId], link: Link, seq: int) -> None:
        runtime = self._executor.runtime
        await runtime.thread.call_async(runtime.objects.confirm(owners))
        if not link.closed:
            self._executor.reply(link, Reply(seq, _NONE))

    def _not_made(self, run: RunningCall, start: StartActor, instance: Instance, error: BaseException) -> None:
        calls = run.living_children() if instance.process else []
        if isinstance(error, ActorExit | SystemExit):
            self._executor.runtime.tenancy.note_last(calls)
        if calls:
            # The process is ended as soon as it is known, and what it has called would be cancelled.
            self._spawn(self._fail_after(calls, run.link, start, instance, error))
        else:
            self._failed(run.link, start, instance, error)

    async def _fail_after(
        self, calls: list[Child], link: Link, start: StartActor, instance: Instance, error: BaseException
    ) -> None:
        runtime = self._executor.runtime
        await runtime.thread.call_async(runtime.until_done(calls, LAST_CALLS_S))
        self._failed(link, start, instance, error)

    def _failed(self, link: Link, start: StartActor, instance: Instance, error: BaseException) -> None:
        executor = self._executor
        if isinstance(error, ActorExit | SystemExit):
            self.exits(instance, error)
            return
        run = RunningCall(link, start.seq, f"{instance.title}.__init__", instance)
        instance.failed = True
        executor.instances.pop(start.actor, None)
        executor.reply(link, executor.outcomes.failure(run, error))
        self._refuse_waiting(instance)

    # ---- calls in turn

    def wait(self, link: Link, call: ActorCall, limiter: Limiter) -> None:
        """Have a call wait for its turn."""
        if limiter.waiting is None:
            limiter.waiting = deque()
        limiter.waiting.append((link, call))
        link.waiting[call.seq] = (limiter, call)

    def next(self, instance: Instance, limiter: Limiter) -> None:
        """A call has ended, or the actor was made: start what may start now."""
        while limiter.waiting and limiter.running < limiter.limit:
            link, call = limiter.waiting.popleft()
            if not link.closed:
                self._begin(link, call, instance, limiter)
        if instance.stopping:
            leaving = instance.leaving
            if leaving is not None:
                if not leaving.done() and instance.under_way() == 1:
                    leaving.set_result(None)
            elif instance.ready and not instance.under_way():
                self._drop(instance)

    # ---- ending one

    def stop(self, message: StopActor) -> None:
        instance = self._executor.instances.get(message.actor)
        if instance is None:
            return
        if not message.graceful:
            self.end(instance)
        elif instance.ready and not instance.under_way():
            self._drop(instance)
        else:
            instance.stopping = True

    async def leave(self, instance: Instance) -> None:
        """End it once the calls that it had before are done. Runs as a call of it."""
        instance.stopping = True
        if instance.under_way() > 1:
            if instance.leaving is None:
                instance.leaving = self._executor.loop.create_future()
            await asyncio.shield(instance.leaving)
        raise ActorExit

    def exits(self, instance: Instance, error: ActorExit | SystemExit) -> None:
        """Its own code ends it: by exit_actor, or by sys.exit as it would end a program."""
        if instance.failed:
            return
        runtime = self._executor.runtime
        code = exit_code(error) if isinstance(error, SystemExit) else 0
        if instance.process:
            runtime.tenancy.exit_with(code)
        if not (code and instance.process):
            # Otherwise its process is lost with that code, which its owner learns, and may start it again.
            self._executor.ended(instance, exit_cause(error))
        self._executor.loop.call_soon(self.end, instance)

    def exit_by_callback(self, error: SystemExit) -> None:
        """End the actor that has this process to itself."""
        for instance in list(self._executor.instances.values()):
            if instance.process:
                self.exits(instance, error)

    def end(self, instance: Instance) -> None:
        """End it now: running calls are cancelled, waiting ones refused."""
        if instance.failed:
            return
        self._refuse_waiting(instance)
        for run in list(instance.calls or ()):
            run.cancelled = True
            if run.task is not None:
                # Not at once: a task that is cancelled before its first step would never run its coroutine.
                self._executor.loop.call_soon(run.task.cancel)
        self._drop(instance)

    def _refuse_waiting(self, instance: Instance) -> None:
        executor = self._executor
        for limiter in instance.limiters():
            while limiter.waiting:
                link, call = limiter.waiting.popleft()
                link.waiting.pop(call.seq, None)
                if not link.closed:
                    executor.reply(link, executor.outcomes.no_actor(call.seq))

    def _drop(self, instance: Instance) -> None:
        executor = self._executor
        instance.failed = True
        if instance.process:
            executor.runtime.note_last_calls()
        instance.target = None
        for task in instance.tasks or ():
            executor.loop.call_soon(task.cancel)
        # Another life of the same actor may have begun here.
        if executor.instances.get(instance.actor) is instance:
            del executor.instances[instance.actor]
        if instance.process:
            if executor.runtime.tenancy.exit_code:
                executor.runtime.program.leave()
            else:
                executor.runtime.program.retire(False)


_NONE = codec.serialize(None).data
