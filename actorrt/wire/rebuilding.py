"""Classes that travel by value: what their bytes say, and how a process makes them once and never again.

A class of the main program has no name under which another process could import it. Its bytes carry an id, by which a
process finds the class that it has: its own, or the one that it made before. Neither is changed by what arrives later,
so that counters and registries in class attributes belong to the process that they are in. A class is rebuilt and not
defined anew: it gets the attributes that it had, and the program's hooks do not run a second time.
"""

# Everything here is of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import abc
import enum
import logging
import types
import uuid
import weakref
from _thread import RLock  # guards the tables of this process; nothing waits under it
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, Generic, Protocol, cast

from . import stand_in

logger = logging.getLogger("actorrt")

_lock: Final[Any] = RLock()
_ids: Final[weakref.WeakKeyDictionary[type, str]] = weakref.WeakKeyDictionary()
_classes: Final[weakref.WeakValueDictionary[str, type]] = weakref.WeakValueDictionary()
# Those that were made here and lack their attributes as yet.
_unfinished: Final[weakref.WeakSet[type]] = weakref.WeakSet()
# A program's classes keep what a worker has set in them also while it has no object of theirs; those that functions
# make go with their last object.
_kept: Final[deque[type]] = deque(maxlen=64)
_rebuilding: Final[ContextVar[bool]] = ContextVar("actorrt_rebuilding", default=False)

_HOOK: Final = "__init_subclass__"
_HARMLESS_HOOKS: Final = frozenset({object, Generic, Protocol})
# Metaclasses that keep nothing outside of the class but what `_finish` sets.
_PLAIN_METACLASSES: Final = frozenset({type, abc.ABCMeta, type(Protocol)})
# What the class or the enum makes for itself.
_NOT_SENT: Final = frozenset({"__dict__", "__weakref__", "__annotate_func__"})
# Attributes of every class, which one's own of that name can join only as the class is made.
_OF_CLASSES: Final = frozenset(
    name
    for name, member in vars(type).items()
    if isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType) and name not in vars(object)
) - {"__dict__", "__module__", "__qualname__", "__annotations__", "__abstractmethods__", "__type_params__"} | {
    "__class__"
}
_ENUM_TABLES: Final = frozenset({"_member_names_", "_member_map_", "_member_type_", "_value2member_map_"})
_MEMBER_FACTS: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
_EVERYTHING: Final = slice(None)
# Read the plain value inside of an enum's member, past what the enum overrides.
_PLAIN_VALUE: Final[Mapping[type, Callable[[Any], Any]]] = {
    int: int.__index__,
    float: float.__float__,
    str: "".join,
    bytes: lambda member: bytes.__getitem__(member, _EVERYTHING),
    tuple: lambda member: tuple.__getitem__(member, _EVERYTHING),
}


def reduce_class(cls: type) -> tuple[Any, ...]:
    """How a class that goes by value is pickled."""
    own = {name: value for name, value in vars(cls).items() if name not in _NOT_SENT and not _is_slot(cls, value)}
    registered: list[type] = []
    if own.pop("_abc_impl", None) is not None:
        dumped = cast("tuple[set[Any], Any, Any, int]", cast(Any, abc)._get_dump(cls))
        registered = [found for found in (reference() for reference in dumped[0]) if found is not None]
    if isinstance(cls, enum.EnumMeta):
        members = cast("dict[str, Any]", dict(cls.__members__))
        own = {name: value for name, value in own.items() if name not in _ENUM_TABLES and name not in members}
        facts = {
            name: {fact: value for fact, value in vars(member).items() if fact not in _MEMBER_FACTS}
            for name, member in members.items()
        }
        values = {name: (member._value_, *_plain_value(cls, member)) for name, member in members.items()}
        made_of = type(cls), cls.__bases__, cls.__name__, cls.__qualname__, cls.__module__, values, _id_of(cls)
        return _make_enum, made_of, (own, registered, facts), None, None, _finish
    return _make_class, _made_of(cls), (own, registered, {}), None, None, _finish


def _made_of(cls: type) -> tuple[Any, ...]:
    own = vars(cls)
    space: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if "__slots__" in own:
        # As the class has them: what `__slots__` holds may be an iterator that is spent.
        slots = [name for name, member in own.items() if _is_slot(cls, member)]
        space["__slots__"] = (*slots, *(name for name in ("__dict__", "__weakref__") if name in own))
    elif isinstance(own.get("__dict__"), property):
        space["__dict__"] = own["__dict__"]
    # A property's functions, which may refer to the class, come later.
    space |= {name: property() if type(own[name]) is property else own[name] for name in _OF_CLASSES & own.keys()}
    return type(cls), cls.__name__, cls.__bases__, own.get("__orig_bases__"), space, _id_of(cls)


def _is_slot(cls: type, member: object) -> bool:
    return isinstance(member, types.MemberDescriptorType) and member.__objclass__ is cls


