"""Decide what to do so that what runs becomes what is wanted. One function without a clock; the controller performs.

An update is rolling: some new replicas start beside the old ones, and an old one drains only when a new one is ready to
take its place. A version that never came up is given up after some attempts, and what served before goes on.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ..declaration.spec import DeploymentId
from ..replica.lifecycle import COMING, LEAVING, ROUTED, ReplicaState
from .history import History
from .statuses import DeploymentStatus, DeploymentStatusOverview

# A replica without a process for this long is explained: which resource is missing.
EXPLAIN_AFTER_S: Final = 1.0
STARTS_PER_REPLICA: Final = 3
SURGE: Final = 0.2
# Of so many replicas that serve, one at a time takes a new configuration: taking it may keep a replica from serving.
REPLICAS_PER_UPDATE: Final = 10


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of one deployment.

    `before` is what was taken last: it stands in for a version that is given up, and for a refused configuration.
    """

    num_replicas: int
    version: str
    config_version: str
    max_constructor_retry_count: int = 20
    before: "Target | None" = None


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A replica as the controller knows it. `since`: when it came into its state; `missing`: why it has no place;
    `refused`: the configuration that it refused last, if it has taken none since; `uses`: its resources; `lacks`: how
    much is taken by others of what it waits for, as it was found at `explained_at`.
    """

    id: str
    version: str
    config_version: str
    state: ReplicaState
    since: float
    missing: str = ""
    refused: str = ""
    explained_at: float = 0.0
    uses: Mapping[str, float] = field(default_factory=dict[str, float])
    lacks: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Observed:
    """`history` is that of the version that is wanted, `before` of the one that stands in for it."""

    replicas: Sequence[ReplicaView] = ()
    history: History = field(default_factory=lambda: History(""))
    before: History = field(default_factory=lambda: History(""))


@dataclass(frozen=True, slots=True)
class Start:
    deployment: DeploymentId


@dataclass(frozen=True, slots=True)
class Update:
    deployment: DeploymentId
    replica: str


@dataclass(frozen=True, slots=True)
class Drain:
    deployment: DeploymentId
    replica: str


@dataclass(frozen=True, slots=True)
class Kill:
    deployment: DeploymentId
    replica: str


@dataclass(frozen=True, slots=True)
class Explain:
    """Find out which resource this replica waits for."""

    deployment: DeploymentId
    replica: str


Action: TypeAlias = Start | Update | Drain | Kill | Explain


@dataclass(frozen=True, slots=True)
class Decision:
    """`wake_at`: decide again at this time, even if nothing happens until then."""

    actions: tuple[Action, ...]
    statuses: Mapping[DeploymentId, DeploymentStatusOverview]
    wake_at: float | None


def reconcile(wanted: Mapping[DeploymentId, Target], observed: Mapping[DeploymentId, Observed], now: float) -> Decision:
    """What to do now about each deployment that is wanted or still has replicas."""
    actions: list[Action] = []
    statuses: dict[DeploymentId, DeploymentStatusOverview] = {}
    wake: list[float] = []
    for deployment in dict.fromkeys((*wanted, *observed)):
        seen = observed.get(deployment, Observed())
        target = wanted.get(deployment)
        if target is None:
            actions += _remove(deployment, seen)
        else:
            actions += _approach(deployment, target, seen, now, wake)
            statuses[deployment] = _status(target, seen)
    return Decision(tuple(actions), statuses, min(wake, default=None))


def _remove(deployment: DeploymentId, seen: Observed) -> list[Action]:
    return [Drain(deployment, each.id) for each in seen.replicas if each.state in ROUTED or each.state in COMING]


def _approach(deployment: DeploymentId, target: Target, seen: Observed, now: float, wake: list[float]) -> list[Action]:
    actions: list[Action] = []
    stands_in = given_up(target, seen.history)
    if stands_in:
        if target.before is None:
            return [Kill(deployment, each.id) for each in seen.replicas if each.state in COMING]
        target = target.before
    old = [each for each in seen.replicas if each.version != target.version]
    new = [each for each in seen.replicas if each.version == target.version]
    old_running = [each for each in old if each.state in ROUTED]
    running = [each for each in new if each.state in ROUTED]
    coming = [each for each in new if each.state in COMING]

    actions += [Kill(deployment, each.id) for each in old if each.state in COMING]

    surge = max(1, math.ceil(SURGE * target.num_replicas)) if old_running else 0
    here = len(running) + len(coming)
    room = target.num_replicas + surge - here - len(old_running)
    if (starts := min(target.num_replicas - here, room)) > 0:
        history = _history_of(target, seen)
        if history.held_back and now < history.retry_at:
            starts -= history.held_back
            wake.append(history.retry_at)
        actions += [Start(deployment)] * starts

    # Of those that are too many: first who does not serve yet, then the old version, then the youngest.
    for each in coming[::-1][: max(0, here - target.num_replicas)]:
        actions.append(Kill(deployment, each.id))
    excess = max(0, len(running) + len(old_running) - target.num_replicas)
    by_age = sorted(old_running, key=_since) + sorted(running, key=_since, reverse=True)
    leaving = by_age[:excess] or _makes_way(target, seen, old_running, running, coming)
    actions += [Drain(deployment, each.id) for each in leaving]

    actions += _tell(deployment, target, seen, [each for each in running if each not in leaving], stands_in)
    for each in coming:
        if each.state is ReplicaState.PLACING:
            explain_at = max(each.since, each.explained_at) + EXPLAIN_AFTER_S
            if now >= explain_at:
                actions.append(Explain(deployment, each.id))
            else:
                wake.append(explain_at)
    return actions


def _makes_way(
    target: Target,
    seen: Observed,
    old_running: Sequence[ReplicaView],
    running: Sequence[ReplicaView],
    coming: Sequence[ReplicaView],
) -> list[ReplicaView]:
    """Where the machine is full: one old replica whose resources its successor waits for.

    One after the other, and the last one that serves only if no more than one is wanted.
    """
    waits = bool(coming) and all(each.state is ReplicaState.PLACING and each.lacks for each in coming)
    if not waits or any(each.state in LEAVING for each in seen.replicas):
        return []
    oldest_first = sorted(old_running, key=_since)
    may_go = oldest_first if running or target.num_replicas == 1 else oldest_first[:-1]
    enough = all(sum(each.uses.get(name, 0.0) for each in may_go) >= amount for name, amount in coming[0].lacks.items())
    return may_go[:1] if enough else []


def _tell(
    deployment: DeploymentId, target: Target, seen: Observed, serving: Sequence[ReplicaView], stands_in: bool
) -> list[Action]:
    """Tell those that serve of the configuration that they should have, one after the other.

    `stands_in`: the target is what was taken before, by others.
    """
    refused = refuses(target, _history_of(target, seen))
    config_version = target.config_version
    if refused:
        # Another version's configuration is nothing for these: they keep what they have.
        if target.before is None or target.before.version != target.version:
            return []
        config_version = target.before.config_version
    stale = [each for each in serving if each.config_version != config_version and each.state is ReplicaState.RUNNING]
    # One that took what others refused, and does not take back what they have, is replaced.
    unwilling = [each for each in stale if (refused or stands_in) and each.refused == config_version]
    taking = sum(each.state is ReplicaState.UPDATING for each in serving)
    room = max(0, max(1, len(serving) // REPLICAS_PER_UPDATE) - taking)
    next_ones = [each for each in stale if each not in unwilling][:room]
    drains = (Drain(deployment, each.id) for each in unwilling)
    return [*drains, *(Update(deployment, each.id) for each in next_ones)]


def _since(replica: ReplicaView) -> float:
    return replica.since


def _history_of(target: Target, seen: Observed) -> History:
    known = [each for each in (seen.history, seen.before) if each.version == target.version]
    return known[0] if known else History(target.version)


def refuses(target: Target, history: History) -> bool:
    """Has a replica of this version refused the configuration that is wanted?"""
    return history.version == target.version and history.refused_config == target.config_version


def given_up(target: Target, history: History) -> bool:
    """Has this version failed so often, without ever coming up, that it is not tried again?"""
    limit = min(target.max_constructor_retry_count, STARTS_PER_REPLICA * target.num_replicas)
    return history.version == target.version and not history.proven and history.failures >= limit


def _status(target: Target, seen: Observed) -> DeploymentStatusOverview:
    counts = Counter(each.state.value for each in seen.replicas)
    history = _history_of(target, seen)
    new = [each for each in seen.replicas if each.version == target.version]
    current = [
        each for each in new if each.state is ReplicaState.RUNNING and each.config_version == target.config_version
    ]
    old_serve = any(each.version != target.version and each.state in ROUTED for each in seen.replicas)

    def told(status: DeploymentStatus, message: str) -> DeploymentStatusOverview:
        return DeploymentStatusOverview(status, message, dict(counts))

    if given_up(target, history):
        still = "; the version before it still serves" if old_serve else ""
        return told(DeploymentStatus.DEPLOY_FAILED, f"{history.reason} (tried {history.failures} times{still})")
    if refuses(target, history):
        reason = f"the new user_config was refused, the one before it still serves: {history.refused_reason}"
        return told(DeploymentStatus.DEPLOY_FAILED, reason)
    if len(current) == target.num_replicas and not old_serve:
        return told(DeploymentStatus.HEALTHY, "")
    waits = "; ".join(
        dict.fromkeys(each.missing for each in new if each.missing and each.state is ReplicaState.PLACING)
    )
    ready = f"{len(current)} of {target.num_replicas} replicas are ready"
    message = ": ".join(part for part in (ready, waits or (history.reason if history.failures else "")) if part)
    return told(DeploymentStatus.UNHEALTHY if history.settled else DeploymentStatus.UPDATING, message)


def missing_resources(asked: Mapping[str, float], available: Mapping[str, float], total: Mapping[str, float]) -> str:
    """Name what a replica waits for: the first resource that no machine has, else what is taken. '' if nothing is."""
    for name, amount in asked.items():
        if amount > total.get(name, 0.0):
            return f"needs {amount:g} {name}, but the cluster has {total.get(name, 0.0):g}"
    for name, amount in asked.items():
        if amount > available.get(name, 0.0):
            return (
                f"needs {amount:g} {name}, but only {available.get(name, 0.0):g} of {total.get(name, 0.0):g} are free"
            )
    return ""


def lacking_resources(
    asked: Mapping[str, float], available: Mapping[str, float], total: Mapping[str, float]
) -> dict[str, float]:
    """How much has to be given back before this fits. Nothing if it never can."""
    if any(amount > total.get(name, 0.0) for name, amount in asked.items()):
        return {}
    free = {name: available.get(name, 0.0) for name in asked}
    return {name: amount - free[name] for name, amount in asked.items() if amount > free[name]}
