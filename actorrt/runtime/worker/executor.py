"""What a worker does with the calls that it is sent, whichever way it runs user code.

Messages arrive on the runtime loop; `LoopExecutor` runs user code on a loop in the main thread, `SyncExecutor` one call
at a time there. This base keeps definitions and actors, makes outcomes, and knows how to cancel.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from actorrt import exceptions
from actorrt.types import ActorKey, FunctionKey, ObjectKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    SEGMENT,
    ActorCall,
    ActorEnded,
    AnyMessage,
    Blocked,
    Cancel,
    Credit,
    Define,
    Forget,
    RefsTaken,
    StartActor,
    StopActor,
    TaskCall,
    Unblocked,
    Value,
    WorkerName,
)

from ..base import shipping
from ..links.link import Link
from ..links.running import Child, RunningCall
from ..machine.named_output import NamedOutput
from ..machine.process import run_and_exit
from ..owner.calls import ALL_ARGUMENTS, unpack_arguments
from ..owner.entries import SHARED, UNMADE, Entry, cannot_be_made
from ..owner.objects import new_borrows
from ..owner.outcomes import Outcomes
from .instance import Instance

if TYPE_CHECKING:
    from ..owner.runtime import Runtime

# What a cancelled call has called is cancelled after so long, if its own code could not be interrupted until then.
LATE_S: Final = 0.05
_WORK: Final = frozenset({ActorCall, TaskCall, StartActor, StopActor})

logger = logging.getLogger("actorrt")

# What is handed over to the user's side, in order.
Work = ActorCall | TaskCall | StartActor | StopActor | Cancel | Credit


class ActorExit(BaseException):
    """Raised by exit_actor; no user's `except Exception` should stop it."""


def exit_cause(error: ActorExit | SystemExit) -> str:
    """Why an actor ended that has ended itself."""
    if isinstance(error, ActorExit):
        return "it left by exit_actor"
    return f"it left by sys.exit({'' if error.code is None else repr(error.code)})"


def exit_in(group: BaseExceptionGroup[Any]) -> ActorExit | SystemExit | None:
    """That of one of several tasks that ended together, as asyncio.TaskGroup tells of them."""
    for error in cast("tuple[BaseException, ...]", group.exceptions):
        found = exit_in(cast("BaseExceptionGroup[Any]", error)) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, ActorExit | SystemExit):
            return found
    return None


