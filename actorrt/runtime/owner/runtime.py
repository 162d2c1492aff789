"""The runtime of a driver or worker: a thread with the loop of its own, on which links, ownership and scheduling live.

User threads and loops hand work over through deques with one wake-up a batch, so that a blocked user loop never stalls
what others need from this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.pipeline import frame_is_due
from actorrt.types import ProcessId, owner_of
from actorrt.wire.messages import (
    AnyMessage,
    KillActor,
)

from ..base.loop_thread import LoopThread
from ..links.access import Access
from ..links.link import Link
from ..links.peers import Peers, PeersStatistics
from ..links.running import Child, RunningCall
from .actor_client import ActorClient
from .actor_creation import create
from .actors import Actors, ActorsStatistics
from .call_clock import CallClock
from .call_maker import CallMaker, refuse_forked, refuse_past
from .calls import Call
from .cancellation import Cancellation
from .dispatch import Dispatch
from .entries import Entry, Gate
from .exits import Exits
from .generators import Stream
from .membership import Membership
from .objects import Objects, ObjectsStatistics
from .process_host import ProcessHost
from .program import Program, RunnerStatistics, Tenancy
from .references import ObjectRef
from .segments_client import SegmentsClient, SegmentsStatistics
from .shared_tasks import SharedTasks, SharedTasksStatistics
from .shipped import Shipped
from .supervisor import Supervisor, SupervisorStatistics
from .tasks import Tasks, TasksStatistics
from .waiting import Waits, WaitsStatistics

if TYPE_CHECKING:
    from actorrt.core.call_terms import Limit
    from actorrt.core.options import ActorOptions, MethodOptions, TaskOptions

    from ..base.definitions import ActorClassDef, RemoteFunctionDef
    from ..links.pipes import PipeReceiver

logger = logging.getLogger("actorrt")

CLOSING_TURNS: Final = 20
SPAWNED_END_S: Final = 2.0
# So many calls in a row are written before more are made, so that the callee begins.
FULL_FRAME: Final = 64


# Gives the program of a runtime's process; of the runtime it may use the thread meanwhile.
MakeProgram = Callable[["Runtime"], Program]


def plain_program(_: object) -> Program:
    """That of a process which runs no calls of others."""
    return Program()


class RuntimeStatistics(NamedTuple):
    """One process's part of the cluster at one moment."""

    # Calls of this process, and starts of its actors, that have no answer; and calls of others that run here.
    calls_away: int
    calls_served: int
    objects: ObjectsStatistics
    segments: SegmentsStatistics
    waits: WaitsStatistics
    peers: PeersStatistics
    # Actors that it calls, and those that it owns.
    actors: ActorsStatistics
    owned_actors: SupervisorStatistics
    tasks: TasksStatistics
    shared_tasks: SharedTasksStatistics
    # What it runs for others; None in a driver.
    runner: RunnerStatistics | None


