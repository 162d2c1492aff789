"""An actor with only `def` methods, in a process of its own: one call at a time, or in threads of its own."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorrt.types import ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, Reply, StartActor

from ..links.link import Link
from ..links.running import RunningCall, running_call
from .actor_methods import actor_title, find_method
from .executor import ActorExit
from .instance import Instance
from .own_class import give_its_name

# How long the calls of a constructor that fails may take before its process is ended.
LAST_CALLS_S: Final = 5.0

if TYPE_CHECKING:
    from .sync_executor import SyncExecutor


class SyncActor:
    """The actor of a SyncExecutor. Everything runs in the main thread, unless it says otherwise."""

    def __init__(self, executor: SyncExecutor) -> None:
        self._executor = executor
        self._instance: Instance | None = None
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def has(self, call: ActorCall) -> bool:
        return self._instance is not None and self._instance.actor == call.actor

    def running(self, link: Link, call: ActorCall) -> RunningCall:
        """The record of a call that is taken up now. It has started, unless it has to wait for a thread."""
        run = RunningCall(link, call.seq, call.name or call.method, self._instance, self._executor.lease)
        run.started = not self._pools
        return run

    def start(self, link: Link, start: StartActor) -> None:
        """Make the user's object, and say how that went."""
        executor = self._executor
        runtime = executor.runtime
        run = RunningCall(link, start.seq, "__init__", None, start.lease)
        token = running_call.set(run)
        try:
            cls = executor.function(start.cls)
            give_its_name(cls)
            instance = Instance(link, start, actor_title(cls, start), True)
            instance.cls = cls
            run.actor = instance
            run.name = f"{cls.__name__}.__init__"
            runtime.tenancy.begin(instance, start.resources)
            executor.describe(instance.title)
            owners: list[ProcessId] = []
            args, kwargs = executor.fetch(start, owners)
            instance.target = cls(*args, **kwargs)
            if foreign := executor.foreign(link, owners):
                # Before the reply: it lets the caller drop what the constructor may have kept.
                runtime.thread.call_sync(runtime.objects.confirm(foreign))
        except BaseException as error:
            self._not_made(run, error)
            return
        finally:
            running_call.reset(token)
        instance.ready = True
        self._instance = instance
        executor.lease = start.lease
        executor.instances[start.actor] = instance
        if start.concurrency > 1 or start.groups:
            self._pools[""] = ThreadPoolExecutor(start.concurrency, thread_name_prefix="actorrt-method")
            for group, limit in (start.groups or {}).items():
                self._pools[group] = ThreadPoolExecutor(limit, thread_name_prefix=f"actorrt-{group}")
        link.push(Reply(start.seq, codec.serialize(None).data))
        link.flush()

    def _not_made(self, run: RunningCall, error: BaseException) -> None:
        executor = self._executor
        if run.actor is not None and isinstance(error, ActorExit | SystemExit):
            executor.runtime.tenancy.note_last(run.living_children())
            executor.exits(run.actor, error)
            return
        outcome = executor.outcomes.failure(run, error)
        # Before it is known: then this process is ended, and what it has called would be cancelled.
        executor.runtime.thread.call_sync(executor.runtime.until_done(run.living_children(), LAST_CALLS_S))
        run.link.push(outcome)
        run.link.flush()

    def call(self, run: RunningCall, call: ActorCall) -> None:
        """Run a call here, or hand it to a thread."""
        instance = self._instance
        assert instance is not None
        find = partial(find_method, instance, call.method)
        if not self._pools:
            self._executor.guarded(run, call, find)
            return
        try:
            limiter = instance.limiter_of(call.method, call.group)
        except ValueError as error:
            if self._executor.claim(run):
                self._executor.answer(run, self._executor.outcomes.failure(run, error))
            return
        group = next((name for name, known in (instance.groups or {}).items() if known is limiter), "")
        self._pools[group].submit(contextvars.copy_context().run, self._in_thread, run, call, find)

    def _in_thread(self, run: RunningCall, call: ActorCall, find: Any) -> None:
        if self._executor.claim(run):
            self._executor.guarded(run, call, find)

    def stop(self) -> None:
        """End it after the calls that it has."""
        for pool in self._pools.values():
            pool.shutdown()
        self.gone()
        self._executor.runtime.program.retire(False)

    def gone(self) -> None:
        """Calls that come now find no actor; from any thread."""
        self._executor.instances.clear()
        self._instance = None
