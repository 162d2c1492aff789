"""What the controller knows of one replica, apart from its handle, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from ..declaration.spec import DeploymentSpec, resources_of
from ..replica.lifecycle import COMING, ROUTED, ReplicaAction, ReplicaState, advance
from ..replica.lifecycle import ReplicaEvent as E
from ..replica.lifecycle import ReplicaState as S
from .reconcile import ReplicaView

UNHEALTHY_CHECKS: Final = 3
# What ends by itself after a drain, `__del__` and an application's shutdown, may take this long at least.
STOP_TIMEOUT_S: Final = 5.0


class UserCode(Enum):
    """What there is of the user's code in it."""

    NONE = "NONE"  # nothing, or a constructor that runs
    CONSTRUCTED = "CONSTRUCTED"  # its constructor has ended, well or not: it has a right to clean up
    SERVED = "SERVED"  # it was ready once


# How a replica goes on under another controller than the one that made it, by what it says it is, or was when it does
# not answer; and what is done with it then. The call that constructs it ends with its caller, as does one that
# reconfigures it.
ADOPTED: Final[Mapping[ReplicaState, tuple[ReplicaState, UserCode, ReplicaAction]]] = {
    S.PLACING: (S.STOPPING, UserCode.NONE, ReplicaAction.KILL),
    S.STARTING: (S.STOPPING, UserCode.NONE, ReplicaAction.KILL),
    S.RUNNING: (S.RUNNING, UserCode.SERVED, ReplicaAction.ROUTE),
    S.UPDATING: (S.RUNNING, UserCode.SERVED, ReplicaAction.ROUTE),
    S.DRAINING: (S.DRAINING, UserCode.SERVED, ReplicaAction.DRAIN),
    # It was being ended already, perhaps since its constructor had raised: that it ever served is not known.
    S.STOPPING: (S.STOPPING, UserCode.CONSTRUCTED, ReplicaAction.KILL),
    S.STOPPED: (S.STOPPING, UserCode.CONSTRUCTED, ReplicaAction.KILL),
}


class ReplicaRecord:
    """A replica and the code that it was started with. `since`: when it came into its state."""

    def __init__(
        self,
        id: str,
        spec: DeploymentSpec,
        state: ReplicaState,
        now: float,
        config_version: str,
        code: UserCode = UserCode.NONE,
    ) -> None:
        self.id = id
        self.spec = spec
        self._grace_s = spec.options.graceful_shutdown_timeout_s
        self.state = state
        self.since = now
        # The configuration that it has, and the one that it refused last, if it has taken none since.
        self.config_version = config_version
        self.refused = ""
        self.code = code
        # What it waits for as long as it has no place, how much of that others have, and when that was asked last.
        self.missing = ""
        self.lacks: Mapping[str, float] = {}
        self.explained_at = 0.0
        # So many health checks in a row have failed.
        self._failed_checks = 0
        # Its time to end in is over then; None: it does not drain.
        self._end_by: float | None = None

    @classmethod
    def adopted(
        cls, id: str, spec: DeploymentSpec, state: ReplicaState, now: float, config_version: str
    ) -> tuple[ReplicaRecord, ReplicaAction]:
        """One that another controller has started, by what it says that it is, or by what it was; and what to do."""
        state, code, action = ADOPTED[state]
        return cls(id, spec, state, now, config_version, code), action

    @property
    def is_routed(self) -> bool:
        return self.state in ROUTED

    @property
    def is_coming(self) -> bool:
        return self.state in COMING

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

    def happens(self, event: E, now: float) -> tuple[tuple[ReplicaAction, ...], float]:
        """What is to be done, in order, and how long it was in the state that it had."""
        before, since = self.state, self.since
        self.state, actions = advance(before, event)
        if self.state is not before:
            self.since = now
        if event is E.READY and self.state is S.RUNNING:
            self.code = UserCode.SERVED
        return actions, self.since - since

    def constructed(self, trouble: str) -> E:
        """Its constructor has ended, well or not: its code is there. What that means for it."""
        if self.code is UserCode.NONE:
            self.code = UserCode.CONSTRUCTED
        return E.START_FAILED if trouble else E.READY

    def answered(self, config_version: str, trouble: str) -> None:
        """It was told of a configuration and has taken it, or there was trouble."""
        self.refused = config_version if trouble else ""
        if not trouble:
            self.config_version = config_version

    def checked(self, trouble: str) -> str:
        """Its health was checked. Why it is given up, or ""."""
        self._failed_checks = self._failed_checks + 1 if trouble else 0
        return f"health check failed: {trouble}" if self._failed_checks >= UNHEALTHY_CHECKS else ""

    # Why it has no place.

    def asked_why(self, now: float) -> None:
        self.explained_at = now

    def explained(self, asked_at: float, missing: str, lacks: Mapping[str, float]) -> bool:
        """The answer to a question that was asked then. False: something was given back since, and it says nothing."""
        if self.explained_at != asked_at:
            return False
        self.missing, self.lacks = missing, lacks
        return True

    def others_gave_back(self, now: float) -> None:
        """What it waits for may be free now."""
        self.lacks, self.explained_at = {}, now

    # Its end.

    def may_drain_from(self, now: float) -> None:
        """No router sends to it any more: its time for what it has begins."""
        self._end_by = now + self._grace_s

    def time_to_clean_up(self, now: float) -> float | None:
        """How long its code may take for that: the rest of its graceful_shutdown_timeout_s. None: there is no code."""
        if self.code is UserCode.NONE:
            return None
        return max(STOP_TIMEOUT_S, self._grace_s if self._end_by is None else self._end_by - now)
