"""From `Class.remote(...)` to an actor that its owner supervises: arguments, name, place."""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.actor_calls import Traits, traits_of
from actorrt.core.scheduling_strategies import chosen
from actorrt.types import ActorKey, Strategy, actor_key
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
from ..links.link import Link
from . import actors
from .actor_client import ActorClient
from .actor_records import ActorRecord, ActorSpec
from .actors import Actors
from .calls import Arguments, Call, Caller, fill_slots, pack_arguments, when_resolved
from .membership import Membership
from .objects import Objects
from .program import Program, Tenancy
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
    def node(self) -> Link: ...
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
    @property
    def tenancy(self) -> Tenancy: ...


# One for all actors that have none, of which there may be a million.
_NO_SHAPE: Final[dict[str, int]] = {}


class Form:
    """What all actors have in common that a class makes with the same options. The class keeps the last one, since many
    may be made in a row."""

    __slots__ = (
        "concurrency",
        "exclusive",
        "groups",
        "inherited",
        "method_groups",
        "mode",
        "options",
        "shape",
        "strategy",
        "traits",
    )

    def __init__(self, cls: ActorClassDef, options: ActorOptions, inherited: Strategy) -> None:
        """`inherited`: how it is placed if it needs a worker of its own and does not say how."""
        self.options = options
        self.inherited = inherited
        self.exclusive = options.exclusive(cls.has_async)
        self.strategy = chosen(options.strategy, inherited, own_worker=self.exclusive)
        self.concurrency = options.concurrency(cls.has_async)
        groups = dict(options.concurrency_groups)
        self.groups = groups or None
        self.method_groups = _method_groups(cls) if groups else None
        self.traits = traits_of(
            not cls.has_async and self.concurrency == 1 and not groups,
            self.concurrency,
            options.max_task_retries,
            options.max_pending_calls,
        )
        self.mode = "sync" if not cls.has_async else "runtime" if options.on_runtime_loop else "loop"
        self.shape = dict(options.shape) if options.shape else _NO_SHAPE


def create(
    runtime: Creator, cls: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
) -> ActorClient:
    """Create an actor; from a user's thread. Raises ActorAlreadyExistsError, NotSerializableError."""
    namespace = options.namespace or runtime.membership.namespace
    if options.name and options.get_if_exists:
        found = find_named(runtime, options.name, namespace)
        if found is not None:
            return found[0]
    form = cls.form
    inherited = runtime.tenancy.inherited
    if not isinstance(form, Form) or form.options is not options or form.inherited is not inherited:
        form = cls.form = Form(cls, options, inherited)
    traits = form.traits
    title = f"{cls.name}({options.name})" if options.name else cls.name
    seq = runtime.objects.next_seq()
    actor = actor_key(runtime.process, seq)
    plain = codec.dumps_call(args, kwargs, runtime.settings.inline_limit)
    packed = Arguments(plain) if plain is not None else pack_arguments(runtime, cls.name, args, kwargs)
    start = StartActor(
        seq,
        actor,
        cls.function_id,
        packed.payload,
        packed.slots,
        form.concurrency,
        groups=form.groups,
        name=options.name or "",
        namespace=namespace if options.name else "",
        process=form.exclusive,
        method_groups=form.method_groups,
        resources=form.shape if form.exclusive else None,
        max_task_retries=traits.max_task_retries,
        max_pending=traits.max_pending,
        strategy=form.strategy,
    )
    # Stands for the refs among the arguments that have to be waited for.
    call = None if plain is not None else Call(runtime, start, None, f"{cls.name}.__init__", arguments=packed)
    spec = ActorSpec(
        start,
        cls.blob,
        form.shape,
        form.mode,
        not form.exclusive,
        {**runtime.program.env, **dict(options.env_vars)} if options.env_vars else runtime.program.env,
        runtime.membership.employer,
        code=cls,
        strategy=form.strategy,
    )
    runtime.shipped.know(cls)
    if options.detached:
        return _create_detached(runtime, spec, call, title, traits, cls.interface, options)
    client = ActorClient(runtime, actor, title, traits)
    # From the beginning: if the claim is interrupted, the name may be its own already.
    drop_name = partial(_drop_name, runtime, options.name, namespace, actor) if options.name else None
    record = ActorRecord(actor, title, spec, options.max_restarts, packed.pins, drop_name)
    runtime.actors.own(client, record)
    runtime.actors.know(client)
    # Owned before it has a name: whoever finds the name may ask for it at once.
    runtime.supervisor.adopt(record)
    if options.name:
        info = pickle.dumps((title, traits, cls.interface))
        holder: NameHolder = runtime.thread.call_sync(runtime.node.ask(ClaimName(options.name, namespace, actor, info)))
        if not holder.yours:
            runtime.supervisor.disown(record)
            client.disowned(ActorAt(None, 0, "its name was taken", "being created"))
            if options.get_if_exists:
                return _from_info(runtime, holder)[0]
            raise exceptions.ActorAlreadyExistsError(options.name, namespace)
    if call is not None and call.waiting:
        runtime.thread.run_soon(partial(_create_when_resolved, runtime, record, call))
    else:
        runtime.thread.run_soon(partial(runtime.supervisor.create, record))
    return client


def _method_groups(cls: ActorClassDef) -> dict[str, str]:
    return {name: spec.concurrency_group for name, spec in cls.methods.items() if spec.concurrency_group}


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
                spec.strategy,
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
