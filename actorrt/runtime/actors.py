"""Calls to actors: each goes straight to the actor's worker, or waits here until it is known where that is.

Calls of one caller to one actor leave in order. `ActorClient` is what this process knows of one actor; its fast path
runs in the caller's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actorrt import exceptions
from actorrt.wire import codec
from actorrt.wire.messages import NOW, ActorAt, ActorCall, BorrowActor, UnborrowActor, WhereIs

from . import current
from .calls import Call, fill_slots, when_resolved
from .link import Link
from .references import Token
from .supervisor import ActorRecord

if TYPE_CHECKING:
    from .runtime import Runtime

# How many calls beyond its concurrency may lie at an actor; further ones wait at their caller.
WINDOW: Final = 1024
PLACED_TIMEOUT_S: Final = 1.0


class Traits:
    """What callers have to know of an actor's class; shared by all its handles."""

    __slots__ = ("max_pending", "max_task_retries", "ordered", "window")

    def __init__(self, ordered: bool, concurrency: int, max_task_retries: int, max_pending: int) -> None:
        # A sync actor with one thread starts calls in the order in which they were made, come what may.
        self.ordered = ordered
        self.window = concurrency + WINDOW
        self.max_task_retries = max_task_retries
        self.max_pending = max_pending

    def __reduce__(self) -> tuple[Any, ...]:
        return Traits, (self.ordered, self.window - WINDOW, self.max_task_retries, self.max_pending)


class ActorClient:
    """One actor as this process sees it. `link` is set while calls can go straight to it."""

    __slots__ = (
        "__weakref__",
        "actor",
        "backlog",
        "dead",
        "incarnation",
        "inflight",
        "link",
        "locating",
        "record",
        "runtime",
        "title",
        "traits",
    )

    def __init__(self, runtime: Runtime, actor: bytes, title: str, traits: Traits) -> None:
        self.runtime = runtime
        self.actor = actor
        self.title = title
        self.traits = traits
        self.link: Link | None = None
        self.incarnation = -1
        self.inflight = 0
        # Calls that cannot leave yet, in order.
        self.backlog: deque[Call] | None = None
        self.locating = False
        self.dead: ActorAt | None = None
        # In the owner's process: the actor itself. A detached actor's handle has none.
        self.record: ActorRecord | None = None

    def death(self, may_have_run: bool) -> exceptions.ActorDiedError:
        dead = self.dead or ActorAt(b"")
        cause = dead.cause
        if dead.failed:
            with contextlib.suppress(Exception):
                failure = codec.deserialize(dead.failed)
                text = getattr(failure, "traceback_text", "") or str(failure)
                cause = f"{cause}:\n{text}"
        return exceptions.ActorDiedError(self.title, dead.phase or "running", cause, may_have_run)

    def __reduce__(self) -> tuple[Any, ...]:
        collected = codec.note_ref(self)
        self.runtime.actors.export(self, collected)
        return _rebuild_client, (self.actor, self.title, self.traits)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.runtime.actors.dropped(self.actor, self.record)


def _rebuild_client(actor: bytes, title: str, traits: Traits) -> ActorClient:
    return current.runtime().actors.client(actor, title, traits)


