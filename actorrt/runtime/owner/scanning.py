"""Look through what a process has of a kind, with turns of its loop in between; and the columns of actors, of which
nodes are owners too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from actorrt.core.state_scan import Columns, Filter, Scan
from actorrt.core.state_words import amounts, class_and_name, of_actor
from actorrt.types import owner_of
from actorrt.wire.messages import Survey

from .actor_records import ActorRecord

T = TypeVar("T")

# So many things are looked at in one turn of the loop.
SLICE: Final = 500


async def scanned(survey: Survey, things: Iterable[T], columns: Columns[T]) -> dict[str, Any]:
    """The rows that are asked for, with pauses for others."""
    scan = Scan(
        survey.what,
        things,
        columns,
        filters=[Filter(*each) for each in survey.filters],
        id=survey.id,
        limit=survey.limit,
        group_by=survey.group_by,
    )
    while not scan.step(SLICE):  # noqa: ASYNC110  # nothing is waited for: others have their turns
        await asyncio.sleep(0)
    return scan.answer


def _owner(record: ActorRecord) -> str:
    return owner_of(record.actor).hex()


def _class_of(record: ActorRecord) -> str:
    return "" if is_detached(record) else class_and_name(record.title)[0]


def _name_of(record: ActorRecord) -> str:
    if is_detached(record):
        return "" if record.title == record.actor.hex() else record.title
    return class_and_name(record.title)[1]


def is_detached(record: ActorRecord) -> bool:
    return record.spec is not None and record.spec.employer.detached


def _cause(record: ActorRecord) -> str:
    return "" if record.life.death is None else record.life.death.cause


def actor_state(record: ActorRecord) -> str:
    return of_actor(record.life.state, record.life.incarnation)


ACTORS: Final[Columns[ActorRecord]] = {
    "actor_id": lambda one: one.actor.hex(),
    "state": actor_state,
    "class_name": _class_of,
    "name": _name_of,
    "pid": lambda one: 0 if one.link is None else one.link.pid,
    "worker_id": lambda one: "" if one.link is None else one.link.peer.hex(),
    "node_id": lambda one: "" if one.place is None else one.place.node.hex(),
    "job_id": lambda one: "" if one.spec is None else one.spec.employer.job.hex(),
    "owner_id": _owner,
    "num_restarts": lambda one: one.life.incarnation,
    "restarts_left": lambda one: one.life.restarts_left,
    "borrowers": lambda one: len(one.borrowers or ()),
    "is_detached": is_detached,
    "required_resources": lambda one: {} if one.spec is None else amounts(one.spec.shape),
    "death_cause": _cause,
}
