"""actorrt: tasks, actors and objects over many processes, asyncio all the way down, and Serve on top.

Importing this costs next to nothing: each name is loaded when it is first used.
"""

from importlib import import_module

from .version import __version__ as __version__

# As `typing.TYPE_CHECKING`, without the import: it would cost more than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import exceptions as exceptions
    from . import serve as serve
    from . import util as util
    from .runtime.api.actor import Actor as Actor
    from .runtime.api.api import available_resources as available_resources
    from .runtime.api.api import cancel as cancel
    from .runtime.api.api import cluster_resources as cluster_resources
    from .runtime.api.api import exit_actor as exit_actor
    from .runtime.api.api import get as get
    from .runtime.api.api import get_actor as get_actor
    from .runtime.api.api import get_gpu_ids as get_gpu_ids
    from .runtime.api.api import kill as kill
    from .runtime.api.api import nodes as nodes
    from .runtime.api.api import put as put
    from .runtime.api.api import statistics as statistics
    from .runtime.api.api import wait as wait
    from .runtime.api.cluster import start_head as start_head
    from .runtime.api.cluster import start_node as start_node
    from .runtime.api.cluster import stop_nodes as stop_nodes
    from .runtime.api.context import call_pipe as call_pipe
    from .runtime.api.context import get_runtime_context as get_runtime_context
    from .runtime.api.driver import init as init
    from .runtime.api.driver import is_initialized as is_initialized
    from .runtime.api.driver import shutdown as shutdown
    from .runtime.api.methods import method as method
    from .runtime.api.remote import remote as remote
    from .runtime.api.taskgroup import TaskGroup as TaskGroup
    from .runtime.links.pipes import Pipe as Pipe
    from .runtime.links.pipes import PipeReceiver as PipeReceiver
    from .runtime.node.sessions import Session as Session
    from .runtime.node.sessions import sessions as sessions
    from .runtime.owner.generators import ObjectRefGenerator as ObjectRefGenerator
    from .runtime.owner.handles import ActorHandle as ActorHandle
    from .runtime.owner.references import ObjectRef as ObjectRef
    from .types import RetryPolicy as RetryPolicy

__all__ = [
    "init", "shutdown", "is_initialized", "start_head", "start_node", "stop_nodes",
    "remote", "method", "Actor", "ActorHandle", "ObjectRef", "ObjectRefGenerator", "TaskGroup", "Pipe", "PipeReceiver",
    "RetryPolicy",
    "get", "put", "wait", "cancel", "kill", "get_actor", "exit_actor", "call_pipe",
    "sessions", "Session", "nodes", "cluster_resources", "available_resources", "statistics", "get_gpu_ids",
    "get_runtime_context",
    "exceptions", "serve", "util", "__version__",
]  # fmt: skip

_HOMES = {
    "api.api": [
        "get", "put", "wait", "cancel", "kill", "get_actor", "exit_actor",
        "nodes", "cluster_resources", "available_resources", "statistics", "get_gpu_ids",
    ],
    "api.context": ["call_pipe", "get_runtime_context"],
    "api.actor": ["Actor"],
    "api.cluster": ["start_head", "start_node", "stop_nodes"],
    "api.driver": ["init", "shutdown", "is_initialized"],
    "owner.generators": ["ObjectRefGenerator"],
    "owner.handles": ["ActorHandle"],
    "api.methods": ["method"],
    "links.pipes": ["Pipe", "PipeReceiver"],
    "owner.references": ["ObjectRef"],
    "api.remote": ["remote"],
    "node.sessions": ["Session", "sessions"],
    "api.taskgroup": ["TaskGroup"],
}  # fmt: skip
_HOME_OF = {name: f"actorrt.runtime.{home}" for home, names in _HOMES.items() for name in names}
_HOME_OF["RetryPolicy"] = "actorrt.types"
_MODULES = ("exceptions", "serve", "util")


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        # Whatever is used first may begin a session: this registers how, and that it ends with the program.
        import_module("actorrt.runtime.api.driver")
        value: object = getattr(import_module(_HOME_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"actorrt.{name}")
    else:
        raise AttributeError(f"module 'actorrt' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
