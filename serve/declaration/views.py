"""Routes to methods of a class: an ingress claims them where it is written, a replica binds them to its instance.

A route is made anew for the bound method, since FastAPI looks at its parameters then, and gets all else that the old
one had: attributes, middleware, whatever the route was wrapped in. Other functions of the class that the application
calls (handlers of errors, middleware, dependencies, startup) are bound likewise.
"""

# Routes and applications are of any type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import inspect
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Final, TypeVar

from .declaration import REFUSED

# A function's: the id of the class that it belongs to. A class's: its id.
_OF: Final = "__actorrt_view_of__"
_ID: Final = "__actorrt_views__"
# What a route of FastAPI's learns from the parameters of its endpoint.
_LEARNT: Final = frozenset({"endpoint", "app", "dependant", "_flat_dependant", "body_field", "_embed_body_fields"})
_MOST_LOOKED_AT: Final = 200
_SELF: Final = "self"


def claim(app: Any, cls: type) -> None:
    """Mark the functions of `cls` that `app` calls. TypeError if a route to one could not be served as it is.

    One that takes no self is refused where the class is deployed.
    """
    for route, endpoint in _endpoints(app):
        if (owner := _owner(endpoint, cls)) is not None:
            if text := _lacks_self(route, endpoint, cls):
                setattr(cls, REFUSED, text)
                continue
            try:
                _Anew(route, endpoint.__get__(cls))
            except Exception as error:
                raise TypeError(
                    f"{_of(route)} calls {endpoint.__qualname__} and cannot be bound to an instance of "
                    f"{cls.__name__}: {type(error).__name__}: {error}"
                ) from error
            _mark(endpoint, owner)
    for container, key in _hooks(app):
        if (owner := _owner(container[key], cls)) is not None:
            _mark(container[key], owner)


def bind(app: Any, instance: object) -> None:
    """Have the routes of `app` to functions of the instance's class call its methods.

    Those that another class has claimed are taken out: that class is another deployment's.
    """
    cls = type(instance)
    changed = False
    for holder, routes in list(_lists_of_routes(app)):
        kept: list[Any] = []
        for route in routes:
            endpoint = getattr(route, "endpoint", None)
            if (owner := _owner(endpoint, cls)) is not None:
                _bind_dependencies(app, route, instance)
                kept.append(_Anew(route, _bound(endpoint, owner, instance)).replace())
            elif not hasattr(endpoint, _OF):
                kept.append(route)
        if len(kept) != len(routes) or any(new is not old for new, old in zip(kept, routes, strict=True)):
            changed = True
            routes[:] = kept
            # FastAPI keeps what it made of included routers until it is told.
            getattr(holder, "_mark_routes_changed", lambda: None)()
    for container, key in _hooks(app):
        if (owner := _owner(container[key], cls)) is not None:
            container[key] = _bound(container[key], owner, instance)
    if changed and getattr(app, "openapi_schema", None) is not None:
        app.openapi_schema = None


def _lists_of_routes(app: Any, seen: set[int] | None = None) -> Iterator[tuple[Any, list[Any]]]:
    seen = set() if seen is None else seen
    routes = getattr(app, "routes", None)
    if not isinstance(routes, list) or id(routes) in seen:
        return
    seen.add(id(routes))
    yield getattr(app, "router", app), routes
    for route in list(routes):
        for inner in (getattr(route, "original_router", None), getattr(route, "app", None), route):
            yield from _lists_of_routes(inner, seen)


def _endpoints(app: Any) -> Iterator[tuple[Any, Any]]:
    for _, routes in _lists_of_routes(app):
        for route in routes:
            yield route, getattr(route, "endpoint", None)


def _hooks(app: Any) -> list[tuple[Any, Any]]:
    """Where else an application keeps functions: containers and keys."""
    found: list[tuple[Any, Any]] = []
    handlers = getattr(app, "exception_handlers", None)
    if isinstance(handlers, dict):
        found += [(handlers, key) for key in handlers]
    for each in getattr(app, "user_middleware", ()):
        options = getattr(each, "kwargs", None)
        if isinstance(options, dict) and "dispatch" in options:
            found.append((options, "dispatch"))
    for name in ("on_startup", "on_shutdown"):
        listed = getattr(getattr(app, "router", app), name, None)
        if isinstance(listed, list):
            found += [(listed, index) for index in range(len(listed))]
    return found


def _owner(function: Any, cls: type) -> type | None:
    """The class, this one or a base, that the function is a method of; None for all others."""
    if not isinstance(function, FunctionType):
        return None
    id_of_class = getattr(function, _OF, None)
    module, qualname = function.__module__, function.__qualname__.rpartition(".")[0]
    for base in cls.__mro__[:-1]:
        if id_of_class is not None:
            if vars(base).get(_ID) == id_of_class:
                return base
            continue
        own = list(vars(base).values())
        if any(isinstance(value, staticmethod) and value.__func__ is function for value in own):
            return None
        if (base.__module__, base.__qualname__) == (module, qualname) or any(_is_below(function, v) for v in own):
            # Also one whose name the class gave to another, or that a decorator above the route's has wrapped.
            return base
    return None


def _is_below(function: FunctionType, value: Any) -> bool:
    value = getattr(value, "__func__", value)
    while isinstance(value, FunctionType):
        if value is function:
            return True
        value = getattr(value, "__wrapped__", None)
    return False


