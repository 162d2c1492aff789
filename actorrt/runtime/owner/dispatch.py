"""What a driver or worker does with what its links bring: outcomes go to calls, calls to the executor."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.roll_call import plain
from actorrt.types import Address, ProcessId
from actorrt.wire import undelivered
from actorrt.wire.messages import (
    ERROR,
    FAILED,
    SEGMENT,
    ActorCall,
    ActorEnded,
    AnswerBody,
    AnyMessage,
    Assigned,
    Borrow,
    BorrowActor,
    Cancel,
    CancelObject,
    CloseSegment,
    Credit,
    Define,
    DialMe,
    Done,
    DropViews,
    Facts,
    Forget,
    GetObject,
    Item,
    ItemValue,
    KillActor,
    Lease,
    LeaseEnds,
    LeasesWanted,
    LogLines,
    NodeStopping,
    Outcome,
    Ping,
    PleaseDial,
    Query,
    Question,
    RefsTaken,
    Reply,
    Retire,
    ReturnLease,
    Room,
    SegmentAt,
    SegmentBack,
    StartActor,
    StopActor,
    Survey,
    TaskCall,
    Unborrow,
    UnborrowActor,
    Unreadable,
    Value,
    WhereIs,
    WorkerBlocked,
)
from actorrt.wire.undelivered import Hears

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from ..links.pipes import caller_end
from .actors import Actors
from .calls import Batch, Call, error_bytes
from .exits import Exits
from .objects import Objects
from .process_host import ProcessHost
from .program import Handler, LoopOfCalls, Program, Tenancy
from .segments_client import SegmentsClient
from .shared_tasks import SharedTasks
from .supervisor import Supervisor
from .tasks import Tasks

if TYPE_CHECKING:
    from . import inventory

    class Surroundings(inventory.Surroundings, Protocol):
        """What messages are for, beside calls: the parts of the process."""

        role: str

        @property
        def program(self) -> Program: ...
        @property
        def tenancy(self) -> Tenancy: ...
        @property
        def thread(self) -> LoopThread: ...
        @property
        def peers(self) -> Peers: ...
        @property
        def node(self) -> Link: ...
        @property
        def objects(self) -> Objects: ...
        @property
        def segments(self) -> SegmentsClient: ...
        @property
        def actors(self) -> Actors: ...
        @property
        def tasks(self) -> Tasks: ...
        @property
        def shared_tasks(self) -> SharedTasks: ...
        @property
        def host(self) -> ProcessHost: ...
        @property
        def supervisor(self) -> Supervisor: ...
        @property
        def exits(self) -> Exits: ...

        def is_node(self, link: Link) -> bool: ...
        def is_needed(self) -> bool: ...
        def statistics(self) -> object: ...
        def node_stopping(self, reason: str) -> None: ...
        def node_lost(self, link: Link) -> None: ...


logger = logging.getLogger("actorrt")

# What only a worker handles.
FOR_WORKERS: Final = (ActorCall, TaskCall, StartActor, StopActor, Define, Forget, Cancel, Credit, RefsTaken)


def _part(name: str) -> Any:
    """What answers those that look at the process, which few do: it is loaded once it is asked."""
    return import_module(f"actorrt.runtime.owner.{name}")


class Dispatch:
    """The receiver of all links of a runtime. Everything runs on the runtime loop."""

    def __init__(self, runtime: Surroundings) -> None:
        self._runtime = runtime
        self._runner = runtime.program.runner
        # What is done with a message, by its type: sorted once, here. Those that are queued for the thread that runs
        # calls; results of calls; and all others, each behind what came before it.
        self._queued: frozenset[type] = frozenset()
        self._enqueue = _drop
        self._loop_of_calls: LoopOfCalls | None = None
        self._results: dict[type, Callable[[Link, Any, Batch], None]] = {
            Outcome: self._outcome,
            Item: self._item,
            ItemValue: self._item,
        }
        self._handlers: dict[type, Handler] = dict.fromkeys(FOR_WORKERS, _drop)
        self._handlers |= _handlers_of(runtime)
        if self._runner is not None:
            incoming = self._runner.incoming
            self._queued, self._enqueue = incoming.queued, incoming.enqueue
            self._loop_of_calls = incoming.here
            self._handlers |= incoming.handlers

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        inflight = link.inflight
        queued = self._queued
        work: list[AnyMessage] = []
        batch = Batch(len(messages) == 1)
        message: Any
        for message in messages:
            kind = type(message)  # pyright: ignore[reportUnknownVariableType]
            try:
                if kind is Reply:
                    # The common outcome of the common call.
                    call = inflight.pop(message.seq, None)
                    if type(call) is Call:
                        call.home.replied(link, call, message.data, batch)
                    elif call is not None:
                        self._runtime.supervisor.started(call, message.seq, None)
                elif kind in queued:
                    work.append(message)
                elif (take := self._results.get(kind)) is not None:  # pyright: ignore[reportUnknownArgumentType]
                    take(link, message, batch)
                else:
                    if work:
                        self._enqueue(link, work)
                        work = []
                    self._handlers.get(kind, _misplaced)(link, message)  # pyright: ignore[reportUnknownArgumentType]
            except Exception:
                # One message that goes wrong must not take those behind it along.
                logger.exception("%r sent a %s that could not be handled", link, type(message).__name__)
        if work:
            self._enqueue(link, work)
        if batch.by_lease or batch.given_back:
            self._runtime.tasks.after_batch(link, batch.by_lease, batch.given_back)
        for client, count in batch.by_actor.items():
            self._runtime.actors.answered(client, count)

    def take_here(self, link: Link, messages: deque[AnyMessage]) -> None:
        """Of what this process sends to itself, take what is in front and common, on the loop that runs calls."""
        loop = self._loop_of_calls
        if loop is None or not loop.is_here():
            return
        actors = self._runtime.actors
        work: list[ActorCall] = []
        try:
            while messages:
                message = messages[0]
                if type(message) is ActorCall and not message.credits:
                    work.append(message)
                elif type(message) is not Reply or not actors.replied_here(link, message.seq, message.data):
                    break
                messages.popleft()
        finally:
            # Also where the code of a callback leaves its actor or the process.
            if work:
                loop.enqueue_here(link, work)

    def _outcome(self, link: Link, outcome: Outcome, batch: Batch) -> None:
        call = link.inflight.pop(outcome.seq, None)
        if type(call) is Call:
            call.heard(link, outcome, batch)
        elif call is not None:
            # It is not a call that waits for this, but an actor of this process that was to start.
            self._runtime.supervisor.started(call, outcome.seq, outcome)

    def _item(self, link: Link, item: Item | ItemValue, batch: Batch) -> None:
        call = link.inflight.get(item.seq)
        if call is not None and not call.done:
            call.take_item(item)
        else:
            self._drop_item(link, item)

    def _drop_item(self, link: Link, message: Item | ItemValue) -> None:
        """An item of a call that has ended here: what it holds is not to stay for that."""
        value = message.value if isinstance(message, ItemValue) else None
        if value is not None and value.kind == SEGMENT:
            self._runtime.segments.free(value.owner, value.seq)
        if value is not None and value.refs:
            link.send(RefsTaken(message.seq, message.index))

    async def answer(self, link: Link, question: Question) -> AnswerBody:
        runtime = self._runtime
        match question:
            case GetObject():
                return await runtime.objects.give(question.seq)
            case WhereIs():
                return await runtime.supervisor.where_is(question.actor, question.incarnation, question.fate)
            case KillActor():
                await runtime.supervisor.kill(question.actor, question.no_restart)
                if not runtime.node.closed:
                    # Behind what gives its name back: whoever killed it may take the name at once.
                    await runtime.node.ask(Ping())
                return Done()
            case DropViews():
                runtime.segments.drop_views()
                return Done()
            case Ping() | DialMe():
                return Done()
            case Survey(what="stacks"):
                return Facts(await _part("stacks").stacks(runtime, runtime.thread.loop))
            case Survey():
                return Facts(await _part("inventory").inventory(runtime, question))
            case Query(what="work"):
                return Facts(_part("under_way").told(runtime))
            case Query(what="statistics"):
                return Facts(plain(runtime.statistics()))
            case Query():
                return Facts(runtime.program.paths() if question.what == "sys_path" else runtime.is_needed())
            case _:
                raise exceptions.ActorrtError(f"a {runtime.role} does not answer {type(question).__name__}")

    def unwanted(self, link: Link, body: AnswerBody) -> None:
        if isinstance(body, Lease):
            link.send(ReturnLease(body.lease))
        elif isinstance(body, SegmentAt):
            link.send(CloseSegment(body.creator, body.serial))

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None:
        """A message cannot be written: whoever waits for what it asks, or for what it answers, is told."""
        hears = undelivered.unsendable(type(message))
        what = "the call" if hears is Hears.HERE else "the result"
        if not self._tell(hears, link, getattr(message, "seq", 0), what, why):
            logger.error("a %s for %r cannot be sent: %s", type(message).__name__, link, why)

    def unreadable(self, link: Link, message: Unreadable) -> None:
        """A message that came cannot be read: the call that it was, or belonged to, fails."""
        hears = undelivered.unreadable(message.tag, message.number in link.inflight)
        if not self._tell(hears, link, message.number, "a message", message.why):
            logger.error("%r sent what cannot be read: %s", link, message.why)

    def _tell(self, hears: Hears, link: Link, seq: int, what: str, why: str) -> bool:
        """Have call `seq` fail at its caller, since `what` is lost; False if there is none."""
        if hears is Hears.NOBODY:
            return False
        failed = Outcome(seq, FAILED, [Value(ERROR, error_bytes(exceptions.NotSentError(what, why)))])
        if hears is Hears.HERE:
            self.receive(link, [failed])
        else:
            link.send(failed)
        return True

    def link_lost(self, link: Link) -> None:
        runtime = self._runtime
        ending = link.closed
        assert ending is not None
        if ending.is_death:
            runtime.peers.dead.add(link.peer)
        with runtime.actors.lock:
            # Nobody is halfway through sending an actor's call; whoever comes later sees that the link is closed.
            calls, link.inflight = link.inflight, {}
        mine = [call for call in calls.values() if type(call) is Call]
        runtime.tasks.link_lost(link)
        runtime.shared_tasks.link_lost(link, [call for call in mine if call.home is runtime.shared_tasks])
        runtime.actors.places.link_lost(link, [call for call in mine if call.home is runtime.actors])
        runtime.supervisor.link_lost(link)
        runtime.objects.peer_lost(link.peer)
        if ending.leaves_doubt:
            runtime.thread.spawn_here(self._await_end(link.peer))
        else:
            self._borrower_ended(link.peer)
        if self._runner is not None:
            self._runner.link_lost(link)
        if runtime.is_node(link) and not runtime.thread.closing:
            runtime.thread.loop.call_soon(partial(runtime.node_lost, link))

    async def _await_end(self, process: ProcessId) -> None:
        """The process behind a link that was lost may live, and hold what it has borrowed."""
        if (await self._runtime.exits.end_of(process)).known:
            self._borrower_ended(process)

    def _borrower_ended(self, process: ProcessId) -> None:
        self._runtime.supervisor.borrower_ended(process)
        self._runtime.objects.borrower_ended(process)


def _handlers_of(runtime: Surroundings) -> dict[type, Handler]:
    """What an owner does with the messages of other processes about what it owns, borrows, leases and is."""

    async def dial(process: ProcessId, address: Address) -> None:
        try:
            await runtime.peers.link_to(process, address or None)
        except exceptions.LinkError as error:
            logger.info("asked to dial %s: %s", process.hex(), error)

    def room(link: Link, message: Room) -> None:
        # The caller has room for what the method writes, or the method for what the caller does.
        here, seq = message.to_callee, message.seq
        pipe = link.pipes.get(seq) if here else caller_end(link.inflight.get(seq), link)
        if pipe is not None:
            pipe.granted(message.n)

    def borrow(link: Link, message: Borrow) -> None:
        runtime.objects.borrowed_by(link.peer, message.seq, 1)

    def unborrow(link: Link, message: Unborrow) -> None:
        runtime.objects.borrowed_by(link.peer, message.seq, -1)

    def cancel_object(_: Link, message: CancelObject) -> None:
        runtime.objects.cancel(message.seq, message.force, message.recursive)

    def borrow_actor(link: Link, message: BorrowActor) -> None:
        runtime.supervisor.borrow(message.actor, link.peer, 1)

    def unborrow_actor(link: Link, message: UnborrowActor) -> None:
        runtime.supervisor.borrow(message.actor, link.peer, -1)

    def actor_ended(_: Link, message: ActorEnded) -> None:
        runtime.supervisor.ended(message.actor, message.cause)

    def leases_wanted(_: Link, message: LeasesWanted) -> None:
        runtime.tasks.leases_wanted(message.leases)

    def lease_ends(link: Link, message: LeaseEnds) -> None:
        runtime.tasks.worker_ends(link, message.lease)

    def assigned(_: Link, message: Assigned) -> None:
        runtime.tenancy.assign(message.resources, message.strategy)

    def please_dial(_: Link, message: PleaseDial) -> None:
        runtime.thread.spawn_here(dial(message.process, message.address))

    def segment_back(_: Link, message: SegmentBack) -> None:
        runtime.segments.back(message.serial, message.reuse)

    def worker_blocked(_: Link, message: WorkerBlocked) -> None:
        for pool in runtime.host.shared_pools():
            pool.blocked(message.process, message.blocked)

    def log_lines(_: Link, message: LogLines) -> None:
        runtime.program.print_lines(message.lines)

    def retire(_: Link, message: Retire) -> None:
        runtime.program.retire(message.finish)

    def node_stopping(_: Link, message: NodeStopping) -> None:
        runtime.node_stopping(message.reason)

    return {
        Room: room,
        Borrow: borrow,
        Unborrow: unborrow,
        CancelObject: cancel_object,
        BorrowActor: borrow_actor,
        UnborrowActor: unborrow_actor,
        ActorEnded: actor_ended,
        LeasesWanted: leases_wanted,
        LeaseEnds: lease_ends,
        Assigned: assigned,
        PleaseDial: please_dial,
        SegmentBack: segment_back,
        WorkerBlocked: worker_blocked,
        LogLines: log_lines,
        Retire: retire,
        NodeStopping: node_stopping,
    }


def _misplaced(link: Link, message: AnyMessage) -> None:
    logger.warning("%r sent %r, which is not for this process", link, message)


def _drop(link: Link, message: object) -> None:
    """A process that runs no calls has nothing to do with it."""
