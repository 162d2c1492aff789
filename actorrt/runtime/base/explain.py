"""Say which argument, function or class cannot be pickled, and which member inside it."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from actorrt.exceptions import NotSerializableError, text_of
from actorrt.wire import codec

_MAX_DEPTH: Final = 8
# A ref or a handle says itself why it cannot go.
_OURS: Final = "actorrt."
_REMEDY: Final = "make it inside of the code that uses it, or in the actor's constructor"


def explain_unpicklable(
    what: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: BaseException
) -> NotSerializableError:
    """The error for a call to `what` whose arguments did not pickle."""
    named: list[tuple[str, Any]] = [(f"argument {i + 1}", value) for i, value in enumerate(args)]
    named += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for name, value in named:
        why = _why(value)
        if why is not None:
            path, cause = _culprit(value, why, "", _MAX_DEPTH, set())
            return NotSerializableError(f"{name} of {what}", path or f"({type(value).__name__})", text_of(cause))
    return NotSerializableError(what, "", f"{type(error).__name__}: {text_of(error)}")


def explain_value(what: str, value: Any, error: BaseException) -> NotSerializableError:
    """The same for one value, such as a result or what is `put`."""
    path, cause = _culprit(value, error, "", _MAX_DEPTH, set())
    said = f"{type(cause).__name__}: {text_of(cause)}"
    return NotSerializableError(what, path or f"({type(value).__name__})", said)


def explain_code(name: str, code: Any, error: BaseException) -> NotSerializableError:
    """The same for a function or class that is to run in another process."""
    what = f"class {name}" if isinstance(code, type) else f"function {name}"
    path, cause = _culprit(code, error, "", _MAX_DEPTH, set())
    return NotSerializableError(what, path, f"{text_of(cause)}: {_REMEDY}" if path else text_of(cause))


def _why(value: Any) -> BaseException | None:
    try:
        codec.serialize(value)
    except Exception as error:
        return error
    return None


def unpicklable_member(
    value: Any, error: BaseException, why: Callable[[Any], BaseException | None]
) -> tuple[str, BaseException]:
    """Where inside of `value` what cannot be pickled lies, "" if it is the value itself, and its own error.

    `error` is that of the value; `why` pickles a member, and gives the error or None.
    """
    return _culprit(value, error, "", _MAX_DEPTH, set(), why)


def _culprit(
    value: Any,
    error: BaseException,
    path: str,
    depth: int,
    seen: set[int],
    why_not: Callable[[Any], BaseException | None] | None = None,
) -> tuple[str, BaseException]:
    if depth == 0 or id(value) in seen:
        return path, error
    seen.add(id(value))
    for step, member in _members(value):
        if id(member) in seen:
            continue
        why = (why_not or _why)(member)
        if why is not None:
            between = ", " if path and step.startswith("its ") else ""
            return _culprit(member, why, path + between + step, depth - 1, seen, why_not)
    return path, error


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in cast(Mapping[Any, Any], value).items():
            yield f"[{key!r}]", member
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, member in enumerate(cast(list[Any], value)):
            yield f"[{index}]", member
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, types.MethodType):
        yield "its object", value.__self__
        yield "", value.__func__
    elif isinstance(value, functools.partial):
        partial = cast("functools.partial[Any]", value)
        yield "", partial.func
        yield "its arguments", partial.args
        yield "its arguments", partial.keywords
    elif not type(value).__module__.startswith(_OURS):
        for name, member in list(getattr(value, "__dict__", {}).items()):
            yield f".{name}", member
        for base in type(value).__mro__:
            for name, slot in list(vars(base).items() if "__slots__" in vars(base) else ()):
                if isinstance(slot, types.MemberDescriptorType) and hasattr(value, name):
                    yield f".{name}", getattr(value, name)
        # Last: an object whose parts are fine is of a class that is not.
        yield "its class", type(value)


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"its captured variable {name!r}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    for name in _names_in(code):
        if name in function.__globals__:
            yield f"its global {name!r}", function.__globals__[name]
    defaults = function.__defaults__ or ()
    parameters = code.co_varnames[: code.co_argcount]
    for name, default in zip(parameters[len(parameters) - len(defaults) :], defaults, strict=False):
        yield f"its default of {name!r}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"its default of {name!r}", default
    for name, member in list(vars(function).items()):
        yield f".{name}", member
    yield "its annotations", function.__annotations__


def _names_in(code: types.CodeType) -> dict[str, None]:
    names = dict.fromkeys(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names.update(_names_in(inner))
    return names


def _of_class(cls: type) -> Iterator[tuple[str, Any]]:
    for name, member in list(vars(cls).items()):
        if name in ("__dict__", "__weakref__", "_abc_impl"):
            continue
        for function in _functions_in(member):
            yield f"its method {name}", function
        if not isinstance(member, types.FunctionType | staticmethod | classmethod | property):
            yield f"its attribute {name!r}", member
    for base in cls.__bases__:
        yield f"its base {base.__name__}", base


def _functions_in(member: Any) -> list[Callable[..., Any]]:
    if isinstance(member, types.FunctionType):
        return [member]
    if isinstance(member, staticmethod | classmethod):
        return [cast("staticmethod[..., Any]", member).__func__]
    if isinstance(member, property):
        return [found for found in (member.fget, member.fset, member.fdel) if found is not None]
    return []
