"""`actorrt list`: nodes, processes, actors, calls, objects and placement groups of a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

import actorrt
from actorrt.cli.problems import WRONG_USE, CommandError
from actorrt.cli.sessions import ANSWER_S, joined, of_session
from actorrt.cli.tables import note_missing, size, table

state = actorrt.util.state
Row = Any

_LISTS: Final[Mapping[str, Callable[..., state.Listing[Any]]]] = {
    "nodes": state.list_nodes,
    "workers": state.list_workers,
    "actors": state.list_actors,
    "tasks": state.list_tasks,
    "objects": state.list_objects,
    "placement-groups": state.list_placement_groups,
}


@click.command("list", short_help="List nodes, workers, actors, tasks, objects or placement groups.")
@click.argument("kind", type=click.Choice([*_LISTS]), metavar="KIND")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only those with this value in this column, or, by COLUMN!=VALUE, without it; may be given several times.",
)
@click.option("--limit", default=100, metavar="N", help="Show so many at most, up to 10,000.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all columns, for programs.")
@of_session
def lists(kind: str, filters: tuple[str, ...], limit: int, as_json: bool, address: str) -> None:
    """List what there is of a KIND: nodes, workers (all processes), actors, tasks (calls without an outcome), objects,
    placement-groups.

    \b
    actorrt list actors --filter state=ALIVE
    actorrt list tasks --filter state!=RUNNING --limit 1000
    actorrt list objects --json

    An id as it is shown, such as 5f0c11d2-2a, names the thing to other commands: actorrt why ID, logs ID, stack ID.
    The columns that --filter takes are those of --json. A process that does not answer within a second is named, and
    what it has is missing.
    """
    with joined(address):
        kept = [_filter(each) for each in filters]
        found: state.Listing[Row] = _LISTS[kind](filters=kept, limit=limit, timeout=ANSWER_S)
    # This command is part of the session too, while it asks.
    rows = [each for each in found if not (kind == "workers" and each.pid == os.getpid())]
    if as_json:
        missing = [each._asdict() for each in found.missing]
        total = found.total - (len(found) - len(rows))
        print(json.dumps({"rows": [each.asdict() for each in rows], "total": total, "missing": missing}, indent=2))
        return
    head, columns = _SHOWN[kind]
    print(table(head, map(columns, rows)))
    if found.total > len(found):
        print(f"the first {len(found)} of {found.total}: --limit and --filter choose")
    note_missing(found.missing)


def _filter(text: str) -> tuple[str, str, str]:
    column, equals, value = text.partition("=")
    if not equals or not column.rstrip("!"):
        raise CommandError(f"--filter {text!r}: write COLUMN=VALUE or COLUMN!=VALUE, as in state=ALIVE", WRONG_USE)
    return (column[:-1], "!=", value) if column.endswith("!") else (column, "=", value)


def _short(id: str) -> str:
    return state.short_id(id) if id else ""


def _amounts(resources: Mapping[str, float]) -> str:
    return " ".join(f"{name}:{_amount(name, value)}" for name, value in sorted(resources.items()))


def _amount(name: str, value: float) -> str:
    return size(int(value)).replace(" ", "") if name.endswith("memory") else f"{value:g}"


def _of_node(one: Row) -> Sequence[object]:
    free = one.resources_available
    shown = " ".join(
        f"{name}:{_amount(name, free.get(name, 0))}/{_amount(name, value)}"
        for name, value in sorted(one.resources_total.items())
    )
    return _short(one.node_id), one.state, one.node_ip, one.node_name, shown


def _of_worker(one: Row) -> Sequence[object]:
    what = one.trouble or " ".join(filter(None, (one.name, _amounts(one.resources))))
    return _short(one.worker_id), one.worker_type, one.state, one.pid, _short(one.node_id), _short(one.job_id), what


def _of_actor(one: Row) -> Sequence[object]:
    waits = _amounts(one.required_resources) if one.state in ("PENDING_CREATION", "RESTARTING") else ""
    what = " ".join(one.death_cause.split()) or (f"wants {waits}" if waits else "")
    title = f"{one.class_name}({one.name})" if one.name else one.class_name
    return _short(one.actor_id), one.state, title, one.pid or "", one.num_restarts, what


def _of_task(one: Row) -> Sequence[object]:
    waits = f"waits for {_short(one.waits_for[0])}" if one.waits_for else ""
    asks = f"wants {_amounts(one.required_resources)}" if one.state == "PENDING_NODE_ASSIGNMENT" else ""
    return _short(one.task_id), one.state, one.name, one.worker_pid or "", one.owner_pid, waits or asks


def _of_object(one: Row) -> Sequence[object]:
    known = size(one.object_size) if one.object_size >= 0 else ""
    where = one.where or ("owner" if one.state == "INLINE" else "")
    return _short(one.object_id), one.state, known, where, one.owner_pid, one.local_refs, len(one.borrowers), one.name


def _of_group(one: Row) -> Sequence[object]:
    bundles = ", ".join(map(_amounts, one.bundles))
    return _short(one.placement_group_id), one.state, one.name, one.strategy, bundles, one.why


_SHOWN: Final[Mapping[str, tuple[Sequence[str], Callable[[Row], Sequence[object]]]]] = {
    "nodes": (("node", "state", "address", "name", "free/all"), _of_node),
    "workers": (("worker", "type", "state", "pid", "node", "job", "what"), _of_worker),
    "actors": (("actor", "state", "class", "pid", "restarts", "what"), _of_actor),
    "tasks": (("task", "state", "name", "pid", "caller", "what"), _of_task),
    "objects": (("object", "state", "size", "in", "owner", "refs", "borrowers", "made by"), _of_object),
    "placement-groups": (("group", "state", "name", "strategy", "bundles", "why"), _of_group),
}
