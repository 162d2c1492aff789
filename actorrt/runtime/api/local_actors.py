"""Actors of local mode: plain objects of this process."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from actorrt import exceptions
from actorrt.core.actor_calls import Traits
from actorrt.core.leases import UNIT
from actorrt.core.placement import Cluster
from actorrt.core.placement_groups import GroupSpec, PlacementGroups, Reserve
from actorrt.types import NO_ACTOR_KEY, ActorKey, ProcessId
from actorrt.wire.messages import (
    ActorAt,
    AnswerBody,
    AwaitGroup,
    CreateGroup,
    Done,
    Facts,
    FindName,
    ListGroups,
    ListNames,
    NameHolder,
    Names,
    Query,
    Question,
    RemoveGroup,
    Survey,
)

from ..base.definitions import ActorClassDef, ActorInterface
from ..machine.process import cpu_count
from ..node.groups import spec_of
from ..owner.actor_client import ActorClient, Caller
from ..owner.calls import Call
from ..owner.handles import ActorHandle, make_handle


class LocalInstance:
    """One actor. It lives until it is killed, leaves, or the session ends."""

    def __init__(self, client: ActorClient, interface: ActorInterface, name: str, namespace: str) -> None:
        self.client = client
        self.interface = interface
        self.actor = client.actor
        self.title = client.title
        self.public_name = name
        self.namespace = namespace
        self.incarnation = 0
        self.target: Any = None
        # While its constructor waits for its arguments.
        self.starting: asyncio.Task[None] | None = None
        # The last call of an actor that keeps the order of calls.
        self.last: asyncio.Task[None] | None = None
        self.calls: dict[Call, asyncio.Task[None]] = {}

    @property
    def dead(self) -> ActorAt | None:
        return self.client.dead

    def begins(self, construction: asyncio.Task[None] | None) -> None:
        """Its constructor waits for its arguments in this task; None: it has run."""
        self.starting = construction

    def construct(self, definition: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run its constructor."""
        self.target = definition.code(*args, **kwargs)

    def runs(self, call: Call, task: asyncio.Task[None]) -> None:
        """One of its calls runs, or waits, in this task."""
        self.calls[call] = task
        task.add_done_callback(lambda _: self.calls.pop(call, None))
        if self.client.traits.ordered:
            self.last = task
            task.add_done_callback(self._no_longer_last)

    def _no_longer_last(self, task: asyncio.Task[None]) -> None:
        if self.last is task:
            self.last = None

    def end(self, cause: str, phase: str = "running", failed: bytes = b"") -> None:
        """It is dead from now on; what it runs is cancelled and fails."""
        if self.dead is None:
            self.client.died(ActorAt(None, 0, cause, phase, failed))
            for task in list(self.calls.values()):
                task.cancel()

    def own_handle(self) -> ActorHandle[Any]:
        return make_handle(self.client, self.interface)


class LocalActors:
    """The actors of a session in local mode, where others have links to them."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.instances: dict[ActorKey, LocalInstance] = {}

    def client(self, actor: ActorKey, title: str, traits: Traits) -> ActorClient:
        instance = self.instances.get(actor)
        if instance is not None:
            return instance.client
        return ActorClient(self._caller, actor, title, traits)

    def export(self, client: ActorClient, collected: bool) -> None: ...

    def named(self, name: str, namespace: str) -> LocalInstance | None:
        for instance in self.instances.values():
            if instance.public_name == name and instance.namespace == namespace and instance.dead is None:
                return instance
        return None


class LocalNode:
    """Answers what a node would, about this one process."""

    closed = False

    def __init__(self, process: ProcessId, actors: LocalActors, resources: dict[str, int]) -> None:
        self._actors = actors
        self.peer = process
        self._resources = {"CPU": cpu_count() * UNIT, **resources}
        self._cluster = Cluster()
        self._cluster.join(process, self._resources, name="local")
        self._groups = PlacementGroups(self._cluster)

    async def ask(self, question: Question) -> AnswerBody:
        actors = self._actors
        match question:
            case FindName():
                found = actors.named(question.name, question.namespace)
                if found is None:
                    return NameHolder(NO_ACTOR_KEY)
                return NameHolder(found.actor, pickle.dumps((found.title, found.client.traits, found.interface)))
            case ListNames():
                return Names(
                    sorted(
                        (one.namespace, one.public_name)
                        for one in actors.instances.values()
                        if one.public_name and one.dead is None and question.namespace in (None, one.namespace)
                    )
                )
            case Survey():
                return Facts({"nodes": []})
            case CreateGroup():
                self._create(spec_of(question))
                return Done()
            case RemoveGroup():
                self._groups.remove(question.group, "it was removed")
                return Done()
            case AwaitGroup():
                self._groups.check(question.group)
                return Done()
            case ListGroups():
                return Facts(self._groups.rows(question.group, question.namespace, question.name))
            case Query():
                return Facts(self._facts(question.what))
            case _:
                raise exceptions.ActorrtError(f"local mode has no answer to {type(question).__name__}")

    def _create(self, spec: GroupSpec) -> None:
        # Resources are not counted.
        self._cluster.join(self.peer, self._resources, name="local")
        for action in self._groups.create(spec):
            if isinstance(action, Reserve):
                self._groups.reserved(action.node, action.group, action.attempt)

    def _facts(self, what: str) -> Any:
        resources = {name: amount / UNIT for name, amount in self._resources.items()}
        if what == "nodes":
            return [
                {"NodeID": self.peer.hex(), "Alive": True, "NodeName": "local", "Resources": resources, "Labels": {}}
            ]
        if what == "statistics":
            return {"node": {}, "processes": []}
        return resources if what in ("resources", "available") else []
