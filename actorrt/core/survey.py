"""Who is asked for what when somebody wants to know what there is in a cluster. No I/O."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from actorrt.types import ProcessId

from .roll_call import Listed

_PROGRAMS: Final = frozenset({"driver", "worker"})
_ALL: Final = frozenset({"driver", "worker", "head"})


class Asked(NamedTuple):
    """`roles`: which processes of a node are asked; `node`: whether it has something to say itself."""

    roles: frozenset[str] = frozenset()
    node: bool = False


ASKED: Final[Mapping[str, Asked]] = {
    "workers": Asked(node=True),
    # A node owns the detached ones.
    "actors": Asked(_PROGRAMS, node=True),
    "tasks": Asked(_PROGRAMS),
    "objects": Asked(_PROGRAMS),
    "running": Asked(_PROGRAMS),
    "segments": Asked(node=True),
    "stacks": Asked(_ALL, node=True),
    "backlog": Asked(_PROGRAMS),
    "queues": Asked(node=True),
}


def members_asked(
    what: str, members: Iterable[Listed], processes: Container[ProcessId], *, only_these: bool
) -> list[Listed]:
    """Which of the processes of a node are asked; `only_these`: of those in `processes`."""
    roles = ASKED[what].roles
    return [one for one in members if one.member.role in roles and (not only_these or one.member.process in processes)]


def nodes_told(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What nodes have answered that were asked by a roll call, and those that have not."""
    found: list[dict[str, Any]] = []
    for each in told:
        found += each.get("nodes") or [{"node": each["process"], "trouble": each["trouble"], "parts": []}]
    return found


def node_answer(node: ProcessId, parts: Sequence[Mapping[str, Any]], trouble: str = "") -> dict[str, Any]:
    """What one node tells; with `trouble`, why it does not."""
    return {"node": node.hex(), "trouble": trouble, "parts": list(parts)}


def own_part(node: ProcessId, pid: int, rows: Mapping[str, Any]) -> dict[str, Any]:
    """What a node says beside its processes."""
    return {"process": node.hex(), "role": "node", "pid": pid, "trouble": "", **rows}
