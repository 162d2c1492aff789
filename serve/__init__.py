"""Serve: deployments, replicas and an HTTP proxy on top of actorrt's public names.

The code lies in `serve/` at the top of the repository and is imported as `actorrt.serve` only. Each name is loaded when
it is first used.
"""

from importlib import import_module

if __name__ != "actorrt.serve":
    # In a checkout the folder can be found as `serve` too, and then two of each class would exist.
    raise ImportError(f"this package is actorrt.serve, not {__name__}: write `from actorrt import serve`")

# As `typing.TYPE_CHECKING`, without the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import exceptions as exceptions
    from . import llm as llm
    from . import request_router as request_router
    from .api import build as build
    from .api import delete as delete
    from .api import get_app_handle as get_app_handle
    from .api import get_deployment_handle as get_deployment_handle
    from .api import run as run
    from .api import shutdown as shutdown
    from .api import start as start
    from .api import status as status
    from .base.request_context import ReplicaContext as ReplicaContext
    from .base.request_context import get_replica_context as get_replica_context
    from .base.worker_modules import WORKER_MODULES as WORKER_MODULES
    from .capacity_queue.status import queues as queues
    from .capacity_queue.status import why as why
    from .capacity_queue.statuses import QueueStatus as QueueStatus
    from .control.statuses import ApplicationStatus as ApplicationStatus
    from .control.statuses import DeploymentStatus as DeploymentStatus
    from .control.statuses import ServeStatus as ServeStatus
    from .declaration.applications import as_graph as as_graph
    from .declaration.applications import from_asgi as from_asgi
    from .declaration.asgi import ingress as ingress
    from .declaration.declaration import Application as Application
    from .declaration.declaration import Deployment as Deployment
    from .declaration.declaration import deployment as deployment
    from .declaration.router_options import RequestRouterConfig as RequestRouterConfig
    from .http.http_options import HTTPOptions as HTTPOptions
    from .policies.policy import Cost as Cost
    from .routing.handle import DeploymentHandle as DeploymentHandle
    from .routing.response import DeploymentResponse as DeploymentResponse
    from .routing.response import DeploymentResponseGenerator as DeploymentResponseGenerator

__all__ = [
    "deployment", "Deployment", "Application", "ingress", "from_asgi", "as_graph",
    "run", "start", "delete", "shutdown", "status", "queues", "why", "build",
    "get_app_handle", "get_deployment_handle", "get_replica_context",
    "DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator",
    "HTTPOptions", "ReplicaContext", "ServeStatus", "QueueStatus", "ApplicationStatus", "DeploymentStatus",
    "Cost", "RequestRouterConfig", "request_router", "exceptions", "llm", "WORKER_MODULES",
]  # fmt: skip

_HOMES = {
    "api": ["build", "delete", "get_app_handle", "get_deployment_handle", "run", "shutdown", "start", "status"],
    "declaration.applications": ["as_graph", "from_asgi"],
    "declaration.asgi": ["ingress"],
    "capacity_queue.status": ["queues", "why"],
    "capacity_queue.statuses": ["QueueStatus"],
    "declaration.declaration": ["Application", "Deployment", "deployment"],
    "routing.handle": ["DeploymentHandle"],
    "http.http_options": ["HTTPOptions"],
    "policies.policy": ["Cost"],
    "base.request_context": ["ReplicaContext", "get_replica_context"],
    "base.worker_modules": ["WORKER_MODULES"],
    "routing.response": ["DeploymentResponse", "DeploymentResponseGenerator"],
    "declaration.router_options": ["RequestRouterConfig"],
    "control.statuses": ["ApplicationStatus", "DeploymentStatus", "ServeStatus"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in ("exceptions", "llm", "request_router"):
        value: object = import_module(f".{name}", __name__)
    elif name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
