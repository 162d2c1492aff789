"""Find the code of a method call: the user's, or one of the methods that every actor has."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Final

from actorrt.wire.messages import StartActor

from .definitions import CALL, READY, TERMINATE, method_specs
from .executor import ActorExit, unknown_method
from .instance import Instance


def find_method(instance: Instance, name: str) -> Any:
    """What to call with the arguments. Raises AttributeError if there is no such method."""
    if name.startswith("__") and name in BUILT_IN_METHODS:
        return partial(BUILT_IN_METHODS[name], instance)
    method = getattr(instance.target, name, None)
    if method is None:
        raise unknown_method(instance, name)
    return method


def _call_with(instance: Instance, function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(instance.target, *args, **kwargs)


def _ready(_: Instance) -> bool:
    return True


def _terminate(_: Instance) -> None:
    raise ActorExit


BUILT_IN_METHODS: Final = {CALL: _call_with, READY: _ready, TERMINATE: _terminate}


@lru_cache(maxsize=1024)
def _threaded_methods(cls: type) -> frozenset[str]:
    return frozenset(name for name, spec in method_specs(cls).items() if spec.thread)


def is_threaded(cls: type, method: str) -> bool:
    """True for a method that is marked to run in a thread."""
    return method in _threaded_methods(cls)


@lru_cache(maxsize=1024)
def _blocking_methods(cls: type) -> frozenset[str]:
    return frozenset(name for name, spec in method_specs(cls).items() if spec.options.may_block)


def may_block(cls: type, method: str) -> bool:
    """True for a method that is marked to block its loop on purpose."""
    return method in _blocking_methods(cls)


def actor_title(cls: Any, start: StartActor) -> str:
    """How people read which actor it is."""
    name = getattr(cls, "__name__", "actor")
    return f"{name}({start.name})" if start.name else name
