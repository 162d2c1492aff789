"""The actors of one event loop: made, called in turn, and ended. What their lives ask for is decided in
core/instance.py and done here; how a call runs is in loop_executor.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, Protocol

from actorrt.core.instance import Action, Actions, Event, Verdict
from actorrt.core.outcome import ActorExit, Unmade, left_by, unmade
from actorrt.types import ActorKey, FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, AnyMessage, Reply, StartActor, StopActor

from ..links.link import Link
from ..links.running import Child, RunningCall, running_call
from ..owner.outcomes import Outcomes
from .actor_methods import actor_title
from .arguments import noting_borrows, plain_arguments, read_arguments, segment_entries, to_confirm
from .executor import OWN_ERRORS
from .exiting import end_by_exit, exit_cause, report_exit
from .host import Host
from .instance import CallLimiter, Instance, Waiting
from .own_class import await_del, give_its_name, has_async_constructor

# How long the code of a call may go on after its actor was ended, before its caller is told that it has no outcome.
GIVEN_UP_AFTER_S: Final = 2.0
# How long the calls of a constructor that fails may take before its process is ended.
LAST_CALLS_S: Final = 5.0


class Loop(Protocol):
    """The executor whose actors these are, as far as they ask it."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    outcomes: Outcomes

    def load(self, key: FunctionKey) -> Any:
        """A class, unpickled on first use."""

    def begin(self, link: Link, call: ActorCall, instance: Instance, limiter: CallLimiter) -> None:
        """Start a call whose turn has come; its limiter has counted it."""

    def end_run(self, run: RunningCall) -> None:
        """Cancel a call that has come to an await, but not what it has called."""

    def reply(self, link: Link, message: AnyMessage) -> None: ...
    def has_its_process(self, title: str) -> None:
        """An actor has this process for itself from now on."""

    def excuse(self) -> None:
        """What has blocked the loop until now was meant to."""


