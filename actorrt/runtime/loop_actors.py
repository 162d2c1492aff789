"""The actors of one event loop: made, called in turn, and ended. How a call runs is in loop_executor.py."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, Reply, StartActor, StopActor

from .actor_methods import actor_title
from .context import RunningCall, running_call
from .executor import ActorExit
from .instance import Instance, Limiter
from .link import Link

if TYPE_CHECKING:
    from .loop_executor import LoopExecutor

Begin = Callable[[Link, ActorCall, Instance, Limiter], None]


class LoopActors:
    """The actors of a LoopExecutor. Everything runs on the user's loop; `begin` starts a call."""

    def __init__(self, executor: LoopExecutor, begin: Begin) -> None:
        self._executor = executor
        self._begin = begin
        # The constructor that runs right now.
        self.constructing: RunningCall | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._executor.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- making one

    def start(self, link: Link, start: StartActor) -> None:
        """Make the actor; its reply is the outcome of its constructor. Calls may come before."""
        executor = self._executor
        runtime = executor.runtime
        try:
            cls = executor.function(start.cls)
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
            runtime.only_actor = instance
            executor.describe(title)
            executor.lease = start.lease
            runtime.lease_is(start.lease, start.resources)
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
            with executor.noting_borrows(owners := list[bytes]()):
                arguments = executor.arguments(start, segments)
        except BaseException as error:
            self._failed(run.link, start, instance, error)
            return
        self._construct(run, start, instance, (arguments, owners))

    def _construct(
        self, run: RunningCall, start: StartActor, instance: Instance, ready: tuple[tuple[Any, Any], list[bytes]] | None
    ) -> None:
        if instance.failed:
            return
        executor = self._executor
        token = running_call.set(run)
        self.constructing = run
        try:
            if ready is None:
                with executor.noting_borrows(owners := list[bytes]()):
                    args, kwargs = executor.plain_arguments(start) or ((), None)
            else:
                (args, kwargs), owners = ready
            instance.target = instance.cls(*args, **kwargs) if kwargs else instance.cls(*args)
        except BaseException as error:
            self._failed(run.link, start, instance, error)
            return
        finally:
            if start.process:
                executor.excuse()
            self.constructing = None
            running_call.reset(token)
        instance.ready = True
        if owners and (foreign := executor.foreign(run.link, owners)):
            self._spawn(self._reply_after(foreign, run.link, start.seq))
        else:
            executor.reply(run.link, Reply(start.seq, _NONE))
        for limiter in instance.limiters():
            self.next(instance, limiter)

    async def _reply_after(self, owners: set[bytes], link: Link, seq: int) -> None:
        runtime = self._executor.runtime
        await runtime.call_async(runtime.objects.confirm(owners))
        if not link.closed:
            self._executor.reply(link, Reply(seq, _NONE))

    def _failed(self, link: Link, start: StartActor, instance: Instance, error: BaseException) -> None:
        executor = self._executor
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
        instance.target = None
        for task in instance.tasks or ():
            executor.loop.call_soon(task.cancel)
        # Another life of the same actor may have begun here.
        if executor.instances.get(instance.actor) is instance:
            del executor.instances[instance.actor]
        if instance.process:
            executor.runtime.leave_when_unneeded()


_NONE = codec.serialize(None).data
