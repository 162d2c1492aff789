"""The life of one deployment, apart from handles: what is wanted, what was accepted, and its replicas. Pure.

    NEW -> WANTED -> RETIRING -> RETIRED
               `---> LEAVING

What an update of the application drops retires, if it serves: what served before the update may still call it. In
LEAVING and RETIRED nothing is wanted, and the deployment goes with its last replica, unless it is wanted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Final

from ..base.news import DeploymentNews, PolicyKind, QueueNews, ReplicaNews
from ..capacity_queue.config import NAME as CAPACITY_QUEUE
from ..declaration.spec import DeploymentId, DeploymentSpec
from ..replica.lifecycle import ReplicaAction, ReplicaEvent, ReplicaState
from .history import History
from .reconcile import Observed, Target, given_up, refuses
from .replica_record import ReplicaRecord, UserCode
from .statuses import DeploymentStatus, DeploymentStatusOverview

# Where so many starts in a row have failed and no replica serves, requests are refused and do not wait for the next.
FAILING_STARTS: Final = 3


class Standing(Enum):
    NEW = "NEW"  # perhaps with replicas of an earlier controller that nobody wants
    WANTED = "WANTED"
    RETIRING = "RETIRING"
    RETIRED = "RETIRED"  # it is not shown any more
    LEAVING = "LEAVING"


class Occasion(Enum):
    WANTED = "WANTED"  # an application has it
    DROPPED_SERVING = "DROPPED_SERVING"  # an update of the application has it no more, and replicas of it serve
    DROPPED_IDLE = "DROPPED_IDLE"  # the same, and none serves
    DELETED = "DELETED"  # the application is deleted
    UPDATE_OVER = "UPDATE_OVER"  # what served before the update has gone, or waits for what this holds


_S, _O = Standing, Occasion
TABLE: Final[Mapping[tuple[Standing, Occasion], Standing]] = {
    **{(standing, _O.WANTED): _S.WANTED for standing in Standing},
    (_S.NEW, _O.DROPPED_SERVING): _S.LEAVING,
    (_S.NEW, _O.DROPPED_IDLE): _S.LEAVING,
    (_S.NEW, _O.DELETED): _S.LEAVING,
    (_S.WANTED, _O.DROPPED_SERVING): _S.RETIRING,
    (_S.WANTED, _O.DROPPED_IDLE): _S.LEAVING,
    (_S.WANTED, _O.DELETED): _S.LEAVING,
    # Another update: it stays for what served before the first one, whether or not it serves now.
    (_S.RETIRING, _O.DROPPED_SERVING): _S.RETIRING,
    (_S.RETIRING, _O.DROPPED_IDLE): _S.RETIRING,
    (_S.RETIRING, _O.DELETED): _S.RETIRED,
    (_S.RETIRING, _O.UPDATE_OVER): _S.RETIRED,
    # Its replicas may still serve as the next update comes.
    **{(standing, occasion): standing for standing in (_S.LEAVING, _S.RETIRED)
       for occasion in (_O.DROPPED_SERVING, _O.DROPPED_IDLE, _O.DELETED)},
}  # fmt: skip
# Nothing of these is wanted.
UNWANTED: Final = frozenset({_S.NEW, _S.LEAVING, _S.RETIRED})


class StandingError(Exception):
    """What cannot happen to a deployment that stands so: an error of ours, never of a user."""

    def __init__(self, id: DeploymentId, standing: Standing, occasion: Occasion) -> None:
        super().__init__(id, standing, occasion)
        self.id, self.standing, self.occasion = id, standing, occasion

    def __str__(self) -> str:
        return f"deployment {self.id} that is {self.standing.value} cannot have {self.occasion.value}"


class Deployment:
    """One deployment. `accepted` was taken by all replicas of its version that served then; `history` is how the wanted
    version has done, and `before` how that one has. `status` is what the last decision said of it.
    """

    def __init__(self, id: DeploymentId) -> None:
        self.id = id
        self.standing = Standing.NEW
        # None unless it is wanted or retires.
        self.spec: DeploymentSpec | None = None
        self.accepted: DeploymentSpec | None = None
        self.history = History("")
        self.before = History("")
        self.replicas: dict[str, ReplicaRecord] = {}
        self.status = DeploymentStatusOverview(DeploymentStatus.UPDATING)

    @property
    def retires(self) -> bool:
        return self.standing is Standing.RETIRING

    @property
    def is_shown(self) -> bool:
        return self.standing not in (Standing.RETIRING, Standing.RETIRED)

    @property
    def has_gone(self) -> bool:
        return self.spec is None and not self.replicas

    # What is wanted.

    def _stand(self, occasion: Occasion) -> None:
        try:
            self.standing = TABLE[self.standing, occasion]
        except KeyError:
            raise StandingError(self.id, self.standing, occasion) from None
        if self.standing in UNWANTED:
            self.spec = None

    def want(self, spec: DeploymentSpec) -> None:
        self.note_accepted()
        if self.accepted is not None and self.history.version == self.accepted.version:
            self.before = self.history
        # Whoever deploys again wants it tried again.
        served = any(
            each.code is UserCode.SERVED and each.spec.version == spec.version for each in self.replicas.values()
        )
        known = any(each.version == spec.version and each.proven for each in (self.history, self.before))
        self.history = History(spec.version, proven=served or known)
        self._stand(Occasion.WANTED)
        self.spec = spec
        self.status = DeploymentStatusOverview(DeploymentStatus.UPDATING)

    def drop(self, *, with_application: bool) -> None:
        """It is not wanted any more: from now on, or from the end of the update that drops it on."""
        serves = any(each.is_routed for each in self.replicas.values())
        dropped = Occasion.DROPPED_SERVING if serves else Occasion.DROPPED_IDLE
        self._stand(Occasion.DELETED if with_application else dropped)

    def update_over(self) -> None:
        """The update that dropped it has come to its end."""
        self._stand(Occasion.UPDATE_OVER)

    def restore(self, history: History, before: History) -> None:
        """How it has done, as the controller before this one knew it, who may have left what is of two moments."""
        if history.version == self.history.version:
            self.history = history
        if self.accepted is not None and before.version == self.accepted.version:
            self.before = before

    def restore_retiring(self, spec: DeploymentSpec) -> None:
        """An update dropped it under the controller before this one."""
        self.want(spec)
        self._stand(Occasion.DROPPED_SERVING)

    def restore_accepted(self, spec: DeploymentSpec) -> None:
        self.accepted = spec

    def progress(self) -> tuple[History, History]:
        """How it has done, for a later controller. Times are of this process only."""
        return replace(self.history, failed_at=0.0), replace(self.before, failed_at=0.0)

    # What follows from it.

    def note_accepted(self) -> None:
        """Is what is wanted taken by now, by all that serve and are of its version?"""
        spec = self.spec
        if spec is None or refuses(_target_of(spec), self.history):
            return
        serving = [each for each in self.replicas.values() if each.is_routed and each.spec.version == spec.version]
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

    def observed(self) -> Observed:
        return Observed([each.view() for each in self.replicas.values()], self.history, self.before)

    def decided(self, status: DeploymentStatusOverview) -> None:
        """How it is, by the last decision."""
        self.status = status
        if status.status is DeploymentStatus.HEALTHY and not self.history.settled:
            self.history = self.history.after_settling()

    def news(self, handle_of: Callable[[str], Any], queue: Any) -> DeploymentNews:
        """What routers have to know; `queue` is the handle of its capacity queue, None if there is none."""
        if self.spec is None:
            return DeploymentNews("it was deleted")
        aim = self.aim() or self.spec
        failed = self.status.status is DeploymentStatus.DEPLOY_FAILED
        routed = tuple(ReplicaNews(each.id, handle_of(each.id)) for each in self.replicas.values() if each.is_routed)
        # What was taken before is started again if it has gone. Requests wait, unless that fails again and again.
        history = self.history if aim is self.spec else self.before
        hopeless = history.failed_starts >= FAILING_STARTS or (failed and self.accepted is None)
        reason = (self.status.message or history.reason) if hopeless and not routed else ""
        options = aim.options
        policy, queue_news = aim.request_router, None
        if policy.name == CAPACITY_QUEUE:
            # Its routers are not replaced for another configuration: they go on with what they have.
            policy, queue_news = PolicyKind(CAPACITY_QUEUE), QueueNews(queue, policy.code)
        return DeploymentNews(
            reason, options.max_ongoing_requests, options.max_queued_requests, routed, policy, queue_news
        )

    def wants_queue(self) -> bool:
        aim = self.aim()
        return aim is not None and aim.request_router.name == CAPACITY_QUEUE

    # Its replicas.

    def starts(self, id: str, now: float) -> ReplicaRecord:
        """A replica of what is aimed at is started. It has no place yet."""
        spec = self.aim()
        assert spec is not None
        self._note(spec.version, lambda history: history.after_start(now))
        replica = self.replicas[id] = ReplicaRecord(id, spec, ReplicaState.PLACING, now, spec.config_version)
        return replica

    def not_started(self, id: str, now: float, reason: str) -> None:
        """There is no such actor, and never was."""
        spec = self.replicas.pop(id).spec
        self._note(spec.version, lambda history: history.after_start_failure(now, reason))

    def adopt(self, replica: ReplicaRecord) -> None:
        """Go on with a replica of the controller before this one."""
        self.replicas[replica.id] = replica
        if replica.is_routed:
            self._note(replica.spec.version, History.after_ready)

    def happens(self, id: str, event: ReplicaEvent, now: float, reason: str = "") -> tuple[ReplicaAction, ...]:
        """An event for a replica, which may have gone: what the table says is to be done, in order."""
        replica = self.replicas.get(id)
        if replica is None:
            return ()
        actions, lived_s = replica.happens(event, now)
        version, refused = replica.spec.version, replica.refused
        for action in actions:
            match action:
                case ReplicaAction.ROUTE:
                    self._note(version, History.after_ready)
                case ReplicaAction.NOTE_START_FAILURE:
                    self._note(version, lambda history: history.after_start_failure(now, reason))
                case ReplicaAction.NOTE_DEATH:
                    self._note(version, lambda history: history.after_death(lived_s, now, reason))
                case ReplicaAction.NOTE_UPDATE_FAILURE:
                    self._note(version, lambda history: history.after_refused_config(refused, reason))
                case ReplicaAction.FORGET:
                    self._forget(id, now)
                case _:
                    pass
        return actions

    def answered(self, id: str, spec: DeploymentSpec | None, trouble: str) -> ReplicaEvent:
        """A replica was told of the configuration of `spec`: what that means for it. None: there was none any more."""
        if spec is None:
            return ReplicaEvent.UPDATED
        replica = self.replicas.get(id)
        if replica is not None:
            replica.answered(spec.config_version, trouble)
        # Another may be wanted by now, of which this says nothing.
        still_wanted = self.spec is not None and self.spec.config_version == spec.config_version
        return ReplicaEvent.UPDATE_FAILED if trouble and still_wanted else ReplicaEvent.UPDATED

    def _forget(self, id: str, now: float) -> None:
        """It has gone, and what it used is free now."""
        del self.replicas[id]
        for each in self.replicas.values():
            each.others_gave_back(now)

    def _note(self, version: str, change: Callable[[History], History]) -> None:
        """Something has happened to a replica of this version."""
        if version == self.history.version:
            self.history = change(self.history)
        elif version == self.before.version:
            self.before = change(self.before)


def _target_of(spec: DeploymentSpec) -> Target:
    options = spec.options
    return Target(options.num_replicas, spec.version, spec.config_version, options.max_constructor_retry_count)
