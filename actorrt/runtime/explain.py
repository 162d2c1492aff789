"""Say which argument, and which member inside it, cannot be pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, Final, cast

from actorrt.exceptions import NotSerializableError
from actorrt.wire import codec

_MAX_DEPTH: Final = 8


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
            return NotSerializableError(f"{name} of {what}", path or f"({type(value).__name__})", str(cause))
    return NotSerializableError(what, "", f"{type(error).__name__}: {error}")


def explain_value(what: str, value: Any, error: BaseException) -> NotSerializableError:
    """The same for one value, such as a result or what is `put`."""
    path, cause = _culprit(value, error, "", _MAX_DEPTH, set())
    return NotSerializableError(what, path or f"({type(value).__name__})", f"{type(cause).__name__}: {cause}")


def _why(value: Any) -> BaseException | None:
    try:
        codec.serialize(value)
    except Exception as error:
        return error
    return None


def _culprit(value: Any, error: BaseException, path: str, depth: int, seen: set[int]) -> tuple[str, BaseException]:
    if depth == 0 or id(value) in seen:
        return path, error
    seen.add(id(value))
    for step, member in _members(value):
        why = _why(member)
        if why is not None:
            return _culprit(member, why, path + step, depth - 1, seen)
    return path, error


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in cast(Mapping[Any, Any], value).items():
            yield f"[{key!r}]", member
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, member in enumerate(cast(list[Any], value)):
            yield f"[{index}]", member
    elif isinstance(value, FunctionType) and value.__closure__:
        for name, cell in zip(value.__code__.co_freevars, value.__closure__, strict=False):
            yield f".<closure {name}>", cell.cell_contents
    else:
        for name, member in getattr(value, "__dict__", {}).items():
            yield f".{name}", member
