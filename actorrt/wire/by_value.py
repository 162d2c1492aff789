"""The pickler for what no other process can import: code of the main program, and values that are made of it.

cloudpickle takes functions apart. Beside that, classes are rebuilt once (rebuilding.py), what a module has a name for
travels by that name (named.py), and wrappers of the standard library are made anew (wrappers.py).
"""

# Everything here is of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import io
import sys
import types
from collections import ChainMap
from collections.abc import Callable
from typing import Any, ClassVar, Final

import cloudpickle
import cloudpickle.cloudpickle as _untyped

from . import named, rebuilding, stand_in, wrappers
from . import state as state_of

PROTOCOL: Final = 5
_cloudpickle: Final[Any] = _untyped
_CloudPickler: Final[Any] = cloudpickle.Pickler
# What versions of cloudpickle write in place of a file's name; tracebacks without it show no lines.
_NO_FILE: Final = "<dynamic-code>"


def dumps(value: Any, buffer_callback: Callable[[Any], Any] | None = None, *, code: bool = False) -> bytes:
    """Pickle `value`. `code`: it is code, and what its module names it refers to, as imported code does."""
    with io.BytesIO() as file:
        pickler: Any = ByValuePickler(file, PROTOCOL, buffer_callback=buffer_callback)
        pickler.with_state = code
        pickler.dump(value)
        return file.getvalue()


def is_asked_for() -> bool:
    """Whether there are modules that go by value though they can be imported here."""
    return bool(_cloudpickle._PICKLE_BY_VALUE_MODULES)


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    made, facts = _CloudPickler._dispatch_table[types.CodeType](code)
    if code.co_filename not in facts:
        facts = tuple(code.co_filename if fact == _NO_FILE else fact for fact in facts)
    return made, facts


class ByValuePickler(_CloudPickler):
    """What cannot be imported goes by value."""

    with_state: bool = False
    dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: _reduce_code}, _CloudPickler.dispatch_table)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By the class of an object: how it is looked at, None for one that is pickled as ever. There may be many.
        self._ways: dict[type, Callable[[ByValuePickler, Any], Any] | None] = {}

    def reducer_override(self, obj: Any) -> Any:
        cls: Any = type(obj)
        try:
            way = self._ways[cls]
        except KeyError:
            way = self._ways[cls] = self._way_of(cls)
        return NotImplemented if way is None else way(self, obj)

    def _way_of(self, cls: Any) -> Callable[[ByValuePickler, Any], Any] | None:
        if issubclass(cls, type):
            return ByValuePickler._class
        if cls is types.FunctionType:
            return ByValuePickler._function
        if wrappers.is_wrapper(cls) or named.may_stand_for_itself(cls) or _may_be_of_main(cls):
            return ByValuePickler._object
        return ByValuePickler._helped if self._needs_help(cls) else None

    def _class(self, cls: Any) -> Any:
        found = super().reducer_override(cls)
        if type(found) is tuple and found[-1] is _cloudpickle._class_setstate:
            _complete(cls)
            return rebuilding.reduce_class(cls)
        return found

    def _function(self, function: Any) -> Any:
        if wrappers.is_single_dispatch(function) and not _cloudpickle._should_pickle_by_reference(function):
            return wrappers.reduce_single_dispatch(function)
        found = super().reducer_override(function)
        if found is not NotImplemented and (place := _below_wrappers(function)) is not None:
            return _unwrapped, place
        if found is not NotImplemented:
            # What follows is code, whatever it was that it began with.
            self.with_state = True
            if stand_in.is_named_in_main(function):
                return (*found[:5], _finish_of_main)
        return found

    def _object(self, obj: Any) -> Any:
        cls: Any = type(obj)
        reduced = wrappers.reduce_wrapper(obj)
        if reduced is not None:
            return reduced
        place = named.place_of(obj, with_state=self.with_state)
        if place is not None:
            state = getattr(obj, "__dict__", None)
            return named.by_name, ((*place, state, cls) if state else place)
        if cls is object or cls.__module__ == named.MAIN:
            found = self._of_main(obj, cls)
            if found is not NotImplemented:
                return found
        return state_of.reduce(obj) if self._needs_help(cls) else NotImplemented

    def _helped(self, obj: Any) -> Any:
        return state_of.reduce(obj)

    def _needs_help(self, cls: Any) -> bool:
        return state_of.needs_help(cls) and cls not in self.dispatch_table

    @staticmethod
    def _of_main(obj: Any, cls: Any) -> Any:
        """The main program's own objects that stand for themselves: plain ones, and those that pickle as a name."""
        if cls is not object:
            reduced: Any = obj.__reduce_ex__(PROTOCOL)
            if not isinstance(reduced, str):
                return NotImplemented
        name = named.in_main(obj)
        if name is None:
            return NotImplemented
        return named.of_main, (name, cls, dict(vars(obj)) if hasattr(obj, "__dict__") else None)


def _complete(cls: Any) -> None:
    """Have a model of pydantic's look up the names in its annotations, as its first use would: they are not there."""
    module = sys.modules.get(cls.__module__)
    if module is not None and vars(cls).get("__pydantic_complete__") is False and hasattr(cls, "model_rebuild"):
        cls.model_rebuild(raise_errors=False, _types_namespace=vars(module))


def _may_be_of_main(cls: Any) -> bool:
    """Whether an object of this class may be one of the main program's that stand for themselves."""
    return cls is object or (
        cls.__module__ == named.MAIN and "__reduce__" in dir(cls) and cls.__reduce__ is not object.__reduce__
    )


def _below_wrappers(function: Any) -> tuple[str, str, int] | None:
    """Where a function lies that a decorator of its module has wrapped: module, name, and how far below."""
    module_name: str = function.__module__ or named.MAIN
    name: str = function.__qualname__
    module = sys.modules.get(module_name)
    if (
        module_name == named.MAIN
        or module is None
        or "<locals>" in name
        or _cloudpickle._is_registered_pickle_by_value(module)
    ):
        return None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    depth = 0
    while found is not function:
        found = getattr(found, "__wrapped__", None)
        if found is None:
            return None
        depth += 1
    return module_name, name, depth


def _finish_of_main(function: Any, state: Any) -> None:
    _cloudpickle._function_setstate(function, state)
    stand_in.arrived(function)


def _unwrapped(module: str, name: str, depth: int) -> Any:
    __import__(module)
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    for _ in range(depth):
        found = found.__wrapped__
    return found
