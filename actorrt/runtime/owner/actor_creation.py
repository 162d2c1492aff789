"""From `Class.remote(...)` to an actor that its owner supervises: arguments, name, place."""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.actor_calls import Traits, traits_of
from actorrt.types import ActorKey, actor_key
from actorrt.wire import codec
from actorrt.wire.messages import (
    ActorAt,
    ClaimName,
    CreateDetached,
    DropName,
    FindName,
    NameHolder,
    StartActor,
    WhereIs,
)

from ..base.definitions import ActorClassDef
from . import actors
from .actor_client import ActorClient
from .actor_records import ActorRecord, ActorSpec
from .actors import Actors
from .calls import Call, Caller, fill_slots, pack_arguments, when_resolved
from .membership import Membership
from .objects import Objects
from .program import Program
from .shipped import Shipped
from .supervisor import Supervisor

if TYPE_CHECKING:
    from actorrt.core.options import ActorOptions

    from ..base.definitions import ActorInterface


class Creator(Caller, actors.Surroundings, Protocol):
    """The process that creates an actor."""

    @property
    def program(self) -> Program: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def shipped(self) -> Shipped: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def actors(self) -> Actors: ...
    @property
    def supervisor(self) -> Supervisor: ...


# One for all actors that have none, of which there may be a million.
_NO_SHAPE: Final[dict[str, int]] = {}


def create(
    runtime: Creator, cls: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
) -> ActorClient:
    """Create an actor; from a user's thread. Raises ActorAlreadyExistsError, NotSerializableError."""
    namespace = options.namespace or runtime.membership.namespace
    if options.name and options.get_if_exists:
        found = find_named(runtime, options.name, namespace)
        if found is not None:
            return found[0]
    exclusive = options.exclusive(cls.has_async)
    concurrency = options.concurrency(cls.has_async)
    traits = traits_of(
        not cls.has_async and concurrency == 1 and not options.concurrency_groups,
        concurrency,
        options.max_task_retries,
        options.max_pending_calls,
    )
    title = f"{cls.name}({options.name})" if options.name else cls.name
    seq = runtime.objects.next_seq()
    actor = actor_key(runtime.process, seq)
    start = StartActor(seq, actor, cls.function_id, b"", None, concurrency)
    start.max_task_retries, start.max_pending = traits.max_task_retries, traits.max_pending
    if options.concurrency_groups:
        start.groups = dict(options.concurrency_groups)
        start.method_groups = {
            name: spec.concurrency_group for name, spec in cls.methods.items() if spec.concurrency_group
        }
    if options.name:
        start.name, start.namespace = options.name, namespace
    if exclusive:
        start.process = True
        start.resources = dict(options.shape)
    call = _packed(runtime, start, cls.name, args, kwargs)
    mode = "sync" if not cls.has_async else "runtime" if options.on_runtime_loop else "loop"
    spec = ActorSpec(
        start,
        cls.blob,
        dict(options.shape) if options.shape else _NO_SHAPE,
        mode,
        not exclusive,
        {**runtime.program.env, **dict(options.env_vars)} if options.env_vars else runtime.program.env,
        runtime.membership.employer,
        bool(options.name),
    )
    spec.code = cls
    runtime.shipped.know(cls)
    if options.detached:
        return _create_detached(runtime, spec, call, title, traits, cls.interface, options)
    client = ActorClient(runtime, actor, title, traits)
    record = ActorRecord(actor, title, spec, options.max_restarts)
    record.pins = None if call is None else call.pins
    runtime.actors.own(client, record)
    runtime.actors.know(client)
    # Owned before it has a name: whoever finds the name may ask for it at once.
    runtime.supervisor.adopt(record)
    if options.name:
        info = pickle.dumps((title, traits, cls.interface))
        # Set first: if this is interrupted, the name may be its own already.
        record.on_dead = partial(_drop_name, runtime, options.name, namespace, actor)
        holder: NameHolder = runtime.thread.call_sync(runtime.node.ask(ClaimName(options.name, namespace, actor, info)))
        if not holder.yours:
            record.on_dead = None
            runtime.supervisor.records.pop(actor, None)
            client.record = None
            client.dead = ActorAt(None, 0, "its name was taken", "being created")
            if options.get_if_exists:
                return _from_info(runtime, holder)[0]
            raise exceptions.ActorAlreadyExistsError(options.name, namespace)
    if call is not None and call.waiting:
        runtime.thread.run_soon(partial(_create_when_resolved, runtime, record, call))
    else:
        runtime.thread.run_soon(partial(runtime.supervisor.create, record))
    return client


