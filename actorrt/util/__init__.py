"""Small tools on top of the public API, under the names that Ray users look for."""

from actorrt.runtime.api.api import list_named_actors
from actorrt.runtime.base.explain import unpicklable_member
from actorrt.wire.by_value import ByValuePickler

from . import state
from .actor_pool import ActorPool
from .completion import as_completed, map_unordered
from .placement_group import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from .queue import Empty, Full, Queue

__all__ = [
    "ActorPool",
    "ByValuePickler",
    "Empty",
    "Full",
    "PlacementGroup",
    "Queue",
    "as_completed",
    "get_current_placement_group",
    "get_placement_group",
    "list_named_actors",
    "map_unordered",
    "state",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "unpicklable_member",
]
