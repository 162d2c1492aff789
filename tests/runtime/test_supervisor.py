"""The owner's side of actors with workers that are played: what a lost link, a borrower's end and a kill mean."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.core.actor_calls import State as Standing
from actorrt.core.actor_calls import traits_of
from actorrt.core.lifecycle import Death, State
from actorrt.exceptions import LinkError
from actorrt.runtime.links.link import Link
from actorrt.runtime.owner.actor_client import ActorClient
from actorrt.runtime.owner.actor_records import ActorRecord, ActorSpec
from actorrt.runtime.owner.actors import Actors
from actorrt.runtime.owner.calls import Call
from actorrt.runtime.owner.shared import SharedPool
from actorrt.runtime.owner.supervisor import Supervisor
from actorrt.types import NO_EMPLOYER, Address, Employer, FunctionKey, LeaseId, Place, ProcessId, actor_key
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, Lease, StartActor, StopActor

OWNER, BORROWER = ProcessId(b"owner..."), ProcessId(b"borrower")


@dataclass(eq=False)
class Wire:
    """A link, and what was sent over it."""

    peer: ProcessId
    closed: bool = False
    farewell: bool = False
    sent: list[Any] = field(default_factory=list[Any])
    inflight: dict[int, Any] = field(default_factory=dict[int, Any])
    defined: set[FunctionKey] = field(default_factory=set[FunctionKey])

    def send(self, message: Any) -> None:
        self.sent.append(message)

    push = send

    def flush(self) -> None: ...
    async def ask(self, question: Any) -> None: ...

    def starts(self) -> list[StartActor]:
        return [message for message in self.sent if isinstance(message, StartActor)]


class Pool:
    """Shared workers, of which the first is picked."""

    def __init__(self, links: list[Wire]) -> None:
        self.links = links

    def pick(self) -> Wire:
        return self.links[0]

    def place_of(self, link: Wire) -> None:
        return None

    def done(self, link: Wire) -> None: ...


class Owner:
    """The process of a supervisor. Its loop runs when a test says so."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.closing = False
        self.peers = cast(Any, SimpleNamespace(dead=set()))
        self.workers = [Wire(ProcessId(b"worker01")), Wire(ProcessId(b"worker02"))]
        self.held: set[ActorRecord] = set()
        self.moved: list[ActorRecord] = []
        self.numbers = iter(range(1, 1000))
        self.supervisor = Supervisor(self)

    async def lease(self, request: Any) -> Any:
        raise AssertionError("no actor here has a worker of its own")

    def return_lease(self, lease: Any) -> None: ...
    def kill_worker(self, process: ProcessId, reason: str) -> None: ...

    def shared_pool(self, env: dict[str, str], employer: Employer) -> SharedPool:
        return cast(SharedPool, Pool(self.workers))

    async def exit_cause(self, process: ProcessId) -> tuple[str, bool]:
        return "its process ended", False

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    def actor_moved(self, record: ActorRecord) -> None:
        self.moved.append(record)

    def holds(self, record: ActorRecord) -> bool:
        return record in self.held

    def next_seq(self) -> int:
        return next(self.numbers)

    def make(self, restarts: int = 0) -> ActorRecord:
        """A living actor, which is held here."""
        seq = self.next_seq()
        actor = actor_key(OWNER, seq)
        start = StartActor(seq, actor, FunctionKey(b"class"), b"")
        record = ActorRecord(actor, "Actor", ActorSpec(start, b"", {}, "loop", True, {}, NO_EMPLOYER), restarts)
        self.held.add(record)
        self.supervisor.create(record)
        self.supervisor.started(record, record.life.starting, None)
        assert record.state is State.ALIVE
        return record

    def lose(self, worker: Wire) -> None:
        worker.closed = True
        self.supervisor.link_lost(cast(Link, worker))


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.loop.close()


def test_a_lost_link_concerns_the_actors_at_its_other_end(owner: Owner) -> None:
    first, second = owner.workers
    lost, restarted = owner.make(), owner.make(restarts=1)
    owner.workers.reverse()
    other = owner.make()
    assert owner.supervisor.at(cast(Link, first)) == [lost, restarted]
    owner.lose(first)
    assert (lost.state, other.state) == (State.DEAD, State.ALIVE)
    assert lost.life.death == Death("its process ended", "running")
    assert owner.supervisor.at(cast(Link, first)) == []
    # The one that comes back does so at the other worker.
    assert restarted.state is State.STARTING
    assert owner.supervisor.at(cast(Link, second)) == [other, restarted]
    assert [start.incarnation for start in second.starts()] == [0, 1]


