"""Small tools on top of the public API, under the names that Ray users look for."""

from actorrt.runtime.api.api import list_named_actors
from actorrt.runtime.base.explain import unpicklable_member
from actorrt.wire.by_value import ByValuePickler

from . import state
from .actor_pool import ActorPool
from .completion import as_completed, map_unordered
from .queue import Empty, Full, Queue

__all__ = [
    "ActorPool",
    "ByValuePickler",
    "Empty",
    "Full",
    "Queue",
    "as_completed",
    "list_named_actors",
    "map_unordered",
    "state",
    "unpicklable_member",
]
