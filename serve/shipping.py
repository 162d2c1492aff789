"""Pickle a deployment's code with its arguments, so that a replica in another process can make it.

By reference where the module can be imported there too, else by value: the code of a script or a notebook.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from importlib import import_module
from typing import Any, Final, cast

from actorrt import exceptions
from actorrt.util import ByValuePickler

from .declaration import Deployment

MAIN: Final = ("__main__", "__mp_main__")


def pickle_code(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> bytes:
    """NotSerializableError names the deployment if an argument cannot be sent."""
    return pickle_value((target, args, kwargs), f"deployment {name!r}")


def pickle_value(value: Any, what: str) -> bytes:
    buffer = io.BytesIO()
    pickler: Any = _Pickler(buffer)
    pickler.with_state = True
    try:
        pickler.dump(value)
    except Exception as error:
        raise exceptions.NotSerializableError(what, "", f"{type(error).__name__}: {error}") from error
    return buffer.getvalue()


_LOCKS: Final[dict[type, Any]] = {type(make()): make for make in (threading.Lock, threading.RLock)}


class _Pickler(ByValuePickler):
    def reducer_override(self, obj: Any) -> Any:
        if (found := _place_of(obj)) is not None:
            return _load_target, found
        if (made := _LOCKS.get(cast("type[Any]", type(obj)))) is not None:
            # A lock guards what is in one process; applications hold some (FastAPI's routers do).
            return made, ()
        kind = cast("type[Any]", type(obj))
        if kind.__name__ == "State" and kind.__module__ == "starlette.datastructures":
            # Its `__getattr__` never ends while it is being unpickled.
            return kind, (dict(obj._state),)
        return super().reducer_override(obj)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _place_of(obj: Any) -> tuple[str, str, int] | None:
    """Module, name and age of the deployment that wraps `obj`, if another process can import it.

    cloudpickle would take such a class by value, with all that it refers to, since under its name lies the deployment.
    """
    module_name = getattr(obj, "__module__", None)
    qualname = getattr(obj, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str) or module_name in MAIN:
        return None
    found: Any = sys.modules.get(module_name)
    path = getattr(found, "__file__", None)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Deployment) or found.func_or_class is not obj:
        return None
    if not isinstance(path, str) or not _is_importable(module_name, path):
        return None
    return module_name, qualname, os.stat(path).st_mtime_ns


def _is_importable(name: str, path: str) -> bool:
    """Is it found by its name from sys.path, which workers share?"""
    if not os.path.exists(path):
        return False
    inside = name.replace(".", os.sep)
    places = [os.path.join(entry or os.getcwd(), inside) for entry in sys.path]
    return any(_same(path, place + ".py") or _same(path, os.path.join(place, "__init__.py")) for place in places)


def _same(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)


def _load_target(module: str, qualname: str, age: int) -> Any:
    # The age is there for the version only: a file that was changed is another code.
    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found.func_or_class if isinstance(found, Deployment) else found
