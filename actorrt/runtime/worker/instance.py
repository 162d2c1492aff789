"""One actor in the worker that runs it: its object, its life, its calls and its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorrt.core.actor_calls import traits_of
from actorrt.core.concurrency import Groups, Limiter
from actorrt.core.instance import InstanceLife
from actorrt.wire.messages import ActorCall, StartActor

from ..base.definitions import ActorClassDef
from ..links.link import Link
from ..links.running import RunningCall
from ..owner import current
from ..owner.handles import ActorHandle, make_handle

if TYPE_CHECKING:
    import asyncio

# A call that waits for its turn, with the link that it came by.
Waiting = tuple[Link, ActorCall]
CallLimiter = Limiter[Waiting]


class Instance(InstanceLife[Waiting]):
    """An actor. `target` is the user's object once its constructor has returned."""

    __slots__ = (
        "actor",
        "calls",
        "cls",
        "has_process",
        "incarnation",
        "leaving",
        "max_pending",
        "max_task_retries",
        "namespace",
        "owner",
        "public_name",
        "target",
        "tasks",
    )

    def __init__(self, link: Link, start: StartActor, title: str, cls: Any = None) -> None:
        groups: Groups[Waiting] | None = Groups(start.groups, start.method_groups or {}) if start.groups else None
        super().__init__(title, start.concurrency, groups)
        self.actor = start.actor
        self.owner = link.peer
        self.public_name = start.name
        self.namespace = start.namespace
        self.incarnation = start.incarnation
        # It has its process for itself.
        self.has_process = start.process
        # For whoever gets a handle from the actor itself.
        self.max_task_retries = start.max_task_retries
        self.max_pending = start.max_pending
        self.target: Any = None
        self.cls: Any = cls
        # Resolved when the calls that are to end the actor may do so.
        self.leaving: asyncio.Future[None] | None = None
        # Of its calls, those that have come to an await.
        self.calls: set[RunningCall] | None = None
        # Tasks of asyncio that its code has made on the loop that it shares; they end with it.
        self.tasks: set[asyncio.Task[Any]] | None = None

    # ---- its object

    def holds(self, target: Any) -> None:
        """Its constructor has returned this."""
        self.target = target

    def let_go(self) -> None:
        self.target = None

    # ---- what it has under way

    def suspended(self, run: RunningCall) -> None:
        """A call of it goes on later."""
        if self.calls is None:
            self.calls = set()
        self.calls.add(run)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of its code's ends with it."""
        if self.tasks is None:
            self.tasks = set()
        self.tasks.add(task)

    def task_ended(self, task: asyncio.Task[Any]) -> SystemExit | None:
        """One of these has ended; the SystemExit that it has ended with, which ends the actor too."""
        if self.tasks is not None:
            self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        return error if isinstance(error, SystemExit) else None

    # ---- calls that are to end it

    def released(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """What such a call awaits."""
        if self.leaving is None:
            self.leaving = loop.create_future()
        return self.leaving

    def release(self) -> None:
        """Let those go on that wait by now."""
        if self.leaving is not None:
            self.leaving.set_result(None)
            self.leaving = None

    def own_handle(self) -> ActorHandle[Any]:
        """A handle to this actor, for its own use."""
        definition = ActorClassDef.of(self.cls, tuple(() if self.groups is None else self.groups.limiters))
        concurrency = self.limiter.limit
        ordered = not definition.has_async and concurrency == 1 and self.groups is None
        traits = traits_of(ordered, concurrency, self.max_task_retries, self.max_pending)
        return make_handle(current.runtime().actors.client(self.actor, self.title, traits), definition.interface)
