"""What is told of the nodes, processes, actors, calls and objects of a cluster: a record each, whose columns have the
names of Ray's state API. No I/O.

Ids are hexadecimal digits, as `hex()` of an id, a ref or a handle prints them. Amounts of resources are whole numbers
and fractions as users write them, sizes are bytes. What is not known is "", 0 or empty, unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, structs

from .stacks import Coroutines, Thread


class Record(Struct, frozen=True, kw_only=True):
    """One thing of the cluster at one moment. `record["state"]` is `record.state`, as with Ray."""

    def __getitem__(self, column: str) -> Any:
        if column not in self.__struct_fields__:
            raise KeyError(column)
        return getattr(self, column)

    def get(self, column: str, default: Any = None) -> Any:
        """The value of a column, or `default` if there is none of this name."""
        return getattr(self, column) if column in self.__struct_fields__ else default

    def asdict(self) -> dict[str, Any]:
        """All columns."""
        return structs.asdict(self)


class NodeState(Record, frozen=True, kw_only=True):
    """A machine of the cluster."""

    node_id: str
    state: str
    """ALIVE or DEAD."""
    node_name: str = ""
    node_ip: str = ""
    resources_total: dict[str, float] = {}
    resources_available: dict[str, float] = {}
    """Those of a node that does not answer are empty."""
    labels: dict[str, str] = {}


class WorkerState(Record, frozen=True, kw_only=True):
    """A process of the cluster, beside nodes and zygotes."""

    worker_id: str
    worker_type: str
    """DRIVER, WORKER or HEAD."""
    state: str
    """Of a worker, as its node sees it: STARTING, IDLE, LEASED (it is given to one caller, or has an actor for itself),
    SHARED (for coroutines) and states of its end. RUNNING of a driver and the head, DOWN if its link is."""
    pid: int = 0
    """0 while it is being forked."""
    node_id: str = ""
    job_id: str = ""
    """The process id of the driver that it works for."""
    name: str = ""
    """The actor that it was leased for, or what it runs now."""
    is_detached: bool = False
    """It runs detached actors of a program."""
    resources: dict[str, float] = {}
    """What its lease takes."""
    trouble: str = ""
    """Why it does not answer."""


class ActorState(Record, frozen=True, kw_only=True):
    """An actor, as its owner knows it. Dead ones are told of while handles to them are left."""

    actor_id: str
    state: str
    """PENDING_CREATION: it has no worker yet, or its constructor has not returned. RESTARTING: the same, after a loss.
    ALIVE, DEAD."""
    class_name: str = ""
    """"" for a detached actor: its node does not look into what it starts."""
    name: str = ""
    pid: int = 0
    """Of the worker where it is, or is starting."""
    worker_id: str = ""
    node_id: str = ""
    """Where it is, or is starting."""
    job_id: str = ""
    owner_id: str = ""
    """The process that restarts it: its maker's, or, for a detached one, the node."""
    num_restarts: int = 0
    restarts_left: int = 0
    """-1: without limit."""
    borrowers: int = 0
    """Processes beside its owner that hold handles."""
    is_detached: bool = False
    required_resources: dict[str, float] = {}
    """As long as it may be started; those of one that will not be restarted are not kept."""
    death_cause: str = ""


class TaskState(Record, frozen=True, kw_only=True):
    """A call that has no outcome yet: of a remote function, or of an actor's method. Ended calls are not kept."""

    task_id: str
    """The id of the object that it returns, or of the first of several."""
    state: str
    """PENDING_ARGS_AVAIL: a ref among its arguments has no value yet. PENDING_NODE_ASSIGNMENT: it waits for a worker.
    PENDING_ACTOR: for its actor's place, for room there, or behind calls that were made before. SUBMITTED_TO_WORKER: a
    worker has it and has not begun. RUNNING."""
    name: str = ""
    type: str = ""
    """NORMAL_TASK or ACTOR_TASK."""
    actor_id: str = ""
    owner_id: str = ""
    """The process that has called."""
    owner_pid: int = 0
    worker_id: str = ""
    worker_pid: int = 0
    """Where it was sent."""
    attempts_left: int = 0
    """-1: without limit."""
    required_resources: dict[str, float] = {}
    waits_for: list[str] = []
    """Objects among its arguments that are not there."""


class ObjectState(Record, frozen=True, kw_only=True):
    """An object, as its owner knows it."""

    object_id: str
    state: str
    """PENDING: the call that makes it has no outcome. INLINE: it lies in its owner. SHARED: in the shared memory, or on
    the disk, of a node. ERROR: its call failed."""
    object_size: int = -1
    """Bytes of the pickled value; -1: not known."""
    name: str = ""
    """The call that makes it, while it is PENDING."""
    task_id: str = ""
    """The id of that, which returns this object among others, it may be."""
    owner_id: str = ""
    owner_pid: int = 0
    local_refs: int = 0
    """Refs in its owner's process, those that lie in calls under way counted."""
    borrowers: dict[str, int] = {}
    """The other processes that hold it, and how often each was told to."""
    is_pinned: bool = False
    """A ref was pickled outside of a call: it is kept to the end of its owner."""
    where: str = ""
    """Of one that is SHARED: memory or disk."""
    node_id: str = ""
    """The node that holds it."""
    readers: int = 0
    """Processes that have it mapped, or are about to."""


class PlacementGroupState(Record, frozen=True, kw_only=True):
    """A placement group."""

    placement_group_id: str
    state: str
    """PENDING, CREATED, RESCHEDULING or REMOVED."""
    name: str = ""
    strategy: str = ""
    bundles: list[dict[str, float]] = []
    nodes: list[str] = []
    """The node of each bundle, once it is CREATED."""
    is_detached: bool = False
    why: str = ""
    """What it waits for."""


class ProcessStacks(Record, frozen=True, kw_only=True):
    """Where the threads and coroutines of a process are."""

    process_id: str
    role: str
    """node, head, driver or worker."""
    pid: int = 0
    node_id: str = ""
    trouble: str = ""
    """Why there are no stacks: it does not answer."""
    threads: list[Thread] = []
    """All but the one that has taken the stacks."""
    coroutines: list[Coroutines] = []
    """Those of users' loops; many at the same lines are one entry with their number."""
    left_out: int = 0
    """Coroutines that are not in the list, since there are too many different ones."""


KINDS: Final[Mapping[str, type[Record]]] = {
    "nodes": NodeState,
    "workers": WorkerState,
    "actors": ActorState,
    "tasks": TaskState,
    "objects": ObjectState,
    "placement_groups": PlacementGroupState,
}


def id_column(kind: str) -> str:
    """The column by which things of a kind are found: the first one."""
    return KINDS[kind].__struct_fields__[0]
