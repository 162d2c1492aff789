"""Objects whose attributes plain pickle cannot give back, though nothing is wrong with them.

A class with `__getattr__` is asked for `__setstate__` before the object has an attribute that it could answer from, and
never ends (starlette's State). A lock that a dataclass makes for each object is made anew, as for any new object.
"""

# Everything here is of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import sys
from _thread import RLock, allocate_lock
from typing import Any, Final

_PROTOCOL: Final = 5
_LOCKS: Final = (allocate_lock, type(allocate_lock()), RLock)


def needs_help(cls: type) -> bool:
    """Whether `reduce` is to take the objects of this class."""
    if not hasattr(cls, "__setstate__") and hasattr(cls, "__getattr__"):
        return True
    return hasattr(cls, "__dataclass_fields__") and bool(_locks_of(cls))


def _locks_of(cls: Any) -> list[str]:
    if hasattr(cls, "__getstate__") and cls.__getstate__ is not getattr(object, "__getstate__", None):
        return []
    return [each.name for each in dataclasses.fields(cls) if _makes_a_lock(each.default_factory)]


def _makes_a_lock(factory: Any) -> bool:
    # `threading.RLock` is a function of Python's around the C one.
    return factory in _LOCKS or (getattr(factory, "__module__", "") == "threading" and factory.__name__ == "RLock")


def reduce(obj: Any) -> Any:
    """As ever, but that `_restore` gives the object its attributes."""
    reduced = obj.__reduce_ex__(_PROTOCOL)
    if isinstance(reduced, str) or len(reduced) < 3 or reduced[2] is None or (len(reduced) > 5 and reduced[5]):
        return reduced
    state = reduced[2]
    if isinstance(state, dict) and hasattr(type(obj), "__dataclass_fields__") and (locks := _locks_of(type(obj))):
        state = {name: value for name, value in state.items() if name not in locks}
    made, arguments, _, items, pairs = (*reduced[:5], None, None)[:5]
    return made, arguments, state, items, pairs, restore


def restore(obj: Any, state: Any) -> None:
    """What pickle does, past `__getattr__`."""
    if hasattr(type(obj), "__setstate__"):
        obj.__setstate__(state)
        return
    attributes: Any
    slots: Any
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        own = object.__getattribute__(obj, "__dict__")
        own.update({sys.intern(name) if type(name) is str else name: value for name, value in attributes.items()})
    for name, value in (slots or {}).items():
        setattr(obj, name, value)
    if dataclasses.is_dataclass(obj):
        for each in dataclasses.fields(obj):
            if _makes_a_lock(each.default_factory) and each.name not in obj.__dict__:
                factory: Any = each.default_factory
                obj.__dict__[each.name] = factory()
