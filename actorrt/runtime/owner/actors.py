"""Calls to actors: each goes straight to the actor's worker, or waits here until it is known where that is.

Calls of one caller to one actor leave in order; the fast path runs in the caller's thread. Where actors are, and what
becomes of calls whose actor is gone, is in actor_places.py.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from actorrt import exceptions
from actorrt.core.calls import AWAY, ENDED, Action, Event
from actorrt.types import ActorKey, owner_of
from actorrt.wire.messages import ActorAt, BorrowActor, Cancel, UnborrowActor

from ..links.link import Link
from . import actor_places as places
from .actor_client import ActorClient, Caller, Traits
from .actor_places import ActorPlaces
from .actor_records import OwnedActor
from .calls import Call, fill_slots, when_resolved
from .objects import Objects
from .token import Token

if TYPE_CHECKING:
    from .actor_records import ActorRecord


class Surroundings(Caller, places.Surroundings, Protocol):
    """What is asked of the process."""

    @property
    def objects(self) -> Objects: ...

    def flush_soon(self, link: Link, idle: bool) -> None: ...
    def cancel_call(self, call: Call, force: bool, recursive: bool) -> None: ...


class Actors:
    """The actors that this process can call."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        # Held while a call is put on its way: what is lost with a link is looked at under it too.
        self.lock = threading.Lock()
        self.places = ActorPlaces(surroundings, self)
        # One client for each actor, while a handle lives.
        self._known: weakref.WeakValueDictionary[bytes, ActorClient] = weakref.WeakValueDictionary()
        # Clients with calls that wait to leave.
        self._busy: set[ActorClient] = set()
        self._pinned: dict[ActorKey, ActorClient] = {}
        # Calls that wait for their arguments outside of their client's backlog.
        self._resolving: dict[ActorClient, set[Call]] = {}
        # The call in front of a backlog that keeps its order, while its arguments are waited for.
        self._held: dict[ActorClient, Call] = {}

    # ---- handles

    def client(self, actor: ActorKey, title: str, traits: Traits) -> ActorClient:
        """The client for a handle that came from elsewhere; from any thread."""
        process = self._process
        owner = owner_of(actor)
        with self.lock:
            client = self._known.get(actor)
            known = client is not None
            if client is None:
                client = ActorClient(process, actor, title, traits)
                self._known[actor] = client
        if owner != process.process:
            if known:
                process.objects.note(owner)
            else:
                client.hold = self._borrow(actor)
        elif not known:
            record = process.supervisor.records.get(actor)
            if record is None:
                client.dead = ActorAt(None, 0, "it has ended", "idle")
            else:
                self.own(client, record)
                record.released = False
                self._thread.run_soon(partial(self.places.moved, record))
        return client

    def find(self, actor: ActorKey) -> ActorClient | None:
        """The client of an actor that is known here."""
        return self._known.get(actor)

    def at(self, link: Link) -> list[ActorClient]:
        """The clients whose calls go over `link`."""
        with self.lock:
            return [client for client in self._known.values() if client.link is link]

    def hold(self, actor: ActorKey) -> Token:
        """Keep an actor whose handle lies inside a value that was not looked at yet; runtime loop."""
        process = self._process
        owner = owner_of(actor)
        if owner == process.process:
            process.supervisor.borrow(actor, owner, 1)
            return Token(process, partial(process.supervisor.borrow, actor, owner, -1))
        return self._borrow(actor)

    def _borrow(self, actor: ActorKey) -> Token:
        process = self._process
        process.objects.borrowing(owner_of(actor), BorrowActor(actor))
        return Token(process, partial(process.objects.unborrowing, owner_of(actor), UnborrowActor(actor)))

    def own(self, client: ActorClient, record: ActorRecord) -> None:
        """The client is that of an actor of this process, which ends with its last handle."""
        client.record = record
        client.hold = OwnedActor(self._process, record)

    def know(self, client: ActorClient) -> None:
        with self.lock:
            self._known[client.actor] = client

    def export(self, client: ActorClient, collected: bool) -> None:
        """A handle is being pickled; from any thread."""
        if not collected:
            # Outside of a call: nobody will say when the copy is gone.
            self._pinned[client.actor] = client

    def release_owned(self, record: ActorRecord) -> None:
        """A client of an own actor is garbage; runtime loop."""
        if self._known.get(record.actor) is None:
            self._process.supervisor.release(record)

    # ---- calls

    def call(self, client: ActorClient, call: Call) -> None:
        """Send a call, or queue it until it can be sent; from any thread. Raises PendingCallsLimitExceeded."""
        traits = client.traits
        try:
            with self.lock:
                if call.state is ENDED:
                    # Cancelled with its parent in this very moment.
                    return
                if traits.max_pending >= 0:
                    self._check_pending(client)
                link = client.link
                if (
                    link is not None
                    and call.waiting is None
                    and client.backlog is None
                    and client.inflight < traits.window
                    and not link.closed
                ):
                    idle = self._push(client, link, call)
                else:
                    link, idle = None, False
                    self._enqueue(client, call)
            if link is not None:
                if call.stream is not None and not self._thread.on_own_thread():
                    # The first of many messages: to wake another thread for it costs more than to write it.
                    link.flush()
                else:
                    self._process.flush_soon(link, idle)
        except KeyboardInterrupt:
            self._take_back(client, call)
            raise

    def _take_back(self, client: ActorClient, call: Call) -> None:
        """A program was interrupted while it made a call, which nobody gets a ref to. It may have left, or not."""
        link: Link | None = call.link
        with self.lock:
            if link is not None and link.inflight.pop(call.message.seq, None) is not None:
                client.inflight -= 1
                link.post(Cancel(call.message.seq))
        if call.state is AWAY:
            self._thread.run_soon(call.cancelled)
        else:
            self._thread.run_soon(partial(self._process.cancel_call, call, False, True))
        self._thread.run_soon(partial(self.advance, client))

    def _enqueue(self, client: ActorClient, call: Call) -> None:
        first = client.backlog is None
        if client.backlog is None:
            client.backlog = deque()
            # Kept while calls wait, though nobody holds a handle or a ref any more: they are to run all the same.
            self._busy.add(client)
        client.backlog.append(call)
        if first or call.waiting is not None:
            # Else it goes when those in front of it go.
            self._thread.run_soon(partial(self._queued, client, call))

    def _check_pending(self, client: ActorClient) -> None:
        pending = client.inflight + len(self._resolving.get(client, ()))
        if client.backlog:
            pending += len(client.backlog)
        if pending >= client.traits.max_pending:
            raise exceptions.PendingCallsLimitExceeded(client.title, client.traits.max_pending)

    def _push(self, client: ActorClient, link: Link, call: Call) -> bool:
        """Queue a call on the link; whether nothing else is under way there."""
        client.inflight += 1
        call.incarnation = client.incarnation
        idle = not link.inflight
        call.push(link)
        return idle

    def again(self, client: ActorClient, call: Call) -> None:
        """Send a call that was accepted before; runtime loop."""
        with self.lock:
            if client.backlog is None:
                client.backlog = deque()
                self._busy.add(client)
            client.backlog.append(call)
        self.advance(client)

    def _queued(self, client: ActorClient, call: Call) -> None:
        for _, entry in call.waiting or ():
            self._process.request(entry)
        self.advance(client)

    def advance(self, client: ActorClient) -> None:
        """Send what can be sent of the backlog, in order; runtime loop."""
        if client.backlog is None:
            return
        if client.dead is not None:
            self._fail_backlog(client)
            return
        link = client.link
        if link is None or link.closed:
            self.places.locate(client)
            return
        while (call := self._send_ready(client, link)) is not None:
            if client.traits.ordered:
                if self._wait_in_front(client, call):
                    break
            elif not when_resolved(call, partial(self._resolved, client), self._thread.run_soon):
                self._resolved(client, call)
        link.flush()

    def _send_ready(self, client: ActorClient, link: Link) -> Call | None:
        """Send calls until one needs its arguments first: that one, or None. Where order counts it stays in front."""
        with self.lock:
            backlog = client.backlog
            while backlog:
                call = backlog[0]
                if call.done:
                    backlog.popleft()
                elif call.waiting is not None:
                    if not client.traits.ordered:
                        backlog.popleft()
                        self._resolving.setdefault(client, set()).add(call)
                    return call
                elif client.inflight >= client.traits.window or link.closed:
                    return None
                else:
                    backlog.popleft()
                    self._push(client, link, call)
            client.backlog = None
            self._busy.discard(client)
            return None

    def _wait_in_front(self, client: ActorClient, call: Call) -> bool:
        """True while the arguments of the first call of an ordered backlog are not there."""
        if self._held.get(client) is call:
            return True
        if when_resolved(call, partial(self._resolved_in_front, client), self._thread.run_soon):
            self._held[client] = call
            return True
        fill_slots(call)
        return False

    def _resolved_in_front(self, client: ActorClient, call: Call) -> None:
        if self._held.get(client) is call:
            del self._held[client]
        self.advance(client)

    def _resolved(self, client: ActorClient, call: Call) -> None:
        self._resolves_no_more(client, call)
        if not call.done and fill_slots(call):
            self.again(client, call)

    def _resolves_no_more(self, client: ActorClient, call: Call) -> None:
        with self.lock:
            calls = self._resolving.get(client)
            if calls is not None:
                calls.discard(call)
                if not calls:
                    del self._resolving[client]

    def answered(self, client: ActorClient, count: int) -> None:
        """So many calls less are under way; runtime loop."""
        with self.lock:
            client.inflight -= count
        if client.backlog is not None:
            self.advance(client)

    def cancel(self, client: ActorClient, call: Call, force: bool) -> Action:
        """The caller of a call wants it cancelled; what to do now. Runtime loop."""
        with self.lock:
            call.ask(force)
            action = call.on(Event.CANCEL)
            if action is Action.END_CANCELLED and client.backlog is not None and call in client.backlog:
                client.backlog.remove(call)
        if action is Action.END_CANCELLED:
            self._resolves_no_more(client, call)
            if self._held.get(client) is call:
                del self._held[client]
        return action

    def came_back(self, client: ActorClient, link: Link | None, count: int, again: list[Call]) -> None:
        """`count` calls under way have ended without an outcome; those in `again` are to be sent anew, before all later
        ones. `link` does not lead to the actor any more. Runtime loop."""
        with self.lock:
            client.inflight -= count
            if link is not None and client.link is link:
                client.link = None
            if again:
                backlog = client.backlog
                if backlog is None:
                    backlog = client.backlog = deque()
                    self._busy.add(client)
                for call in again:
                    self._insert(backlog, call)
        self.advance(client)

    @staticmethod
    def _insert(backlog: deque[Call], call: Call) -> None:
        seq = call.message.seq
        place = next((place for place, other in enumerate(backlog) if other.message.seq > seq), None)
        if place is None:
            backlog.append(call)
        else:
            backlog.insert(place, call)

    def _fail_backlog(self, client: ActorClient) -> None:
        for call in self._take_backlog(client):
            call.fail(client.death(may_have_run=call.may_have_run))

    def _take_backlog(self, client: ActorClient) -> Iterable[Call]:
        with self.lock:
            backlog, client.backlog = client.backlog, None
            self._busy.discard(client)
        self._held.pop(client, None)
        return backlog or ()

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: what has not come back by now fails with `error`."""
        with self.lock:
            clients = list(self._known.values())
            left = [call for calls in self._resolving.values() for call in calls]
        for client in clients:
            left += self._take_backlog(client)
        for call in left:
            call.fail(error)


__all__ = ["ActorClient", "Actors", "Traits"]