def _plain_value(cls: Any, member: Any) -> tuple[Any, ...]:
    read = _PLAIN_VALUE.get(cls._member_type_)
    return () if read is None else (read(member),)


def _id_of(cls: type) -> str:
    with _lock:
        found = _ids.get(cls)
        if found is None:
            found = _ids[cls] = uuid.uuid4().hex
            _classes[found] = cls
        return found


# ---- in the process that unpickles


def _make_class(
    meta: type, name: str, bases: tuple[type, ...], orig_bases: tuple[Any, ...] | None, space: dict[str, Any], key: str
) -> type:
    found = _classes.get(key)
    if found is not None:
        return found
    # The nearest metaclass that is not the program's own, whose doings come with the class.
    library = next(kind for kind in meta.__mro__ if kind not in _ids)
    with _without_hook(bases):
        if library in _PLAIN_METACLASSES:
            if orig_bases is not None:
                space["__orig_bases__"] = orig_bases
            made = cast(Any, library).__new__(meta, name, bases, space)
        else:
            made = types.new_class(name, orig_bases or bases, {"metaclass": meta}, lambda into: into.update(space))
    return _enter(key, made)


def _make_enum(
    meta: Any, bases: tuple[type, ...], name: str, qualname: str, module: str, values: dict[str, Any], key: str
) -> type:
    found = _classes.get(key)
    if found is not None:
        return found

    def new(cls: Any, value: Any, *plain: Any) -> Any:
        # What the enum's own `__new__` made of the value comes with the member.
        member = cls._member_type_.__new__(cls, *plain) if plain else object.__new__(cls)
        member._value_ = value
        return member

    with _without_hook(bases):
        space = meta.__prepare__(name, bases)
        space.update({"__module__": module, "__qualname__": qualname})
        space["__new__"] = new
        space["__init__"] = _nothing
        for member, facts in values.items():
            space[member] = facts
        made = meta.__new__(meta, name, bases, space)
    for temporary in ("__init__", "__new_member__"):
        with suppress(AttributeError):
            type.__delattr__(made, temporary)
    return _enter(key, made)


def _nothing(_: Any, *args: Any) -> None:
    """In place of an enum's own `__init__`."""


def _enter(key: str, made: type) -> type:
    with _lock:
        # Another thread may have been first.
        winner = _classes.setdefault(key, made)
        if winner is made:
            _ids[made] = key
            _unfinished.add(made)
            if "<locals>" not in made.__qualname__:
                _kept.append(made)
            stand_in.arrived(made)
        return winner


def _finish(cls: type, state: tuple[dict[str, Any], list[type], dict[str, dict[str, Any]]]) -> None:
    """Give a class its attributes; one that has them is left alone."""
    own, registered, facts = state
    with _lock:
        if cls not in _unfinished:
            return
        _set(cls, own)
        for name, found in facts.items():
            cast(Any, cls)[name].__dict__.update(found)
        for other in registered:
            cast(Any, cls).register(other)
        _unfinished.discard(cls)
    definer = _definer(cls.__mro__[1:])
    if definer is not None and definer not in _ids:
        # A library keeps lists of the classes derived from its own; that of this process gets to know this one.
        try:
            cast(Any, super(cls, cls)).__init_subclass__()
        except Exception:
            logger.debug("%s of %s refused %s", _HOOK, definer, cls, exc_info=True)
        _set(cls, own)


def _set(cls: type, own: dict[str, Any]) -> None:
    # Past the metaclass, which may refuse or count.
    for name, value in own.items():
        if name not in _OF_CLASSES or name not in vars(cls):
            type.__setattr__(cls, name, value)
        elif type(value) is property:
            vars(cls)[name].__init__(value.fget, value.fset, value.fdel, value.__doc__)
    if "__firstlineno__" in own:
        # Setting the module's name has deleted it.
        type.__setattr__(cls, "__firstlineno__", own["__firstlineno__"])


def _definer(classes: tuple[type, ...]) -> type | None:
    for cls in classes:
        if _HOOK in vars(cls):
            return None if cls in _HARMLESS_HOOKS else cls
    return None


@contextmanager
def _without_hook(bases: tuple[type, ...]) -> Generator[None]:
    """The hook of `bases` is not called for what this thread derives from them meanwhile."""
    definer = _definer(tuple(cls for base in bases for cls in base.__mro__))
    if definer is None:
        yield
        return
    with _lock:
        hook = vars(definer)[_HOOK]

        def quiet(cls: type, **kwargs: Any) -> None:
            if not _rebuilding.get():
                hook.__get__(None, cls)(**kwargs)

        type.__setattr__(definer, _HOOK, classmethod(quiet))
        token = _rebuilding.set(True)
        try:
            yield
        finally:
            _rebuilding.reset(token)
            type.__setattr__(definer, _HOOK, hook)
