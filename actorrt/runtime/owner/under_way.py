"""What the workers of a process run for it: asked for when memory runs short (node/memory_keeper.py)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from actorrt.types import ProcessId

from ..links.peers import Peers
from .actor_records import ActorRecord
from .calls import Call, Home
from .supervisor import Supervisor
from .tasks import Tasks


class Said(NamedTuple):
    """What one worker runs for a process."""

    what: str
    # How many seconds ago it began; None: with the worker, or nobody knows.
    age_s: float | None
    may_repeat: bool


class Owner(Protocol):
    """Whose work it is."""

    @property
    def tasks(self) -> Tasks: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def shared_tasks(self) -> Home: ...
    @property
    def peers(self) -> Peers: ...


def of_actors(records: Iterable[ActorRecord]) -> Iterator[tuple[ProcessId, Said]]:
    """What runs actors."""
    for record in list(records):
        if record.link is not None:
            yield record.link.peer, Said(record.title, None, record.life.restarts_left != 0)


def of_calls(owner: Owner) -> Iterator[tuple[ProcessId, Said]]:
    """What runs tasks."""
    now = time.monotonic()
    for held in list(owner.tasks.held.values()):
        if first := next(iter(held.calls), None):
            yield held.link.peer, Said(first.name, now - held.mark, all(call.attempts_left for call in held.calls))
    for link in list(owner.peers.links.values()):
        for call in list(link.inflight.values()):
            if type(call) is Call and call.home is owner.shared_tasks:
                yield link.peer, Said(call.name, None, bool(call.attempts_left))


def by_worker(said: Iterable[tuple[ProcessId, Said]]) -> Mapping[ProcessId, Said]:
    """One for each worker: it may be ended for want of memory if all that it runs may be repeated."""
    found: dict[ProcessId, Said] = {}
    for process, one in said:
        known = found.get(process)
        if known is not None:
            age_s = None if known.age_s is None or one.age_s is None else max(known.age_s, one.age_s)
            one = Said(known.what, age_s, known.may_repeat and one.may_repeat)
        found[process] = one
    return found


def told(owner: Owner) -> dict[str, Said]:
    """What a process says of the workers that run something for it, by their ids."""
    said = [*of_calls(owner), *of_actors(owner.supervisor.records.values())]
    return {process.hex(): one for process, one in by_worker(said).items()}