def _mark(function: FunctionType, owner: type) -> None:
    id_of_class = vars(owner).get(_ID)
    if id_of_class is None:
        id_of_class = uuid.uuid4().hex
        setattr(owner, _ID, id_of_class)
    setattr(function, _OF, id_of_class)


def _bound(function: Any, owner: type, instance: object) -> Any:
    if any(isinstance(value, classmethod) and value.__func__ is function for value in vars(owner).values()):
        return function.__get__(type(instance))
    return function.__get__(instance)


def _bind_dependencies(app: Any, route: Any, instance: object) -> None:
    """`Depends(method)`: the application is told to call the bound one instead."""
    overrides = getattr(getattr(route, "dependency_overrides_provider", None) or app, "dependency_overrides", None)
    if not isinstance(overrides, dict):
        return
    waiting = [getattr(route, "dependant", None)]
    while waiting:
        for each in getattr(waiting.pop(), "dependencies", ()):
            waiting.append(each)
            if (owner := _owner(each.call, type(instance))) is not None:
                overrides.setdefault(each.call, _bound(each.call, owner, instance))


def _lacks_self(route: Any, endpoint: FunctionType, cls: type) -> str:
    """What is wrong with a method that is called without its object. "" if nothing is."""
    parameters = list(inspect.signature(endpoint).parameters.values())
    first = parameters[0] if parameters else None
    if first is not None and first.kind is not first.VAR_POSITIONAL:
        plain = first.kind is first.POSITIONAL_ONLY or first.kind is first.POSITIONAL_OR_KEYWORD
        in_path = first.name in getattr(route, "param_convertors", ())
        annotated = first.name != _SELF and first.annotation is not first.empty and not _is_self(first.annotation, cls)
        if not plain or first.default is not first.empty or in_path or annotated:
            first = None
    if first is not None:
        return ""
    return (
        f"{_of(route)} calls {endpoint.__qualname__}{inspect.signature(endpoint)}, which takes no self: write "
        f"def {endpoint.__name__}(self, ...), since it is a method of {cls.__name__}, or @staticmethod above the route"
    )


def _is_self(annotation: Any, cls: type) -> bool:
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    bare = name.rpartition(".")[2].strip("'\"")
    return isinstance(annotation, TypeVar) or bare in ("Self", *(base.__name__ for base in cls.__mro__[:-1]))


def _of(route: Any) -> str:
    methods = " ".join(sorted(set(getattr(route, "methods", None) or ()) - {"HEAD"}))
    return f"route {methods} {getattr(route, 'path', route)}".replace("  ", " ")


class _Anew:
    """A route like another one but for its endpoint. Nothing is changed before `replace`."""

    def __init__(self, route: Any, endpoint: Any) -> None:
        self._old = route
        core, self._put = _core_of(route)
        arguments: dict[str, Any] = {}
        for name, parameter in _parameters_of(type(route)).items():
            if hasattr(route, name):
                arguments[name] = getattr(route, name)
            elif (held := _captured(core, name)) is not _NOTHING:
                arguments[name] = held
            elif parameter.default is parameter.empty:
                raise TypeError(f"{type(route).__qualname__} takes {name!r}, which its routes do not keep")
        self._new = type(route)(**{**arguments, "endpoint": endpoint})

    def replace(self) -> Any:
        """The new route, with what the old one had beside what its class's constructor gives."""
        old, new = self._old, self._new
        core, _ = _core_of(new)
        for name, value in vars(old).items():
            if name not in _LEARNT and value is not old.endpoint:
                setattr(new, name, value)
        if self._put is None:
            new.app = core
        else:
            self._put(core)
            new.app = old.app
        return new


_NOTHING: Final = object()


def _parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """What the constructor takes by name, through `**kwargs` to those of its bases."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for each in parameters:
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
                found.setdefault(each.name, each)
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return found


def _core_of(route: Any) -> tuple[FunctionType, Callable[[Any], None] | None]:
    """The function of Starlette's that calls the endpoint, and what puts another one in its place below whatever it
    is wrapped in; None if it is not wrapped."""
    waiting: deque[tuple[Any, Callable[[Any], None] | None]] = deque([(route.app, None)])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        each, put = waiting.popleft()
        if id(each) in seen or not callable(each) or inspect.isclass(each):
            continue
        seen.add(id(each))
        if isinstance(each, FunctionType):
            if each.__qualname__ in _CORES:
                return each, put
            cells = each.__closure__ or ()
            waiting.extend((_content(cell), functools.partial(setattr, cell, "cell_contents")) for cell in cells)
        else:
            own = getattr(each, "__dict__", {})
            waiting.extend((value, functools.partial(setattr, each, name)) for name, value in own.items())
    raise TypeError(f"{type(route.app).__qualname__} hides what it is wrapped around")


_CORES: Final = frozenset({"request_response.<locals>.app", "websocket_session.<locals>.app"})


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _captured(function: FunctionType, name: str) -> Any:
    """What a function, or one that it has captured, has captured under this name."""
    waiting: list[FunctionType] = [function]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        each = waiting.pop()
        seen.add(id(each))
        for known, cell in zip(each.__code__.co_freevars, each.__closure__ or (), strict=True):
            content = _content(cell)
            if known == name:
                return content
            if isinstance(content, FunctionType) and id(content) not in seen:
                waiting.append(content)
    return _NOTHING
