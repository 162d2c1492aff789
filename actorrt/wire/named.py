"""Objects that stand for themselves, such as `dataclasses.MISSING`: they travel by the name that a module has for them.

What is compared by `is` must be the same object after the trip. An object without state that lies in a module is taken
for one of these, and so is one that says that it is its own copy. Those of the main program are made once a process.
"""

# Everything here is of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import copyreg
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from operator import methodcaller
from types import ModuleType
from typing import Any, Final, cast

from . import state

MAIN: Final = "__main__"
_PROTOCOL: Final = 5
_INHERITED: Final = ("__reduce__", "__reduce_ex__")
_OWN_STATE: Final = ("__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_ATOMS: Final = frozenset({int, str, float, bytes, bool, type(None), type})
_as_usual: Final = methodcaller("__reduce_ex__", _PROTOCOL)

Reduced = str | tuple[Any, ...]
# Where plain objects lie, by id, and how many modules were looked at.
_plain: dict[int, tuple[str, str]] = {}
_looked_at = 0
# How many names the module of a class had, and whether one of them was that of an object of this class.
_have_names: Final[weakref.WeakKeyDictionary[type, tuple[int, bool]]] = weakref.WeakKeyDictionary()


def place_of(obj: Any, *, with_state: bool = False) -> tuple[str, str] | None:
    """Module and name of an object that stands for itself, else None.

    `with_state`: also one whose attributes are plain values; who loads it checks that they are the same there.
    """
    cls: type = type(obj)
    if cls is object:
        return _place_of_plain(obj)
    # First of all: the next question may be one to the user's code, and costs as much as a copy of the object.
    place = _in_module(cls.__module__, obj) if may_stand_for_itself(cls) else None
    if place is None:
        return None
    state = getattr(obj, "__dict__", None)
    plain = not state or (with_state and all(type(v) in _ATOMS for v in state.values()))
    return place if (plain and _by_default(cls)) or _is_own_copy(obj) else None


def may_stand_for_itself(cls: type) -> bool:
    """Whether objects of this class are among what its module has names for; looked at again if that has more names."""
    module_name: Any = cls.__module__
    module = sys.modules.get(module_name) if isinstance(module_name, str) else None
    if cls is object or module is None or module_name == MAIN:
        return cls is object
    names = vars(module)
    known = _have_names.get(cls)
    if known is None or known[0] != len(names):
        known = _have_names[cls] = len(names), any(type(found) is cls for found in list(names.values()))
    return known[1]


def _by_default(cls: type) -> bool:
    """Whether it is pickled as any object is, and has no slots nor items."""
    if cls.__itemsize__ or cls.__base__ is None or any(getattr(cls, m) is not getattr(object, m) for m in _INHERITED):
        return False
    if any(getattr(cls, name, None) is not getattr(object, name, None) for name in _OWN_STATE):
        return False
    return all(base is object or (base.__flags__ & 1 << 9 and not vars(base).get("__slots__")) for base in cls.__mro__)


def _is_own_copy(obj: Any) -> bool:
    cls: Any = type(obj)
    try:
        if "__copy__" in dir(cls):
            return cls.__copy__(obj) is obj
        return "__deepcopy__" in dir(cls) and cls.__deepcopy__(obj, {}) is obj
    except Exception:
        return False


def _in_module(module_name: Any, obj: Any) -> tuple[str, str] | None:
    module = sys.modules.get(module_name) if isinstance(module_name, str) else None
    if module is None or module_name == MAIN:
        return None
    for name, found in list(vars(module).items()):
        if found is obj:
            return module_name, name
    return None


def _place_of_plain(obj: object) -> tuple[str, str] | None:
    global _plain, _looked_at
    modules = sys.modules
    if (count := len(modules)) != _looked_at:
        found_here: dict[int, tuple[str, str]] = {}
        main = modules.get(MAIN)
        for module_name, module in list(modules.items()):
            # `multiprocessing` gives the main program a second name.
            if module is not main and type(module) is ModuleType:
                for name, found in list(vars(module).items()):
                    if type(found) is object:
                        found_here.setdefault(id(found), (module_name, name))
        # Whole and in this order: another thread may look meanwhile.
        _plain = found_here
        _looked_at = count
    place = _plain.get(id(obj))
    if place is not None and getattr(modules.get(place[0]), place[1], None) is obj:
        return place
    return None


def in_main(obj: Any) -> str | None:
    """The name that the main program has for an object of its own, else None."""
    main = sys.modules.get(MAIN)
    if main is not None:
        for name, found in list(vars(main).items()):
            if found is obj:
                return name
    return None


def by_name(module: str, name: str, state: dict[str, Any] | None = None, cls: Any = None) -> Any:
    """The object that the module has here; another one like that which was sent, where it has none or it differs."""
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        found = None
    if found is not None and (cls is None or (type(found) is cls and vars(found) == state)):
        return found
    made = object.__new__(object if cls is None else cls)
    if state:
        vars(made).update(state)
    return made


def of_main(name: str, cls: Any, state: dict[str, Any] | None) -> Any:
    """The main program's object of this name; made once where the main program is another process."""
    main = sys.modules[MAIN]
    found = vars(main).get(name)
    if found is None or type(found) is not cls:
        made = object.__new__(cls)
        if state:
            vars(made).update(state)
        found = vars(main)[name] = made
    return found


class Reducers(dict[type, Callable[[Any], Reduced]]):
    """How plain pickle takes objects by their class: as ever, but for those that stand for themselves.

    Each class is looked at once, and again when `copyreg` knows of more.
    """

    _registered = 0

    def up_to_date(self) -> Reducers:
        if len(copyreg.dispatch_table) != self._registered:
            self._registered = len(copyreg.dispatch_table)
            self.clear()
        return self

    def __missing__(self, cls: type) -> Callable[[Any], Reduced]:
        registered: Any = copyreg.dispatch_table.get(cls)
        if registered is not None:
            return registered
        if cls.__module__ == MAIN:
            # The by-value pickler has its turn, now that it is known, and does not look at the classes of this program
            # one object after the other.
            raise TypeError("an object of the main program")
        module = sys.modules.get(cls.__module__)
        if issubclass(cls, type) or module is None or getattr(module, cls.__name__, None) is not cls:
            # A metaclass, or a class that may go: neither is remembered.
            raise KeyError(cls)
        has_some = cls is object or any(type(found) is cls for found in list(vars(module).values()))
        if has_some:
            made = _by_name_or_as_usual
        else:
            made = cast("Callable[[Any], Reduced]", state.reduce if state.needs_help(cls) else _as_usual)
        self[cls] = made
        return made


def _by_name_or_as_usual(obj: Any) -> Reduced:
    place = place_of(obj)
    if place is not None:
        return by_name, place
    if type(obj) is object and in_main(obj) is not None:
        # The by-value pickler has its turn.
        raise TypeError("an object of the main program")
    return state.reduce(obj) if state.needs_help(type(obj)) else obj.__reduce_ex__(_PROTOCOL)