class SubmitTask(Protocol):
    """Queue a task; see RemoteFunction.remote."""

    def __call__(
        self, function: RemoteFunctionDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any: ...


class SubmitMethod(Protocol):
    """Queue a call to an actor; see ActorMethod.remote."""

    def __call__(
        self,
        actor: ActorClient,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
        receiver: PipeReceiver | None = None,
    ) -> Any: ...


class CreateActor(Protocol):
    """Create an actor and give the client for its handle; see ActorClass.remote."""

    def __call__(
        self, cls: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ActorClient: ...


class Runtime:
    """One process's part of the cluster. Public methods may be called from any thread unless they say otherwise."""

    def __init__(
        self,
        process: ProcessId,
        role: str,
        session: str,
        version: str,
        settings: Settings,
        make_program: MakeProgram = plain_program,
        thread: LoopThread | None = None,
    ) -> None:
        self.process = process
        self.role = role
        self.session = session
        self.settings = settings
        self._membership: Membership | None = None
        self.thread = thread or LoopThread(f"actorrt-{role}")
        self.tenancy = Tenancy()
        self.program = make_program(self)
        self.exits = Exits(self)
        self.actors = Actors(self)
        self.objects = Objects(self, self.actors.hold)
        # Functions that were called on a loop that they block.
        self.warned_of: set[str] = set()
        self.tasks = Tasks(self)
        self.tenancy.tell(self.tasks.strategy_changed)
        self.shipped = Shipped(self, self.tasks.forget_function)
        self.host = ProcessHost(
            self, self.thread, self.exits, self.objects.next_seq, self.actors.places.moved, self.actors.holds
        )
        self.shared_tasks = SharedTasks(self, self.host)
        self.segments = SegmentsClient(self)
        self.waits = Waits(self, self.actors.places.placed_at)
        self.supervisor = Supervisor(self.host)
        self.dispatch = Dispatch(self)
        self.peers = Peers(
            self.dispatch,
            process,
            role,
            session,
            version,
            settings.dial_timeout_s,
            end_of=self._cause_of_end,
            take_here=self.dispatch.take_here,
            access=Access(settings),
        )
        self.pid = os.getpid()
        self.call_clock = CallClock(self.thread, self._late)
        self.calls = CallMaker(self, self.objects, self.actors, self.tasks, self.shared_tasks, self.call_clock)
        self._cancellation = Cancellation(process, self.thread, self.actors, self.objects.tell)
        # As RemoteFunction.remote, ActorMethod.remote and ActorClass.remote say.
        self.submit_task: SubmitTask = self.calls.call_task
        self.submit_method: SubmitMethod = self.calls.call_method
        self.create_actor: CreateActor = partial(create, self)
        self._last_link: Link | None = None
        self._flush_with_turn = self.program.user_side.flush_with_turn

    @property
    def membership(self) -> Membership:
        """What the node told as it took this process in. Raises LinkError before."""
        if self._membership is None:
            raise exceptions.LinkError(f"this {self.role} has not joined its session")
        return self._membership

    @property
    def node(self) -> Link:
        return self.membership.node

    def is_node(self, link: Link) -> bool:
        """Whether this is the link to the node that has taken this process in."""
        return self._membership is not None and self._membership.node is link

    # ---- beginning and ending

    def start(self) -> None:
        self.thread.start()

    def join(self, membership: Membership) -> None:
        """The node has taken this process in; runtime loop."""
        self._membership = membership
        self.peers.broker = membership.node

    def stop(self, timeout: float = 10.0) -> None:
        """Close all links and end the thread."""
        self.thread.closing = True
        if self.thread.loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self.thread.call_sync(self._close(), timeout)
        self.thread.stop(timeout)
        self.segments.close()

    async def _close(self) -> None:
        under_way = [call for link in self.peers.links.values() for call in list(link.inflight.values())]
        await self.peers.close()
        # Whoever waits in another thread or on another loop is told. What waits for such a value fails in a later turn.
        error = exceptions.ActorrtError("actorrt was shut down")
        for call in under_way:
            if isinstance(call, Call):
                call.fail(error)
        for _ in range(CLOSING_TURNS):
            self.call_clock.close(error)
            self.tasks.close(error)
            self.shared_tasks.close(error)
            self.actors.close(error)
            await asyncio.sleep(0)
        await self.thread.end_tasks(SPAWNED_END_S)
        # aiohttp closes its connections in the next turns.
        for _ in range(3):
            await asyncio.sleep(0)

    def forked(self) -> None:
        """This process is a fork of the one that the runtime lives in: what it has inherited does nothing here."""
        self.thread.closing = True
        self.submit_method = self.submit_task = self.create_actor = refuse_forked
        self.peers.abandon()
        if self.program.runner is not None:
            self.program.runner.forked()

    def retire(self) -> None:
        """The session is over: handles that are left say so."""
        self.submit_method = refuse_past

    def check_mine(self, awaited: Entry | Stream) -> None:
        """Raise RuntimeError if a value, or an item, that is waited for can never come here."""
        call: Any = awaited.call
        if call is not None and call.runtime is not self:
            raise RuntimeError(
                f"the result of {call.name} cannot come: it was called in a session that was shut down, or before this "
                "process was forked; call it anew"
            )

    # ---- flushing

    def flush_soon(self, link: Link, idle: bool) -> None:
        """A call was queued on `link`: write it at once where nothing else is under way, else with its batch."""
        if self.thread.on_own_thread():
            if frame_is_due(link.queued, len(link.inflight)):
                link.flush()
            else:
                link.flush_at_end_of_turn()
        elif idle or link.queued >= FULL_FRAME:
            link.flush()
        elif not (link.is_loopback and self._flush_with_turn(link)):
            self._last_link = link
            link.post_flush()

    def post_soon(self, link: Link, message: AnyMessage) -> None:
        """Queue what nobody waits for: it leaves with this turn of the loop that this thread runs, or by a wake-up."""
        if self.thread.on_own_thread():
            link.send(message)
            return
        link.push(message)
        if not self._flush_with_turn(link):
            link.post_flush()

    def flush(self) -> None:
        """The caller is about to wait: write what it queued last."""
        link = self._last_link
        if link is not None:
            self._last_link = None
            link.flush()

    # ---- actors

    async def _cause_of_end(self, process: ProcessId) -> str:
        end = await self.exits.end_of(process)
        if not end.known:
            raise exceptions.LinkError(f"process {process.hex()} cannot be reached: {end.cause}")
        return end.cause

    # ---- a worker's own affairs

    def is_borrowed(self) -> bool:
        """True while others hold, or are about to hold, refs and handles to what this process owns; runtime loop."""
        runner = self.program.runner
        return bool(
            self.objects.is_borrowed
            or self.supervisor.is_borrowed
            or (runner is not None and runner.outcomes.is_awaited)
            or any(getattr(call, "pins", None) for link in self.peers.links.values() for call in link.inflight.values())
        )

    def note_last_calls(self) -> None:
        """This process is about to end: calls that it makes from now on are waited for."""
        self.calls.note_calls(self.tenancy.last_calls.append)

    async def until_done(self, calls: Iterable[Child], timeout_s: float) -> None:
        """Return when these calls have their outcomes, or the time is up; runtime loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for call in calls:
                    await call.settled()

    def leave_actor(self, actor: Any, run: RunningCall | None) -> BaseException:
        """Have an actor of this process end; what its code is to raise that has asked for it, in `run` or beside it."""
        runner = self.program.runner
        if runner is None:
            raise RuntimeError("a program's own process is no actor")
        return runner.leave_actor(actor, run)

    def is_needed(self) -> bool:
        """True while others depend on what this process owns, or it waits for what it has called; runtime loop."""
        return bool(self.supervisor.records or self.objects.is_lending or self.has_calls)

    @property
    def has_calls(self) -> bool:
        """True while calls of this process have no outcome yet; runtime loop."""
        return (
            self.calls.busy
            or self.call_clock.busy
            or self.tasks.busy
            or self.shared_tasks.busy
            or self.actors.busy
            or any(link.inflight for link in self.peers.links.values())
        )

    def statistics(self) -> RuntimeStatistics:
        """How much of each kind there is; runtime loop."""
        links = list(self.peers.links.values())
        runner = self.program.runner
        return RuntimeStatistics(
            sum(len(link.inflight) for link in links),
            sum(len(link.serving) for link in links),
            self.objects.statistics(),
            self.segments.statistics(),
            self.waits.statistics(),
            self.peers.statistics(),
            self.actors.statistics(),
            self.supervisor.statistics(),
            self.tasks.statistics(),
            self.shared_tasks.statistics(),
            None if runner is None else runner.statistics(),
        )

    def node_stopping(self, reason: str) -> None:
        """The node says that the session ends; runtime loop."""
        self.exits.node_ends(reason)
        self.program.leave()

    def node_lost(self, link: Link) -> None:
        """The node is gone: nothing can be placed any more. A worker ends with it; runtime loop."""
        self.program.leave()

    # ---- values

    def put(self, value: Any) -> ObjectRef[Any]:
        return self.objects.put(value)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values in order. Raises the first error among them as soon as there is one, or GetTimeoutError."""
        return self.waits.get(refs, timeout)

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """The value of one ref. Raises its error, or GetTimeoutError."""
        return self.waits.get_one(ref, timeout)

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Block until so many of `refs` are done or the time is over: at most that many done ones, and the rest."""
        return self.waits.wait(refs, num_returns, timeout)

    def wait_blocked(self, gate: Gate, timeout: float | None, what: str, entries: Sequence[Entry] = ()) -> None:
        """Block this thread at a gate. A leased worker's CPU is given back meanwhile."""
        self.waits.blocked(gate, timeout, what, entries)

    async def map_segment(self, entry: Entry) -> None:
        """Map an entry's segment into this process, from whatever loop."""
        await self.thread.call_async(self.segments.map(entry))

    # ---- refs that travel

    def export(self, entry: Entry, collected: bool) -> None:
        self.objects.export(entry, collected)

    def borrow(self, owner: ProcessId, seq: int) -> ObjectRef[Any]:
        return self.objects.borrow(owner, seq)

    def request(self, entry: Entry) -> None:
        self.objects.request(entry)

    # ---- ending

    def kill_actor(self, client: ActorClient, no_restart: bool) -> None:
        """End an actor, through its owner."""
        self.thread.call_sync(self._kill_actor(client, no_restart))

    async def _kill_actor(self, client: ActorClient, no_restart: bool) -> None:
        if client.record is not None:
            await self.supervisor.kill(client.actor, no_restart)
            return
        with contextlib.suppress(exceptions.LinkError):
            owner = await self.peers.link_to(owner_of(client.actor))
            await owner.ask(KillActor(client.actor, no_restart))
            self.actors.places.killed(client, no_restart)

    # ---- cancelling

    def cancel(self, entry: Entry, force: bool, recursive: bool) -> None:
        """Cancel the call that an object comes from; from any thread."""
        call: Call | None = entry.call
        if call is None:
            self._cancellation.object(entry, force, recursive)
        else:
            self.check_mine(entry)
            self._cancellation.call(call, force, recursive)

    def cancel_call(self, call: Call, force: bool, recursive: bool) -> None:
        """Cancel one call wherever it is; runtime loop."""
        self._cancellation.here(call, force, recursive)

    # ---- calls and time

    def pause_call(self, call: Call) -> None:
        """A call goes again once its pause is over; runtime loop."""
        self.call_clock.pause(call)

    def _late(self, call: Call, limit: Limit) -> None:
        self._cancellation.late(call, limit)
