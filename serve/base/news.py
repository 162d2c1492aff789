"""What the controller tells routers about a deployment. Values only."""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class PolicyKind(NamedTuple):
    """Which policy a deployment has: one of Serve's by its name, or the pickled (class, kwargs) of a user's.

    In a spec, of "capacity_queue" the pickled configuration.
    """

    name: str = "power_of_two"
    code: bytes = b""


DEFAULT_POLICY: Final = PolicyKind()


class QueueNews(NamedTuple):
    """The capacity queue of a deployment that has one: its actor's handle, and its pickled configuration."""

    handle: Any = None
    config: bytes = b""


class ReplicaNews(NamedTuple):
    """A replica that serves. `handle` is its actor's."""

    id: str
    handle: Any = None


class DeploymentNews(NamedTuple):
    """`reason` says why there is no such deployment; "" if there is. -1 for `max_queued` means no limit."""

    reason: str = ""
    max_ongoing: int = 1
    max_queued: int = -1
    replicas: tuple[ReplicaNews, ...] = ()
    policy: PolicyKind = DEFAULT_POLICY
    queue: QueueNews | None = None


NO_SUCH_DEPLOYMENT: Final = DeploymentNews("there is no such deployment")
SERVE_ENDED: Final = DeploymentNews("Serve has ended")

# Why nothing is served, before an application was.
NOTHING_YET: Final = "no application has been deployed yet"
