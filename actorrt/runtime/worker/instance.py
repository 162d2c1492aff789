"""One actor in the worker that runs it: its object, how many calls it runs at once, and those that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from actorrt.core.actor_calls import traits_of
from actorrt.wire.messages import ActorCall, StartActor

from ..base.definitions import ActorClassDef
from ..links.link import Link
from ..links.running import RunningCall
from ..owner import current
from ..owner.handles import ActorHandle, make_handle

if TYPE_CHECKING:
    import asyncio


class Limiter:
    """So many calls at once; further ones wait in order."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: deque[tuple[Link, ActorCall]] | None = None


class Instance:
    """An actor. `target` is the user's object once its constructor has returned."""

    __slots__ = (
        "actor",
        "calls",
        "cls",
        "failed",
        "group_of",
        "groups",
        "incarnation",
        "leaving",
        "limiter",
        "max_pending",
        "max_task_retries",
        "namespace",
        "owner",
        "process",
        "public_name",
        "ready",
        "stopping",
        "target",
        "tasks",
        "title",
    )

    # Ends an actor whose task has called sys.exit.
    on_exit: ClassVar[Callable[[Instance, SystemExit], None]]

    def __init__(self, link: Link, start: StartActor, title: str, process: bool) -> None:
        self.actor = start.actor
        self.owner = link.peer
        self.title = title
        self.public_name = start.name
        self.namespace = start.namespace
        self.incarnation = start.incarnation
        self.process = process
        # For whoever gets a handle from the actor itself.
        self.max_task_retries = start.max_task_retries
        self.max_pending = start.max_pending
        self.target: Any = None
        self.cls: Any = None
        self.ready = False
        self.failed = False
        # Asked to end once what it has is done.
        self.stopping = False
        # The call that ends it waits here for all others; further ones are refused.
        self.leaving: asyncio.Future[None] | None = None
        self.limiter = Limiter(start.concurrency)
        self.groups = {name: Limiter(limit) for name, limit in start.groups.items()} if start.groups else None
        self.group_of = start.method_groups
        self.calls: set[RunningCall] | None = None
        # Tasks of asyncio that its code has made on the loop that it shares; they end with it.
        self.tasks: set[asyncio.Task[Any]] | None = None

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """A task of its code has ended; by sys.exit, it ends with it."""
        if self.tasks is not None:
            self.tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), SystemExit):
            Instance.on_exit(self, error)

    def limiter_of(self, method: str, group: str) -> Limiter:
        """The limiter of a call; raises ValueError for a group that the actor does not have."""
        groups = self.groups
        if groups is None:
            if group:
                raise ValueError(f"{self.title} has no concurrency group {group!r}")
            return self.limiter
        name = group or (self.group_of or {}).get(method, "")
        if not name:
            return self.limiter
        limiter = groups.get(name)
        if limiter is None:
            raise ValueError(f"{self.title} has no concurrency group {name!r}, only {', '.join(sorted(groups))}")
        return limiter

    def limiters(self) -> list[Limiter]:
        return [self.limiter, *(self.groups or {}).values()]

    def under_way(self) -> int:
        """How many calls run or wait."""
        return sum(limiter.running + len(limiter.waiting or ()) for limiter in self.limiters())

    def own_handle(self) -> ActorHandle[Any]:
        """A handle to this actor, for its own use."""
        definition = ActorClassDef.of(self.cls, tuple(self.groups or ()))
        concurrency = self.limiter.limit
        ordered = not definition.has_async and concurrency == 1 and not self.groups
        traits = traits_of(ordered, concurrency, self.max_task_retries, self.max_pending)
        return make_handle(current.runtime().actors.client(self.actor, self.title, traits), definition.interface)
