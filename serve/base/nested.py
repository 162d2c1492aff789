"""Take values of one kind out of arguments, at any depth of list, tuple and dict, and put others in their places.

A call resolves refs only where they are arguments themselves, so those inside of others travel in front and are put
back on arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

# A structure deeper or wider than this is not searched: it is data, and may even contain itself.
DEEPEST: Final = 10
WIDEST: Final = 10_000


class Place:
    """Stands where the value with this number belongs."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.number,)


def take_out(
    kind: type[Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The values of `kind` that lie inside of arguments, and the arguments with places instead of them."""
    found: list[Any] = []
    new_args = [_take(kind, each, found, 0) for each in args]
    new_kwargs = {key: _take(kind, each, found, 0) for key, each in kwargs.items()}
    return found, new_args, new_kwargs


def _take(kind: type[Any], value: Any, found: list[Any], depth: int) -> Any:
    if isinstance(value, kind):
        if depth == 0:
            return value
        found.append(value)
        return Place(len(found) - 1)
    cls = cast("type[Any]", type(value))
    if cls not in (list, tuple, dict) or depth == DEEPEST or len(value) > WIDEST:
        return value
    if cls is dict:
        taken = {key: _take(kind, each, found, depth + 1) for key, each in value.items()}
        return taken if any(taken[key] is not each for key, each in value.items()) else value
    return _same_if_same(value, cls(_take(kind, each, found, depth + 1) for each in value))


def _same_if_same(old: Any, new: Any) -> Any:
    return new if any(each is not before for each, before in zip(new, old, strict=True)) else old


def put_back(
    values: Sequence[Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the values in their places."""
    return tuple(_put(each, values) for each in args), {key: _put(each, values) for key, each in kwargs.items()}


def _put(value: Any, values: Sequence[Any]) -> Any:
    if isinstance(value, Place):
        return values[value.number]
    cls = cast("type[Any]", type(value))
    if cls is list:
        return [_put(each, values) for each in value]
    if cls is tuple:
        return tuple(_put(each, values) for each in value)
    if cls is dict:
        return {key: _put(each, values) for key, each in value.items()}
    return value
