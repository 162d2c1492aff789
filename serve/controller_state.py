"""What the controller keeps of applications, deployments and replicas, and how it looks to others.

Values and their summaries; what happens to them is in controller.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from actorrt import ActorHandle

from .lifecycle import ROUTED, ReplicaState
from .reconcile import History, Observed, ReplicaView, Target
from .spec import ApplicationSpec, DeploymentId, DeploymentSpec
from .statuses import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    application_status,
)
from .topics import Topic


@dataclass
class ReplicaRecord:
    id: str
    spec: DeploymentSpec
    handle: ActorHandle[Any]
    state: ReplicaState
    since: float
    config_version: str
    missing: str = ""
    unhealthy_checks: int = 0
    # User code is there and has a right to clean up.
    constructed: bool = False

    def view(self) -> ReplicaView:
        return ReplicaView(self.id, self.spec.version, self.config_version, self.state, self.since, self.missing)


@dataclass
class DeploymentRecord:
    """`spec` None: it is not wanted any more and goes when its last replica has gone.

    `retiring`: an update of its application dropped it. It stays for what served before the update, which may call it.
    """

    id: DeploymentId
    spec: DeploymentSpec | None
    topic: Topic
    retiring: bool = False
    history: History = field(default_factory=lambda: History(""))
    replicas: dict[str, ReplicaRecord] = field(default_factory=dict[str, ReplicaRecord])
    status: DeploymentStatusOverview = field(
        default_factory=lambda: DeploymentStatusOverview(DeploymentStatus.UPDATING)
    )

    def want(self, spec: DeploymentSpec) -> None:
        if spec.version != self.history.version:
            self.history = History(spec.version)
        else:
            # Whoever deploys again wants it tried again.
            self.history = History(spec.version, proven=self.history.proven)
        self.spec = spec
        self.retiring = False
        self.status = DeploymentStatusOverview(DeploymentStatus.UPDATING)

    def drop(self, *, with_application: bool) -> None:
        """It is not wanted any more: from now on, or from the end of the update that drops it on."""
        if with_application:
            self.spec = None
        elif self.retiring or any(each.state in ROUTED for each in self.replicas.values()):
            self.retiring = True
        else:
            self.spec = None

    def target(self) -> Target | None:
        if self.spec is None:
            return None
        options = self.spec.options
        return Target(
            options.num_replicas, self.spec.version, self.spec.config_version, options.max_constructor_retry_count
        )

    def observed(self) -> Observed:
        return Observed([each.view() for each in self.replicas.values()], self.history)

    def routing(self) -> tuple[str, int, int, tuple[tuple[str, ActorHandle[Any]], ...]]:
        """What routers have to know."""
        if self.spec is None:
            return "it was deleted", 1, -1, ()
        options = self.spec.options
        failed = self.status.status is DeploymentStatus.DEPLOY_FAILED
        routed = tuple((each.id, each.handle) for each in self.replicas.values() if each.state in ROUTED)
        reason = self.status.message if failed and not routed else ""
        return reason, options.max_ongoing_requests, options.max_queued_requests, routed


def end_of_update(records: Iterable[DeploymentRecord]) -> bool:
    """Do the deployments of an application serve as they are wanted, and has what served before them gone?

    Until then a replica of an earlier version may call those that are retiring.
    """
    return all(
        record.status.status is DeploymentStatus.HEALTHY
        and all(each.state is not ReplicaState.DRAINING for each in record.replicas.values())
        for record in records
        if record.spec is not None and not record.retiring
    )


@dataclass
class ApplicationRecord:
    spec: ApplicationSpec
    deployed_at: float
    deleting: bool = False

    def overview(self, deployments: Iterable[DeploymentRecord]) -> ApplicationStatusOverview:
        own = {record.id.name: record for record in deployments if not record.retiring}
        wanted = [record.status for record in own.values() if record.spec is not None]
        status = ApplicationStatus.DELETING if self.deleting else application_status(each.status for each in wanted)
        messages = [
            f"deployment {name!r}: {record.status.message}"
            for name, record in own.items()
            if record.status.message and record.status.status is not DeploymentStatus.HEALTHY
        ]
        return ApplicationStatusOverview(
            status,
            "; ".join(messages),
            self.deployed_at,
            {name: record.status for name, record in own.items()},
            self.spec.route_prefix,
        )
