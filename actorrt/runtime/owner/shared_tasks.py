"""Async tasks that ask for nothing: coroutines on shared workers, as many at once as come."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from actorrt import exceptions
from actorrt.core import call_errors
from actorrt.core.call_terms import Limit
from actorrt.core.calls import Action, Event
from actorrt.core.shared_pool import SharedPoolStatistics
from actorrt.wire.messages import Define, Exit, Outcome, TaskCall

from ..base.loop_thread import LoopThread
from ..links.link import Link
from .calls import Batch, Call, fill_slots
from .exits import Exits
from .process_host import ProcessHost
from .shared import SharedPool
from .task_pool import crash_error


class SharedTasksStatistics(Struct, frozen=True):
    """The async tasks of a process at one moment."""

    # Those for which no worker is there yet.
    waiting: int
    # Those that a worker has.
    under_way: int
    # Its shared workers, a record for each environment.
    pools: list[SharedPoolStatistics]


class Surroundings(Protocol):
    """What is asked of the process."""

    @property
    def thread(self) -> LoopThread: ...
    @property
    def exits(self) -> Exits: ...
    def pause_call(self, call: Call) -> None: ...


class SharedTasks:
    """Pushes async tasks to the least loaded shared worker. Runs on the runtime loop."""

    def __init__(self, surroundings: Surroundings, host: ProcessHost) -> None:
        self._host = host
        self._thread = surroundings.thread
        self._exits = surroundings.exits
        self._pause_call = surroundings.pause_call
        self._waiting: dict[SharedPool, list[Call]] = {}

    def statistics(self) -> SharedTasksStatistics:
        """Runtime loop."""
        waiting = sum(map(len, self._waiting.values()))
        # A copy at once: other threads call actors meanwhile.
        sent = (call for link in self._host.peers.links.values() for call in list(link.inflight.values()))
        under_way = sum(type(call) is Call and call.home is self for call in sent)
        return SharedTasksStatistics(waiting, under_way, [pool.statistics() for pool in self._host.shared_pools()])

    def waiting(self) -> list[Call]:
        """Those for which no worker is there yet; runtime loop."""
        return [call for calls in self._waiting.values() for call in calls]

    @property
    def busy(self) -> bool:
        """True while tasks wait for a worker; runtime loop."""
        return bool(self._waiting)

    def submit(self, call: Call, env: dict[str, str]) -> None:
        """Send a call whose arguments are there."""
        if not call.done and fill_slots(call):
            pool = self._host.shared_pool(env)
            call.target = pool
            self.push(pool, call)

    def push(self, pool: SharedPool, call: Call) -> None:
        link = pool.pick()
        if link is None:
            waiting = self._waiting.setdefault(pool, [])
            waiting.append(call)
            if len(waiting) == 1:
                self._thread.spawn_here(self._when_ready(pool))
            return
        message = call.message
        assert isinstance(message, TaskCall)
        if message.function not in link.defined:
            link.defined.add(message.function)
            link.send(Define(message.function, call.code.blob))
        call.push(link)
        link.flush_at_end_of_turn()

    def replied(self, link: Link, call: Call, data: bytes, batch: Batch) -> None:
        """The value of a task came."""
        pool: SharedPool = call.target
        pool.done(link)
        call.succeed(data)

    def ended(self, link: Link, call: Call, batch: Batch) -> None:
        """Any other outcome of a task came that ends it."""
        pool: SharedPool = call.target
        pool.done(link)

    def again(self, link: Link, call: Call, batch: Batch) -> None:
        """A failed task runs again (retry_exceptions)."""
        self.ended(link, call, batch)
        self.push(call.target, call)

    def came_back(self, link: Link, call: Call, outcome: Outcome, batch: Batch) -> None:
        """A worker whose loop is blocked has not begun it: it goes to another."""
        pool: SharedPool = call.target
        pool.done(link)
        pool.blocked(link.peer, True)
        self._again_or_end(call, Event.UNBEGUN, None)

    def cancel(self, call: Call, force: bool) -> Action:
        """The caller of a task wants it cancelled: what to do with it now."""
        return call.on_cancel(force)

    def late(self, call: Call, limit: Limit) -> Action:
        """A limit of a task is over: what to do with it now."""
        return call.on_late(limit)

    def resume(self, call: Call) -> None:
        """The pause of a task is over."""
        if not call.done:
            self.push(call.target, call)

    async def _when_ready(self, pool: SharedPool) -> None:
        error: exceptions.ActorrtError | None = None
        try:
            await pool.ready()
        except exceptions.ActorrtError as refusal:
            error = refusal
        for call in self._waiting.pop(pool, []):
            if error is not None:
                call.fail(call_errors.refused(call.name, error, self._exits.node_died()))
            elif not call.done:
                self.push(pool, call)

    def link_lost(self, link: Link, calls: list[Call]) -> None:
        """A shared worker is gone with these calls under way."""
        for pool in self._host.shared_pools():
            pool.link_lost(link)
        if calls:
            self._thread.spawn_here(self._lost(link, calls))

    async def _lost(self, link: Link, calls: list[Call]) -> None:
        end = await self._exits.exit_of(link.peer)
        # Which of those that ran at once was at fault, nobody can say: it counts for each. None outlives the runtime.
        event = Event.GIVEN_UP if self._thread.closing else Event.DIED if end.known else Event.LOST
        for call in calls:
            self._again_or_end(call, event, end)

    def _again_or_end(self, call: Call, event: Event, end: Exit | None) -> None:
        """A call has come back without an answer; `end`, where its worker is gone."""
        match call.came_back(event):
            case Action.AGAIN:
                self.push(call.target, call)
            case Action.PAUSE:
                self._pause_call(call)
            case Action.FAIL if end is not None:
                call.end_with(crash_error(end, call))
            case Action.END_CANCELLED:
                call.end_cancelled()
            case _:
                pass

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: nobody is to wait for what is left."""
        for calls in self._waiting.values():
            for call in calls:
                call.fail(error)