class Executor:
    """The parts that both ways of running share. `take` and `link_lost` run on the runtime loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.outcomes = Outcomes(runtime)
        self.instances: dict[ActorKey, Instance] = {}
        self._blobs: dict[FunctionKey, bytes] = {}
        self._functions: dict[FunctionKey, Any] = {}
        # Who may call what is defined here: it goes with the last of them.
        self._definers: dict[FunctionKey, set[Link]] = {}
        # Held where one of the three changes: a thread of the user's loads what the runtime's defines and forgets.
        self._defining = threading.Lock()
        self._name = ""
        # While the process ends: told of each call that has ended; from any thread.
        self.on_idle: Callable[[], None] | None = None
        # The lease of the actor that has this process for itself.
        self.lease = 0

    # ---- on the runtime loop

    def drop_actor(self) -> None:
        """The process stays for what it owns: what its actor held goes, and calls find no actor."""

    def take(self, link: Link, messages: list[AnyMessage]) -> None:
        """Handle what came over `link` in one frame, in order."""
        work: list[Work] = []
        for message in messages:
            if type(message) in _WORK:
                work.append(cast("Work", message))
            elif isinstance(message, Define):
                self._define(link, message)
            elif isinstance(message, Forget):
                self._forget(link, message.function)
            elif isinstance(message, Cancel):
                if work:
                    self.enqueue(link, work)
                    work = []
                self.cancel(link, message)
            elif isinstance(message, Credit):
                if work:
                    self.enqueue(link, work)
                    work = []
                self.credit(link, message)
            elif isinstance(message, RefsTaken):
                self.outcomes.taken(link.peer, message.seq, message.index)
        if work:
            self.enqueue(link, work)

    def _define(self, link: Link, message: Define) -> None:
        with self._defining:
            self._definers.setdefault(message.function, set()).add(link)
            if message.function not in self._functions:
                self._blobs[message.function] = message.blob

    def _forget(self, link: Link, function: FunctionKey) -> None:
        with self._defining:
            links = self._definers.get(function)
            if links is not None:
                links.discard(link)
                if not links:
                    del self._definers[function]
                    self._blobs.pop(function, None)
                    self._functions.pop(function, None)

    def enqueue(self, link: Link, work: list[Work]) -> None:
        """Hand work over to the user's side."""
        raise NotImplementedError

    def credit(self, link: Link, message: Credit) -> None:
        """Let a stream go on, or be more ahead once it starts."""
        raise NotImplementedError

    def cancel(self, link: Link, message: Cancel) -> None:
        """Cancel a call and, if asked, what it has called in turn."""
        run = link.serving.get(message.seq)
        if run is None:
            return
        run.asked = True
        self.end_by_force(run, message)
        self.end_call(run, message.force if message.recursive else None)

    def end_by_force(self, run: RunningCall, message: Cancel) -> None:
        """End this process if that is asked for, and the call is a task that has it to itself."""
        if message.force and run.actor is None and run.lease:
            if message.recursive:
                self.cancel_calls(run.living_children(), True)
            os.kill(os.getpid(), signal.SIGKILL)

    def end_call(self, run: RunningCall, forcing: bool | None) -> None:
        """Interrupt a running call and what it has called, with force or not (None: leave that alone).

        The call comes first: otherwise the outcome of what it has called takes it into its `finally` blocks, and the
        interruption hits those. Once: its parent, its group and its user may all cancel it, and what its `finally`
        blocks call is left in peace.
        """
        before, run.cancelled = run.cancelled, True
        reached = run.forcing
        if forcing is not None:
            run.forcing = forcing or bool(reached)
        if not before:
            self.interrupt(run)
            if run.forcing is not None:
                self.reach_later(run, run.forcing)
        elif run.forcing is not None and run.forcing is not reached:
            self.cancel_calls(run.living_children(), run.forcing)

    def reach_later(self, run: RunningCall, force: bool) -> None:
        """Cancel what a call has called so far even if its code, which may block, is not interrupted for a while."""
        children = run.living_children()
        if children:
            self.runtime.thread.loop.call_later(LATE_S, self._reach, run, children, force)

    def _reach(self, run: RunningCall, children: list[Child], force: bool) -> None:
        if self.runs(run):
            self.cancel_calls(children, force)

    def runs(self, run: RunningCall) -> bool:
        """Whether the call has not ended."""
        return run.link.serving.get(run.seq) is run

    def cancel_calls(self, calls: list[Child], force: bool) -> None:
        """Cancel what a cancelled call has called in turn; on the runtime loop."""
        for call in calls:
            call.cancel(force)

    def interrupt(self, run: RunningCall) -> None:
        """Make a running call end, as far as its kind allows, and then what it has called, if `forcing` says so."""
        raise NotImplementedError

    def link_lost(self, link: Link) -> None:
        """A caller is gone: what it called ends, and the actors that it owns."""
        for run in list(link.serving.values()):
            self.end_call(run, False)
        for function in [function for function, links in self._definers.items() if link in links]:
            self._forget(link, function)
        self.outcomes.peer_lost(link.peer)
        for instance in list(self.instances.values()):
            if instance.owner == link.peer:
                self.stop_instance(instance)

    def stop_instance(self, instance: Instance) -> None:
        """End an actor at once."""
        raise NotImplementedError

    # ---- for user threads

    def function(self, key: FunctionKey) -> Any:
        """A function or class by its content hash, unpickled on first use."""
        found = self._functions.get(key)
        if found is None:
            blob = self._blobs.get(key)
            if blob is None:
                # Another thread was first, or the caller is gone with what it had defined.
                return self._functions[key]
            try:
                found = shipping.load(blob)
            except UNMADE as error:
                raise cannot_be_made("the code of this call", error) from error
            with self._defining:
                if key in self._definers:
                    self._functions[key] = found
                    self._blobs.pop(key, None)
        return found

    def describe(self, name: str) -> None:
        """Tell the node what runs here, for the prefix of printed lines."""
        if name != self._name:
            self._name = name
            for stream in (sys.__stdout__, sys.__stderr__):
                if isinstance(stream, NamedOutput):
                    stream.names(name)
            self.runtime.node.post(WorkerName(name))

    def plain_arguments(self, message: ActorCall | TaskCall | StartActor) -> tuple[Any, Any] | None:
        """The arguments of a message where nothing has to be fetched first, else None."""
        if message.slots is not None:
            return None
        value = codec.deserialize(message.args)
        if type(value) is list:
            both = cast("list[Any]", value)
            return both[0], both[1]
        return value, None

    def segment_entries(self, message: ActorCall | TaskCall | StartActor) -> list[Entry]:
        """Entries for the arguments that lie in shared memory; they have to be mapped before `arguments`."""
        found: list[Entry] = []
        for _, value in message.slots or ():
            if value.kind == SEGMENT:
                entry = Entry(value.owner, value.seq)
                entry.settle(SHARED, value)
                found.append(entry)
        return found

    def arguments(
        self, message: ActorCall | TaskCall | StartActor, segments: list[Entry]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Unpickle arguments and fill in the values of refs. Raises the error of an argument that failed."""
        views = {(entry.owner, entry.seq): entry for entry in segments}
        slots = message.slots or []
        payload: bytes | memoryview = message.args
        for place, value in slots:
            if place == ALL_ARGUMENTS:
                payload = views[value.owner, value.seq].mapped()
        args, kwargs = unpack_arguments(payload)
        for place, value in slots:
            if place == ALL_ARGUMENTS:
                continue
            loaded = self._load(value, views)
            if isinstance(place, int):
                args[place] = loaded
            else:
                kwargs[place] = loaded
        return args, kwargs

    @staticmethod
    def _load(value: Value, views: dict[ObjectKey, Entry]) -> Any:
        if value.kind == SEGMENT:
            return views[value.owner, value.seq].load()
        return codec.deserialize(value.data)

    @contextlib.contextmanager
    def noting_borrows(self, owners: list[ProcessId]) -> Any:
        token = new_borrows.set(owners)
        try:
            yield
        finally:
            new_borrows.reset(token)

    def failure(self, run: RunningCall, error: BaseException) -> AnyMessage:
        """The outcome of a call that raised."""
        if run.cancelled and issubclass(type(error), exceptions.TaskCancelledError):
            # What it waited for was cancelled with it, and that was here first.
            return self.outcomes.cancelled(run.seq)
        return self.outcomes.failure(run, error)

    def foreign(self, link: Link, owners: list[ProcessId]) -> set[ProcessId]:
        """Owners that have to confirm a borrow before the reply to `link` may leave."""
        return {owner for owner in owners if owner != link.peer and owner != self.runtime.process}

    def ended(self, instance: Instance, cause: str) -> None:
        """Tell the owner that the actor left by itself."""
        link = self.runtime.peers.get(instance.owner)
        if link is not None:
            link.post(ActorEnded(instance.actor, cause))

    def finalize(self, timeout_s: float) -> None:
        """At the end of this process: run what `async def __del__` has begun, for so long."""

    def leave_actor(self, instance: Instance, run: RunningCall | None) -> BaseException:
        """Have the actor end; what its code is to raise that has asked for it, in `run` or beside it."""
        raise NotImplementedError

    def forked(self) -> None:
        """User code has forked this process: the child is no worker, and ends where it comes out of that code."""
        leave: Any = leave_fork
        vars(self).update(outcomes=Forked(), reply=leave, answer=leave, exited=leave, block=_nothing)

    def block(self, lease: int, blocked: bool) -> None:
        """The user's thread waits in `get`, or goes on: its CPU is free meanwhile."""
        if lease and not self.runtime.node.closed:
            self.runtime.node.post(Blocked(lease) if blocked else Unblocked(lease))


class Forked:
    """What would make an outcome ends a fork."""

    def __getattr__(self, name: str) -> Any:
        return leave_fork


def leave_fork(*given: object) -> NoReturn:
    """End a fork of this process as a program ends: with the error of its code, which is given or handled just now."""
    errors = [one for one in (*given, sys.exc_info()[1]) if isinstance(one, BaseException)]

    def main() -> None:
        if errors:
            raise errors[0]

    run_and_exit(main)


def _nothing(*_: object) -> None: ...


def unknown_method(instance: Instance, method: str) -> AttributeError:
    return AttributeError(f"{instance.title} has no method {method!r}")
