"""Which applications are wanted: their routes, how each is doing, and whether one is up. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..base.news import NOTHING_YET
from ..declaration.spec import ApplicationSpec
from .deployment import Deployment
from .statuses import ApplicationStatus, ApplicationStatusOverview, DeploymentStatus, application_status

# The deployments of the application of this name.
DeploymentsOf = Callable[[str], Iterable[Deployment]]


@dataclass(frozen=True, slots=True)
class ApplicationRecord:
    spec: ApplicationSpec
    deployed_at: float
    deleting: bool = False

    def overview(self, deployments: Iterable[Deployment]) -> ApplicationStatusOverview:
        own = {each.id.name: each for each in deployments if each.is_shown}
        wanted = [each.status for each in own.values() if each.spec is not None]
        status = ApplicationStatus.DELETING if self.deleting else application_status(each.status for each in wanted)
        messages = [
            f"deployment {name!r}: {each.status.message}"
            for name, each in own.items()
            if each.status.message and each.status.status is not DeploymentStatus.HEALTHY
        ]
        return ApplicationStatusOverview(
            status,
            "; ".join(messages),
            self.deployed_at,
            {name: each.status for name, each in own.items()},
            self.spec.route_prefix,
        )


class RoutesNews(NamedTuple):
    """Each prefix with its application and that one's ingress, and why nothing is served yet, "" once something was."""

    routes: Mapping[str, tuple[str, str]]
    awaited: str


class Up(NamedTuple):
    """An application runs if `trouble` is "", else it never will."""

    trouble: str


class Applications:
    """The applications that are wanted or being deleted, by their names."""

    def __init__(self) -> None:
        self._records: dict[str, ApplicationRecord] = {}
        # Some application that the proxy serves has been up: it is ready, whatever comes after.
        self.has_served = False
        # What had been deployed went with the controller before this one, and nothing has been deployed since.
        self.lost = False

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, app: str) -> bool:
        return app in self._records

    def names(self) -> list[str]:
        return list(self._records)

    def restore(self, specs: Iterable[tuple[ApplicationSpec, float]], has_served: bool) -> None:
        """What the controller before this one had."""
        for spec, deployed_at in specs:
            self.want(spec, deployed_at)
        self.has_served = has_served

    def conflict(self, spec: ApplicationSpec) -> str:
        """Why it cannot be deployed beside the others, or ""."""
        for other in self._records.values():
            taken = other.spec.route_prefix is not None and other.spec.route_prefix == spec.route_prefix
            if taken and other.spec.name != spec.name and not other.deleting:
                return f"route_prefix {spec.route_prefix!r} belongs to application {other.spec.name!r}"
        return ""

    def want(self, spec: ApplicationSpec, deployed_at: float) -> None:
        self.lost = False
        self._records[spec.name] = ApplicationRecord(spec, deployed_at)

    def delete(self, app: str) -> ApplicationRecord | None:
        """It goes from now on: no route leads to it. None if there is none.

        All that delete it at once have one record: each of them may be the one that is left to forget it.
        """
        record = self._records.get(app)
        if record is not None and not record.deleting:
            record = self._records[app] = replace(record, deleting=True)
        return record

    def deleted(self, record: ApplicationRecord) -> bool:
        """Its last replica has gone. False: it was wanted again meanwhile, or has been forgotten already."""
        name = record.spec.name
        if self._records.get(name) is not record:
            return False
        del self._records[name]
        return True

    def ingress_of(self, app: str) -> str:
        """The ingress deployment's name, or "" if there is no such application."""
        record = self._records.get(app)
        return "" if record is None or record.deleting else record.spec.ingress

    def outcome(self, app: str, deployments: Iterable[Deployment]) -> Up | None:
        """Whether it is up. None: that is to be seen."""
        record = self._records.get(app)
        if record is None or record.deleting:
            return Up("it was deleted")
        overview = record.overview(deployments)
        if overview.status is ApplicationStatus.RUNNING:
            return Up("")
        return Up(overview.message) if overview.status is ApplicationStatus.DEPLOY_FAILED else None

    def overviews(self, deployments_of: DeploymentsOf) -> dict[str, ApplicationStatusOverview]:
        return {name: record.overview(deployments_of(name)) for name, record in self._records.items()}

    def wanted(self) -> tuple[tuple[ApplicationSpec, float], ...]:
        """What is wanted and since when, for a later controller."""
        return tuple((record.spec, record.deployed_at) for record in self._records.values() if not record.deleting)

    def routes(self, deployments_of: DeploymentsOf) -> RoutesNews:
        """What proxies have to know."""
        routed = {
            prefix: record
            for record in self._records.values()
            if (prefix := record.spec.route_prefix) is not None and not record.deleting
        }
        routes = {prefix: (record.spec.name, record.spec.ingress) for prefix, record in routed.items()}
        return RoutesNews(routes, self._awaited(list(routed.values()), deployments_of))

    def _awaited(self, routed: list[ApplicationRecord], deployments_of: DeploymentsOf) -> str:
        """Why nothing is served yet. "" from the first of these applications on that has come up."""
        names = [record.spec.name for record in routed]
        if not self.has_served:
            statuses = [record.overview(deployments_of(record.spec.name)).status for record in routed]
            self.has_served = ApplicationStatus.RUNNING in statuses
        if self.has_served:
            return ""
        return f"not up yet: application {', '.join(map(repr, names))}" if names else NOTHING_YET
