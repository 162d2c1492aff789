"""What a peer offers to the workloads `calls` and `tasks`: functions that do n of something before they return."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Calls:
    """An actor with one method that returns b"ok", called from one driver."""

    one_at_a_time: Callable[[int], object]
    in_flight: Callable[[int], object]
    # The same with a plain `def` method, where the peer has both kinds.
    sync_actor_in_flight: Callable[[int], object] | None = None


@dataclass(frozen=True, slots=True)
class Tasks:
    """A function that returns b"ok", run on up to two workers."""

    one_at_a_time: Callable[[int], object]
    in_flight: Callable[[int], object]
