"""How applications, deployments and proxies are: the values that `serve.status()` gives.

`application_status` sums up deployments. Nothing here looks at anything; the controller fills these in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ApplicationStatus(StrEnum):
    """What an application does. UNHEALTHY: it serves, and a deployment of it has no healthy replica."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
    """What a deployment does. UNHEALTHY: it has fewer healthy replicas than it wants, and cannot start others."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class ProxyStatus(StrEnum):
    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


@dataclass(frozen=True, slots=True)
class DeploymentStatusOverview:
    """`replica_states` counts the replicas in each state; `message` says what it waits for or why it failed."""

    status: DeploymentStatus
    message: str = ""
    replica_states: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class ApplicationStatusOverview:
    status: ApplicationStatus
    message: str = ""
    last_deployed_time_s: float = 0.0
    deployments: Mapping[str, DeploymentStatusOverview] = field(default_factory=dict[str, DeploymentStatusOverview])
    route_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Draining:
    """What a shutdown still waits for: requests that the proxy answers, then replicas that end.

    What is left after `left_s` seconds is cut off.
    """

    requests: int
    replicas: int
    left_s: float

    def __str__(self) -> str:
        at_most = f"{max(0.0, self.left_s):.0f} s"
        if self.requests:
            left = "1 request is left" if self.requests == 1 else f"{self.requests} requests are left"
            return f"{left}, cut off in {at_most} at the latest"
        return f"{'1 replica is' if self.replicas == 1 else f'{self.replicas} replicas are'} ending, {at_most} at most"


@dataclass(frozen=True, slots=True)
class ServeStatus:
    """`proxies` maps where a proxy listens, as a URL, to how it is. `draining` is None unless Serve shuts down. `lost`:
    what had been deployed went with the controller and the proxy at once, and nothing has been deployed since.
    """

    applications: Mapping[str, ApplicationStatusOverview] = field(default_factory=dict[str, ApplicationStatusOverview])
    proxies: Mapping[str, ProxyStatus] = field(default_factory=dict[str, ProxyStatus])
    target_capacity: float | None = None
    draining: Draining | None = None
    lost: bool = False


def application_status(deployments: Iterable[DeploymentStatus]) -> ApplicationStatus:
    """The worst of them counts: failed, then unhealthy, then still changing."""
    found = set(deployments)
    for deployment, application in (
        (DeploymentStatus.DEPLOY_FAILED, ApplicationStatus.DEPLOY_FAILED),
        (DeploymentStatus.UNHEALTHY, ApplicationStatus.UNHEALTHY),
        (DeploymentStatus.UPDATING, ApplicationStatus.DEPLOYING),
    ):
        if deployment in found:
            return application
    return ApplicationStatus.RUNNING
