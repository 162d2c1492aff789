"""Ask the cluster what there is in it: the node of this program asks all nodes, and each its processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from actorrt.core import option_checks as check
from actorrt.core import state_join as join
from actorrt.core import why
from actorrt.core.state_join import Listing
from actorrt.core.state_records import (
    ActorState,
    ObjectState,
    PlacementGroupState,
    ProcessStacks,
    Record,
    TaskState,
    WorkerState,
    id_column,
)
from actorrt.core.state_scan import MAX_LIMIT, IdText, checked_filters, checked_limit
from actorrt.types import ProcessId
from actorrt.wire.messages import Facts, ListGroups, Query, Question, Scope, Survey

from ..machine import read_logs as logs
from . import program

Answers = join.Answers

# For how long the place of something is looked for whose log is asked for.
LOOK_S: Final = 30.0


def ask(survey: Survey, timeout: float | None) -> Answers:
    """What the nodes answer. Raises TimeoutError if the own one does not in time; others are named in the answer."""
    limit_s = check.seconds("timeout", timeout)
    question = replace(survey, scope=Scope.CLUSTER, timeout_s=limit_s or 0.0)
    return _ask_node(question, timeout).data["nodes"]


def _ask_node(question: Question, timeout: float | None) -> Facts:
    runtime = program.runtime()
    limit_s = check.seconds("timeout", timeout)
    try:
        return runtime.thread.call_sync(runtime.node.ask(question), limit_s)
    except TimeoutError:
        raise TimeoutError(f"the node has not answered for {timeout:g} s") from None


def list_of(
    kind: str, filters: Iterable[Sequence[object]] | None, limit: int, timeout: float | None, id: str = ""
) -> Listing[Any]:
    """The things of a kind that the filters let pass."""
    chosen = checked_filters(kind, filters or ())
    checked_limit(limit)
    first = ask(
        Survey(
            kind,
            filters=[(each.column, each.is_equal, each.value) for each in join.first_filters(kind, chosen)],
            id=id,
            limit=join.first_limit(kind, chosen, limit),
        ),
        timeout,
    )
    rows = join.rows_in(first)
    about = join.open_questions(kind, rows)
    if about:
        ids = [each for ids in about.values() for each in ids]
        processes = [ProcessId(bytes.fromhex(each)) for each in about if each]
        what = "running" if kind == "tasks" else "segments"
        join.completed(kind, rows, ask(Survey(what, ids=ids, processes=processes), timeout))
    return join.listing(kind, first, rows, chosen, limit)


def one_of(kind: str, text: object, timeout: float | None) -> Any:
    """The thing that has this id; None if there is none. Raises ValueError if there are several, and TimeoutError if
    who may have it does not answer."""
    IdText.read(text)
    id = str(text)
    return join.the_one(kind, id, list_of(kind, None, MAX_LIMIT, timeout, id))


def counts_of(kind: str, group_by: Sequence[str], timeout: float | None) -> join.Counts:
    """How many things there are, by these columns, and who has not answered."""
    answers = ask(Survey(kind, group_by=list(group_by)), timeout)
    return join.Counts(join.counted(answers), join.missing_in(answers))


def stacks(process: str, timeout: float | None) -> list[ProcessStacks]:
    """Those of all processes, or of one."""
    processes = [ProcessId(bytes.fromhex(process))] if process else []
    found = join.stacks_in(ask(Survey("stacks", processes=processes), timeout))
    return [each for each in found if process in ("", each.process_id)]


# In the order in which an id is looked for: that of a process begins the ids of all that it has made.
_FOUND_IN: Final = ("workers", "actors", "tasks", "objects")


def find(text: object, timeout: float | None) -> Record | None:
    """Whatever has this id, or the process with this pid. Raises ValueError if there are several."""
    if isinstance(text, str) and text.isdecimal():
        with_pid = list_of("workers", [("pid", "=", text)], 1, timeout)
        if with_pid:
            return with_pid[0]
    for kind in _FOUND_IN:
        found = one_of(kind, text, timeout)
        if found is not None:
            return found
    return first_of("placement_groups", text, Listing(groups(timeout)))


def place_of(record: Record | None) -> str:
    """The id of the process where something is; "" if it is nowhere."""
    match record:
        case WorkerState() | ActorState() | TaskState():
            return record.worker_id
        case ObjectState():
            return record.owner_id
        case _:
            return ""


def explained(record: Record, timeout: float | None) -> list[str]:
    """Why a call or an actor has not begun, or how another thing stands."""
    match record:
        case ActorState():
            return why.of_actor(record, _title(record), _queues(timeout))
        case TaskState():
            return _why_call(record, timeout)
        case ObjectState(state="PENDING") if record.task_id:
            made = one_of("tasks", record.task_id, timeout)
            return why.of_object(record) if made is None else _why_call(made, timeout)
        case ObjectState():
            return why.of_object(record)
        case PlacementGroupState():
            return why.of_group(record)
        case _:
            return []


def _title(actor: ActorState) -> str:
    return f"{actor.class_name}({actor.name})" if actor.class_name and actor.name else actor.class_name or actor.name


def _queues(timeout: float | None) -> list[why.NodeQueue]:
    return why.queues_in(ask(Survey("queues"), timeout))


def _why_call(call: TaskState, timeout: float | None) -> list[str]:
    backlog, objects, actor = why.Backlog(), dict[str, ObjectState](), list[str]()
    running: list[TaskState] = []
    if call.state in ("PENDING_NODE_ASSIGNMENT", "PENDING_ACTOR"):
        owner = ProcessId(bytes.fromhex(call.owner_id))
        rows: list[Any] = join.rows_of(ask(Survey("backlog", id=call.task_id, processes=[owner]), timeout))
        backlog = why.Backlog(*rows[0]) if rows else backlog
    if call.actor_id and call.state in ("PENDING_ACTOR", "SUBMITTED_TO_WORKER"):
        found: ActorState | None = one_of("actors", call.actor_id, timeout)
        actor = [] if found is None else why.of_actor(found, _title(found), _queues(timeout))
    if call.state == "SUBMITTED_TO_WORKER":
        running = list_of("tasks", [("worker_id", "=", call.worker_id), ("state", "=", "RUNNING")], 100, timeout)
    for each in call.waits_for:
        known: ObjectState | None = one_of("objects", each, timeout)
        if known is not None:
            objects[each] = known
    nodes = _queues(timeout) if call.state == "PENDING_NODE_ASSIGNMENT" else []
    return why.of_call(call, backlog, nodes, objects, running, actor)


def groups(timeout: float | None) -> list[PlacementGroupState]:
    """All placement groups."""
    facts = _ask_node(ListGroups(), timeout)
    return [
        PlacementGroupState(
            placement_group_id=row["placement_group_id"],
            state=row["state"],
            name=row.get("name", ""),
            strategy=row.get("strategy", ""),
            bundles=list(row.get("bundles", {}).values()),
            nodes=list(row.get("bundles_to_node_id", {}).values()),
            is_detached=row.get("is_detached", False),
            why=row.get("why", ""),
        )
        for row in facts.data
    ]


def nodes(timeout: float | None) -> list[dict[str, Any]]:
    """The machines of the cluster, as `actorrt.nodes()` tells of them, with what is free of their resources."""
    known, free = _ask_node(Query("nodes"), timeout), _ask_node(Query("available"), timeout)
    only_one = len(known.data) == 1
    return [{"Available": free.data if only_one else {}, **each} for each in known.data]


def first_of(kind: str, text: object, found: Listing[Any]) -> Any:
    """The same among things that are here already."""
    wanted, column = IdText.read(text), id_column(kind)
    return join.the_one(kind, str(text), Listing(each for each in found if wanted.matches(each[column])))


def session_folder() -> str:
    return program.runtime().session


def log_of(text: str, suffix: str) -> str:
    """The name of the log of a process, or of that where something is. Raises ValueError if there is none.

    By the names of the files first: those of processes that have ended, and do not answer, are there too.
    """
    found = logs.of_process(logs.names(session_folder()), text, suffix)
    if found is None and (record := find(text, LOOK_S)) is not None:
        # One that has printed nothing has no file yet.
        worker: WorkerState | None = one_of("workers", place_of(record) or "0", LOOK_S)
        if worker is not None and worker.worker_type == "WORKER":
            found = logs.name_of(worker.worker_id, worker.pid, suffix)
    if found is None:
        raise ValueError(f"there is no log of {text!r}: it has the id or pid of no worker, and of nothing in one")
    return found
