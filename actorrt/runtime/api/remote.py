"""The decorator `remote`, and what it makes of a function or class: something whose calls run elsewhere.

Options are checked and arguments compared with the signature here, in the caller's own line; the rest is the runtime's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from actorrt.core.nearest import did_you_mean
from actorrt.core.options import (
    ActorOptions,
    TaskOptions,
    default_task_options,
    parse_actor_options,
    parse_task_options,
)

from ..base.definitions import ActorClassDef, RemoteFunctionDef
from ..links.running import running_call
from ..owner.generators import ObjectRefGenerator
from ..owner.handles import ActorHandle, make_handle
from ..owner.references import ObjectRef
from . import program
from .actor import Actor

if TYPE_CHECKING:
    from typing import Unpack

    from ..base.option_arguments import ActorArguments, DecoratorArguments, TaskArguments
    from ..owner.signatures import Submit

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ref_co = TypeVar("Ref_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A", bound=Actor)


class RemoteFunction(Generic[P, R_co]):
    """A function whose `.remote(...)` runs on a worker and gives `R_co` at once, most often a ref to the result."""

    def __init__(self, definition: RemoteFunctionDef, options: TaskOptions) -> None:
        if options.max_calls and definition.is_async and not options.shape:
            raise ValueError(
                f"max_calls ends a worker after so many runs of {definition.name}, and async functions share theirs: "
                "give it num_cpus, or write it with def"
            )
        self.definition = definition
        self.task_options = options
        self.__name__ = definition.name
        self._least = definition.arity.least
        self._most = definition.arity.most

    if TYPE_CHECKING:

        @property
        def remote(self) -> Submit[P, R_co]: ...

        @overload
        def options(self, *, num_returns: None = None, **options: Unpack[TaskArguments]) -> RemoteFunction[P, R_co]: ...
        @overload
        def options(  # pyright: ignore[reportOverlappingOverload]
            self, *, num_returns: Literal[0, 1, "streaming"], **options: Unpack[TaskArguments]
        ) -> RemoteFunction[P, Any]: ...
        @overload
        def options(
            self, *, num_returns: int, **options: Unpack[TaskArguments]
        ) -> RemoteFunction[P, list[ObjectRef[Any]]]: ...
        def options(self, **options: Any) -> Any: ...

    else:

        def remote(self, /, *args, **kwargs):
            definition = self.definition
            if kwargs or not self._least <= len(args) <= self._most:
                definition.arity.check(f"{definition.name}.remote()", args, kwargs)
            return program.runtime().submit_task(definition, args, kwargs, self.task_options)

        def options(self, **options):
            """The function with other options: ValueError or TypeError names one that is wrong."""
            return RemoteFunction(self.definition, parse_task_options(options, self.task_options))

    def __call__(self, /, *args: object, **kwargs: object) -> NoReturn:
        name = self.definition.name
        raise TypeError(
            f"{name} is a remote function: call {name}.remote(...), then await or get the ref "
            f"({name}.__wrapped__(...) runs it here)"
        )

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.definition.code

    @property
    def __doc__(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.definition.code.__doc__

    def __repr__(self) -> str:
        return f"RemoteFunction({self.definition.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self.definition, self.task_options)


class ActorClass(Generic[P, T_co]):
    """A class whose `.remote(...)` creates an actor and gives its handle, at once."""

    def __init__(self, definition: ActorClassDef, options: ActorOptions) -> None:
        if options.on_runtime_loop and not definition.has_async:
            raise ValueError(f"on_runtime_loop is for coroutines, and {definition.name} has only def methods")
        self.definition = definition
        self.actor_options = options
        self.__name__ = definition.name
        self.__qualname__ = definition.code.__qualname__

    if TYPE_CHECKING:

        @property
        def remote(self) -> Submit[P, T_co]: ...
        def options(self, **options: Unpack[ActorArguments]) -> ActorClass[P, T_co]: ...

    else:

        def remote(self, /, *args, **kwargs):
            definition = self.definition
            definition.arity.check(f"{definition.name}.remote()", args, kwargs)
            if not self.actor_options.max_task_retries and (name := definition.never_repeated):
                raise ValueError(
                    f"{definition.name}.{name} has retry_exceptions, and max_task_retries is 0: nothing would be "
                    "repeated; give it max_task_retries, or the class"
                )
            client = program.runtime().create_actor(definition, args, kwargs, self.actor_options)
            return make_handle(client, definition.interface)

        def options(self, **options):
            """The class with other options: ValueError or TypeError names one that is wrong."""
            return ActorClass(self.definition, parse_actor_options(options, self.actor_options))

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(f"ActorClass has no attribute {name!r}", name=name, obj=self)
            definition = self.definition
            found = inspect.getattr_static(definition.code, name, _MISSING)
            is_plain_method = name in definition.methods and not isinstance(found, staticmethod | classmethod)
            if found is not _MISSING and (not is_plain_method or running_call.get() is not None):
                # What belongs to the class; in the class's own code its functions, too.
                return getattr(definition.code, name)
            called = f"{definition.name}.remote(...).{name}.remote(...)"
            if is_plain_method:
                text = f"{name} is a method of the actors of {definition.name}, not of the class: {called} calls it"
            else:
                hint = did_you_mean(name, ["remote", "options", *definition.methods])
                text = f"actor class {definition.name} has no attribute {name!r}{hint}"
            raise AttributeError(text, name=name, obj=self)

        def __setattr__(self, name, value):
            if name in _OWN:
                object.__setattr__(self, name, value)
            else:
                setattr(self.definition.code, name, value)

        def __delattr__(self, name):
            delattr(self.definition.code, name)

        def __instancecheck__(self, instance):
            return isinstance(instance, self.definition.code)

        def __subclasscheck__(self, subclass):
            return issubclass(subclass, self.definition.code)

    def __call__(self, /, *args: object, **kwargs: object) -> NoReturn:
        name = self.definition.name
        raise TypeError(
            f"{name} is an actor class: create an actor with {name}.remote(...) "
            f"({name}.__wrapped__(...) makes an object here)"
        )

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        name = self.definition.name
        raise TypeError(
            f"{name} is an actor class and cannot be a base: derive from the plain class and decorate the result "
            f"({name}.__wrapped__ is the plain class)"
        )

    @property
    def __wrapped__(self) -> type:
        return self.definition.code

    @property
    def __bases__(self) -> tuple[type, ...]:
        """What `issubclass(Name, Base)` asks for of what is no class; a Base that is an ABC takes classes only."""
        return (self.definition.code,)

    @property
    def __doc__(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.definition.code.__doc__

    def __repr__(self) -> str:
        return f"ActorClass({self.definition.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self.definition, self.actor_options)


_OWN: Final = frozenset({"definition", "actor_options", "__name__", "__qualname__", "__module__", "__orig_class__"})
_MISSING: Final = object()


class _InstanceOf(Protocol[P, T_co]):
    """Matches any class: `P` becomes what its constructor takes and `T_co` the class. For type checkers only."""

    def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @property
    def __class__(self) -> type[T_co]: ...  # pyright: ignore[reportIncompatibleMethodOverride]


class _Fixed(Protocol[R_co]):
    """Decorates a function whose number of returns was given."""

    def __call__(self, target: Callable[P, Any], /) -> RemoteFunction[P, R_co]: ...


class _Remote(Protocol):
    """Make a function or class one whose calls run in other processes: `@remote`, or `@remote(num_cpus=2)`.

    A function, or what else can be called, becomes a `RemoteFunction`: `f.remote(1)` gives an `ObjectRef` of its result
    at once, and an `ObjectRefGenerator` if it is a generator. A class becomes an `ActorClass`: `Counter.remote()` gives
    the `ActorHandle` of a new actor.
    Raises ValueError for an unknown option, TypeError for one of the wrong type.
    """

    @overload
    def __call__(self, target: type[_InstanceOf[P, A]], /) -> ActorClass[P, A]: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, target: type[_InstanceOf[P, T]], /) -> ActorClass[P, ActorHandle[T]]: ...
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, ObjectRef[R]]: ...
    @overload
    def __call__(self, target: Callable[P, AsyncIterator[R]], /) -> RemoteFunction[P, ObjectRefGenerator[R]]: ...
    @overload
    def __call__(self, target: Callable[P, Iterator[R]], /) -> RemoteFunction[P, ObjectRefGenerator[R]]: ...
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, ObjectRef[R]]: ...
    @overload
    def __call__(
        self,
        *,
        num_returns: Literal[1, "streaming"] | None = None,
        **options: Unpack[DecoratorArguments],
    ) -> _Remote: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, *, num_returns: Literal[0], **options: Unpack[DecoratorArguments]
    ) -> _Fixed[None]: ...
    @overload
    def __call__(self, *, num_returns: int, **options: Unpack[DecoratorArguments]) -> _Fixed[list[ObjectRef[Any]]]: ...


if TYPE_CHECKING:
    remote: _Remote

else:

    def remote(target=None, /, **options):
        if target is None:
            return functools.partial(_decorate, options=options)
        return _decorate(target, options)

    remote.__doc__ = _Remote.__doc__


def _decorate(target: Any, options: dict[str, Any]) -> RemoteFunction[..., Any] | ActorClass[..., Any]:
    if inspect.isclass(target):
        actor_options = parse_actor_options(options, decorating=True)
        groups = (name for name, _ in actor_options.concurrency_groups)
        return ActorClass(ActorClassDef.of(target, groups), actor_options)
    if callable(target) and not isinstance(cast(object, target), RemoteFunction | ActorClass):
        definition = RemoteFunctionDef.of(target)
        base = default_task_options(definition.is_async, definition.is_generator)
        return RemoteFunction(definition, parse_task_options(options, base, decorating=True))
    raise TypeError(f"remote takes a function or a class, not {target!r} of type {type(target).__name__}")
