"""Context variables: one that a module has a name for goes by it, another is made once a process, with its default.

What it is set to belongs to a context, and those do not travel.
"""

from __future__ import annotations

import sys
import uuid
from contextvars import Context, ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any, Final, cast

import cloudpickle.cloudpickle as _untyped

from .stand_in import MAIN

_goes_by_value: Final[Any] = cast(Any, _untyped)._is_registered_pickle_by_value

# Context variables are never freed, says their documentation.
_ids: Final[dict[ContextVar[Any], str]] = {}
_variables: Final[dict[str, ContextVar[Any]]] = {}


def reduce(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """How one is pickled."""
    key = _ids.get(variable)
    if key is None:
        place = _place_of(variable)
        if place is not None:
            return _by_name, place
        key = _ids[variable] = uuid.uuid4().hex
        _variables[key] = variable
    try:
        default = (Context().run(variable.get),)
    except LookupError:
        default = ()
    return _made, (key, variable.name, *default)


def _place_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    main = sys.modules.get(MAIN)
    for module_name, module in list(sys.modules.items()):
        # `multiprocessing` gives the main program a second name.
        if module is not main and type(module) is ModuleType and not _goes_by_value(module):
            for name, found in list(vars(module).items()):
                if found is variable:
                    return module_name, name
    return None


def _by_name(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _made(key: str, name: str, *default: Any) -> ContextVar[Any]:
    made: ContextVar[Any] = ContextVar(name, default=default[0]) if default else ContextVar(name)
    variable = _variables.setdefault(key, made)
    _ids.setdefault(variable, key)
    return variable
