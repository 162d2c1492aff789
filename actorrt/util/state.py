"""What there is in a cluster, for programs and people: nodes, processes, actors, calls and objects, by Ray's names.

Nothing is kept for these questions, and nothing is counted on a call's way: a node asks all processes of its session,
which look through what they have, with pauses. So an answer is of about one moment, calls that have ended are not in
it, and it costs each process some milliseconds: ask now and then, and not in a loop. User code that blocks a process
does not keep it from answering. A process that does not answer, since it is stopped or its code keeps the interpreter
to itself, is named in `missing` of the list and waited for no longer than a second, or than a tenth of a `timeout` over
10 seconds; what it has is not in the list.

Filters are `[("state", "=", "ALIVE"), ("name", "!=", "db")]`: all have to hold, values are compared as text, without
regard to case. `limit` is at most 10,000; `total` of the list says how many there are. All columns are filled in,
whatever `detail` says. Ids are hexadecimal digits; where one thing is asked for, the first digits will do that no other
id begins with, or what tables show: "5f0c11d2-2a" is the 2a-th thing of the process whose id begins with 5f0c11d2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from actorrt.core.stacks import Coroutines, Frame, Thread
from actorrt.core.state_join import Listing, Missing
from actorrt.core.state_records import (
    ActorState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    ProcessStacks,
    Record,
    TaskState,
    WorkerState,
)
from actorrt.core.state_scan import checked_filters, checked_limit, is_id, short_id
from actorrt.runtime.api import state as cluster
from actorrt.runtime.machine import read_logs as logs

__all__ = [
    "ActorState",
    "Coroutines",
    "Frame",
    "Listing",
    "Missing",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "ProcessStacks",
    "TaskState",
    "Thread",
    "WorkerState",
    "explain",
    "find",
    "get_actor",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "is_id",
    "list_actors",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_stacks",
    "list_tasks",
    "list_workers",
    "short_id",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]

R = TypeVar("R", bound=Record)
Filters = Iterable[Sequence[object]]

TIMEOUT_S = 30.0


def list_nodes(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[NodeState]:
    """The machines of the cluster. Raises TimeoutError if the node of this program does not answer in time."""
    nodes = [
        NodeState(
            node_id=each["NodeID"],
            state="ALIVE" if each["Alive"] else "DEAD",
            node_name=each.get("NodeName", ""),
            node_ip=each.get("NodeManagerAddress", ""),
            resources_total=each.get("Resources", {}),
            resources_available=each.get("Available", {}),
            labels=each.get("Labels", {}),
        )
        for each in cluster.nodes(timeout)
    ]
    return _kept("nodes", nodes, filters, limit)


def list_workers(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[WorkerState]:
    """The processes of the cluster: drivers, workers and the head. A node tells of its own without asking them."""
    return cluster.list_of("workers", filters, limit, timeout)


def list_actors(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[ActorState]:
    """Actors, as their owners know them. A dead one is told of while somebody has a handle to it."""
    return cluster.list_of("actors", filters, limit, timeout)


def list_tasks(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[TaskState]:
    """Calls of remote functions and of actors' methods that have no outcome, as their callers know them.

    Whether one runs is asked of its worker. With a filter for RUNNING or SUBMITTED_TO_WORKER, of each process the first
    10,000 calls are looked at that a worker has.
    """
    return cluster.list_of("tasks", filters, limit, timeout)


def list_objects(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[ObjectState]:
    """Objects, as their owners know them: results of calls, also pending ones, and what was put."""
    return cluster.list_of("objects", filters, limit, timeout)


def list_placement_groups(
    *, filters: Filters | None = None, limit: int = 100, timeout: float = TIMEOUT_S, detail: bool = False
) -> Listing[PlacementGroupState]:
    """Placement groups that have not been removed."""
    return _kept("placement_groups", cluster.groups(timeout), filters, limit)


def _kept(kind: str, records: list[R], filters: Filters | None, limit: int) -> Listing[R]:
    chosen = checked_filters(kind, filters or ())
    kept = [one for one in records if all(each.matches(one[each.column]) for each in chosen)]
    return Listing(kept[: checked_limit(limit)], len(kept))


# ---- one thing


def get_node(id: str, *, timeout: float = TIMEOUT_S) -> NodeState | None:
    """The node with this id, or None. Raises ValueError if there are several, as all of these."""
    return cluster.first_of("nodes", id, list_nodes(limit=10_000, timeout=timeout))


def get_worker(id: str, *, timeout: float = TIMEOUT_S) -> WorkerState | None:
    """The process with this id, or None."""
    return cluster.one_of("workers", id, timeout)


def get_actor(id: str, *, timeout: float = TIMEOUT_S) -> ActorState | None:
    """The actor with this id, or None. Its handle is given by `actorrt.get_actor(name)`."""
    return cluster.one_of("actors", id, timeout)


def get_task(id: str, *, timeout: float = TIMEOUT_S) -> TaskState | None:
    """The call with this id, or None: it has an outcome, or there was none."""
    return cluster.one_of("tasks", id, timeout)


def get_objects(id: str, *, timeout: float = TIMEOUT_S) -> list[ObjectState]:
    """The object with this id, in a list as with Ray; [] if there is none."""
    found: ObjectState | None = cluster.one_of("objects", id, timeout)
    return [] if found is None else [found]


def get_placement_group(id: str, *, timeout: float = TIMEOUT_S) -> PlacementGroupState | None:
    """The placement group with this id, or None."""
    return cluster.first_of("placement_groups", id, list_placement_groups(limit=10_000, timeout=timeout))


# ---- counts


def summarize_actors(*, timeout: float = TIMEOUT_S) -> dict[str, Any]:
    """How many actors of each class are in which state: `{"Counter": {"ALIVE": 2}}` under "summary"."""
    return cluster.counts_of("actors", ("class_name", "state"), timeout).as_dict()


def summarize_tasks(*, timeout: float = TIMEOUT_S) -> dict[str, Any]:
    """How many calls of each name are in which state, as their callers know it: one that runs counts as
    SUBMITTED_TO_WORKER."""
    return cluster.counts_of("tasks", ("name", "state"), timeout).as_dict()


def summarize_objects(*, timeout: float = TIMEOUT_S) -> dict[str, Any]:
    """How many objects of each owner are in which state."""
    return cluster.counts_of("objects", ("owner_id", "state"), timeout).as_dict()


# ---- what Ray has no names for


def find(id: str, *, timeout: float = TIMEOUT_S) -> Record | None:
    """The process, actor, call, object or placement group with this id, or the process with this pid. None if there is
    none.

    Where one id begins several others, a process comes before what it has made. Raises ValueError if there are several
    of a kind.
    """
    return cluster.find(id, timeout)


def explain(id: str, *, timeout: float = TIMEOUT_S) -> list[str]:
    """Why the call, actor or placement group with this id has not begun, in sentences: which resource it waits for, how
    much of that which node has, who has it, and what is ahead. [] if there is nothing with this id."""
    found = cluster.find(id, timeout)
    return [] if found is None else cluster.explained(found, timeout)


def list_stacks(id: str | None = None, *, timeout: float = TIMEOUT_S) -> list[ProcessStacks]:
    """Where each thread and coroutine is, and what it waits for: of all processes, or of the one with this id or pid,
    or where the actor or call with this id is.

    The runtime's own thread takes them, so that code that blocks a process is seen. A process that does not answer has
    the reason in `trouble`. Raises ValueError if there is no such process.
    """
    if id is None:
        return cluster.stacks("", timeout)
    process = cluster.place_of(cluster.find(id, timeout))
    if not process:
        raise ValueError(f"nothing that runs in a process has the id {id!r}")
    return cluster.stacks(process, timeout)


# ---- logs


def list_logs(*, pid: int | None = None) -> dict[str, list[str]]:
    """The names of the log files of this session, also of processes that have ended: "worker_out", "worker_err" and
    "node"."""
    return logs.kinds(logs.names(cluster.session_folder(), None if pid is None else f"-{pid}."))


def get_log(
    *,
    filename: str | None = None,
    id: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    suffix: str = "out",
) -> Iterator[str]:
    """The lines of one log: by the name of its file, or of the process where something is: `id` is that of an actor,
    call, worker or the node.

    `tail`: the last so many lines; -1: all. `follow`: go on, and wait for more until the file's process has ended.
    `suffix`: "out" or "err". What processes of this machine print is read from their session's folder, so that it is
    there when they do not answer. Raises ValueError if there is no such log.
    """
    names = [each for each in (filename, id, actor_id, task_id, None if pid is None else str(pid)) if each is not None]
    if len(names) != 1:
        raise ValueError("get_log() takes one of filename, id, actor_id, task_id and pid")
    if suffix not in ("out", "err"):
        raise ValueError(f'suffix is "out" or "err", not {suffix!r}')
    folder = cluster.session_folder()
    chosen = filename or cluster.log_of(names[0], suffix)
    return logs.lines(folder, chosen, follow=follow, tail=tail)
