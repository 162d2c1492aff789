"""Turn a function or class into bytes that a worker can turn back.

What lies at the top of a module that a worker can import goes by name: it keeps the module's globals and costs little.
All else (the main program, cells of a notebook, nested functions) goes by value. Code that went by name is what the
worker imports: a module that was changed or reloaded meanwhile is not seen.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, cast

import cloudpickle as _untyped

from actorrt.wire import by_value as _by_value

cloudpickle = cast(Any, _untyped)

_DEFINITION: Final = "definition"


def ship(code: Callable[..., Any]) -> bytes:
    """Bytes for `load`. Raises what pickling raises."""
    module = sys.modules.get(getattr(code, "__module__", None) or "")
    if module is not None and module.__name__ != "__main__":
        if not _workers_find(module):
            # Then its other functions and classes, which this one may use, cannot go by name either.
            cloudpickle.register_pickle_by_value(module)
        elif module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            name = getattr(code, "__qualname__", "<locals>")  # what is neither function nor class has none
            if "<locals>" not in name and _undecorated(_walk(module, name)) is code:
                return by_value(_Named(module.__name__, name))
    return by_value(code)


def by_value(value: object) -> bytes:
    """Bytes for `load`; what the main program defines goes with them."""
    return _by_value.dumps(value, code=True)


def load(blob: bytes) -> Any:
    return cloudpickle.loads(blob)


class _Named:
    def __init__(self, module: str, name: str) -> None:
        self._path = (module, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _import, self._path


def _import(module: str, name: str) -> Any:
    return _undecorated(_walk(importlib.import_module(module), name))


def _walk(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _undecorated(found: Any) -> Any:
    """The module has the decorated object under the name of the code."""
    definition = getattr(found, _DEFINITION, None)
    return found if definition is None else getattr(definition, "code", found)


def _workers_find(module: ModuleType) -> bool:
    """Whether the import system would find this module's file, were it not imported already."""
    name, _, _ = module.__name__.rpartition(".")
    parent = sys.modules.get(name) if name else None
    if name and (parent is None or not _workers_find(parent)):
        return False
    path = getattr(parent, "__path__", None)
    for finder in sys.meta_path:
        spec = finder.find_spec(module.__name__, path)
        if spec is not None:
            return spec.origin == getattr(module.__spec__, "origin", None)
    return False