def test_an_actor_ends_with_the_last_process_that_holds_it(owner: Owner) -> None:
    record, other = owner.make(), owner.make()
    for delta in (1, 1, -1):
        owner.supervisor.borrow(record.actor, BORROWER, delta)
    owner.held.discard(record)
    owner.supervisor.release(record)
    assert record.state is State.ALIVE
    assert owner.supervisor.statistics().borrowed == 1
    # A link may end while the process at its other end lives.
    owner.lose(Wire(BORROWER))
    assert record.state is State.ALIVE
    owner.supervisor.borrower_ended(BORROWER)
    assert record.state is State.DEAD
    assert other.state is State.ALIVE
    (stop,) = [message for message in owner.workers[0].sent if isinstance(message, StopActor)]
    assert (stop.actor, stop.graceful) == (record.actor, True)
    # Nobody can ask for it: nothing of it is kept.
    assert owner.supervisor.statistics() == (0, 0, 1, 0, 0, 0, 0)


def test_how_an_actor_died_is_remembered_when_no_process_holds_it_any_more(owner: Owner) -> None:
    record = owner.make()
    owner.loop.run_until_complete(_kill(owner, record, no_restart=True))
    assert owner.supervisor.statistics() == (0, 0, 0, 1, 0, 0, 0)
    owner.held.clear()
    owner.supervisor.release(record)
    assert owner.supervisor.statistics() == (0, 0, 0, 0, 0, 0, 1)
    at = owner.loop.run_until_complete(owner.supervisor.where_is(record.actor, -1))
    assert "killed" in at.cause


def test_a_killed_actor_is_placed_again_at_once_and_one_that_is_lost_again_waits(owner: Owner) -> None:
    record = owner.make(restarts=-1)
    for life in (1, 2, 3):
        owner.loop.run_until_complete(_kill(owner, record, no_restart=False))
        assert (record.state, record.life.incarnation) == (State.STARTING, life)
        owner.supervisor.started(record, record.life.starting, None)
    owner.supervisor.absent(record, 3)
    assert record.state is State.STARTING
    owner.supervisor.started(record, record.life.starting, None)
    # Of an earlier life it says nothing.
    owner.supervisor.absent(record, 3)
    assert record.state is State.ALIVE
    owner.supervisor.absent(record, 4)
    assert record.state is State.PLACING
    assert owner.supervisor.at(cast(Link, owner.workers[0])) == []


async def _kill(owner: Owner, record: ActorRecord, no_restart: bool) -> None:
    await owner.supervisor.kill(record.actor, no_restart)


def test_an_actor_that_was_not_to_be_leaves_no_trace(owner: Owner) -> None:
    told: list[str] = []
    seq = owner.next_seq()
    start = StartActor(seq, actor_key(OWNER, seq), FunctionKey(b"class"), b"")
    spec = ActorSpec(start, b"", {}, "loop", True, {}, NO_EMPLOYER)
    record = ActorRecord(start.actor, "Actor", spec, 0, on_dead=lambda: told.append("dead"))
    owner.supervisor.adopt(record)
    owner.supervisor.disown(record)
    owner.supervisor.release(record)
    assert told == []
    assert owner.supervisor.statistics() == (0, 0, 0, 0, 0, 0, 0)


