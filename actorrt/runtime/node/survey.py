"""A node's part in a survey: it asks its processes what they have of a kind, and tells what it knows itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from msgspec.structs import replace

from actorrt import exceptions
from actorrt.core.node_state import Holding
from actorrt.core.roll_call import Listed, Member, patience
from actorrt.core.state_scan import Columns
from actorrt.core.state_words import amounts
from actorrt.core.survey import ASKED, members_asked, node_answer, nodes_told, own_part
from actorrt.types import ObjectKey, ProcessId, owner_of
from actorrt.wire.messages import Facts, Scope, Survey

from ..base.thread_stacks import stacks_here
from ..owner.scanning import ACTORS, scanned
from ..owner.supervisor import Supervisor
from . import roll
from .node_machine import KeptHead
from .node_segments import NodeSegments
from .workers import Workers

Row = Mapping[str, Any]


class Surroundings(Protocol):
    """The node, as far as it is asked."""

    process: ProcessId

    @property
    def workers(self) -> Workers: ...
    @property
    def segments(self) -> NodeSegments: ...
    @property
    def supervisor(self) -> Supervisor: ...

    @property
    def head(self) -> KeptHead: ...
    @property
    def head_process(self) -> ProcessId: ...
    @property
    def in_cluster(self) -> bool:
        """There may be other nodes."""
        ...

    def members(self, asker: ProcessId) -> list[Listed]: ...
    async def ask_member(self, member: Member, question: Survey) -> Facts: ...


async def answer(node: Surroundings, survey: Survey) -> Facts:
    """What there is on this node; with scope CLUSTER, on the others too. Nobody is waited for without end."""
    if survey.what not in ASKED:
        raise exceptions.ActorrtError(f"nothing is known about {survey.what!r}")
    if survey.scope is not Scope.CLUSTER or not node.in_cluster:
        return Facts({"nodes": [await _of_this_node(node, survey)]})
    here, others = await asyncio.gather(_of_this_node(node, survey), _of_others(node, survey))
    return Facts({"nodes": [here, *others]})


async def _of_others(node: Surroundings, survey: Survey) -> list[dict[str, Any]]:
    """What the head, which has links to all, hears of them."""
    head = Listed(Member(node.head_process, "head", 0))
    answer_s = patience(survey.timeout_s)
    question = replace(survey, timeout_s=answer_s)
    return nodes_told(await roll.call([head], lambda _: node.head.ask(question), answer_s))


async def _of_this_node(node: Surroundings, survey: Survey) -> dict[str, Any]:
    question = replace(survey, scope=Scope.PROCESS)
    members = members_asked(
        survey.what,
        node.members(ProcessId(b"")),
        frozenset(survey.processes),
        only_these=bool(survey.processes),
    )
    parts = await roll.call(members, lambda one: node.ask_member(one, question), patience(survey.timeout_s))
    if ASKED[survey.what].node:
        parts.append(own_part(node.process, os.getpid(), await _own(node, survey)))
    return node_answer(node.process, parts)


async def _own(node: Surroundings, survey: Survey) -> Row:
    match survey.what:
        case "workers":
            return await scanned(survey, worker_rows(node), WORKERS)
        case "actors":
            return await scanned(survey, list(node.supervisor.records.values()), ACTORS)
        case "segments":
            return {"rows": list(filter(None, map(node.segments.where, map(_object_key, survey.ids))))}
        case "queues":
            return queue(node)
        case "stacks":
            return stacks_here()
        case _:
            return {}


def _object_key(digits: str) -> ObjectKey:
    key = bytes.fromhex(digits)
    owner = owner_of(key)
    return owner, int.from_bytes(key[len(owner) :], "big")


def queue(node: Surroundings) -> Row:
    """What this node has, who has it, and who waits for it."""
    workers = node.workers
    known = workers.statistics()
    pids = {each["worker_id"]: each["pid"] for each in workers.facts()}
    return {
        "capacity": amounts(known.total),
        "free": amounts(known.free),
        "requests": [
            [each.owner.hex(), amounts(each.wanted.shape), each.wanted.actor, each.has_resources]
            for each in workers.requests()
        ],
        "holdings": [
            [
                each.process.hex(),
                pids.get(each.process.hex(), 0),
                each.owner.hex(),
                amounts(each.shape),
                each.actor,
                each.is_blocked,
            ]
            for each in workers.holdings()
        ],
    }


# ---- its processes


def worker_rows(node: Surroundings) -> list[dict[str, Any]]:
    """All processes but the node itself."""
    facts = {each["worker_id"]: each for each in node.workers.facts()}
    leases = {each.process: each for each in node.workers.holdings()}
    rows: list[dict[str, Any]] = []
    for one in node.members(ProcessId(b"")):
        process, role, pid = one.member
        known, lease = facts.get(process.hex(), {}), leases.get(process)
        rows.append(
            {
                "worker_id": process.hex(),
                "worker_type": role.upper(),
                "state": str(known.get("state", "down" if one.trouble else "running")).upper(),
                "pid": pid,
                "node_id": node.process.hex(),
                "job_id": process.hex() if role == "driver" else known.get("job", ""),
                "name": _name_of(lease),
                "is_detached": known.get("detached", False),
                "resources": {} if lease is None else amounts(lease.shape),
                "trouble": one.trouble,
            }
        )
    return rows


def _name_of(lease: Holding | None) -> str:
    return "" if lease is None else lease.actor


def _column(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


WORKERS: Final[Columns[Row]] = {
    name: _column(name)
    for name in (
        "worker_id",
        "worker_type",
        "state",
        "pid",
        "node_id",
        "job_id",
        "name",
        "is_detached",
        "resources",
        "trouble",
    )
}
