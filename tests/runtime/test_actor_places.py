"""A caller that looks for an actor of another process: what it makes of a dial that fails."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.core.actor_calls import Event, State, traits_of
from actorrt.exceptions import LinkError
from actorrt.runtime.links.link import Link
from actorrt.runtime.owner import actor_places
from actorrt.runtime.owner.actor_client import ActorClient
from actorrt.runtime.owner.actor_places import ActorPlaces
from actorrt.types import ActorKey, Address, Place, ProcessId, actor_key
from actorrt.wire.messages import ActorAt, WhereIs

HERE, OWNER = ProcessId(b"process1"), ProcessId(b"owner...")
FIRST, SECOND = ProcessId(b"worker01"), ProcessId(b"worker02")


class Wire:
    """A link."""

    farewell = False

    def __init__(self, peer: ProcessId, closed: bool) -> None:
        self.peer = peer
        self.closed = closed


class Searching:
    """A process and the owner of an actor, which is in its first life until its worker is known to have ended."""

    def __init__(self, *dials: str) -> None:
        """`dials`: how they come out, one after the other."""
        self.loop = asyncio.new_event_loop()
        self.dials = list(dials)
        self.dead: set[ProcessId] = set()
        self.asked: list[int] = []
        peers = SimpleNamespace(dead=self.dead, ask=self._ask, link_to=self._link_to)
        thread = SimpleNamespace(spawn_here=self.loop.create_task)
        exits = SimpleNamespace(node_is_gone=False)
        process = SimpleNamespace(process=HERE, thread=thread, exits=exits, peers=peers, supervisor=None)
        self.client = ActorClient(cast(Any, process), actor_key(OWNER, 1), "Actor", traits_of(True, 1, 0, -1))
        self.lock = threading.Lock()
        self.places = ActorPlaces(cast(Any, process), self)

    def find(self, actor: ActorKey) -> ActorClient | None:
        return self.client

    def advance(self, client: ActorClient) -> None: ...

    async def _ask(self, owner: ProcessId, question: WhereIs) -> ActorAt:
        self.asked.append(question.incarnation)
        assert len(self.asked) < 9
        life = 1 if self.dead else 0
        assert life > question.incarnation, "the owner would wait for a life that may never come"
        worker = SECOND if self.dead else FIRST
        return ActorAt(Place(worker, HERE, Address("unix:worker")), life)

    async def _link_to(self, process: ProcessId, address: Address) -> Link:
        match self.dials.pop(0):
            case "dies":
                self.dead.add(process)
                raise LinkError("it has ended")
            case "fails":
                raise LinkError("it is not known")
            case closed:
                return cast(Link, Wire(process, closed == "closed"))

    def search(self) -> ActorClient:
        self.client.on(Event.WANTED)
        self.places.locate(self.client)
        tasks = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(asyncio.gather(*tasks))
        self.loop.close()
        assert self.client.state is State.PLACED
        return self.client


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The pauses that would be made."""
    pauses: list[tuple[int, bool]] = []

    def pause(rounds: int, lives: bool) -> float:
        pauses.append((rounds, lives))
        return 0.0

    monkeypatch.setattr(actor_places, "look_again_after", pause)
    return pauses


def test_an_actor_whose_worker_has_ended_is_looked_for_in_its_next_life() -> None:
    process = Searching("dies", "works")
    client = process.search()
    assert process.asked == [-1, 0]
    assert client.link is not None
    assert (client.link.peer, client.incarnation) == (SECOND, 1)


@pytest.mark.parametrize("how", ["fails", "closed"])
def test_a_worker_that_cannot_be_reached_is_not_dead_for_that(how: str, at_once: list[tuple[int, bool]]) -> None:
    process = Searching(how, how, "works")
    client = process.search()
    assert process.asked == [-1, -1, -1]
    assert client.link is not None
    assert (client.link.peer, client.incarnation) == (FIRST, 0)
    assert at_once == [(0, True), (1, True)]
