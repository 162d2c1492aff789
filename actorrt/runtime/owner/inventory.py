"""What there is in a process, as rows for whoever asks (`Survey`): actors that it owns, calls that it has made and that
have no outcome, and objects that it owns.

No table is kept for that: each part is looked through when somebody asks, a few hundred things at a time, with turns of
the loop in between. Runs on the runtime loop, so that it answers whatever the user's code does.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from actorrt.core.calls import AWAY
from actorrt.core.object_state import PRESENT, SHARED
from actorrt.core.state_scan import Columns
from actorrt.core.state_words import amounts, class_and_name, of_call, of_object
from actorrt.types import ProcessId, owner_of
from actorrt.wire.messages import Survey

from ..links.peers import Peers
from .actor_client import ActorClient
from .actors import Actors
from .call_maker import CallMaker
from .calls import Call
from .entries import Entry
from .objects import Objects
from .program import Program
from .references import ObjectRef
from .scanning import ACTORS, scanned
from .shared_tasks import SharedTasks
from .supervisor import Supervisor
from .task_pool import TaskPool
from .tasks import Tasks

T = TypeVar("T")

ARGUMENTS: Final = "PENDING_ARGS_AVAIL"
WORKER: Final = "PENDING_NODE_ASSIGNMENT"
ACTOR: Final = "PENDING_ACTOR"


class Surroundings(Protocol):
    """The process whose parts are looked through."""

    process: ProcessId

    @property
    def program(self) -> Program: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def actors(self) -> Actors: ...
    @property
    def tasks(self) -> Tasks: ...
    @property
    def shared_tasks(self) -> SharedTasks: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def calls(self) -> CallMaker: ...


async def inventory(process: Surroundings, survey: Survey) -> dict[str, Any]:
    """What this process has of a kind; {} of a kind that it knows nothing of."""
    match survey.what:
        case "actors":
            return await scanned(survey, list(process.supervisor.records.values()), ACTORS)
        case "tasks":
            return await scanned(survey, unfinished(process), TASKS)
        case "objects":
            entries, refs = own_entries(process.process)
            return await scanned(survey, entries, object_columns(process.objects, refs))
        case "backlog":
            return {"rows": backlogs(process, survey.id)}
        case "running":
            return {"rows": [each for each in survey.ids if runs(process, bytes.fromhex(each))]}
        case _:
            return {}


# ---- calls


class Unfinished(NamedTuple):
    """A call without an outcome, and what it waits for if it is here."""

    call: Call
    waits: str


def unfinished(process: Surroundings) -> Iterator[Unfinished]:
    """The calls of this process: those that were sent, then those that wait. Which they are is looked up now, how they
    stand as they are taken."""
    # At once: other threads make calls meanwhile.
    sent = [list(link.inflight.values()) for link in process.peers.all_links()]
    placed = [*process.tasks.waiting(), *process.shared_tasks.waiting()]
    resolving, waiting = process.calls.resolving(), process.actors.waiting()

    def each() -> Iterator[Unfinished]:
        for call in chain.from_iterable(sent):
            if type(call) is Call and not call.done:
                yield Unfinished(call, WORKER)
        for call in placed:
            yield Unfinished(call, WORKER)
        for call in resolving:
            yield Unfinished(call, ARGUMENTS)
        for call in waiting:
            yield Unfinished(call, ARGUMENTS if awaited(call) else ACTOR)

    return (one for one in each() if not one.call.done)


def awaited(call: Call) -> list[Entry]:
    """What it waits for among its arguments."""
    return [entry for _, entry in call.waiting or () if not entry.done]


def title_of(call: Call) -> str:
    target = call.target
    if isinstance(target, ActorClient):
        return f"{class_and_name(target.title)[0]}.{call.name}"
    return call.name


def _resources_of(call: Call) -> dict[str, float]:
    return amounts(call.target.shape) if isinstance(call.target, TaskPool) else {}


def _actor_of(call: Call) -> str:
    return call.target.actor.hex() if isinstance(call.target, ActorClient) else ""


def call_state(one: Unfinished) -> str:
    return of_call(one.call.state, one.waits)


def _at(one: Unfinished, what: Callable[[Any], Any], nowhere: T) -> T:
    link = one.call.link
    return what(link) if link is not None and one.call.state is AWAY else nowhere


TASKS: Final[Columns[Unfinished]] = {
    "task_id": lambda one: one.call.entry.hex(),
    "state": call_state,
    "name": lambda one: title_of(one.call),
    "type": lambda one: "ACTOR_TASK" if isinstance(one.call.target, ActorClient) else "NORMAL_TASK",
    "actor_id": lambda one: _actor_of(one.call),
    "owner_id": lambda one: one.call.entry.owner.hex(),
    "owner_pid": lambda _: os.getpid(),
    "worker_id": lambda one: _at(one, lambda link: link.peer.hex(), ""),
    "worker_pid": lambda one: _at(one, lambda link: link.pid, 0),
    "attempts_left": lambda one: one.call.attempts_left,
    "required_resources": lambda one: _resources_of(one.call),
    "waits_for": lambda one: [entry.hex() for entry in awaited(one.call)],
}


def runs(process: Surroundings, task: bytes) -> bool:
    """Whether the code of a call that another process has made runs here."""
    caller, number = owner_of(task), int.from_bytes(task[len(owner_of(task)) :], "big")
    runner = process.program.runner
    now = None if runner is None else runner.running
    if now is not None and now.seq == number and now.link.peer == caller:
        return True
    for link in process.peers.all_links():
        if link.peer == caller and (run := link.serving.get(number)) is not None:
            return not run.waits
    return False


def backlogs(process: Surroundings, task: str) -> list[tuple[int, int, int]]:
    """What is before a call of this process: calls of its kind that wait here, those that were sent, and workers that
    were asked for. Of a call that waits for neither a worker nor its actor nothing is told."""
    for one in unfinished(process):
        call, target = one.call, one.call.target
        if call.entry.hex() == task and isinstance(target, TaskPool):
            known = target.statistics()
            return [(_place_of(call, target.waiting()), known.under_way, known.asked)]
        if call.entry.hex() == task and isinstance(target, ActorClient):
            return [(_place_of(call, [*(target.backlog or ())]), target.inflight, 0)]
    return []


def _place_of(call: Call, waiting: list[Call]) -> int:
    return waiting.index(call) if call in waiting else 0


# ---- objects


def own_entries(process: ProcessId) -> tuple[list[Entry], Mapping[int, int]]:
    """The objects that this process owns, the oldest first, and how many refs it has of each, by the id of its entry.

    Python's collector knows them: it takes 10 ms for each million of things that the process has.
    """
    found = gc.get_referrers(Entry, ObjectRef)
    entries = [one for one in found if type(one) is Entry and one.owner == process]
    refs = Counter(id(one._entry) for one in found if type(one) is ObjectRef)  # pyright: ignore[reportPrivateUsage]
    entries.sort(key=attrgetter("seq"))
    return entries, refs


def size_of(entry: Entry) -> int:
    """Bytes of its value; -1: not known."""
    if entry.state is PRESENT:
        return len(entry.data)
    return entry.data.size if entry.state is SHARED else -1


def object_columns(objects: Objects, refs: Mapping[int, int]) -> Columns[Entry]:
    return {
        "object_id": Entry.hex,
        "state": lambda one: of_object(one.state),
        "object_size": size_of,
        "name": lambda one: "" if one.call is None else title_of(one.call),
        "task_id": lambda one: "" if one.call is None else one.call.entry.hex(),
        "owner_id": lambda one: one.owner.hex(),
        "owner_pid": lambda _: os.getpid(),
        "local_refs": lambda one: refs.get(id(one), 0),
        "borrowers": lambda one: {each.hex(): count for each, count in objects.borrowers_of(one).items()},
        "is_pinned": objects.is_pinned,
        "node_id": lambda one: one.data.node.hex() if one.state is SHARED else "",
    }
