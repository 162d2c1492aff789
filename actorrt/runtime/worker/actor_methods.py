"""Find the code of a method call: the user's, or one of the methods that every actor has."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import Any, Final

from actorrt.core.outcome import ActorExit
from actorrt.wire.messages import StartActor

from ..base.definitions import CALL, READY, TERMINATE, method_specs
from .instance import Instance
from .own_class import method_of


def find_method(instance: Instance, name: str) -> Any:
    """What to call with the arguments. Raises AttributeError if there is no such method."""
    if name in BUILT_IN_METHODS:
        return partial(BUILT_IN_METHODS[name], instance)
    target = instance.target
    own: Any = type(target).__dict__.get(name)
    if type(own) is FunctionType:
        return MethodType(own, target)
    method = method_of(target, name)
    if method is None:
        raise AttributeError(f"{instance.title} has no method {name!r}")
    return method


def _call_with(instance: Instance, function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(instance.target, *args, **kwargs)


def _ready(_: Instance) -> bool:
    return True


def _terminate(_: Instance) -> None:
    raise ActorExit


BUILT_IN_METHODS: Final = {CALL: _call_with, READY: _ready, TERMINATE: _terminate}


class Mark(Enum):
    """What the author of a method has said of it."""

    THREADED = "it runs in a thread"
    MAY_BLOCK = "it blocks its loop on purpose"


@lru_cache(maxsize=1024)
def _marks(cls: type) -> Mapping[str, Mark]:
    specs = method_specs(cls).items()
    blocking = {name: Mark.MAY_BLOCK for name, spec in specs if spec.options.may_block}
    return blocking | {name: Mark.THREADED for name, spec in specs if spec.thread}


def mark_of(cls: type, method: str) -> Mark | None:
    """How a method is marked, if it is."""
    return _marks(cls).get(method)


def actor_title(cls: Any, start: StartActor) -> str:
    """How people read which actor it is."""
    name = getattr(cls, "__name__", "actor")
    return f"{name}({start.name})" if start.name else name
