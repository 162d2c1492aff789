"""What the controller keeps of applications, deployments and replicas, and how it looks to others.

Values and their summaries; what happens to them is in controller.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from actorrt import ActorHandle

from ..base.news import DeploymentNews, PolicyKind, QueueNews, ReplicaNews
from ..base.topics import Topic
from ..capacity_queue.config import NAME as CAPACITY_QUEUE
from ..declaration.spec import ApplicationSpec, DeploymentId, DeploymentSpec, resources_of
from ..replica.lifecycle import LEAVING, ROUTED, ReplicaState
from .history import History
from .kept import KeptQueue, KeptRecord
from .reconcile import Observed, ReplicaView, Target, given_up, refuses
from .statuses import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    application_status,
)


@dataclass
class ReplicaRecord:
    id: str
    spec: DeploymentSpec
    handle: ActorHandle[Any]
    state: ReplicaState
    since: float
    config_version: str
    missing: str = ""
    refused: str = ""
    explained_at: float = 0.0
    lacks: dict[str, float] = field(default_factory=dict[str, float])
    unhealthy_checks: int = 0
    constructed: bool = False
    # Its constructor has ended, well or not: user code is there and has a right to clean up.
    may_clean_up: bool = False
    # Its time to end in is over then; None: it does not drain.
    end_by: float | None = None

    def view(self) -> ReplicaView:
        return ReplicaView(
            self.id,
            self.spec.version,
            self.config_version,
            self.state,
            self.since,
            self.missing,
            self.refused,
            self.explained_at,
            resources_of(self.spec),
            self.lacks,
        )


@dataclass
class DeploymentRecord:
    """`spec` None: it is not wanted any more and goes when its last replica has gone.

    `accepted` was taken by all replicas of its version that served then, and `before` is how that version has done.
    `retiring`: an update of its application dropped it. It stays for what served before the update, which may call it.
    """

    id: DeploymentId
    spec: DeploymentSpec | None
    topic: Topic
    retiring: bool = False
    accepted: DeploymentSpec | None = None
    history: History = field(default_factory=lambda: History(""))
    before: History = field(default_factory=lambda: History(""))
    replicas: dict[str, ReplicaRecord] = field(default_factory=dict[str, ReplicaRecord])
    # Its capacity queue, if it has one.
    queue: KeptQueue | None = None
    status: DeploymentStatusOverview = field(
        default_factory=lambda: DeploymentStatusOverview(DeploymentStatus.UPDATING)
    )

    def want(self, spec: DeploymentSpec) -> None:
        self.note_accepted()
        if self.accepted is not None and self.history.version == self.accepted.version:
            self.before = self.history
        # Whoever deploys again wants it tried again.
        constructed = any(each.constructed and each.spec.version == spec.version for each in self.replicas.values())
        known = any(each.version == spec.version and each.proven for each in (self.history, self.before))
        self.history = History(spec.version, proven=constructed or known)
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

    def note_accepted(self) -> None:
        """Is what is wanted taken by now, by all that serve and are of its version?"""
        spec = self.spec
        if spec is None or refuses(_target_of(spec), self.history):
            return
        serving = [
            each for each in self.replicas.values() if each.state in ROUTED and each.spec.version == spec.version
        ]
        if serving and all(each.config_version == spec.config_version for each in serving):
            self.accepted = spec

    def target(self) -> Target | None:
        if self.spec is None:
            return None
        return replace(_target_of(self.spec), before=None if self.accepted is None else _target_of(self.accepted))

    def aim(self) -> DeploymentSpec | None:
        """What new replicas are to be, and those that serve are to be told: not what was given up or refused."""
        if self.spec is not None and self.accepted is not None:
            target = _target_of(self.spec)
            refused = self.accepted.version == self.spec.version and refuses(target, self.history)
            if refused or given_up(target, self.history):
                return self.accepted
        return self.spec

    def forget(self, id: str, now: float) -> None:
        """It has gone, and what it used is free now."""
        del self.replicas[id]
        for each in self.replicas.values():
            each.lacks, each.explained_at = {}, now

    def note(self, version: str, change: Callable[[History], History]) -> None:
        """Something has happened to a replica of this version."""
        if version == self.history.version:
            self.history = change(self.history)
        elif version == self.before.version:
            self.before = change(self.before)

    def kept(self) -> KeptRecord:
        """How far it has come, for a later controller."""
        # Times are of this process only.
        return KeptRecord(
            self.id, replace(self.history, failed_at=0.0), replace(self.before, failed_at=0.0), self.queue
        )

    def restore(self, kept: KeptRecord) -> None:
        self.queue = kept.queue
        # A controller that ends may have left what is of two moments.
        if kept.history.version == self.history.version:
            self.history = kept.history
        if self.accepted is not None and kept.before.version == self.accepted.version:
            self.before = kept.before

    def observed(self) -> Observed:
        return Observed([each.view() for each in self.replicas.values()], self.history, self.before)

    def routing(self) -> DeploymentNews:
        """What routers have to know."""
        if self.spec is None:
            return DeploymentNews("it was deleted")
        aim = self.aim() or self.spec
        failed = self.status.status is DeploymentStatus.DEPLOY_FAILED
        routed = tuple(ReplicaNews(each.id, each.handle) for each in self.replicas.values() if each.state in ROUTED)
        # What was taken before is started again if it has gone. Requests wait, unless that fails again and again.
        history = self.history if aim is self.spec else self.before
        hopeless = history.failed_starts >= FAILING_STARTS or (failed and self.accepted is None)
        reason = (self.status.message or history.reason) if hopeless and not routed else ""
        options = aim.options
        policy, queue = aim.request_router, None
        if policy.name == CAPACITY_QUEUE:
            # Its routers are not replaced for another configuration: they go on with what they have.
            policy, queue = PolicyKind(CAPACITY_QUEUE), QueueNews(self.queue and self.queue.handle, policy.code)
        return DeploymentNews(reason, options.max_ongoing_requests, options.max_queued_requests, routed, policy, queue)

    def wants_queue(self) -> bool:
        aim = self.aim()
        return aim is not None and aim.request_router.name == CAPACITY_QUEUE


# Where so many starts in a row have failed and no replica serves, requests are refused and do not wait for the next.
FAILING_STARTS: Final = 3


def _target_of(spec: DeploymentSpec) -> Target:
    options = spec.options
    return Target(options.num_replicas, spec.version, spec.config_version, options.max_constructor_retry_count)


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


def crowd_out(records: Sequence[DeploymentRecord]) -> bool:
    """Does a deployment of an application that has nothing to run on wait for what those that are retiring have?

    The update would never end.
    """
    replicas = [each for record in records for each in record.replicas.values()]
    if any(each.state in LEAVING for each in replicas):
        return False
    held: Counter[str] = Counter()
    for record in records:
        for each in record.replicas.values() if record.retiring else ():
            held.update(resources_of(each.spec))
    return any(
        each.lacks and each.state is ReplicaState.PLACING and all(held[name] >= each.lacks[name] for name in each.lacks)
        for record in records
        if record.spec is not None
        and not record.retiring
        and not any(each.state in ROUTED for each in record.replicas.values())
        for each in record.replicas.values()
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
