"""ASGI applications: what is one, what makes one, and a deployment around one that stands for itself.

An application that a module has under a name is imported by each replica: few can be sent to another process.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from .declaration import Application, Deployment
from .options import DeploymentOptions, parse_options
from .shipping import MAIN, REMEDY_ATTRIBUTE, is_importable

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PARAMETERS: Final = ("scope", "receive", "send")
_ASGI: Final = len(_PARAMETERS)
_WSGI: Final = 2
# What limits an application that is its own deployment; its functions run in threads of its framework's.
_MOST_REQUESTS: Final = 100


class Named:
    """What finds an application in its replica: `app` of `main`."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self) -> Any:
        return getattr(import_module(self.module), self.name)


class BareApplication:
    """An instance of this is all that a replica needs to serve an application, or what a function makes."""

    def __init__(self, app: Any) -> None:
        self.app = app


setattr(
    BareApplication,
    REMEDY_ATTRIBUTE,
    "define the application in a module beside the program, or give serve.from_asgi a function that makes it",
)


def from_asgi(app: ASGIApp | Callable[[], Any], **options: Any) -> Application[BareApplication]:
    """A graph of one deployment that serves an ASGI application as it is: FastAPI, Starlette, Django, Quart, any.

    `options` are those of `serve.deployment`; 100 requests run at once in a replica if they do not say. A function
    without parameters is called in each replica for its application. TypeError if it is none of both.
    """
    check_application(app)
    title = getattr(app, "__name__", None) or type(app).__name__
    default = DeploymentOptions(name=title if title.isidentifier() else "app", max_ongoing_requests=_MOST_REQUESTS)
    deployment: Deployment[BareApplication] = Deployment(BareApplication, parse_options(options, default))
    return deployment.bind(_by_name(app) or app)


def as_graph(target: Any) -> Any:
    """A graph for a bare ASGI application; anything else as it is. TypeError for a WSGI application."""
    if isinstance(target, Application | Deployment):
        return cast(Any, target)
    if is_wsgi(target):
        raise TypeError(wsgi_remedy(target))
    return from_asgi(target) if is_application(target) else target


def is_application(value: object) -> bool:
    """Is it surely an ASGI application, and no function or class that one might have meant to deploy?"""
    if not callable(value) or inspect.isclass(value) or isinstance(value, Deployment) or is_builder(value):
        return False
    signature = _signature_of(value)
    if signature is None or not _takes(signature, _ASGI):
        return False
    call = getattr(value, "__call__", None)  # noqa: B004
    is_async = inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)
    takes_less = any(_takes(signature, count) for count in range(1, _ASGI))
    return tuple(signature.parameters)[:_ASGI] == _PARAMETERS or (is_async and not takes_less)


def is_wsgi(value: object) -> bool:
    """Is it an application of the older kind: an object that is called with environ and start_response?"""
    signature = _signature_of(value)
    if signature is None or inspect.isclass(value):
        return False
    return tuple(signature.parameters)[:_WSGI] == ("environ", "start_response")


def check_application(app: object) -> None:
    """TypeError if this is neither an ASGI application nor a function that could make one."""
    if is_wsgi(app):
        raise TypeError(wsgi_remedy(app))
    if not callable(app):
        raise TypeError(f"ingress takes an ASGI application or a function that makes one, not {type(app).__name__}")
    signature = _signature_of(app)
    if signature is not None and not is_builder(app) and not _takes(signature, _ASGI):
        raise TypeError(
            f"{_title(app)} takes {signature}: an ASGI application takes (scope, receive, send), and a function that "
            "makes one takes nothing"
        )


def wsgi_remedy(app: object) -> str:
    return (
        f"{_title(app)} is a WSGI application, and ASGI ones are served: install a2wsgi, "
        "and give a2wsgi.WSGIMiddleware(app) in its place"
    )


def is_builder(app: Any) -> bool:
    """Does it take nothing and give an application?"""
    signature = _signature_of(app)
    if signature is None or not _takes(signature, 0):
        return False
    if inspect.isclass(app):
        return True
    names = tuple(signature.parameters)
    any_number = bool(names) and signature.parameters[names[0]].kind is inspect.Parameter.VAR_POSITIONAL
    return not any_number and names[:_ASGI] != _PARAMETERS


def _signature_of(app: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(app)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _title(app: object) -> str:
    return getattr(app, "__qualname__", None) or type(app).__qualname__


def _by_name(app: object) -> Named | None:
    """Where replicas can import it from, if that is so."""
    for module_name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if module_name in MAIN or not isinstance(path, str):
            continue
        for name, value in list(vars(module).items()):
            if value is app and is_importable(module_name, path):
                return Named(module_name, name)
    return None
