"""All deployments and what is to be done about them: events and the time in, effects out. Pure.

`reconcile` decides by what is wanted and seen; here its decisions become events of the replicas, updates come to their
end, and what has gone is forgotten. The controller performs the effects and tells what comes of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from ..declaration.spec import DeploymentId, DeploymentSpec, resources_of
from ..replica.lifecycle import LEAVING, ReplicaAction, ReplicaEvent, ReplicaState
from .deployment import Deployment
from .reconcile import Drain, Explain, Kill, Start, Update, reconcile
from .statuses import DeploymentStatus


@dataclass(frozen=True, slots=True)
class Begin:
    """Make the actor of a replica."""

    deployment: DeploymentId
    replica: str


@dataclass(frozen=True, slots=True)
class Perform:
    """Do this with a replica."""

    deployment: DeploymentId
    replica: str
    action: ReplicaAction


@dataclass(frozen=True, slots=True)
class FindOut:
    """Find out which resource a replica waits for, as it is asked now."""

    deployment: DeploymentId
    replica: str


Effect = Begin | Perform | FindOut


@dataclass(frozen=True, slots=True)
class Decided:
    """What is to be done, in order, and which deployments have gone.

    `again`: something has happened by which another decision may be due at once. Else it is at `wake_at`, if nothing
    happens until then.
    """

    effects: tuple[Effect, ...]
    gone: tuple[DeploymentId, ...]
    again: bool
    wake_at: float | None


class Fleet:
    """The deployments that are wanted or still have replicas."""

    def __init__(self) -> None:
        self._deployments: dict[DeploymentId, Deployment] = {}

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._deployments.values())

    def get(self, id: DeploymentId) -> Deployment | None:
        return self._deployments.get(id)

    def of(self, app: str) -> list[Deployment]:
        return [each for each in self if each.id.app == app]

    def has(self, id: DeploymentId) -> bool:
        """Whether it is wanted."""
        found = self.get(id)
        return found is not None and found.spec is not None

    def is_leaving(self, app: str) -> bool:
        """Whether there still is something of the application that nobody wants."""
        return any(each.spec is None for each in self.of(app))

    def queues(self, there: Set[DeploymentId]) -> tuple[list[DeploymentId], list[DeploymentId]]:
        """Which capacity queues of those that are there go, and which are missing."""
        wanted = {each.id: None for each in self if each.wants_queue()}
        return [id for id in there if id not in wanted], [id for id in wanted if id not in there]

    def have(self, id: DeploymentId) -> Deployment:
        """The deployment; a new one if there is none."""
        found = self._deployments.get(id)
        if found is None:
            found = self._deployments[id] = Deployment(id)
        return found

    def want(self, app: str, specs: Sequence[DeploymentSpec]) -> None:
        """These are the deployments of an application from now on."""
        wanted = {each.id for each in specs}
        for each in self.of(app):
            if each.id not in wanted:
                each.drop(with_application=not specs)
        for spec in specs:
            self.have(spec.id).want(spec)

    def longest_drain_s(self, least_s: float) -> float:
        """How long replicas may take for the requests that they have; `least_s` where no deployment says it."""
        wanted = [each.spec for each in self if each.spec is not None]
        return max((spec.options.graceful_shutdown_timeout_s for spec in wanted), default=least_s)

    def decide(self, now: float, new_id: Callable[[DeploymentId], str]) -> Decided:
        """Decide, and have happen what that means for replicas."""
        for each in self:
            each.note_accepted()
        wanted = {each.id: target for each in self if (target := each.target()) is not None}
        decision = reconcile(wanted, {each.id: each.observed() for each in self}, now)
        for id, status in decision.statuses.items():
            self._deployments[id].decided(status)
        effects: list[Effect] = []
        again = False
        for action in decision.actions:
            deployment = self._deployments[action.deployment]
            match action:
                case Start(id):
                    effects.append(Begin(id, deployment.starts(new_id(id), now).id))
                case Explain(id, replica):
                    deployment.replicas[replica].asked_why(now)
                    effects.append(FindOut(id, replica))
                    continue
                case Update(id, replica):
                    effects += _performs(deployment, replica, ReplicaEvent.UPDATE, now)
                case Drain(id, replica):
                    effects += _performs(deployment, replica, ReplicaEvent.DRAIN, now)
                case Kill(id, replica):
                    effects += _performs(deployment, replica, ReplicaEvent.KILL, now)
            again = True
        again = self._end_updates() or again
        gone = tuple(each.id for each in self if each.has_gone)
        for id in gone:
            del self._deployments[id]
        return Decided(tuple(effects), gone, again, decision.wake_at)

    def _end_updates(self) -> bool:
        retiring = [each for each in self if each.retires]
        over = {app for app in {each.id.app for each in retiring} if _is_over(self.of(app))}
        for each in retiring:
            if each.id.app in over:
                each.update_over()
        return bool(over)


def _performs(deployment: Deployment, replica: str, event: ReplicaEvent, now: float) -> Iterator[Perform]:
    for action in deployment.happens(replica, event, now):
        yield Perform(deployment.id, replica, action)


def _is_over(deployments: Sequence[Deployment]) -> bool:
    return end_of_update(deployments) or crowd_out(deployments)


def end_of_update(deployments: Iterable[Deployment]) -> bool:
    """Do the deployments of an application serve as they are wanted, and has what served before them gone?

    Until then a replica of an earlier version may call those that are retiring.
    """
    return all(
        each.status.status is DeploymentStatus.HEALTHY
        and all(replica.state is not ReplicaState.DRAINING for replica in each.replicas.values())
        for each in deployments
        if each.spec is not None and not each.retires
    )


def crowd_out(deployments: Sequence[Deployment]) -> bool:
    """Does a deployment of an application that has nothing to run on wait for what those that are retiring have?

    The update would never end.
    """
    if any(replica.state in LEAVING for each in deployments for replica in each.replicas.values()):
        return False
    held: Counter[str] = Counter()
    for each in deployments:
        for replica in each.replicas.values() if each.retires else ():
            held.update(resources_of(replica.spec))
    return any(
        replica.lacks
        and replica.state is ReplicaState.PLACING
        and all(held[name] >= amount for name, amount in replica.lacks.items())
        for each in deployments
        if each.spec is not None
        and not each.retires
        and not any(replica.is_routed for replica in each.replicas.values())
        for replica in each.replicas.values()
    )