def _packed(
    runtime: Creator, start: StartActor, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    """Put the arguments into `start`; a Call stands for the refs among them that have to be waited for."""
    payload = codec.dumps_call(args, kwargs, runtime.settings.inline_limit)
    if payload is not None:
        start.args = payload
        return None
    packed = pack_arguments(runtime, what, args, kwargs)
    start.args = packed.payload
    start.slots = packed.slots
    return Call(runtime, start, None, f"{what}.__init__", arguments=packed)


def _create_when_resolved(runtime: Creator, record: ActorRecord, call: Call) -> None:
    def go(call: Call) -> None:
        if fill_slots(call):
            runtime.supervisor.create(record)
        else:
            runtime.supervisor.fail(record, call.entry.error())

    if not when_resolved(call, go, runtime.thread.run_soon):
        go(call)


def _drop_name(runtime: Creator, name: str, namespace: str, actor: ActorKey) -> None:
    if not runtime.node.closed:
        runtime.node.send(DropName(name, namespace, actor))


def _create_detached(
    runtime: Creator,
    spec: ActorSpec,
    call: Call | None,
    title: str,
    traits: Traits,
    interface: ActorInterface,
    options: ActorOptions,
) -> ActorClient:
    """The node becomes the owner, so that the actor outlives this program."""

    async def ask() -> NameHolder:
        if call is not None:
            for _, entry in call.waiting or ():
                await runtime.objects.settled(entry)
            if not fill_slots(call):
                raise call.entry.error()
        return await runtime.node.ask(
            CreateDetached(
                spec.start,
                spec.blob,
                spec.shape,
                spec.mode,
                spec.shared,
                options.max_restarts,
                pickle.dumps((title, traits, interface)),
                spec.env or None,
                options.get_if_exists,
                runtime.membership.employer.job,
            )
        )

    holder: NameHolder = runtime.thread.call_sync(ask())
    if not holder.yours and not options.get_if_exists:
        raise exceptions.ActorAlreadyExistsError(spec.start.name, spec.start.namespace)
    if not holder.yours:
        return _from_info(runtime, holder)[0]
    if call is not None and call.pins:
        runtime.thread.spawn(_keep(runtime, holder.actor, call.pins))
    return runtime.actors.client(holder.actor, title, traits)


async def _keep(runtime: Creator, actor: ActorKey, pins: list[Any]) -> None:
    """Keep what a detached actor's arguments name until it is dead, since it may be started again; at most as long as
    this program lives."""
    at = ActorAt(None)
    while pins and not at.cause:
        try:
            at = await runtime.node.ask(WhereIs(actor, at.incarnation if at.worker else -1))
        except exceptions.ActorrtError:
            return


def find_named(runtime: Creator, name: str, namespace: str) -> tuple[ActorClient, ActorInterface] | None:
    """The actor that has a name, and what its handles offer; None if there is none."""
    holder: NameHolder = runtime.thread.call_sync(runtime.node.ask(FindName(name, namespace)))
    return _from_info(runtime, holder) if holder.actor else None


def _from_info(runtime: Creator, holder: NameHolder) -> tuple[ActorClient, ActorInterface]:
    title, traits, interface = pickle.loads(holder.info)
    return runtime.actors.client(holder.actor, title, traits), interface
