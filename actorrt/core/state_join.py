"""Make one table of what the processes of a cluster have said of what is in them, and say who has not answered. No I/O.

A question goes to all nodes, by each node to its processes. For calls and objects a second one follows, about the rows
that were found: which of the calls run, and where the objects lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from msgspec import convert

from actorrt.types import PROCESS_ID_SIZE

from .stacks import coroutines_in, threads_in
from .state_records import KINDS, ProcessStacks, Record, id_column
from .state_scan import MAX_LIMIT, Filter, IdText, short_id

R = TypeVar("R", bound=Record)
# Digits of the id of a process, which begins the ids of what it owns.
_PROCESS_DIGITS: Final = 2 * PROCESS_ID_SIZE

Answers = Sequence[Mapping[str, Any]]

SUBMITTED: Final = "SUBMITTED_TO_WORKER"
RUNNING: Final = "RUNNING"
SHARED: Final = "SHARED"
# Columns that only the second question fills in.
_LATER: Final = {"objects": frozenset({"where", "readers"}), "tasks": frozenset({"state"})}
_ALIKE: Final = frozenset({SUBMITTED.lower(), RUNNING.lower()})


class Missing(NamedTuple):
    """A process, or (role "node") a node with all of its processes, that has not answered."""

    node_id: str
    worker_id: str
    role: str
    pid: int
    trouble: str


class Listing(list[R], Generic[R]):
    """What was found, up to the limit. `total`: how many there are; `missing`: who has not answered, so that there may
    be more."""

    def __init__(self, rows: Iterable[R] = (), total: int = 0, missing: Sequence[Missing] = ()) -> None:
        super().__init__(rows)
        self.total = total
        self.missing = list(missing)


def missing_in(answers: Answers) -> list[Missing]:
    found: list[Missing] = []
    for node in answers:
        if node["trouble"]:
            found.append(Missing(node["node"], node["node"], "node", 0, node["trouble"]))
        found += [
            Missing(node["node"], part["process"], part["role"], part["pid"], part["trouble"])
            for part in node["parts"]
            if part["trouble"]
        ]
    return found


def first_filters(kind: str, filters: Sequence[Filter]) -> list[Filter]:
    """What can be asked of the first question: what only the second one tells is not."""
    later = _LATER.get(kind, frozenset())
    found = [each for each in filters if each.column not in later]
    if kind == "tasks":
        for each in filters:
            if each.column == "state" and each.value.lower() not in _ALIKE:
                found.append(each)
            elif each.column == "state" and each.is_equal:
                found.append(each._replace(value=SUBMITTED))
    return found


def first_limit(kind: str, filters: Sequence[Filter], limit: int) -> int:
    """How many the first question asks for: what the second one tells may leave few of them."""
    return MAX_LIMIT if any(each.column in _LATER.get(kind, ()) for each in filters) else limit


def rows_of(answers: Answers) -> list[Any]:
    return [row for node in answers for part in node["parts"] for row in part.get("rows", ())]


def rows_in(answers: Answers) -> list[dict[str, Any]]:
    """To be completed. Each node tells of the head: that is one."""
    rows = {row[next(iter(row))]: dict(row) for row in reversed(rows_of(answers))}
    return list(reversed(rows.values()))


def completed(kind: str, rows: list[dict[str, Any]], second: Answers) -> None:
    """Fill in what the second question has told."""
    if kind == "tasks":
        running = set(rows_of(second))
        for row in rows:
            if row["state"] == SUBMITTED and row["task_id"] in running:
                row["state"] = RUNNING
    else:
        lie = {each["object_id"]: (node["node"], each) for node in second for each in rows_in([node])}
        for row in rows:
            if row["object_id"] in lie:
                node, told = lie[row["object_id"]]
                row.update(told, node_id=node)


def open_questions(kind: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Which rows the second question is about: the ids, by the process that is to be asked; "": all nodes."""
    asked: dict[str, list[str]] = {}
    for row in rows:
        if kind == "tasks" and row["state"] == SUBMITTED:
            asked.setdefault(row["worker_id"], []).append(row["task_id"])
        elif kind == "objects" and row["state"] == SHARED:
            asked.setdefault("", []).append(row["object_id"])
    return asked


def listing(
    kind: str, first: Answers, rows: Sequence[Mapping[str, Any]], filters: Sequence[Filter], limit: int
) -> Listing[Any]:
    """What the user gets."""
    records = convert(rows, list[KINDS[kind]])
    later = [each for each in filters if each.column in _LATER.get(kind, ())]
    kept = [one for one in records if all(each.matches(one[each.column]) for each in later)]
    twice = len(rows_of(first)) - len(rows)
    total = len(kept) if later else sum(part.get("total", 0) for node in first for part in node["parts"]) - twice
    return Listing(kept[:limit], total, missing_in(first))


def stacks_in(answers: Answers) -> list[ProcessStacks]:
    """Nodes first, each followed by its processes. Each node asks the head: that is one."""
    found = [
        ProcessStacks(
            process_id=part["process"],
            role=part["role"],
            pid=part["pid"],
            node_id=node["node"],
            trouble=part["trouble"],
            threads=threads_in(part.get("threads", ())),
            coroutines=coroutines_in(part.get("coroutines", ())),
            left_out=part.get("left_out", 0),
        )
        for node in answers
        for part in sorted(node["parts"], key=lambda part: part["role"] != "node")
    ]
    return list({each.process_id: each for each in reversed(found)}.values())[::-1]


def counted(answers: Answers) -> Counter[tuple[str, ...]]:
    """How many there are of each group."""
    groups: Counter[tuple[str, ...]] = Counter()
    for node in answers:
        for part in node["parts"]:
            for *key, count in part.get("groups", ()):
                groups[tuple(key)] += count
    return groups


class Counts(NamedTuple):
    """How many there are of each group, and who has not answered."""

    groups: Counter[tuple[str, ...]]
    missing: list[Missing]

    def as_dict(self) -> dict[str, Any]:
        """By the first column, and under that by the second."""
        summary: dict[str, dict[str, int]] = {}
        for (first, second), count in sorted(self.groups.items()):
            summary.setdefault(first, {})[second] = count
        return {
            "summary": summary,
            "total": sum(self.groups.values()),
            "missing": [each._asdict() for each in self.missing],
        }


def may_hide(id: str, missing: Iterable[Missing]) -> Missing | None:
    """One of those who have not answered that may have the thing with this id: its owner, or a whole node."""
    owner = IdText.read(id).begins[:_PROCESS_DIGITS]
    return next((each for each in missing if each.role == "node" or each.worker_id.startswith(owner)), None)


def the_one(kind: str, id: str, found: Listing[R]) -> R | None:
    """The thing that was asked for by this id. Raises ValueError if there are several, and TimeoutError if there is
    none and who may have it has not answered."""
    if not found and (hides := may_hide(id, found.missing)) is not None:
        who = f"{hides.role} {short_id(hides.worker_id)} (pid {hides.pid})"
        raise TimeoutError(f"whether there is {id!r} is not known: {who}: {hides.trouble}")
    if len(found) > 1:
        ids = ", ".join(short_id(each[id_column(kind)]) for each in found[:5])
        more = ", ..." if len(found) > 5 else ""
        raise ValueError(f"{id!r} is the id of more than one of the {kind.replace('_', ' ')}: {ids}{more}")
    return found[0] if found else None
