"""What the standard library makes of a function, and pickles by a name that only the main program has.

Such an object is made anew from what it wraps: an `lru_cache` starts empty in each process.
"""

# Everything here is of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, cast

import cloudpickle.cloudpickle as _untyped

from . import context_variables

_cloudpickle: Final[Any] = _untyped
MAIN: Final = "__main__"


def reduce_wrapper(obj: Any) -> tuple[Any, ...] | None:
    """How an object goes that is no function or class and would go by a name that others do not find; else None."""
    cls: type[Any] = type(obj)
    reduce = _REDUCERS.get(cls)
    return None if reduce is None else reduce(obj)


def is_wrapper(cls: type) -> bool:
    return cls in _REDUCERS


def is_single_dispatch(function: types.FunctionType) -> bool:
    return function.__code__ is _SINGLE_DISPATCH


def reduce_single_dispatch(function: Any) -> tuple[Any, ...]:
    registry = dict(function.registry)
    default = registry.pop(object)
    own = {name: value for name, value in _own(function) if name not in _OF_SINGLE_DISPATCH}
    return _single_dispatch, (default,), (list(registry.items()), own), None, None, _register


def _own(obj: Any) -> list[tuple[str, Any]]:
    return list(obj.__dict__.items())


def _code_of_single_dispatch() -> tuple[types.CodeType, frozenset[str]]:
    made: Any = functools.singledispatch(lambda: None)
    return made.__code__, frozenset(name for name, _ in _own(made))


_SINGLE_DISPATCH, _OF_SINGLE_DISPATCH = _code_of_single_dispatch()


def _single_dispatch(default: Callable[..., Any]) -> Any:
    return functools.singledispatch(default)


def _register(function: Any, state: tuple[list[tuple[type, Any]], dict[str, Any]]) -> None:
    registry, own = state
    for cls, found in registry:
        function.register(cls, found)
    function.__dict__.update(own)


def _cache(wrapped: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(wrapped)


def _reduce_cache(obj: Any) -> tuple[Any, ...] | None:
    if _is_found(obj):
        return None
    facts = obj.cache_parameters()
    own = {name: value for name, value in _own(obj) if name not in ("__wrapped__", "cache_parameters")}
    return _cache, (obj.__wrapped__, facts["maxsize"], facts["typed"]), own, None, None, _update


def _update(obj: Any, own: dict[str, Any]) -> None:
    obj.__dict__.update(own)


def _reduce_property(obj: Any) -> tuple[Any, ...]:
    # Its lock (before Python 3.12) guards what is in one process.
    own = {name: value for name, value in _own(obj) if name not in ("func", "lock")}
    return cast(Any, functools.cached_property), (obj.func,), own


def _new_type(name: str, supertype: Any, module: str) -> Any:
    made: Any = cast(Any, typing.NewType)(name, supertype)
    made.__module__ = module
    return made


def _reduce_new_type(obj: Any) -> tuple[Any, ...] | None:
    return None if _is_found(obj) else (_new_type, (obj.__name__, obj.__supertype__, obj.__module__))


def _reduce_parameter(obj: Any) -> tuple[Any, ...] | None:
    return None if _is_found(obj) else (cast(Any, type(obj)), (obj.__name__,))


def _reduce_manager(obj: Any) -> tuple[Any, ...] | None:
    """What `@manager()` lays around a function makes itself anew for each call; one that was entered cannot go."""
    made = obj.gen
    unused = isinstance(made, types.GeneratorType) and inspect.getgeneratorstate(made) == inspect.GEN_CREATED
    return (cast(Any, type(obj)), (obj.func, obj.args, obj.kwds)) if unused else None


def _is_found(obj: Any) -> bool:
    """Whether other processes find it under its name in its module."""
    module: Any = sys.modules.get(getattr(obj, "__module__", None) or MAIN)
    found = module
    for part in getattr(obj, "__qualname__", obj.__name__).split("."):
        found = getattr(found, part, None)
    by_name = module.__name__ != MAIN and not _cloudpickle._is_registered_pickle_by_value(module)
    return found is obj and by_name


_REDUCERS: Final[dict[type, Callable[[Any], tuple[Any, ...] | None]]] = {
    type(functools.lru_cache(lambda: None)): _reduce_cache,
    functools.cached_property: _reduce_property,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameter,
    typing.TypeVarTuple: _reduce_parameter,
    ContextVar: context_variables.reduce,
    type(cast(Any, contextlib).contextmanager(lambda: None)()): _reduce_manager,
}
