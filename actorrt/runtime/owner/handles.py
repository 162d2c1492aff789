"""Handles of actors and their methods: `handle.method.remote(...)`.

A handle names an actor and knows what it offers. How calls travel is decided in the runtime.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, ParamSpec, TypeVar, cast, overload

from actorrt.core.nearest import did_you_mean
from actorrt.core.options import MethodOptions, parse_method_options
from actorrt.types import ActorID

from ..base.definitions import BUILT_IN, ActorInterface, MethodSpec
from .references import ObjectRef

if TYPE_CHECKING:
    from typing import Unpack

    from ..base.option_arguments import MethodArguments
    from ..links.pipes import PipeReceiver
    from .actor_client import ActorClient
    from .signatures import Submit

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ref_co = TypeVar("Ref_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)

_RAYS_PREFIX: Final = "__ray_"
_PREFIX: Final = "__actorrt_"


class Access:
    """How one method is called, as an attribute of a handle's class.

    Found as such it costs less than `__getattr__`, which is tried after a failed look-up.
    """

    __slots__ = ("groups", "least", "most", "name", "options", "spec")

    def __init__(self, spec: MethodSpec, options: MethodOptions, groups: tuple[str, ...]) -> None:
        self.spec = spec
        self.name = spec.name
        self.least = spec.arity.least
        self.most = spec.arity.most
        self.options = options
        self.groups = groups

    def __get__(self, handle: Any, owner: object) -> ActorMethod[..., Any, Any]:
        return ActorMethod(handle._actorrt_client, self)


_BUILT_IN: Final = {name: Access(spec, spec.options, ()) for name, spec in BUILT_IN.items()}


class ActorMethod(Generic[P, R_co, Ref_co]):
    """A method of an actor. `.remote(...)` calls it there and gives a ref to what it returns."""

    __slots__ = ("_access", "_client")

    def __init__(self, client: ActorClient, access: Access) -> None:
        self._client = client
        self._access = access

    if TYPE_CHECKING:

        @property
        def remote(self) -> Submit[P, Ref_co]: ...

        # The same name is the plain method inside the actor.
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

        @overload
        def options(
            self, *, num_returns: None = None, **options: Unpack[MethodArguments]
        ) -> ActorMethod[P, R_co, Ref_co]: ...
        @overload
        def options(  # pyright: ignore[reportOverlappingOverload]
            self, *, num_returns: Literal[0, 1, "streaming"], **options: Unpack[MethodArguments]
        ) -> ActorMethod[P, R_co, Any]: ...
        @overload
        def options(
            self, *, num_returns: int, **options: Unpack[MethodArguments]
        ) -> ActorMethod[P, R_co, list[ObjectRef[Any]]]: ...
        def options(self, **options: Any) -> Any: ...

    else:

        def remote(self, /, *args, **kwargs):
            access = self._access
            if kwargs or not access.least <= len(args) <= access.most:
                access.spec.arity.check(f"{access.name}.remote()", args, kwargs)
            client = self._client
            return client.runtime.submit_method(client, access.name, args, kwargs, access.options)

        def options(self, **options):
            """The method with other options: ValueError or TypeError names one that is wrong."""
            access = self._access
            parsed = parse_method_options(options, access.options)
            group = parsed.concurrency_group
            if group is not None and group not in access.groups:
                raise ValueError(f"the actor has no concurrency group {group!r}{did_you_mean(group, access.groups)}")
            if parsed.retry_exceptions and parsed.max_task_retries is None and not self._client.traits.max_task_retries:
                raise ValueError(
                    f"retry_exceptions of {access.name}: max_task_retries is 0, nothing would be repeated; give it "
                    "here, or to the actor"
                )
            return ActorMethod(self._client, Access(access.spec, parsed, access.groups))

        def __call__(self, /, *args, **kwargs):
            name = self._access.name
            raise TypeError(f"{name} runs in the actor's process: call .{name}.remote(...), then await or get the ref")

    def remote_piped(self, receiver: PipeReceiver, /, *args: Any, **kwargs: Any) -> Any:
        """The same as `remote`, with a pipe beside the call: `receiver` gets the bytes that the method writes.

        The method gets its end by `call_pipe()`. A call with a pipe is never repeated, whatever its options say.
        """
        access = self._access
        if kwargs or not access.least <= len(args) <= access.most:
            access.spec.arity.check(f"{access.name}.remote_piped()", args, kwargs)
        client = self._client
        return client.runtime.submit_method(client, access.name, args, kwargs, access.options, receiver)

    def __repr__(self) -> str:
        return f"ActorMethod({self._client.title}.{self._access.name})"


class ActorHandle(Generic[T_co]):
    """An actor, wherever it runs. Handles travel; those of the same actor are equal.

    Unless the actor is detached it ends when the last handle is gone.
    """

    __slots__ = ("__weakref__", "_actorrt_client", "_actorrt_interface")

    _actorrt_client: ActorClient
    _actorrt_interface: ActorInterface

    def __new__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("handles come from Class.remote(...) or get_actor(name)")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> ActorMethod[..., Any, Any]: ...

    else:

        def __getattr__(self, name):
            # Only names that are no method come here: see _handle_class.
            if name.startswith(_RAYS_PREFIX):
                name = _PREFIX + name.removeprefix(_RAYS_PREFIX)
            if (access := _BUILT_IN.get(name)) is not None:
                return ActorMethod(self._actorrt_client, access)
            interface = self._actorrt_interface
            hint = "" if name.startswith("__") else did_you_mean(name, interface.methods)
            raise AttributeError(f"actor {interface.class_name} has no method {name!r}{hint}", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return self._actorrt_client.actor == client_of(cast(object, other)).actor

    def __hash__(self) -> int:
        return hash(self._actorrt_client.actor)

    def __repr__(self) -> str:
        return f"ActorHandle({self._actorrt_client.title})"

    def __reduce__(self) -> tuple[Any, ...]:
        return make_handle, (self._actorrt_client, self._actorrt_interface)

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._actorrt_client.actor)

    _ray_actor_id = _actor_id


def make_handle(client: ActorClient, interface: ActorInterface) -> ActorHandle[Any]:
    """The handle of an actor that is known here."""
    handle: ActorHandle[Any] = object.__new__(_handle_class(interface))
    handle._actorrt_client = client
    handle._actorrt_interface = interface
    return handle


def client_of(handle: object) -> ActorClient:
    """What the runtime knows of the actor; TypeError if it is no handle."""
    if not isinstance(handle, ActorHandle):
        raise TypeError(f"expected the handle of an actor, not {handle!r} of type {type(handle).__name__}")
    return cast("ActorHandle[Any]", handle)._actorrt_client


_handle_classes: weakref.WeakKeyDictionary[ActorInterface, type[ActorHandle[Any]]] = weakref.WeakKeyDictionary()


def _handle_class(interface: ActorInterface) -> type[ActorHandle[Any]]:
    """The handles of one interface have a class of their own, whose attributes are the methods."""
    made = _handle_classes.get(interface)
    if made is None:
        namespace: dict[str, Any] = {
            name: Access(spec, spec.options, interface.groups) for name, spec in interface.methods.items()
        }
        made = type("ActorHandle", (ActorHandle,), {**namespace, "__slots__": (), "__module__": __name__})
        _handle_classes[interface] = made
    return made
