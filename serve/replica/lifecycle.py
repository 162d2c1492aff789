"""The life of a replica as a transition table. The controller feeds it events; it says what is to be done.

    PLACING -> STARTING -> RUNNING -> DRAINING -> STOPPING -> STOPPED
                              |  ^
                          UPDATING

Only a replica that is RUNNING or UPDATING is routed to. Nothing here waits or keeps a clock.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class ReplicaState(Enum):
    PLACING = "PLACING"  # asked for; no process has it yet
    STARTING = "STARTING"  # its process is there, user code is being constructed
    RUNNING = "RUNNING"
    UPDATING = "UPDATING"  # serves, and is being told of a new configuration
    DRAINING = "DRAINING"  # routed to no more; what it has may end
    STOPPING = "STOPPING"  # told to end; its process may still be there
    STOPPED = "STOPPED"


class ReplicaEvent(Enum):
    PLACED = "PLACED"
    READY = "READY"
    START_FAILED = "START_FAILED"  # user code raised in its constructor, or the first configuration was refused
    UPDATE = "UPDATE"
    UPDATED = "UPDATED"
    UPDATE_FAILED = "UPDATE_FAILED"
    UNHEALTHY = "UNHEALTHY"  # health checks failed so often that it is given up
    DRAIN = "DRAIN"
    DRAINED = "DRAINED"  # all its requests have ended, or their time is up
    KILL = "KILL"
    DIED = "DIED"  # its process is gone, whoever ended it


class ReplicaAction(Enum):
    CONSTRUCT = "CONSTRUCT"
    ROUTE = "ROUTE"
    UNROUTE = "UNROUTE"
    RECONFIGURE = "RECONFIGURE"
    DRAIN = "DRAIN"
    KILL = "KILL"
    NOTE_START_FAILURE = "NOTE_START_FAILURE"
    NOTE_UPDATE_FAILURE = "NOTE_UPDATE_FAILURE"
    NOTE_DEATH = "NOTE_DEATH"
    FORGET = "FORGET"


S, E, A = ReplicaState, ReplicaEvent, ReplicaAction
TABLE: Final[Mapping[tuple[ReplicaState, ReplicaEvent], tuple[ReplicaState, tuple[ReplicaAction, ...]]]] = {
    (S.PLACING, E.PLACED): (S.STARTING, (A.CONSTRUCT,)),
    (S.PLACING, E.DRAIN): (S.STOPPING, (A.KILL,)),
    (S.PLACING, E.KILL): (S.STOPPING, (A.KILL,)),
    # The actor could not be made at all: a bad runtime_env, a machine without such a resource.
    (S.PLACING, E.START_FAILED): (S.STOPPING, (A.NOTE_START_FAILURE, A.KILL)),
    (S.PLACING, E.DIED): (S.STOPPED, (A.NOTE_START_FAILURE, A.FORGET)),
    (S.STARTING, E.READY): (S.RUNNING, (A.ROUTE,)),
    (S.STARTING, E.START_FAILED): (S.STOPPING, (A.NOTE_START_FAILURE, A.KILL)),
    # It has no requests that could be waited for.
    (S.STARTING, E.DRAIN): (S.STOPPING, (A.KILL,)),
    (S.STARTING, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.STARTING, E.DIED): (S.STOPPED, (A.NOTE_START_FAILURE, A.FORGET)),
    (S.RUNNING, E.UPDATE): (S.UPDATING, (A.RECONFIGURE,)),
    # A check that was under way when it became healthy again, or the answer to an update that was given up.
    (S.RUNNING, E.UPDATED): (S.RUNNING, ()),
    (S.RUNNING, E.UPDATE_FAILED): (S.RUNNING, ()),
    # It may still answer what it has: it is drained, and its successor starts meanwhile.
    (S.RUNNING, E.UNHEALTHY): (S.DRAINING, (A.NOTE_DEATH, A.UNROUTE, A.DRAIN)),
    (S.RUNNING, E.DRAIN): (S.DRAINING, (A.UNROUTE, A.DRAIN)),
    (S.RUNNING, E.KILL): (S.STOPPING, (A.UNROUTE, A.KILL)),
    (S.RUNNING, E.DIED): (S.STOPPED, (A.NOTE_DEATH, A.UNROUTE, A.FORGET)),
    (S.UPDATING, E.UPDATED): (S.RUNNING, ()),
    # It keeps serving with the configuration it had, as a failed rolling update leaves the old replicas.
    (S.UPDATING, E.UPDATE_FAILED): (S.RUNNING, (A.NOTE_UPDATE_FAILURE,)),
    (S.UPDATING, E.UNHEALTHY): (S.DRAINING, (A.NOTE_DEATH, A.UNROUTE, A.DRAIN)),
    (S.UPDATING, E.DRAIN): (S.DRAINING, (A.UNROUTE, A.DRAIN)),
    (S.UPDATING, E.KILL): (S.STOPPING, (A.UNROUTE, A.KILL)),
    (S.UPDATING, E.DIED): (S.STOPPED, (A.NOTE_DEATH, A.UNROUTE, A.FORGET)),
    (S.DRAINING, E.DRAINED): (S.STOPPING, (A.KILL,)),
    # Asked twice is normal: an update and then a delete.
    (S.DRAINING, E.DRAIN): (S.DRAINING, ()),
    (S.DRAINING, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.DRAINING, E.DIED): (S.STOPPED, (A.FORGET,)),
    # Answers that were under way when the drain was decided.
    (S.DRAINING, E.UPDATED): (S.DRAINING, ()),
    (S.DRAINING, E.UPDATE_FAILED): (S.DRAINING, ()),
    (S.DRAINING, E.UNHEALTHY): (S.DRAINING, ()),
    (S.STOPPING, E.DIED): (S.STOPPED, (A.FORGET,)),
    (S.STOPPING, E.DRAIN): (S.STOPPING, ()),
    (S.STOPPING, E.KILL): (S.STOPPING, ()),
    (S.STOPPING, E.PLACED): (S.STOPPING, ()),
    (S.STOPPING, E.READY): (S.STOPPING, ()),
    (S.STOPPING, E.START_FAILED): (S.STOPPING, ()),
    (S.STOPPING, E.UPDATED): (S.STOPPING, ()),
    (S.STOPPING, E.UPDATE_FAILED): (S.STOPPING, ()),
    (S.STOPPING, E.UNHEALTHY): (S.STOPPING, ()),
    (S.STOPPING, E.DRAINED): (S.STOPPING, ()),
    # Answers of calls that its process never finished arrive after the news of its death.
    **{(S.STOPPED, event): (S.STOPPED, ()) for event in ReplicaEvent},
}

ROUTED: Final = frozenset({S.RUNNING, S.UPDATING})
COMING: Final = frozenset({S.PLACING, S.STARTING})
LEAVING: Final = frozenset({S.DRAINING, S.STOPPING})


class ReplicaTransitionError(Exception):
    """An event that cannot happen in this state: an error of ours, never of a user."""

    def __init__(self, state: ReplicaState, event: ReplicaEvent) -> None:
        super().__init__(state, event)
        self.state, self.event = state, event

    def __str__(self) -> str:
        return f"a replica that is {self.state.value} cannot have {self.event.value}"


def advance(state: ReplicaState, event: ReplicaEvent) -> tuple[ReplicaState, tuple[ReplicaAction, ...]]:
    """The next state and what is to be done, in order. ReplicaTransitionError if the table has no such row."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ReplicaTransitionError(state, event) from None


def placed(trouble: str) -> ReplicaEvent:
    """What was heard of its process: "" if it has one, else why it gets none."""
    return ReplicaEvent.START_FAILED if trouble else ReplicaEvent.PLACED
