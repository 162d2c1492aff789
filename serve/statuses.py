"""How applications, deployments and proxies are: the values that `serve.status()` gives.

`application_status` sums up deployments. Nothing here looks at anything; the controller fills these in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ApplicationStatus(StrEnum):
    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
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
class ServeStatus:
    """`proxies` maps where a proxy listens, as a URL, to how it is."""

    applications: Mapping[str, ApplicationStatusOverview] = field(default_factory=dict[str, ApplicationStatusOverview])
    proxies: Mapping[str, ProxyStatus] = field(default_factory=dict[str, ProxyStatus])
    target_capacity: float | None = None


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
