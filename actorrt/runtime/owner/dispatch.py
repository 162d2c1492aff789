"""What a driver or worker does with what its links bring: outcomes go to calls, calls to the executor."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorrt import exceptions
from actorrt.core.calls import Action
from actorrt.types import ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import (
    ERROR,
    FAILED,
    GIVEN_BACK,
    NO_ACTOR,
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
    TaskCall,
    Unborrow,
    UnborrowActor,
    Unreadable,
    Value,
    WhereIs,
    WorkerBlocked,
    tag_of,
)

from ..links.link import Link
from ..links.pipes import Pipe, caller_end
from .actor_client import ActorClient
from .actor_records import ActorRecord
from .calls import Call, error_bytes
from .shared import SharedPool
from .tasks import TaskPool

if TYPE_CHECKING:
    from .runtime import Runtime

logger = logging.getLogger("actorrt")

# Sets, since `isinstance` asks the metaclass of a message's class wherever that is another one.
_OUTCOMES: Final = frozenset({Reply, Outcome})
_ITEMS: Final = frozenset({Item, ItemValue})
_CALL_TAGS: Final = frozenset(map(tag_of, (ActorCall, TaskCall, StartActor)))
_RESULT_TAGS: Final = frozenset(map(tag_of, (*_OUTCOMES, *_ITEMS)))
_FOR_EXECUTOR: Final = frozenset(
    {ActorCall, TaskCall, StartActor, StopActor, Define, Forget, Cancel, Credit, RefsTaken}
)


class Dispatch:
    """The receiver of all links of a runtime. Everything runs on the runtime loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._runner = runtime.program.runner

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        runtime = self._runtime
        inflight = link.inflight
        work: list[AnyMessage] = []
        answered: dict[int, int] = {}
        back: list[tuple[Call, int]] = []
        by_actors: dict[ActorClient, int] = {}
        message: Any
        for message in messages:
            kind = type(message)  # pyright: ignore[reportUnknownVariableType]
            try:
                if kind in _OUTCOMES:
                    call = inflight.pop(message.seq, None)
                    if call is not None:
                        if type(call) is Call and type(call.target) is ActorClient:
                            self._actor_outcome(link, call, message, by_actors)
                        else:
                            self._outcome(link, call, message, answered, back)
                elif kind in _FOR_EXECUTOR:
                    work.append(message)
                elif kind in _ITEMS:
                    call = inflight.get(message.seq)
                    if call is not None and not call.done:
                        call.take_item(message)
                    else:
                        self._drop_item(link, message)
                else:
                    if work:
                        self._work(link, work)
                        work = []
                    self._other(link, message)
            except Exception:
                # One message that goes wrong must not take those behind it along.
                logger.exception("%r sent a %s that could not be handled", link, type(message).__name__)
        if work:
            self._work(link, work)
        if answered or back:
            runtime.tasks.after_batch(link, answered, back)
        for client, count in by_actors.items():
            runtime.actors.answered(client, count)

    def _outcome(
        self, link: Link, call: Any, message: Reply | Outcome, answered: dict[int, int], back: list[tuple[Call, int]]
    ) -> None:
        runtime = self._runtime
        if type(call) is ActorRecord:
            runtime.supervisor.started(call, message.seq, message if isinstance(message, Outcome) else None)
            return
        pool: TaskPool | SharedPool = call.target
        if isinstance(message, Outcome) and message.kind == GIVEN_BACK:
            if isinstance(pool, TaskPool):
                back.append((call, runtime.tasks.answered(link, call)))
            else:
                runtime.shared_tasks.given_back(link, call)
            return
        action = None if isinstance(message, Reply) else self._came(link, call, message)
        if action is not None and action is Action.WAIT:
            return
        if isinstance(pool, TaskPool):
            lease = runtime.tasks.answered(link, call)
            answered[lease] = answered.get(lease, 0) + 1
        else:
            pool.done(link)
        if isinstance(message, Reply):
            call.succeed(message.data)
        elif action is not None:
            call.perform(action, message)
            if action is Action.AGAIN:
                self._again(pool, call)

    def _again(self, pool: TaskPool | SharedPool, call: Call) -> None:
        if isinstance(pool, TaskPool):
            self._runtime.tasks.resubmit(call)
        else:
            self._runtime.shared_tasks.push(pool, call)

    def _drop_item(self, link: Link, message: Item | ItemValue) -> None:
        """An item of a call that has ended here: what it holds is not to stay for that."""
        value = message.value if isinstance(message, ItemValue) else None
        if value is not None and value.kind == SEGMENT:
            self._runtime.segments.free(value.owner, value.seq)
        if value is not None and value.refs:
            link.send(RefsTaken(message.seq, message.index))

    def _work(self, link: Link, work: list[AnyMessage]) -> None:
        if self._runner is not None:
            self._runner.take(link, work)

    @staticmethod
    def _came(link: Link, call: Call, outcome: Outcome) -> Action:
        action = call.came(outcome)
        if action is Action.WAIT:
            link.inflight[outcome.seq] = call
        return action

    def _actor_outcome(
        self, link: Link, call: Call, message: Reply | Outcome, by_actors: dict[ActorClient, int]
    ) -> None:
        """The outcome of a call to an actor. What only has to be counted is, in `by_actors`."""
        actors = self._runtime.actors
        client: ActorClient = call.target
        action = None
        if not isinstance(message, Reply):
            if message.kind == NO_ACTOR:
                actors.places.no_actor(client, call, started=bool(message.count))
                return
            action = self._came(link, call, message)
            if action is Action.WAIT:
                return
            if action is Action.AGAIN:
                call.perform(action, message)
                # In front of what was called after it, which may wait for it.
                actors.repeat(client, call)
                return
        if client.traits.max_pending >= 0:
            # First: the waiter that gets the value may call again at once.
            actors.answered(client, 1)
        else:
            by_actors[client] = by_actors.get(client, 0) + 1
        if isinstance(message, Reply):
            call.succeed(message.data)
        elif action is not None:
            call.perform(action, message)

    def _other(self, link: Link, message: AnyMessage) -> None:
        runtime = self._runtime
        match message:
            case Room():
                # The caller has room for what the method writes, or the method for what the caller does.
                pipe = link.pipes.get(message.seq) if message.to_callee else self._caller_end(link, message.seq)
                if pipe is not None:
                    pipe.granted(message.n)
            case Borrow():
                runtime.objects.borrowed_by(link.peer, message.seq, 1)
            case Unborrow():
                runtime.objects.borrowed_by(link.peer, message.seq, -1)
            case CancelObject():
                runtime.objects.cancel(message.seq, message.force, message.recursive)
            case BorrowActor():
                runtime.supervisor.borrow(message.actor, link.peer, 1)
            case UnborrowActor():
                runtime.supervisor.borrow(message.actor, link.peer, -1)
            case ActorEnded():
                runtime.supervisor.ended(message.actor, message.cause)
            case LeasesWanted():
                runtime.tasks.leases_wanted(message.leases)
            case Assigned():
                runtime.tenancy.assign(message.resources)
            case PleaseDial():
                runtime.thread.spawn_here(self._dial(message.process))
            case SegmentBack():
                runtime.segments.back(message.serial, message.reuse)
            case WorkerBlocked():
                for pool in runtime.host.shared_pools():
                    pool.blocked(message.process, message.blocked)
            case LogLines():
                runtime.program.print_lines(message.lines)
            case Retire():
                runtime.program.retire(message.finish)
            case NodeStopping():
                runtime.node_stopping(message.reason)
            case _:
                logger.warning("%r sent %r, which is not for this process", link, message)

    @staticmethod
    def _caller_end(link: Link, seq: int) -> Pipe | None:
        return caller_end(link.inflight.get(seq), link)

    async def _dial(self, process: ProcessId) -> None:
        try:
            await self._runtime.peers.link_to(process)
        except exceptions.LinkError as error:
            logger.info("asked to dial %s: %s", process.hex(), error)

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
        if isinstance(message, ActorCall | TaskCall | StartActor):
            outcome = Outcome(
                message.seq, FAILED, [Value(ERROR, error_bytes(exceptions.NotSentError("the call", why)))]
            )
            self.receive(link, [outcome])
        elif isinstance(message, Outcome | Item | ItemValue | Reply):
            error = exceptions.NotSentError("the result", why)
            link.send(Outcome(message.seq, FAILED, [Value(ERROR, error_bytes(error))]))
        else:
            logger.error("a %s for %r cannot be sent: %s", type(message).__name__, link, why)

    def unreadable(self, link: Link, message: Unreadable) -> None:
        """A message that came cannot be read: the call that it was, or belonged to, fails."""
        error = error_bytes(exceptions.NotSentError("a message", message.why))
        failed = Outcome(message.number, FAILED, [Value(ERROR, error)])
        if message.tag in _CALL_TAGS:
            link.send(failed)
        elif message.tag in _RESULT_TAGS and message.number in link.inflight:
            self.receive(link, [failed])
        else:
            logger.error("%r sent what cannot be read: %s", link, message.why)

    def link_lost(self, link: Link) -> None:
        runtime = self._runtime
        if link.closed is Ending.DIED:
            runtime.peers.dead.add(link.peer)
        with runtime.actors.lock:
            # Nobody is halfway through sending an actor's call; whoever comes later sees that the link is closed.
            calls, link.inflight = link.inflight, {}
        to_actors = [call for call in calls.values() if type(call) is Call and type(call.target) is ActorClient]
        to_shared = [call for call in calls.values() if type(call) is Call and type(call.target) is SharedPool]
        runtime.tasks.link_lost(link)
        runtime.shared_tasks.link_lost(link, to_shared)
        runtime.actors.places.link_lost(link, to_actors)
        runtime.supervisor.link_lost(link)
        runtime.objects.peer_lost(link.peer)
        if link.closed is Ending.LOST:
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