class LoopActors:
    """The actors of a LoopExecutor. Everything runs on the user's loop."""

    def __init__(self, executor: Loop, host: Host) -> None:
        self._executor = executor
        self._loop = executor.loop
        self._host = host
        self._thread = host.thread
        self._tenancy = host.tenancy
        self._outcomes = executor.outcomes
        self.instances: dict[ActorKey, Instance] = {}
        # The constructor that runs right now.
        self.constructing: RunningCall | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # The last one that a task of an actor has ended with, until the loop has gone on behind it.
        self._exit: SystemExit | None = None

    def _finalize(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """An object of an actor's class goes; from any thread."""
        if threading.current_thread() is not self._executor.thread:
            self._loop.call_soon_threadsafe(self._spawn, work, Context())
            return None
        # In an empty context: it is no task of the actor, which would end with it.
        return self._spawn(work, Context())

    async def finalized(self, timeout_s: float) -> None:
        """What has gone is finalized, or the time is up."""
        await asyncio.sleep(0)  # what other threads have handed over
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        task = self._loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def new_task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        *,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """The loop's factory of tasks: one ends with the actor whose code makes it."""
        task = asyncio.Task(work, loop=loop, context=context, **options)
        run = running_call.get() if context is None else context.get(running_call)
        if run is not None and run.actor is not None:
            actor: Instance = run.actor
            actor.adopt(task)
            task.add_done_callback(partial(self._task_ended, actor))
        return task

    def _task_ended(self, instance: Instance, task: asyncio.Task[Any]) -> None:
        if (error := instance.task_ended(task)) is not None:
            self._exit = error
            self.exits(instance, error)

    def left_by(self, error: SystemExit) -> bool:
        """Whether an actor has left by this error of a task of its."""
        left, self._exit = self._exit, None
        return left is error

    # ---- making one

    def start(self, link: Link, start: StartActor) -> None:
        """Make the actor; its reply is the outcome of its constructor. Calls may come before."""
        try:
            cls = self._executor.load(start.cls)
            give_its_name(cls)
            await_del(cls, self._finalize)
        except BaseException as error:
            instance = Instance(link, start, f"actor {start.actor.hex()}")
            self._not_made(RunningCall(link, start.seq, "__init__", instance), instance, error)
            return
        title = actor_title(cls, start)
        instance = Instance(link, start, title, cls)
        self.instances[start.actor] = instance
        if link.closed:
            # Its owner is gone; the search for that owner's actors may have been here before.
            self.end(instance)
            return
        if start.process:
            self._tenancy.begin(instance, start.lease, start.resources, start.strategy)
            self._executor.has_its_process(title)
        run = RunningCall(link, start.seq, f"{cls.__name__}.__init__", instance, start.lease)
        if start.slots is None:
            self._construct(run, start, instance, None, [])
        else:
            self._spawn(self._construct_later(run, start, instance))

    async def _construct_later(self, run: RunningCall, start: StartActor, instance: Instance) -> None:
        try:
            segments = segment_entries(start)
            for entry in segments:
                await self._host.map_segment(entry)
            with noting_borrows(owners := list[ProcessId]()):
                arguments = read_arguments(start, segments)
        except BaseException as error:
            self._not_made(run, instance, error)
            return
        self._construct(run, start, instance, arguments, owners)

    def _construct(
        self,
        run: RunningCall,
        start: StartActor,
        instance: Instance,
        ready: tuple[Any, Any] | None,
        owners: list[ProcessId],
    ) -> None:
        if not instance.is_being_made:
            return
        # A context of its own: what the constructor sets in it is not for its neighbours.
        context = copy_context()
        self.constructing = run
        try:
            made, constructor = context.run(_call_class, run, start, instance, ready, owners)
        except BaseException as error:
            self._not_made(run, instance, error)
            return
        finally:
            if start.process:
                self._executor.excuse()
            self.constructing = None
        if constructor is None:
            instance.holds(made)
            self._made(run, start, instance, owners)
        else:
            self._spawn_constructor(run, start, instance, made, constructor, context, owners)

    def _spawn_constructor(
        self,
        run: RunningCall,
        start: StartActor,
        instance: Instance,
        made: Any,
        constructor: Coroutine[Any, Any, None],
        context: Context,
        owners: list[ProcessId],
    ) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            run.link.serving.pop(run.seq, None)
            if instance.is_over:
                return
            if task.cancelled():
                self._not_made(run, instance, asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                self._not_made(run, instance, error)
            else:
                instance.holds(made)
                self._made(run, start, instance, owners)

        run.runs_in(self._loop.create_task(constructor, context=context))
        run.link.serving[run.seq] = run
        run.task.add_done_callback(ended)

    def _made(self, run: RunningCall, start: StartActor, instance: Instance, owners: list[ProcessId]) -> None:
        def confirm() -> None:
            if foreign := to_confirm(owners, run.link.peer, self._host.process):
                self._spawn(self._reply_after(foreign, run.link, start.seq))
            else:
                self._executor.reply(run.link, Reply(start.seq, _NONE))

        self._perform(instance, instance.on(Event.MADE), say=confirm)

    async def _reply_after(self, owners: set[ProcessId], link: Link, seq: int) -> None:
        await self._thread.call_async(self._host.objects.confirm(owners))
        if not link.closed:
            self._executor.reply(link, Reply(seq, _NONE))

    def _not_made(self, run: RunningCall, instance: Instance, error: BaseException) -> None:
        calls = run.living_children() if instance.has_process else []
        for step in unmade(OWN_ERRORS.end_of(error, False), bool(calls)):
            match step:
                case Unmade.NOTE_CALLS:
                    self._tenancy.note_last(calls)
                case Unmade.EXIT:
                    self.exits(instance, left_by(error))
                case Unmade.FAIL:
                    self._failed(run, instance, error)
                case Unmade.FAIL_BEHIND_CALLS:
                    self._spawn(self._fail_after(calls, run, instance, error))

    async def _fail_after(self, calls: list[Child], run: RunningCall, instance: Instance, error: BaseException) -> None:
        await self._thread.call_async(self._host.until_done(calls, LAST_CALLS_S))
        self._failed(run, instance, error)

    def _failed(self, run: RunningCall, instance: Instance, error: BaseException) -> None:
        def fail() -> None:
            called = RunningCall(run.link, run.seq, f"{instance.title}.__init__", instance)
            self._executor.reply(run.link, self._outcomes.failure(called, error))

        self._perform(instance, instance.on(Event.NOT_MADE), say=fail)

    # ---- calls in turn

    def waits(self, link: Link, call: ActorCall, instance: Instance, limiter: CallLimiter) -> None:
        """What becomes of a call that cannot begin at once."""
        verdict = instance.admit(limiter, (link, call))
        if verdict is Verdict.START:
            self._executor.begin(link, call, instance, limiter)
        elif verdict is Verdict.WAIT:
            link.waiting[call.seq] = (limiter, call)
        else:
            self._executor.reply(link, self._outcomes.no_actor(call.seq))

    def withdraw(self, link: Link, seq: int) -> bool:
        """A call that waits is not to begin any more. False: it does not wait."""
        waiting = link.waiting.pop(seq, None)
        if waiting is None:
            return False
        limiter, call = waiting
        limiter.withdraw((link, call))
        return True

    def next(self, instance: Instance, limiter: CallLimiter) -> None:
        """A call has ended, or the actor was made: start what may start now."""
        while (waiting := instance.next(limiter)) is not None:
            link, call = waiting
            if link.closed:
                limiter.end()
            else:
                self._executor.begin(link, call, instance, limiter)
        self._settle(instance)

    def _settle(self, instance: Instance) -> None:
        if instance.ends_now:
            self._perform(instance, instance.on(Event.IDLE))

    def _refuse(self, calls: list[Waiting]) -> None:
        for link, call in calls:
            link.waiting.pop(call.seq, None)
            if not link.closed:
                self._executor.reply(link, self._outcomes.no_actor(call.seq))

    # ---- ending one

    def stop(self, message: StopActor) -> None:
        instance = self.instances.get(message.actor)
        if instance is not None:
            self._perform(instance, instance.on(Event.STOP if message.graceful else Event.KILLED))
            self._settle(instance)

    async def leave(self, instance: Instance, limiter: CallLimiter) -> None:
        """End it once the calls that it had before are done. Runs as a call of it."""
        for action in instance.leave():
            if action is Action.REFUSE_BEHIND:
                self._refuse(limiter.refuse())
        if instance.is_leaving and not instance.ends_now:
            try:
                await asyncio.shield(instance.released(self._loop))
            except asyncio.CancelledError:
                self._perform(instance, instance.stayed())
                raise
        raise ActorExit

    def exits(self, instance: Instance, error: ActorExit | SystemExit) -> None:
        """Its own code ends it: by exit_actor, or by sys.exit as it would end a program."""
        actions = end_by_exit(instance, self._tenancy, error)
        self._perform(instance, actions, say=lambda: report_exit(self._host.peers, instance, exit_cause(error)))

    @property
    def have_the_process(self) -> bool:
        """Whether the process is there for one of them alone."""
        return any(instance.has_process for instance in self.instances.values())

    def exit_by_callback(self, error: SystemExit) -> bool:
        """End the actor that has this process to itself. False: there is none."""
        having = [instance for instance in self.instances.values() if instance.has_process]
        for instance in having:
            self.exits(instance, error)
        return bool(having)

    def end(self, instance: Instance) -> None:
        """End it now: running calls are cancelled, waiting ones refused."""
        self._perform(instance, instance.on(Event.KILLED))

    def _perform(self, instance: Instance, actions: Actions, say: Callable[[], None] | None = None) -> None:
        """Do what its life asks for. `say`: how its owner is told of what has happened, where it is to be."""
        for action in actions:
            match action:
                case Action.CONFIRM | Action.FAIL | Action.REPORT:
                    assert say is not None
                    say()
                case Action.START_WAITING:
                    for limiter in instance.limiters():
                        self.next(instance, limiter)
                case Action.REFUSE_WAITING:
                    self._refuse(instance.refuse_waiting())
                case Action.REFUSE_BEHIND:
                    pass  # by `leave`, which knows behind what
                case Action.CANCEL_CALLS:
                    self._cancel(list(instance.calls or ()))
                case Action.RELEASE:
                    instance.release()
                case Action.END_SOON:
                    self._loop.call_soon(self.end, instance)
                case Action.FORGET:
                    self._forget(instance)
                case Action.LEAVE_PROCESS if instance.has_process:
                    self._host.program.retire(False)
                case Action.LEAVE_PROCESS:
                    pass
                case Action.END_PROCESS:
                    self._host.program.leave()

    def _cancel(self, runs: list[RunningCall]) -> None:
        for run in runs:
            self._executor.end_run(run)
        if runs:
            self._loop.call_later(GIVEN_UP_AFTER_S, self._give_up, runs)

    def _give_up(self, runs: list[RunningCall]) -> None:
        """The actor is gone: whoever waits for what goes on all the same is told so. What that returns, nobody gets."""
        for run in runs:
            if run.task is not None and not run.link.closed:
                run.ask()
                run.told()
                run.link.serving.pop(run.seq, None)
                self._executor.reply(run.link, self._outcomes.no_actor(run.seq, started=True))

    def _forget(self, instance: Instance) -> None:
        if instance.has_process:
            # What its object calls as it goes is among them.
            self._host.note_last_calls()
        instance.let_go()
        for task in instance.tasks or ():
            self._loop.call_soon(task.cancel)
        # Another life of the same actor may have begun here.
        if self.instances.get(instance.actor) is instance:
            del self.instances[instance.actor]


def _call_class(
    run: RunningCall, start: StartActor, instance: Instance, ready: tuple[Any, Any] | None, owners: list[ProcessId]
) -> tuple[Any, Coroutine[Any, Any, None] | None]:
    """The object, and what is to be awaited until it is made. Runs in the constructor's context."""
    running_call.set(run)
    if ready is None:
        with noting_borrows(owners):
            args, kwargs = plain_arguments(start) or ((), None)
    else:
        args, kwargs = ready
    if kwargs is None:
        kwargs = _NO_KWARGS
    if has_async_constructor(instance.cls):
        made = instance.cls.__new__(instance.cls, *args, **kwargs)
        return made, made.__init__(*args, **kwargs)
    return instance.cls(*args, **kwargs), None


_NO_KWARGS: Final[dict[str, Any]] = {}
_NONE: Final = codec.serialize(None).data
