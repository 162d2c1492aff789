"""The decorator `method`: options of a method, and its type for whoever holds a handle.

A marked function stays the function it is; `definitions.method_specs` reads the mark.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from actorrt.core.options import MethodOptions, parse_method_options

from ..base.definitions import MARK, kind_of
from ..owner.generators import ObjectRefGenerator
from ..owner.handles import ActorMethod
from ..owner.references import ObjectRef

if TYPE_CHECKING:
    from typing import Unpack

    from ..base.option_arguments import MethodDecoratorArguments

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ref_co = TypeVar("Ref_co", covariant=True)


class MethodDescriptor(Generic[P, R_co, Ref_co]):
    """What type checkers see of a method that is marked with `@method`; at run time it stays the function it is."""

    @overload
    def __get__(self, instance: None, owner: type) -> MethodDescriptor[P, R_co, Ref_co]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> ActorMethod[P, R_co, Ref_co]: ...
    def __get__(self, instance: object, owner: type) -> Any:
        raise NotImplementedError


class _FixedMethod(Protocol[Ref_co]):
    """Marks a method whose number of returns was given."""

    def __call__(self, code: Callable[Concatenate[Any, P], R], /) -> MethodDescriptor[P, R, Ref_co]: ...


class _Method(Protocol):
    """Give a method of an actor class options, or only mark it: `@method`, `@method(num_returns=2)`.

    `thread=True` runs a `def` method of an actor that has `async def` ones in a thread, so that it may block. A
    method with `may_block=True` stays on the loop and is not reported when it blocks it. In a class that derives from
    `Actor` the handle offers exactly the marked methods, with their types.
    """

    @overload
    def __call__(
        self, code: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> MethodDescriptor[P, Coroutine[Any, Any, R], ObjectRef[R]]: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, code: Callable[Concatenate[Any, P], AsyncIterator[R]], /
    ) -> MethodDescriptor[P, AsyncIterator[R], ObjectRefGenerator[R]]: ...
    @overload
    def __call__(
        self, code: Callable[Concatenate[Any, P], Iterator[R]], /
    ) -> MethodDescriptor[P, Iterator[R], ObjectRefGenerator[R]]: ...
    @overload
    def __call__(self, code: Callable[Concatenate[Any, P], R], /) -> MethodDescriptor[P, R, ObjectRef[R]]: ...
    @overload
    def __call__(
        self, *, num_returns: Literal[1, "streaming"] | None = None, **options: Unpack[MethodDecoratorArguments]
    ) -> _Method: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, *, num_returns: Literal[0], **options: Unpack[MethodDecoratorArguments]
    ) -> _FixedMethod[None]: ...
    @overload
    def __call__(
        self, *, num_returns: int, **options: Unpack[MethodDecoratorArguments]
    ) -> _FixedMethod[list[ObjectRef[Any]]]: ...


if TYPE_CHECKING:
    method: _Method

else:

    def method(code=None, /, **options):
        if code is None:
            return functools.partial(_mark, options=options)
        return _mark(code, options)

    method.__doc__ = _Method.__doc__


def _mark(code: Any, options: dict[str, Any]) -> Any:
    if not inspect.isfunction(code):
        raise TypeError(f"method takes a function in the body of a class, not {code!r} of type {type(code).__name__}")
    is_async, is_generator = kind_of(code)
    parsed = parse_method_options(
        options, MethodOptions(num_returns="streaming" if is_generator else 1), decorating=True
    )
    if parsed.thread and is_async:
        raise ValueError(f"thread=True is for def methods that block, {code.__qualname__} is async")
    setattr(code, MARK, parsed)
    return code
