"""What one controller leaves to the next.

The proxy holds it meanwhile, and need not load what decides by it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from actorrt import ActorHandle

from ..declaration.spec import DeploymentId
from ..replica.lifecycle import ReplicaState
from .history import History


class KeptQueue(NamedTuple):
    """The actor of a capacity queue, and its name."""

    name: str
    handle: ActorHandle[Any]


class KeptRecord(NamedTuple):
    """How a deployment has done."""

    deployment: DeploymentId
    history: History
    before: History
    queue: KeptQueue | None = None


class KeptReplica(NamedTuple):
    """A replica as one controller leaves it to the next."""

    deployment: DeploymentId
    version: str
    id: str
    state: ReplicaState
    config_version: str
    handle: ActorHandle[Any]
