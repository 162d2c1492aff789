"""A deployment and an application as users write them: `@deployment`, `.options()`, `.bind()`.

These are values. Binding builds a graph and starts nothing; `serve.run` does.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, overload

from ..capacity_queue.config import check_sizes
from .options import DeploymentOptions, parse_options
from .router_options import queue_config

REFUSED: Final = "__actorrt_refused__"
"""A class's: why it cannot be deployed, though it could be written."""

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Application(Generic[T_co]):
    """A node of a graph: a deployment with the arguments of its constructor. Identity counts: a shared node is one."""

    __slots__ = ("_args", "_deployment", "_kwargs")

    def __init__(self, deployment: "Deployment[T_co]", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._deployment, self._args, self._kwargs = deployment, args, dict(kwargs)

    @property
    def deployment(self) -> "Deployment[T_co]":
        return self._deployment

    @property
    def args(self) -> tuple[Any, ...]:
        return self._args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self._kwargs

    def __repr__(self) -> str:
        return f"Application({self._deployment.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is a graph and cannot be sent: pass it to bind() or serve.run()")


class Deployment(Generic[T_co]):
    """A class or function with the options it is to be served with. Immutable: `options` gives another one."""

    __slots__ = ("__wrapped__", "_options")

    def __init__(self, target: Callable[..., Any], options: DeploymentOptions) -> None:
        self.__wrapped__ = target
        self._options = options

    @property
    def name(self) -> str:
        return self._options.name

    @property
    def func_or_class(self) -> Callable[..., Any]:
        return self.__wrapped__

    @property
    def num_replicas(self) -> int:
        return self._options.num_replicas

    @property
    def max_ongoing_requests(self) -> int:
        return self._options.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        return self._options.max_queued_requests

    @property
    def user_config(self) -> Any:
        return self._options.user_config

    @property
    def actor_options(self) -> Mapping[str, Any]:
        return self._options.actor_options

    @property
    def ray_actor_options(self) -> Mapping[str, Any]:
        return self._options.actor_options

    @property
    def all_options(self) -> DeploymentOptions:
        return self._options

    def options(self, **options: Any) -> "Deployment[T_co]":
        """The same with other options. ValueError and TypeError as for `serve.deployment`."""
        return Deployment(self.__wrapped__, parse_options(options, self._options))

    def bind(self, *args: Any, **kwargs: Any) -> Application[T_co]:
        """A node with these constructor arguments; other nodes among them, at any depth of list, tuple and dict,
        arrive in the replica as handles. TypeError if the constructor does not take such arguments, or a route calls a
        method without self; ValueError if its capacity queue could never know how many tokens a replica holds."""
        if text := getattr(self.__wrapped__, REFUSED, ""):
            raise TypeError(text)
        if (queue := queue_config(self._options.request_router)) is not None:
            check_sizes(queue, self.__wrapped__)
        check_arguments(self.__wrapped__, self.name, args, kwargs)
        return Application(self, args, kwargs)

    # What a class's own code and others say of it by its decorated name: constants, static methods, isinstance.

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.__wrapped__, name)

    def __instancecheck__(self, instance: object) -> bool:
        return inspect.isclass(self.__wrapped__) and isinstance(instance, self.__wrapped__)

    def __subclasscheck__(self, cls: type) -> bool:
        return inspect.isclass(self.__wrapped__) and issubclass(cls, self.__wrapped__)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"deployment {self.name!r} cannot be called here: write {self.name}.bind(...) and serve.run(), "
            f"or {self.name}.func_or_class(...) for the plain object"
        )

    def __repr__(self) -> str:
        return f"Deployment({self.name})"


def check_arguments(target: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """TypeError if the constructor of `target` cannot take these; silence where its signature cannot be told."""
    if not inspect.isclass(target):
        if args or kwargs:
            raise TypeError(f"deployment {name!r} is a function and takes no arguments in bind(): only a class does")
        return
    try:
        # As it is called: a decorator may have changed what the constructor takes.
        signature = inspect.signature(target, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}.bind(): {error}; the constructor takes {signature}") from None


class Decorator(Protocol):
    """What `deployment(...)` with options gives. `T` is what a replica holds: an instance, or the function itself."""

    @overload
    def __call__(self, target: type[T], /) -> Deployment[T]: ...  # pyright: ignore[reportOverlappingOverload]  # a class is callable: the first match counts
    @overload
    def __call__(self, target: Callable[P, T], /) -> Deployment[Callable[P, T]]: ...


@overload
def deployment(target: type[T], /, **options: Any) -> Deployment[T]: ...  # pyright: ignore[reportOverlappingOverload]  # as above
@overload
def deployment(target: Callable[P, T], /, **options: Any) -> Deployment[Callable[P, T]]: ...
@overload
def deployment(**options: Any) -> Decorator: ...
def deployment(target: Any = None, /, **options: Any) -> Any:
    """Make a class or a function a deployment; bare or with options.

    Options and defaults: `DeploymentOptions`; `ray_actor_options` is another spelling of `actor_options`. An unknown
    option is a ValueError that names the nearest known one, a wrong type a TypeError.
    """
    if target is None:
        parse_options(options, DeploymentOptions(name="deployment"))  # refuse at once, not when the class is there
        return functools.partial(_make, options=options)
    return _make(target, options)


def _make(target: Callable[..., Any], options: Mapping[str, Any]) -> Deployment[Any]:
    if isinstance(target, Deployment):
        raise TypeError(f"{target!r} is a deployment already: use .options()")
    if not callable(target):
        raise TypeError(f"@serve.deployment takes a class or a function, not {type(target).__name__}")
    name = getattr(target, "__name__", None)
    if name is None:
        raise TypeError(f"@serve.deployment takes a class or a function, not an instance of {type(target).__name__}")
    default = DeploymentOptions(name="lambda" if name == "<lambda>" else name)
    return Deployment(target, parse_options(options, default))