class Actors:
    """The actors that this process can call."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        # Clients that were exported or borrowed, so that one actor has one client here.
        self._known: weakref.WeakValueDictionary[bytes, ActorClient] = weakref.WeakValueDictionary()
        self._pinned: list[ActorClient] = []

    # ---- handles

    def client(self, actor: bytes, title: str, traits: Traits) -> ActorClient:
        """The client for a handle that came from elsewhere; from any thread."""
        with self._lock:
            client = self._known.get(actor)
            if client is not None:
                return client
            client = ActorClient(self._runtime, actor, title, traits)
            self._known[actor] = client
        owner = actor[:8]
        if owner == self._runtime.process:
            record = self._runtime.supervisor.records.get(actor)
            client.record = record
            if record is None:
                client.dead = ActorAt(b"", 0, "it has ended", "idle")
            else:
                record.released = False
                self._runtime.run_soon(partial(self.moved, record))
        else:
            self._runtime.objects.borrowing(owner, BorrowActor(actor))
        return client

    def hold(self, actor: bytes) -> Token:
        """Keep an actor whose handle lies inside a value that was not looked at yet; runtime loop."""
        runtime = self._runtime
        owner = actor[:8]
        if owner == runtime.process:
            runtime.supervisor.borrow(actor, owner, 1)
            return Token(runtime, partial(runtime.supervisor.borrow, actor, owner, -1))
        runtime.objects.borrowing(owner, BorrowActor(actor))
        return Token(runtime, partial(runtime.objects.unborrowing, owner, UnborrowActor(actor)))

    def know(self, client: ActorClient) -> None:
        with self._lock:
            self._known[client.actor] = client

    def export(self, client: ActorClient, collected: bool) -> None:
        self.know(client)
        if not collected:
            # Pickled outside of a call: nobody will say when the copy is gone.
            self._pinned.append(client)

    def dropped(self, actor: bytes, record: ActorRecord | None) -> None:
        """A client is garbage; called from any thread, in the middle of anything."""
        runtime = self._runtime
        if record is not None:
            runtime.release(partial(self._release_owned, actor, record))
        elif actor[:8] != runtime.process:
            runtime.release(partial(runtime.objects.unborrowing, actor[:8], UnborrowActor(actor)))

    def _release_owned(self, actor: bytes, record: ActorRecord) -> None:
        if self._known.get(actor) is None:
            self._runtime.supervisor.release(record)

    # ---- calls

    def call(self, client: ActorClient, call: Call, in_runtime: bool = False) -> None:
        """Send a call, or queue it until it can be sent. Raises PendingCallsLimitExceeded."""
        traits = client.traits
        with self._lock:
            if traits.max_pending >= 0:
                pending = client.inflight + (len(client.backlog) if client.backlog else 0)
                if pending >= traits.max_pending:
                    raise exceptions.PendingCallsLimitExceeded(client.title, traits.max_pending)
            link = client.link
            if (
                link is not None
                and call.waiting is None
                and client.backlog is None
                and client.inflight < traits.window
                and not link.closed
            ):
                client.inflight += 1
                self._push(link, call)
            else:
                link = None
                if client.backlog is None:
                    client.backlog = deque()
                client.backlog.append(call)
        if link is not None:
            self._runtime.flush_soon(link)
        elif in_runtime:
            self._advance(client)
        else:
            self._runtime.run_soon(partial(self._advance, client))

    def _push(self, link: Link, call: Call) -> None:
        message = call.message
        call.link = link
        call.started = True
        idle = not link.inflight
        link.inflight[message.seq] = call
        link.push(message)
        self._runtime.idle_link = idle

    def _advance(self, client: ActorClient) -> None:
        """Send what can be sent of the backlog, in order. Runtime loop only."""
        if client.dead is not None:
            self._fail_backlog(client)
            return
        link = client.link
        if link is None or link.closed:
            self._locate(client)
            if not client.traits.ordered:
                self._resolve_all(client)
            return
        while True:
            with self._lock:
                backlog = client.backlog
                if backlog is None:
                    break
                if not backlog:
                    client.backlog = None
                    break
                if client.inflight >= client.traits.window:
                    break
                call = backlog[0]
                if call.done:
                    backlog.popleft()
                    continue
                if call.waiting is None:
                    client.inflight += 1
                    self._push(link, call)
                    backlog.popleft()
                    continue
                if not client.traits.ordered:
                    # Its arguments are on their way: it goes when they are there, later calls need not wait.
                    backlog.popleft()
                else:
                    pending = any(not entry.done for _, entry in call.waiting)
                    if not pending and fill_slots(call):
                        continue
            if client.traits.ordered:
                if call.done:
                    continue
                if not when_resolved(call, partial(self._resolved_in_order, client), self._runtime.run_soon):
                    continue
                break
            self._resolve(client, call)
        link.flush()

    def _resolve_all(self, client: ActorClient) -> None:
        """Start fetching what the queued calls wait for, while it is found out where the actor is."""
        for call in client.backlog or ():
            for _, entry in call.waiting or ():
                if not entry.done:
                    self._runtime.request(entry)

    def _resolve(self, client: ActorClient, call: Call) -> None:
        if not when_resolved(call, partial(self._resolved, client), self._runtime.run_soon):
            self._resolved(client, call)

    def _resolved(self, client: ActorClient, call: Call) -> None:
        if not call.done and fill_slots(call):
            self.call(client, call, in_runtime=True)

    def _resolved_in_order(self, client: ActorClient, call: Call) -> None:
        self._advance(client)

    def answered(self, client: ActorClient) -> None:
        """One call less is under way; runtime loop."""
        with self._lock:
            client.inflight -= 1
        if client.backlog:
            self._advance(client)

    # ---- where it is

    def _locate(self, client: ActorClient) -> None:
        if client.locating or client.record is not None:
            # The owner's own client is told by the supervisor.
            return
        client.locating = True
        self._runtime.spawn_here(self._find(client))

    async def _find(self, client: ActorClient) -> None:
        runtime = self._runtime
        try:
            while client.dead is None:
                try:
                    owner = await runtime.peers.link_to(client.actor[:8])
                    at: ActorAt = await owner.ask(WhereIs(client.actor, client.incarnation))
                except exceptions.LinkError as error:
                    at = ActorAt(b"", 0, f"its owner is gone ({error})", "running")
                if not at.worker:
                    client.dead = at
                    break
                try:
                    link = await runtime.peers.link_to(at.worker)
                except exceptions.LinkError:
                    client.incarnation = at.incarnation
                    continue
                client.incarnation = at.incarnation
                client.link = link
                break
        finally:
            client.locating = False
        self._advance(client)

    async def placed_at(self, client: ActorClient) -> bytes:
        """The worker that an actor was given, though it may still be starting; empty if that is not known."""
        if client.record is not None:
            return client.record.link.peer if client.record.link is not None else b""
        try:
            async with asyncio.timeout(PLACED_TIMEOUT_S):
                owner = await self._runtime.peers.link_to(client.actor[:8])
                at: ActorAt = await owner.ask(WhereIs(client.actor, NOW))
        except (exceptions.ActorrtError, TimeoutError):
            return b""
        return at.worker

    def moved(self, record: ActorRecord) -> None:
        """An actor that this process owns was started somewhere, or is dead."""
        client = self._known.get(record.actor)
        if client is None:
            return
        if record.cause and record.spec is None:
            client.dead = record.where()
        elif record.link is not None and not record.link.closed:
            client.link = record.link
            client.incarnation = record.life.incarnation
        self._advance(client)

    # ---- losses

    def _fail_backlog(self, client: ActorClient) -> None:
        with self._lock:
            backlog, client.backlog = client.backlog, None
        for call in backlog or ():
            call.fail(client.death(may_have_run=False))

    async def link_lost(self, link: Link, calls: list[Call]) -> None:
        """The worker behind `link` is gone with these calls under way."""
        cause, _ = await self._runtime.exit_cause(link.peer)
        by_client: dict[ActorClient, list[Call]] = {}
        for call in calls:
            by_client.setdefault(call.target, []).append(call)
        for client, lost in by_client.items():
            self._lose(client, link, lost, cause)
        for client in list(self._known.values()):
            if client.link is link:
                self._lose(client, link, [], cause)

    def _lose(self, client: ActorClient, link: Link, lost: list[Call], cause: str) -> None:
        if client.link is link:
            client.link = None
        again: list[Call] = []
        for call in lost:
            if call.done:
                continue
            if call.cancel_asked:
                call.cancelled()
            elif call.attempts_left and not (call.stream is not None and call.stream.items):
                if call.attempts_left > 0:
                    call.attempts_left -= 1
                call.started = False
                again.append(call)
            else:
                call.fail(self._lost_error(client, cause))
        with self._lock:
            client.inflight -= len(lost)
            if again:
                if client.backlog is None:
                    client.backlog = deque()
                client.backlog.extendleft(reversed(again))
        if client.backlog:
            self._advance(client)

    def _lost_error(self, client: ActorClient, cause: str) -> BaseException:
        record = client.record
        if record is not None and record.spec is not None and record.life.restarts_left:
            return exceptions.ActorUnavailableError(client.title, f"{cause}; it is being restarted", True)
        return exceptions.ActorDiedError(client.title, "running", cause, True)

    def no_actor(self, client: ActorClient, call: Call) -> None:
        """The worker does not have the actor (any more): the owner knows what became of it."""
        with self._lock:
            client.inflight -= 1
        if client.record is None and client.dead is None:
            client.link = None
            self._runtime.spawn_here(self._settle_no_actor(client, call))
            return
        if client.dead is None and client.record is not None and client.record.spec is None:
            client.dead = client.record.where()
        call.fail(client.death(may_have_run=True) if client.dead else self._lost_error(client, "it has ended"))

    async def _settle_no_actor(self, client: ActorClient, call: Call) -> None:
        try:
            owner = await self._runtime.peers.link_to(client.actor[:8])
            at: ActorAt = await owner.ask(WhereIs(client.actor, client.incarnation))
            if not at.worker:
                client.dead = at
        except exceptions.LinkError as error:
            client.dead = ActorAt(b"", 0, f"its owner is gone ({error})", "running")
        if client.dead is not None:
            call.fail(client.death(may_have_run=True))
            self._advance(client)
        else:
            call.fail(exceptions.ActorUnavailableError(client.title, "it is being restarted", True))


def actor_message(seq: int, client: ActorClient, method: str, payload: bytes) -> ActorCall:
    return ActorCall(seq, client.actor, method, payload)
