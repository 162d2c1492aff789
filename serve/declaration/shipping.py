"""Pickle a deployment's code with its arguments, so that a replica in another process can make it.

By reference where the module can be imported there too, else by value: the code of a script or a notebook.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from importlib import import_module
from types import FunctionType
from typing import Any, Final, cast

from actorrt import exceptions
from actorrt.util import ByValuePickler, unpicklable_member

from .annotations import names_in
from .declaration import Deployment

MAIN: Final = ("__main__", "__mp_main__")


# The attribute in which a class below `serve.ingress(app)` has its application.
ASGI_ATTRIBUTE: Final = "__actorrt_asgi__"
# The attribute in which a class says what to do when its arguments cannot be sent.
REMEDY_ATTRIBUTE: Final = "__actorrt_remedy__"
_REMEDY: Final = "make it in the deployment's constructor"
_OF_APPLICATION: Final = "give a function that makes the application in its place, which each replica calls"


def pickle_code(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> bytes:
    """NotSerializableError names the deployment, and what inside of it cannot be sent."""
    try:
        return _pickle((target, args, kwargs))
    except Exception as error:
        parts = [(f"argument {index + 1} of deployment {name!r}", value) for index, value in enumerate(args)]
        parts += [(f"argument {key!r} of deployment {name!r}", value) for key, value in kwargs.items()]
        for what, value in [*parts, (f"deployment {name!r}", target)]:
            if (why := _why_not(value)) is not None:
                raise _explained(what, value, why, getattr(target, REMEDY_ATTRIBUTE, _REMEDY)) from error
        raise _explained(f"deployment {name!r}", target, error) from error


def pickle_value(value: Any, what: str) -> bytes:
    try:
        return _pickle(value)
    except Exception as error:
        raise _explained(what, value, error) from error


def _explained(what: str, value: Any, error: BaseException, remedy: str = _REMEDY) -> exceptions.NotSerializableError:
    path, cause = unpicklable_member(value, error, _why_not)
    of_application = f"its attribute {ASGI_ATTRIBUTE!r}"
    if of_application in path:
        path, remedy = path.replace(of_application, "its application"), _OF_APPLICATION
    return exceptions.NotSerializableError(what, path, f"{type(cause).__name__}: {exceptions.text_of(cause)}; {remedy}")


def _why_not(value: Any) -> BaseException | None:
    try:
        _pickle(value)
    except Exception as error:
        return error
    return None


def _pickle(value: Any) -> bytes:
    buffer = io.BytesIO()
    pickler: Any = _Pickler(buffer)
    pickler.with_state = True
    pickler.dump(value)
    return buffer.getvalue()


_LOCKS: Final[dict[type, Any]] = {type(make()): make for make in (threading.Lock, threading.RLock)}


class _Pickler(ByValuePickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Deployment):
            # In a replica the name of a deployment is that of its class, as in plain Python: for `super(C, self)`.
            return _undecorated, (cast(Any, obj).func_or_class,)
        if (found := _place_of(obj)) is not None:
            return _load_target, found
        if (made := _LOCKS.get(cast("type[Any]", type(obj)))) is not None:
            # A lock guards what is in one process; applications hold some (FastAPI's routers do).
            return made, ()
        reduced: Any = super().reducer_override(obj)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return _with_annotations(obj, reduced) if isinstance(obj, FunctionType) else reduced


def _undecorated(target: Any) -> Any:
    return target


def _with_annotations(function: FunctionType, reduced: Any) -> Any:
    """The function with the names of its postponed annotations: frameworks look those up where it lies."""
    if not isinstance(reduced, tuple):
        return reduced  # it goes by its own name
    for part in cast("tuple[Any, ...]", reduced):
        if isinstance(part, tuple):
            for each in cast("tuple[Any, ...]", part):
                taken: Any = cast("dict[str, Any]", each).get("__globals__") if isinstance(each, dict) else None
                if isinstance(taken, dict):
                    for name in names_in(function.__annotations__.values()):
                        if name in function.__globals__:
                            cast("dict[str, Any]", taken).setdefault(name, function.__globals__[name])
    return cast(Any, reduced)


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
    if not isinstance(path, str) or not is_importable(module_name, path):
        return None
    return module_name, qualname, os.stat(path).st_mtime_ns


def is_importable(name: str, path: str) -> bool:
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
    inside: Any = None
    found: Any = import_module(module)
    for part in qualname.split("."):
        inside, found = found, getattr(found, part)
    if isinstance(found, Deployment):
        found = cast(Any, found).func_or_class
        # As it is by value, see `reducer_override`.
        setattr(inside, qualname.rpartition(".")[2], found)
    return found
