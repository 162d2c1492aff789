"""An actor with only `def` methods, in a process of its own: one call at a time, or in threads of its own.

What its life asks for is decided in core/instance.py and done here. Its calls wait with the executor or in the queues
of its threads, so that its life has none of them under way.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol

from actorrt.core.instance import READY, Action, Actions, Event
from actorrt.core.outcome import ActorExit, Unmade, left_by, unmade
from actorrt.types import ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, AnyMessage, Reply, StartActor

from ..links.link import Link
from ..links.running import RunningCall, running_call
from ..owner.outcomes import Outcomes
from .actor_methods import actor_title, find_method
from .code import Code
from .executor import OWN_ERRORS, SHARED_ERRORS
from .exiting import end_by_exit, exit_cause, report_exit
from .host import Host
from .instance import Instance
from .own_class import give_its_name
from .title import Title

# How long the calls of a constructor that fails may take before its process is ended.
LAST_CALLS_S: Final = 5.0


class Main(Protocol):
    """The executor whose actor this is, as far as it asks it."""

    outcomes: Outcomes
    code: Code
    title: Title

    def fetch(self, call: StartActor, owners: list[ProcessId]) -> tuple[Any, Any]:
        """The arguments of its constructor; what they borrow from whom goes into `owners`."""
        ...

    def confirm(self, link: Link, owners: list[ProcessId]) -> None: ...
    def guarded(self, run: RunningCall, call: ActorCall, find: Callable[[], Any]) -> None:
        """Run one call to its outcome, whatever happens."""

    def claim(self, run: RunningCall) -> bool:
        """Start a call that waited for a thread. False: it was cancelled, and has been answered."""
        ...

    def answer(self, run: RunningCall, outcome: AnyMessage | None) -> None: ...


class SyncActor:
    """The actor of a SyncExecutor. Everything runs in the main thread, unless it says otherwise."""

    def __init__(self, executor: Main, host: Host) -> None:
        self._executor = executor
        self._outcomes = executor.outcomes
        self._host = host
        self._thread = host.thread
        self._tenancy = host.tenancy
        # Held where its life goes on: any thread of its own may end it.
        self._living = threading.Lock()
        self._instance: Instance | None = None
        self._pools: dict[str, ThreadPoolExecutor] = {}

    @property
    def is_here(self) -> bool:
        """Whether it is made and has not ended; from any thread."""
        return self._instance is not None

    def is_owned_by(self, process: ProcessId) -> bool:
        """Whether it is made, and that process may end it; from any thread."""
        instance = self._instance
        return instance is not None and instance.owner == process

    def running(self, link: Link, call: ActorCall) -> RunningCall | None:
        """The record of a call that is taken up now, or has to wait for a thread; None if the actor is not here."""
        instance = self._instance
        if instance is None or instance.actor != call.actor:
            return None
        waits = bool(self._pools)
        return RunningCall(link, call.seq, call.name or call.method, instance, self._tenancy.lease, waits)

    def start(self, link: Link, start: StartActor) -> None:
        """Make the user's object, and say how that went."""
        executor = self._executor
        run = RunningCall(link, start.seq, "__init__", None, start.lease)
        token = running_call.set(run)
        try:
            cls = executor.code.load(start.cls)
            give_its_name(cls)
            instance = Instance(link, start, actor_title(cls, start), cls)
            run.constructs(instance, f"{cls.__name__}.__init__")
            self._tenancy.begin(instance, start.lease, start.resources, start.strategy)
            executor.title.is_now(instance.title)
            owners: list[ProcessId] = []
            args, kwargs = executor.fetch(start, owners)
            instance.holds(cls(*args, **kwargs))
            # Before the reply: it lets the caller drop what the constructor may have kept.
            executor.confirm(link, owners)
        except BaseException as error:
            self._not_made(run, error)
            return
        finally:
            running_call.reset(token)
        if start.concurrency > 1 or start.groups:
            self._pools[""] = ThreadPoolExecutor(start.concurrency, thread_name_prefix="actorrt-method")
            for group, limit in (start.groups or {}).items():
                self._pools[group] = ThreadPoolExecutor(limit, thread_name_prefix=f"actorrt-{group}")
        self._perform(instance, Event.MADE, lambda: _say(link, Reply(start.seq, _NONE)))
        if instance.state is READY:
            self._instance = instance

    def _not_made(self, run: RunningCall, error: BaseException) -> None:
        instance: Instance | None = run.actor
        calls = run.living_children()
        errors = SHARED_ERRORS if instance is None else OWN_ERRORS
        for step in unmade(errors.end_of(error, False), bool(calls)):
            match step:
                case Unmade.NOTE_CALLS:
                    self._tenancy.note_last(calls)
                case Unmade.EXIT:
                    assert instance is not None
                    self.exits(instance, left_by(error))
                case Unmade.FAIL:
                    self._failed(run, instance, self._outcomes.failure(run, error))
                case Unmade.FAIL_BEHIND_CALLS:
                    outcome = self._outcomes.failure(run, error)
                    self._thread.call_sync(self._host.until_done(calls, LAST_CALLS_S))
                    self._failed(run, instance, outcome)

    def _failed(self, run: RunningCall, instance: Instance | None, outcome: AnyMessage) -> None:
        if instance is None:
            _say(run.link, outcome)
        else:
            self._perform(instance, Event.NOT_MADE, lambda: _say(run.link, outcome))

    def call(self, run: RunningCall, call: ActorCall) -> None:
        """Run a call here, or hand it to a thread."""
        instance: Instance = run.actor
        find = partial(find_method, instance, call.method)
        if not self._pools:
            self._executor.guarded(run, call, find)
            return
        try:
            limiter = instance.limiter_of(call.method, call.group)
        except ValueError as error:
            if self._executor.claim(run):
                self._executor.answer(run, self._outcomes.failure(run, error))
            return
        groups = {} if instance.groups is None else instance.groups.limiters
        group = next((name for name, known in groups.items() if known is limiter), "")
        self._pools[group].submit(contextvars.copy_context().run, self._in_thread, run, call, find)

    def _in_thread(self, run: RunningCall, call: ActorCall, find: Any) -> None:
        if self._executor.claim(run):
            self._executor.guarded(run, call, find)

    # ---- ending it

    def stop(self) -> None:
        """End it after the calls that it has."""
        for pool in self._pools.values():
            pool.shutdown()
        if (instance := self._instance) is not None:
            self._perform(instance, Event.STOP)
            if instance.ends_now:
                self._perform(instance, Event.IDLE)
        self._host.program.retire(False)

    def exits(self, instance: Instance, error: ActorExit | SystemExit) -> None:
        """Its own code ends it: by exit_actor, or by sys.exit as it would end a program. From any thread."""

        def report() -> None:
            report_exit(self._host.peers, instance, exit_cause(error))

        with self._living:
            actions = end_by_exit(instance, self._tenancy, error)
        self._do(instance, actions, report)

    def _perform(self, instance: Instance, event: Event, say: Callable[[], None] | None = None) -> None:
        with self._living:
            actions = instance.on(event)
        self._do(instance, actions, say)

    def _do(self, instance: Instance, actions: Actions, say: Callable[[], None] | None = None) -> None:
        """Do what its life asks for. `say`: how its owner is told of what has happened, where it is to be."""
        for action in actions:
            match action:
                case Action.CONFIRM | Action.FAIL | Action.REPORT:
                    assert say is not None
                    say()
                case Action.END_SOON:
                    self._perform(instance, Event.KILLED)
                case Action.FORGET:
                    self.gone()
                case Action.LEAVE_PROCESS:
                    self._host.program.retire(False)
                case Action.END_PROCESS:
                    self._thread.run_soon(self._host.program.leave)
                case _:
                    pass  # it has no calls of its own, see above

    def gone(self) -> None:
        """Calls that come now find no actor; from any thread. What it holds goes in the thread that made it."""
        self._instance = None


def _say(link: Link, message: AnyMessage) -> None:
    link.push(message)
    link.flush()


_NONE: Final = codec.serialize(None).data