class Leasing(Owner):
    """One whose node grants leases as a test says, and some of whose workers cannot be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[asyncio.Future[Lease]] = []
        self.returned: list[int] = []
        self.unreachable: set[ProcessId] = set()
        self.peers = cast(Any, SimpleNamespace(dead=set(), link_to=self._link_to))

    async def lease(self, request: Any) -> Lease:
        self.asked.append(self.loop.create_future())
        return await self.asked[-1]

    def return_lease(self, lease: LeaseId) -> None:
        self.returned.append(lease.number)

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.create_task(work)

    async def _link_to(self, process: ProcessId, address: Address) -> Wire:
        if process in self.unreachable:
            raise LinkError("it has ended")
        return next(worker for worker in self.workers if worker.peer == process)

    def turn(self) -> None:
        """Let all that can be done be done."""
        for _ in range(9):
            self.loop.run_until_complete(asyncio.sleep(0))

    def grant(self, number: int, process: ProcessId) -> None:
        self.asked[-1].set_result(Lease(LeaseId(OWNER, number), Place(process, OWNER, Address("unix:worker"))))
        self.turn()

    def place(self) -> ActorRecord:
        """An actor with a worker of its own, for which the node has been asked."""
        actor = actor_key(OWNER, self.next_seq())
        start = StartActor(1, actor, FunctionKey(b"class"), b"")
        record = ActorRecord(actor, "Actor", ActorSpec(start, b"", {}, "sync", False, {}, NO_EMPLOYER), 0)
        self.held.add(record)
        self.supervisor.create(record)
        self.turn()
        return record


@pytest.fixture
def leasing() -> Iterator[Leasing]:
    made = Leasing()
    yield made
    made.loop.close()


def test_an_actor_whose_worker_is_gone_before_it_is_reached_asks_for_another_one(leasing: Leasing) -> None:
    first, second = (worker.peer for worker in leasing.workers)
    leasing.unreachable.add(first)
    record = leasing.place()
    leasing.grant(1, first)
    assert (leasing.returned, len(leasing.asked), record.state) == ([1], 2, State.PLACING)
    leasing.grant(2, second)
    assert (leasing.returned, record.state) == ([1], State.STARTING)


def test_an_actor_that_is_killed_as_it_waits_for_a_worker_waits_no_more(leasing: Leasing) -> None:
    record = leasing.place()
    leasing.loop.run_until_complete(_kill(leasing, record, True))
    leasing.turn()
    assert record.life.death == Death("it was killed by actorrt.kill", "being placed")
    assert leasing.asked[0].cancelled()


def test_an_actor_that_no_worker_can_be_had_for_tells_why(leasing: Leasing) -> None:
    record = leasing.place()
    leasing.asked[0].set_exception(LinkError("the node is gone"))
    leasing.turn()
    assert record.life.death is not None
    assert record.life.death.phase == "being placed"
    assert isinstance(codec.deserialize(record.life.death.failure), LinkError)


def test_the_statistics_of_callers_count_their_calls_where_they_are() -> None:
    thread = SimpleNamespace(run_soon=lambda work: None, on_own_thread=lambda: True)
    process = SimpleNamespace(
        process=OWNER, thread=thread, exits=None, objects=None, flush_soon=lambda link, idle: None
    )
    actors = Actors(cast(Any, process))
    client = ActorClient(cast(Any, process), actor_key(OWNER, 1), "Actor", traits_of(True, -1023, 0, -1))
    actors.know(client)
    assert actors.statistics() == (1, 0, 0, 0, 0, 0, 0)

    def call(seq: int) -> Call:
        return Call(cast(Any, process), ActorCall(seq, client.actor, "method", b""), client, "method")

    client.owns(cast(Any, None), cast(Any, None))
    assert actors.statistics() == (1, 0, 1, 0, 0, 0, 0)
    client.moved(cast(Link, Wire(ProcessId(b"worker01"))), 0)
    for seq in (2, 3, 4):
        actors.call(client, call(seq))
    # There is room for one at a time.
    assert actors.statistics() == (1, 1, 0, 0, 1, 2, 0)
    assert actors.busy


def test_a_handle_of_an_own_actor_that_comes_back_is_found_once_it_is_known_to_be_own(owner: Owner) -> None:
    record = owner.make()
    thread = SimpleNamespace(run_soon=lambda work: None, on_own_thread=lambda: True)
    process = SimpleNamespace(process=OWNER, thread=thread, exits=None, supervisor=owner.supervisor)
    found: list[ActorClient | None] = []

    class Watched(Actors):
        def own(self, client: ActorClient, record: ActorRecord) -> None:
            # Another thread may look for it at any time.
            found.append(self.find(record.actor))
            super().own(client, record)

    actors = Watched(cast(Any, process))
    client = actors.client(record.actor, "Actor", traits_of(True, 1, 0, -1))
    assert found == [None]
    assert actors.find(record.actor) is client
    assert client.state is Standing.RESTARTING


def test_a_call_that_was_interrupted_before_it_was_sent_takes_no_place_among_those_under_way() -> None:
    later: list[Any] = []
    thread = SimpleNamespace(run_soon=later.append, on_own_thread=lambda: True)
    process = SimpleNamespace(
        process=OWNER, thread=thread, exits=None, objects=None, cancel_call=print, flush_soon=lambda link, idle: None
    )
    actors = Actors(cast(Any, process))
    client = ActorClient(cast(Any, process), actor_key(OWNER, 1), "Actor", traits_of(True, 1, 0, 1))
    actors.know(client)
    client.owns(cast(Any, None), cast(Any, None))
    client.moved(cast(Link, Wire(ProcessId(b"worker01"))), 0)

    class Interrupted(Call):
        def push(self, link: Link) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        actors.call(client, Interrupted(cast(Any, process), ActorCall(2, client.actor, "m", b""), client, "m"))
    assert actors.statistics().under_way == 0
    assert len(later) == 2
    actors.call(client, Call(cast(Any, process), ActorCall(3, client.actor, "m", b""), client, "m"))
    assert actors.statistics().under_way == 1


def test_statistics_are_had_while_another_thread_makes_actors(owner: Owner) -> None:
    class Record:
        """While it is looked at, another actor is made."""

        waiters = None

        @property
        def state(self) -> State:
            owner.make()
            return State.ALIVE

        @property
        def borrowers(self) -> dict[ProcessId, int]:
            owner.make()
            return {}

    owner.supervisor.records[actor_key(OWNER, 0)] = cast(ActorRecord, Record())
    owner.make()
    assert owner.supervisor.statistics().alive == 2
    assert not owner.supervisor.is_borrowed
