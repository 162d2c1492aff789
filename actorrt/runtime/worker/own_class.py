"""An actor's class in the worker: how a method is found in it, and what its code finds by the class's own name.

`@remote` leaves an ActorClass under the name of the class. In its own code the name means the class, as in any class:
`super(Name, self)`, `type(self) is Name` and `Name(x)` take nothing but the class itself.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Coroutine, Iterator
from functools import lru_cache
from typing import Any, Final

_MISSING: Final = object()


def method_of(target: Any, name: str) -> Any:
    """The method of the object's class, bound to the object, whatever attribute of that name the object has.

    None if there is none; an object that answers for another one, by `__getattr__`, is asked.
    """
    cls: Any = type(target)  # pyright: ignore[reportUnknownVariableType]
    for base in cls.__mro__:
        found: Any = base.__dict__.get(name, _MISSING)
        if found is not _MISSING:
            kind: Any = type(found)  # pyright: ignore[reportUnknownVariableType]
            if kind is types.FunctionType:
                return types.MethodType(found, target)
            bind: Any = getattr(kind, "__get__", None)
            return found if bind is None else bind(found, target, cls)
    return getattr(target, name, None)


@lru_cache(maxsize=1024)
def has_async_constructor(cls: type) -> bool:
    return inspect.iscoroutinefunction(cls.__init__)


@lru_cache(maxsize=1024)
def await_del(cls: Any, finalize: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
    """Have `finalize` run what an `async def __del__` of the class gives: nothing awaits it where objects go. Once."""
    original = getattr(cls, "__del__", None)
    if inspect.iscoroutinefunction(original):

        def finalizer(self: Any) -> Any:
            return finalize(original(self))

        cls.__del__ = finalizer


@lru_cache(maxsize=1024)
def give_its_name(cls: type) -> None:
    """Have the class's code find the class under its name, once."""
    functions = [(function, set(_names(function.__code__))) for function in _functions(cls)]
    kept = ["remote", "options"]
    if any("__wrapped__" in names for _, names in functions):
        kept.append("__wrapped__")  # not for every class: inspect.signature() follows it, round and round
    for function, names in functions:
        for name in names & function.__globals__.keys():
            if _is_actor_class_of(function.__globals__[name], cls):
                function.__globals__[name] = _with(kept, cls, function.__globals__[name])
        for cell in function.__closure__ or ():
            content = _content(cell)
            if _is_actor_class_of(content, cls):
                cell.cell_contents = _with(kept, cls, content)


def _functions(cls: type) -> Iterator[types.FunctionType]:
    for found in list(vars(cls).values()):
        parts = (found.fget, found.fset, found.fdel) if isinstance(found, property) else (found,)
        for part in parts:
            code = getattr(part, "__func__", part)
            seen = 0
            while code is not None and seen < 100:  # decorators, by functools.wraps
                if isinstance(code, types.FunctionType):
                    yield code
                code, seen = getattr(code, "__wrapped__", None), seen + 1


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not filled yet


def _is_actor_class_of(found: Any, cls: type) -> bool:
    return not isinstance(found, type) and getattr(found, "__wrapped__", None) is cls


class _OfTheClass:
    """An attribute of one class and not of its objects, nor of classes that derive from it."""

    def __init__(self, cls: type, value: Any) -> None:
        self._cls, self._value = cls, value

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None or owner is not self._cls:
            raise AttributeError
        return self._value


def _with(kept: list[str], cls: type, actor_class: Any) -> type:
    """The class; what is to be made of it in other processes, `Name.remote()` still makes."""
    for name in kept:
        if not hasattr(cls, name):
            setattr(cls, name, _OfTheClass(cls, getattr(actor_class, name)))
    return cls
