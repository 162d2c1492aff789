"""Calls to actors: each goes straight to the actor's worker, or waits here until it is known where that is.

What leaves next is decided in core/actor_calls.py; the fast path runs in the caller's thread. Where actors are, and
what becomes of calls whose actor is gone, is in actor_places.py.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from actorrt import exceptions
from actorrt.core import calls
from actorrt.core.actor_calls import SENDING, Action, State, Traits
from actorrt.core.call_terms import Limit
from actorrt.core.calls import AWAY, ENDED
from actorrt.types import ActorKey, owner_of
from actorrt.wire.messages import BorrowActor, Cancel, Outcome, UnborrowActor

from ..links.link import Link
from . import actor_places as places
from .actor_client import ActorClient, Caller
from .actor_places import ActorPlaces
from .actor_records import OwnedActor, forgotten
from .calls import Batch, Call, fill_slots, when_resolved
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


class ActorsStatistics(NamedTuple):
    """What a process knows of actors at one moment."""

    # Actors that it holds handles to, or has calls to that have no outcome.
    known: int
    # Of these: it can call them at once; it looks for them, or waits for their restart; they are dead.
    placed: int
    awaited: int
    dead: int
    # Calls that were sent and have no outcome.
    under_way: int
    # Calls that cannot leave yet: for room, for a place, or behind others.
    waiting: int
    # Calls whose arguments are awaited; of an actor that keeps the order of its calls they are among those that wait.
    resolving: int


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
        # Clients with calls that wait to leave: those are to run, though nobody holds a handle or a ref any more.
        self._busy: set[ActorClient] = set()
        self._pinned: dict[ActorKey, ActorClient] = {}

    def statistics(self) -> ActorsStatistics:
        """From any thread."""
        with self.lock:
            # At once: other threads make actors meanwhile.
            clients = [client for ref in self._known.valuerefs() if (client := ref()) is not None]
            states = Counter(client.state for client in clients)
            return ActorsStatistics(
                known=len(clients),
                placed=sum(states[state] for state in SENDING),
                awaited=states[State.RESOLVING] + states[State.RESTARTING],
                dead=states[State.DEAD],
                under_way=sum(client.inflight for client in clients),
                waiting=sum(len(client.backlog or ()) for client in clients),
                resolving=sum(len(client.resolving or ()) for client in clients),
            )

    def waiting(self) -> list[Call]:
        """Calls that wait to leave; from any thread."""
        with self.lock:
            return [call for client in self._busy for call in (*(client.backlog or ()), *(client.resolving or ()))]

    @property
    def busy(self) -> bool:
        """True while calls wait to leave; from any thread."""
        return bool(self._busy)

    # ---- handles

    def client(self, actor: ActorKey, title: str, traits: Traits) -> ActorClient:
        """The client for a handle that came from elsewhere; from any thread."""
        process = self._process
        owner = owner_of(actor)
        own = owner == process.process
        record = None
        with self.lock:
            client = self._known.get(actor)
            known = client is not None
            if client is None:
                client = ActorClient(process, actor, title, traits)
                if own:
                    # Before others find it: they would look for an actor that this process owns.
                    record = self._take_up(client)
                self._known[actor] = client
        if not own:
            if known:
                process.objects.note(owner)
            else:
                client.holds(self._borrow(actor))
        elif record is not None:
            self._thread.run_soon(partial(self.places.moved, record))
        return client

    def _take_up(self, client: ActorClient) -> ActorRecord | None:
        """A handle to an own actor has come back that nobody here had any more. Its record, if it has not ended."""
        record = self._process.supervisor.records.get(client.actor)
        if record is None:
            client.died(forgotten())
        else:
            self.own(client, record)
        return record

    def find(self, actor: ActorKey) -> ActorClient | None:
        """The client of an actor that is known here."""
        return self._known.get(actor)

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
        client.owns(record, OwnedActor(self._process, record))

    def know(self, client: ActorClient) -> None:
        """The client of an actor that is made just now; from any thread. Without the lock, for which the runtime loop
        and a program that makes many actors would wait in turns."""
        self._known[client.actor] = client

    def export(self, client: ActorClient, collected: bool) -> None:
        """A handle is being pickled; from any thread."""
        if not collected:
            # Outside of a call: nobody will say when the copy is gone.
            self._pinned[client.actor] = client

    def release_owned(self, record: ActorRecord) -> None:
        """A client of an own actor is garbage; runtime loop."""
        self._process.supervisor.release(record)

    def holds(self, record: ActorRecord) -> bool:
        """A handle to an own actor is in this process, or a call to it has no outcome."""
        return self._known.get(record.actor) is not None

    # ---- calls

    def call(self, client: ActorClient, call: Call) -> None:
        """Send a call, or queue it until it can be sent; from any thread. Raises PendingCallsLimitExceeded."""
        idle = False
        try:
            with self.lock:
                link = client.admit(call)
                if link is not None:
                    idle = not link.inflight
                    call.push(link)
                elif client.enqueue(call):
                    self._busy.add(client)
                    self._thread.run_soon(partial(self._queued, client, call))
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
            if link is None:
                client.not_sent(call)
            elif link.inflight.pop(call.message.seq, None) is not None:
                client.taken_back()
                link.post(Cancel(call.message.seq))
        if call.state is AWAY:
            self._thread.run_soon(call.cancelled)
        else:
            self._thread.run_soon(partial(self._process.cancel_call, call, False, True))
        self._thread.run_soon(partial(self.advance, client))

    def _queued(self, client: ActorClient, call: Call) -> None:
        for _, entry in call.waiting or ():
            self._process.request(entry)
        self.advance(client)

    def advance(self, client: ActorClient) -> None:
        """Do what can be done now for the calls that wait; runtime loop."""
        match client.wanted():
            case Action.SEND:
                self._send(client)
            case Action.ASK:
                self.places.locate(client)
            case Action.FAIL:
                with self.lock:
                    failed = client.drain()
                for call in failed:
                    call.fail(client.death(may_have_run=call.may_have_run))
            case _:
                pass
        with self.lock:
            if client.is_waiting:
                self._busy.add(client)
            else:
                self._busy.discard(client)

    def _send(self, client: ActorClient) -> None:
        link = client.link
        if link is None:
            return
        while True:
            with self.lock:
                while (call := client.next_to_send()) is not None:
                    call.push(link)
                call = client.next_to_resolve()
            if call is None:
                break
            if not when_resolved(call, partial(self._resolved, client), self._thread.run_soon):
                self._fill(client, call)
        link.flush()

    def _resolved(self, client: ActorClient, call: Call) -> None:
        self._fill(client, call)
        self.advance(client)

    def _fill(self, client: ActorClient, call: Call) -> None:
        if not call.done:
            fill_slots(call)
        with self.lock:
            client.resolved(call)

    # ---- what comes of calls; runtime loop

    def replied(self, link: Link, call: Call, data: bytes, batch: Batch) -> None:
        """The value of a call came."""
        client: ActorClient = call.target
        # As `_count` does, and no step more for each reply. A single one is counted before its waiter is woken, who
        # wants the GIL then.
        if batch.is_single or client.traits.max_pending >= 0:
            self.answered(client, 1)
        else:
            answered = batch.by_actor
            answered[client] = answered.get(client, 0) + 1
        call.succeed(data)

    def replied_here(self, link: Link, seq: int, data: bytes) -> bool:
        """The same for an actor of this process, on the loop that has run the call. False: it is for the runtime loop,
        since more than its caller is concerned."""
        with self.lock:
            call = link.inflight.get(seq)
            if type(call) is not Call or call.home is not self or not call.is_plain:
                return False
            del link.inflight[seq]
            client: ActorClient = call.target
            waiting = client.answered(1)
            # Here, where nobody else can end it.
            wanted = call.state is not ENDED
            call.state = ENDED
        if wanted:
            call.value_came(data)
        if waiting:
            self._thread.run_soon(partial(self.advance, client))
        return True

    def _count(self, client: ActorClient, batch: Batch) -> None:
        if client.traits.max_pending >= 0:
            # At once: the waiter that gets the value may call again.
            self.answered(client, 1)
        else:
            answered = batch.by_actor
            answered[client] = answered.get(client, 0) + 1

    def ended(self, link: Link, call: Call, batch: Batch) -> None:
        """Any other outcome of a call came that ends it."""
        self._count(call.target, batch)

    def again(self, link: Link, call: Call, batch: Batch) -> None:
        """The code of a call has raised an error that it is repeated for: it goes in front of what was called after it,
        which may wait for it."""
        client: ActorClient = call.target
        with self.lock:
            client.repeat(call)
        self.advance(client)

    def came_back(self, link: Link, call: Call, outcome: Outcome, batch: Batch) -> None:
        """A worker does not have its actor."""
        self.places.no_actor(call.target, call, started=bool(outcome.count))

    def answered(self, client: ActorClient, count: int) -> None:
        """So many calls less are under way; runtime loop."""
        with self.lock:
            waiting = client.answered(count)
        if waiting:
            self.advance(client)

    def cancel(self, call: Call, force: bool) -> calls.Action:
        """The caller of a call wants it cancelled: what to do with it now. Runtime loop."""
        client: ActorClient = call.target
        with self.lock:
            action = client.cancel(call, force)
        # It may have been in front of others.
        self.advance(client)
        return action

    def late(self, call: Call, limit: Limit) -> calls.Action:
        """A limit of a call is over: what to do with it now. Runtime loop."""
        client: ActorClient = call.target
        with self.lock:
            action = client.late(call, limit)
        self.advance(client)
        return action

    def resume(self, call: Call) -> None:
        """The pause of a call is over; runtime loop."""
        client: ActorClient = call.target
        with self.lock:
            client.resume(call)
        self.advance(client)

    def close(self, error: exceptions.ActorrtError) -> None:
        """The runtime ends: what has not come back by now fails with `error`."""
        with self.lock:
            left = [call for client in self._busy for call in client.close()]
            self._busy.clear()
        for call in left:
            call.fail(error)


__all__ = ["ActorClient", "Actors"]
