"""`init(local_mode=True)`: everything in this process, on one loop. docs/local-mode.md lists what differs.

So a breakpoint, a profiler and a plain traceback work. A `def` task or method runs where `.remote()` is called, if its
arguments are there. Coroutines run on the caller's loop; where none runs, on one of the session's own, which turns
while `get` or `wait` waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import partial
from random import random
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import structs

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.actor_calls import traits_of
from actorrt.core.call_terms import CallTerms, Limit, RetryOn
from actorrt.core.calls import Action, Event
from actorrt.core.cancellation import Action as Cancelling
from actorrt.core.cancellation import reach_of
from actorrt.core.object_state import RAISED
from actorrt.core.outcome import ActorExit, ActorGone, End, Errors, end_of_leaver, end_of_unbegun, left_by
from actorrt.types import NO_EMPLOYER, NO_FUNCTION, PROCESS_ID_SIZE, ProcessId, actor_key
from actorrt.version import __version__
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import UNLIMITED, ActorCall, Item, StartActor, TaskCall

from ..base.definitions import CALL, READY, TERMINATE
from ..links.link import Link
from ..links.running import RunningCall, running_call
from ..node.node_launch import resources_of
from ..owner import references
from ..owner.actor_client import ActorClient
from ..owner.actors import Actors
from ..owner.call_clock import CallClock
from ..owner.call_maker import CallMaker, adopt, result_of, returns_and_window
from ..owner.calls import Call, Nowhere, arguments_of, error_bytes, fill_slots, unpack_arguments
from ..owner.entries import Entry, Gate
from ..owner.membership import Membership
from ..owner.outcomes import users_part
from ..owner.runtime import Runtime
from ..owner.yielded import GENERATORS, BehindValues, Yielded
from ..worker.exiting import exit_cause
from ..worker.own_class import method_of
from .local_actors import LocalActors, LocalInstance, LocalNode
from .local_thread import STEP_S, LocalThread, on_a_loop

if TYPE_CHECKING:
    from actorrt.core.options import ActorOptions, InitOptions, MethodOptions, TaskOptions

    from ..base.definitions import ActorClassDef, RemoteFunctionDef
    from ..links.pipes import PipeReceiver

# A SystemExit is this program's own here.
_ERRORS: Final = Errors((asyncio.CancelledError,), (ActorExit,))
# Every value travels "inline": there is nobody to share memory with.
_NO_LIMIT: Final = 2**62


class _NoLink:
    """Stands for the link that a call came over."""

    closed = False

    def __init__(self, peer: ProcessId) -> None:
        self.peer = peer


class _Callees(Nowhere):
    """Where a call of an actor begins."""

    def __init__(self, begin: Callable[[ActorClient, Call], None]) -> None:
        self._begin = begin

    def call(self, client: ActorClient, call: Call) -> None:
        self._begin(client, call)


class _LocalClock(CallClock):
    """Has its timers on the loop that runs the calls."""

    def __init__(self, local: LocalThread, late: Callable[[Call, Limit], None]) -> None:
        super().__init__(local, late)
        self._local = local

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._local.loop_here()


class LocalRuntime(Runtime):
    """A runtime without processes, links or a thread."""

    def __init__(self, settings: Settings, options: InitOptions) -> None:
        self._local = LocalThread()
        settings = structs.replace(settings, inline_limit=_NO_LIMIT)
        super().__init__(ProcessId(os.urandom(PROCESS_ID_SIZE)), "local", "", __version__, settings, thread=self._local)
        self.call_clock = _LocalClock(self._local, self._late)
        callees = _Callees(self._call)
        self.calls = CallMaker(self, self.objects, callees, self.tasks, self.shared_tasks, self.call_clock)
        self.submit_task = self._submit_task
        self.submit_method = self._submit_method
        self.create_actor = self._create_actor
        self._local_actors = LocalActors(self)
        self._instances = self._local_actors.instances
        self.actors = cast(Actors, self._local_actors)
        node = cast(Link, LocalNode(self.process, self._local_actors, resources_of(options)))
        namespace = options.namespace or settings.namespace or "local"
        self.join(Membership(node, self.process, 1, 0, NO_EMPLOYER, namespace))
        self._here = cast(Link, _NoLink(self.process))
        self._running: dict[Call, asyncio.Task[None]] = {}
        # The calls that run, so that a cancellation reaches their children.
        self._runs: dict[Call, RunningCall] = {}

    # ---- instead of a thread

    def flush(self) -> None:
        self._local.pump()

    def stop(self, timeout: float = 10.0) -> None:
        self._local.begin_closing()
        for instance in self._instances.values():
            instance.end("the session ended")
        tasks = [task for task in self._running.values() if not task.done() and not task.get_loop().is_closed()]
        for task in tasks:
            task.cancel()
        self._local.finish(tasks)
        for call in list(self._running):
            call.cancelled()
        self._local.close()

    # ---- waiting

    def wait_blocked(self, gate: Gate, timeout: float | None, what: str, entries: Sequence[Entry] = ()) -> None:
        """Turn the session's loop until the gate opens."""
        self._local.turn(partial(gate.wait, 0.0), timeout, what)

    # ---- tasks

    def _submit_task(
        self, function: RemoteFunctionDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        name = options.name or function.name
        arguments = arguments_of(self, name, args, kwargs)
        returns, window = returns_and_window(options)
        seq = self.objects.next_seqs(returns)
        message = TaskCall(seq, NO_FUNCTION, arguments.payload, arguments.slots, returns, window or 0)
        terms: RetryOn | CallTerms = options.retry_exceptions
        if options.limits is not None:
            terms = CallTerms(options.limits, terms, random)
        call = Call(self, message, None, name, options.max_retries, terms, arguments, returns, window)
        result = result_of(call, returns)
        adopt(call)
        self._begin(call, self._execute(call, None, lambda: function.code), function.is_async)
        if options.limits is not None:
            self.call_clock.watch(call, options.limits)
        return result

    def _begin(self, call: Call, work: Coroutine[Any, Any, None], is_async: bool) -> asyncio.Task[None] | None:
        """Run a call here and now where it cannot wait, else as a task."""
        pending = any(not entry.done for _, entry in call.waiting or ())
        if not is_async and not pending and call.stream is None:
            contextvars.copy_context().run(self.thread.call_sync, work)
            return None
        task = self._local.loop_here().create_task(work)
        self._running[call] = task
        task.add_done_callback(partial(self._ended_task, call))
        return task

    def _ended_task(self, call: Call, _: asyncio.Task[None]) -> None:
        self._running.pop(call, None)
        if not call.done:
            # It was cancelled before its first step.
            client = call.target if isinstance(call.target, ActorClient) else None
            self._end(call, end_of_unbegun(client is not None and client.dead is not None), client)

    @staticmethod
    def _end(call: Call, end: End, client: ActorClient | None) -> None:
        """End a call by what has become of it, or of its actor."""
        match end:
            case End.UNBEGUN | End.GONE if client is not None:
                call.fail(client.death(may_have_run=end is End.GONE))
            case _:
                call.cancelled()

    async def _execute(self, call: Call, instance: LocalInstance | None, find: Callable[[], Any]) -> None:
        run = RunningCall(self._here, call.message.seq, call.name, instance)
        running_call.set(run)
        self._runs[call] = run
        try:
            for _, entry in call.waiting or ():
                if not entry.done:
                    await references.until_local(entry)
            if call.done or not fill_slots(call):
                return
            while not call.done:
                await self._attempt(call, run, instance, find)
                if not call.done and call.pause_s and call in self._running:
                    # What runs within its caller's step cannot wait.
                    await asyncio.sleep(call.pause_s)
        except asyncio.CancelledError as error:
            end = _ERRORS.end_of(error, True, instance is not None and instance.dead is not None)
            self._end(call, end, None if instance is None else instance.client)
        finally:
            del self._runs[call]

    async def _attempt(
        self, call: Call, run: RunningCall, instance: LocalInstance | None, find: Callable[[], Any]
    ) -> None:
        try:
            if instance is not None and instance.dead is not None:
                raise ActorGone
            call.sent()
            args, kwargs = self._arguments(call)
            result = find()(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if call.wish:
                # Its code has caught the cancellation. What it returns all the same, nobody gets.
                raise asyncio.CancelledError
            if call.stream is not None:
                await self._stream(call, result)
            elif isinstance(result, GENERATORS):
                await self._take_yielded(call, result)
            else:
                self._settle(call, result)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            end = _ERRORS.end_of(error, False)
            if instance is not None and end is not End.FAILED:
                if end is End.LEAVES:
                    instance.end(exit_cause(left_by(error)))
                    end = end_of_leaver(0)
                self._end(call, end, instance.client)
                return
            behind = error.pickled if isinstance(error, BehindValues) else []
            if isinstance(error, BehindValues):
                error = error.error
            raised = error
            # What is no Exception is this program's own here: Ctrl-C, or its end.
            action = call.raised(lambda: raised) if isinstance(raised, Exception) else call.on(Event.FAILED)
            if action is Action.FAIL:
                self._settle_entries(call, behind)
                call.end_with(self._error(run, error))

    async def _take_yielded(self, call: Call, generator: Any) -> None:
        returns = getattr(call.message, "returns", 1)
        yielded = Yielded(call.name, returns)
        if isinstance(generator, AsyncGeneratorType):
            values = await yielded.take_all_async(cast("AsyncGenerator[Any, Any]", generator))
        else:
            values = yielded.take_all(generator)
        call.answered()
        self._settle_entries(call, values)

    @staticmethod
    def _settle_entries(call: Call, values: list[Serialized]) -> None:
        for entry, serialized in zip(call.all_entries(), values, strict=False):
            entry.present(codec.pack(serialized), serialized.refs or None)

    def _arguments(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = unpack_arguments(call.message.args)
        for place, value in call.message.slots or ():
            loaded = codec.deserialize(value.data)
            if isinstance(place, int):
                args[place] = loaded
            else:
                kwargs[place] = loaded
        return args, kwargs

    @staticmethod
    def _error(run: RunningCall, error: BaseException) -> BaseException:
        if isinstance(error, exceptions.TaskError):
            return error
        text = "".join(traceback.format_exception(type(error), error, users_part(error.__traceback__)))
        title = None if run.actor is None else run.actor.title
        return exceptions.TaskError(run.name, os.getpid(), title, text, error)

    def _settle(self, call: Call, result: Any) -> None:
        returns = getattr(call.message, "returns", 1)
        if returns == 0:
            call.succeed(codec.serialize(None).data)
            return
        values = [result] if returns == 1 else list(result)
        if len(values) != returns:
            raise ValueError(f"{call.name} has num_returns={returns} and returned {len(values)} values")
        packed = [codec.serialize(value) for value in values]
        call.answered()
        self._settle_entries(call, packed)

    async def _stream(self, call: Call, result: Any) -> None:
        stream = call.stream
        assert stream is not None
        items: Any
        if hasattr(result, "__aiter__"):
            items = aiter(result)
        elif hasattr(result, "__iter__"):
            items = _as_async(result)
        else:
            raise TypeError(f"{call.name} should stream and returned {type(result).__name__}, which is no generator")
        index = 0
        try:
            while True:
                # The consumer may be in code without a loop, so that nothing could wake this.
                while stream.window != UNLIMITED and len(stream.items) >= stream.window:  # noqa: ASYNC110
                    await asyncio.sleep(STEP_S)
                # Only now: the code between two values belongs to the later one.
                try:
                    value = await anext(items)
                except StopAsyncIteration:
                    break
                call.take_item(Item(call.message.seq, index, codec.pack(codec.serialize(value))))
                index += 1
                await asyncio.sleep(0)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        if call.wish:
            raise asyncio.CancelledError
        call.succeed(codec.serialize(None).data)

    # ---- actors

    def _create_actor(
        self, cls: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ActorClient:
        namespace = options.namespace or self.membership.namespace
        if options.name:
            taken = self._local_actors.named(options.name, namespace)
            if taken is not None and options.get_if_exists:
                return taken.client
            if taken is not None:
                raise exceptions.ActorAlreadyExistsError(options.name, namespace)
        seq = self.objects.next_seq()
        actor = actor_key(self.process, seq)
        concurrency = options.concurrency(cls.has_async)
        ordered = not cls.has_async and concurrency == 1
        traits = traits_of(ordered, concurrency, options.max_task_retries, options.max_pending_calls)
        title = f"{cls.name}({options.name})" if options.name else cls.name
        client = ActorClient(self, actor, title, traits)
        instance = LocalInstance(client, cls.interface, options.name or "", namespace)
        arguments = arguments_of(self, cls.name, args, kwargs)
        start = StartActor(seq, actor, NO_FUNCTION, arguments.payload, arguments.slots)
        call = Call(self, start, None, f"{cls.name}.__init__", arguments=arguments)
        self._instances[actor] = instance
        instance.begins(self._begin(call, self._construct(call, instance, cls), False))
        return client

    async def _construct(self, call: Call, instance: LocalInstance, cls: ActorClassDef) -> None:
        def construct(*args: Any, **kwargs: Any) -> None:
            instance.construct(cls, args, kwargs)

        await self._execute(call, instance, lambda: construct)
        instance.begins(None)
        if call.entry.state == RAISED:
            instance.end("its constructor raised an error", "starting", error_bytes(call.entry.data))

    def _submit_method(
        self,
        actor: ActorClient,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
        receiver: PipeReceiver | None = None,
    ) -> Any:
        if receiver is not None:
            raise RuntimeError("calls have no pipes in local mode: there is no link that they would run beside")
        return self.calls.call_method(actor, method, args, kwargs, options)

    def _call(self, actor: ActorClient, call: Call) -> None:
        """Begin a call of an actor, or have it wait for those before it."""
        assert isinstance(call.message, ActorCall)
        method = call.message.method
        instance = self._instances.get(actor.actor)
        if instance is None or (instance.dead is not None and instance.starting is None):
            call.fail(actor.death(may_have_run=False))
            return
        spec = instance.interface.methods.get(method)
        waits = instance.starting is not None or (actor.traits.ordered and instance.last is not None)
        is_async = waits or spec is None or spec.is_async or spec.is_generator
        before = instance.last if actor.traits.ordered else None
        task = self._begin(call, self._method(call, instance, method, before), is_async)
        if task is not None:
            instance.runs(call, task)

    async def _method(
        self, call: Call, instance: LocalInstance, method: str, before: asyncio.Task[None] | None
    ) -> None:
        for task in (instance.starting, before):
            if task is not None and not task.done():
                await asyncio.wait([task])

        def find() -> Any:
            if method == READY:
                return lambda: True
            if method == CALL:
                return _call_with(instance.target)
            if method == TERMINATE:
                raise ActorExit
            return method_of(instance.target, method)

        await self._execute(call, instance, find)

    def leave_actor(self, actor: Any, run: Any) -> BaseException:
        if not on_a_loop() or run is None or asyncio.current_task() is not self._running.get(self._call_of(run)):
            actor.end("it left by exit_actor")
        return ActorExit()

    def _call_of(self, run: Any) -> Any:
        return next((call for call, known in self._runs.items() if known is run), None)

    def kill_actor(self, client: ActorClient, no_restart: bool) -> None:
        instance = self._instances.get(client.actor)
        if instance is not None:
            instance.end("it was killed by actorrt.kill")

    # ---- cancelling

    def cancel(self, entry: Entry, force: bool, recursive: bool) -> None:
        call: Call | None = entry.call
        if call is not None:
            self.check_mine(entry)
            self.cancel_call(call, force, recursive)

    def cancel_call(self, call: Call, force: bool, recursive: bool) -> None:
        task = self._running.get(call)
        if call.done or task is None:
            return
        run = self._runs.get(call)
        asked_before = bool(call.wish)
        if call.on_cancel(force) is Action.END_CANCELLED:
            call.end_cancelled()
        if not asked_before:
            task.cancel()
        self._cancel_children(run, force, recursive)

    def _late(self, call: Call, limit: Limit) -> None:
        if call.on_late(limit) in (Action.END_CANCELLED, Action.CUT):
            call.end_cancelled()
            if (task := self._running.get(call)) is not None:
                task.cancel()
            self._cancel_children(self._runs.get(call), False, True)

    @staticmethod
    def _cancel_children(run: RunningCall | None, force: bool, recursive: bool) -> None:
        if run is None:
            return
        run.ask()
        if run.cancel(reach_of(recursive, force)) is not Cancelling.NOTHING and run.reaches_children:
            for child in run.living_children():
                child.cancel(force)


def _call_with(target: Any) -> Callable[..., Any]:
    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(target, *args, **kwargs)

    return call


async def _as_async(items: Any) -> Any:
    try:
        for item in items:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
