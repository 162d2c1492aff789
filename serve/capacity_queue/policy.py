"""A router's side of the capacity queue: it asks for each request, and gives back each grant once.

While the queue is down, or says nothing, it goes on by what it knows: at each replica it has no more than its share of
what that holds, and a request at a time at those of which it knows none. What the replicas run then the next queue
learns from them.
"""

from __future__ import annotations

import logging
import pickle
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..news import DeploymentNews
from ..policy import NOTHING, ONE_REQUEST, Cost, Grant, Policy, PolicyContext, QueueFull, Refused, Request
from .alone import Alone, Place
from .by_credit import ByCredit, LocalLease
from .config import DEFAULT, CapacityQueueConfig, cost_function
from .costs import PLAIN, cost_of, is_one
from .lease import Lease, Wait
from .messages import (
    Acquire,
    CreditsHeld,
    Granted,
    QueueCost,
    QueueUse,
    Refusal,
    Release,
    ToQueue,
    ToRouter,
    encode,
    to_router,
)  # fmt: skip
from .session import Session, Turns
from .untold import Untold

logger = logging.getLogger("actorrt.serve")

SHED: Final = "it was stopped for one of a higher band, which had room nowhere else"
# So long a first token may take to be told, with all others of that time.
PROGRESS_S: Final = 0.001
# Requests of which nothing else is known come in this order at the least.
_TICK: Final = 1e-9
# While requests wait, so often is it looked whether the queue is there; and a router that a replica has sent back,
# since there is a later queue, gives itself nothing for so long.
LOOK_S: Final = 0.5


class CapacityQueuePolicy(Policy):
    def __init__(self, context: PolicyContext) -> None:
        self._context = context
        self._clock = context.clock
        self.router = uuid.uuid4().hex[:16]
        self._config: CapacityQueueConfig = DEFAULT
        self._config_bytes = b""
        # Bands, by the names that requests have had for them.
        self._bands: dict[str, str] = {}
        self._cost: Callable[..., Any] | None = None
        self._max_queued = -1
        self._closed = False
        self._session: Session | None = None
        self._queue: Any = None
        self._turns = Turns(self._flush)
        # What is to be said; its own lock, since a turn may end on another thread than the one that asked.
        self._out = ToQueue()
        self._untold = Untold()
        self._out_lock = threading.Lock()
        # What has come and was not looked at yet.
        self._came: deque[ToRouter | None] = deque()
        # Whether the queue has said that it is there, and of which epoch it is.
        self._connected = self._was_connected = False
        self.epoch = 0
        self._alone = Alone(context.clock(), -random.SystemRandom().getrandbits(61))
        self._credits = ByCredit(self, self.router, self._open_place, partial(self._say, "learnt"))
        self._credits.configure(DEFAULT)
        self._watchdog: threading.Timer | None = None
        self._places: dict[str, Place] = {}
        self._full: set[str] = set()
        # Those that wait, in their order, and which is which for the queue.
        self._waiting: dict[Request, Wait] = {}
        self._by_id: dict[int, Request] = {}
        # What became of them, until the router takes it; and grants of replicas that are not known here yet.
        self._ready: dict[Request, Lease | Refused] = {}
        self._early: dict[Request, Lease] = {}
        self._held: dict[int, Lease] = {}
        # Leases whose requests are to make way.
        self._stops: list[tuple[int, str]] = []
        # The last that came back: its request may be asked for again next.
        self._released: Lease | LocalLease | None = None
        self._last_id = 0
        self._last_arrival = 0.0

    # ---- what the router tells

    def update(self, news: DeploymentNews) -> None:
        known = self._places
        self._places = {each.id: known.get(each.id) or Place() for each in news.replicas}
        self._full &= self._places.keys()
        self._max_queued = news.max_queued
        queue = news.queue
        if queue is not None:
            if queue.config != self._config_bytes:
                self._config_bytes = queue.config
                self._config = pickle.loads(queue.config)
                self._bands = {}
                self._credits.configure(self._config)
                self._cost = cost_function(self._config.cost)
            if queue.handle != self._queue:
                self._queue = queue.handle
                self._connect(queue.handle)
        for request, lease in list(self._early.items()):
            if (place := self._places.get(lease.replica)) is not None:
                del self._early[request]
                self._have(lease, place)
        self._credits.look_again()

    def _open_place(self, replica: str) -> Place | None:
        """Of a replica that takes requests."""
        return None if replica in self._full else self._places.get(replica)

    def _connect(self, queue: Any) -> None:
        if self._session is not None:
            self._session.leave()
        self._connected, self._alone.heard_at = False, self._clock()
        self._session = None if queue is None else Session(queue, self.router, self)

    def submit(self, request: Request) -> Lease | LocalLease | None:
        now = self._clock()
        said = request.cost
        if (said is ONE_REQUEST or is_one(said)) and self._cost is None and getattr(request, "header", None) is None:
            cost = PLAIN
        else:
            cost = cost_of(request, self._cost)
        if not self._waiting and (local := self._credits.admit(request, cost, now)) is not None:
            return local
        self._last_arrival = arrived = max(now, self._last_arrival + _TICK)
        band = self._bands.get(cost.band)
        if band is None:
            band = self._band_of(cost)
        return self._ask(request, self._wait_of(cost, band, arrived), now)

    def _wait_of(self, cost: QueueCost, band: str, arrived: float) -> Wait:
        wanted_s = cost.deadline_s if cost.deadline_s is not None else self._config.deadline_s
        deadline = None if wanted_s is None else arrived + wanted_s
        return Wait(cost, band, arrived, deadline)

    def again(self, request: Request) -> Lease | LocalLease | None:
        lease, now = self._released, self._clock()
        self._released = None
        if lease is None or lease.request is not request:
            # Its grant was given back long ago, as its client took what was left.
            return self.submit(request)
        if isinstance(lease, LocalLease):
            if self._open_place(lease.replica) is not None:
                # It is fenced off there, or a later queue is there.
                self._credits.spoil(lease)
            wait = self._wait_of(lease.terms.cost, lease.terms.band, lease.arrived)
            wait.returns = True
            return self._ask(request, wait, now)
        if lease.number < 0 and lease.replica in self._places.keys() - self._full:
            # A replica knows of a later queue: that is heard of here soon.
            self._alone.stands_back_until = now + LOOK_S
        lease.wait.returns = True
        return self._ask(request, lease.wait, now)

    def _ask(self, request: Request, wait: Wait, now: float) -> Lease | None:
        if self._is_alone(now):
            if (not self._waiting or wait.returns) and (lease := self._own_lease(request, wait, now)) is not None:
                return lease
            most = self._config.most(self._max_queued).requests
            if len(self._waiting) >= most and not wait.returns:
                raise QueueFull(len(self._waiting), most, 1.0)
        if wait.returns:
            self._waiting = {request: wait, **self._waiting}
        else:
            self._waiting[request] = wait
        self._acquire(request, wait, now)
        if self._watchdog is None:
            self._watch()
        return None

    def _acquire(self, request: Request, wait: Wait, now: float) -> None:
        self._by_id.pop(wait.id, None)
        self._last_id += 1
        wait.id = self._last_id
        self._by_id[wait.id] = request
        cost = wait.cost
        if cost is PLAIN and wait.deadline is None and not wait.returns:
            if self._connected:
                with self._out_lock:
                    self._out.plain.append((wait.id, now - wait.arrived))
                self._turns.soon()
            return
        left = None if wait.deadline is None else wait.deadline - now
        acquire = Acquire(
            wait.id, cost.requests, cost.tokens, cost.max_tokens, cost.model, cost.tenant, cost.user,
            wait.band, now - wait.arrived, left, cost.chain, wait.returns, cost.session, cost.adapter,
            cost.ticket,
        )  # fmt: skip
        if self._connected:
            with self._out_lock:
                self._out.acquire.append(acquire)
            self._turns.soon()

    def _say(self, what: str, value: Any) -> None:
        """Have it told at the end of this turn. While there is no queue nothing is: the next one is told all anew."""
        if self._connected:
            with self._out_lock:
                getattr(self._out, what).append(value)
            self._turns.soon()

    def _band_of(self, cost: QueueCost) -> str:
        try:
            band = self._bands[cost.band] = self._config.bands[self._config.band(cost.band)].name
        except ValueError as error:
            raise Refused(str(error), None, 400) from None
        return band

    def withdraw(self, request: Request) -> None:
        wait = self._waiting.pop(request, None)
        if wait is not None:
            self._by_id.pop(wait.id, None)
            self._say("withdraw", wait.id)
        if isinstance(found := self._ready.pop(request, None), Lease):
            self._give_back(found)
        if (early := self._early.pop(request, None)) is not None:
            self._give_back(early)

    def next(self) -> tuple[Request, Grant | Refused] | None:
        while self._came:
            self._take(self._came.popleft())
        while self._stops:
            number, ticket = self._stops.pop()
            lease = self._held.get(number)
            # One that is not sent yet has nothing to lose by it, and is soon asked for again.
            if lease is not None and lease.request not in self._ready and lease.request not in self._early:
                return lease.request, Refused(SHED, 1.0, 429, ticket)
        if self._ready:
            request = next(iter(self._ready))
            return request, self._ready.pop(request)
        now = self._clock()
        if self._waiting and self._is_alone(now):
            for request, wait in self._waiting.items():
                if (lease := self._own_lease(request, wait, now)) is None:
                    return None
                del self._waiting[request]
                self._by_id.pop(wait.id, None)
                return request, lease
        return None

    def release(self, grant: Grant, used: Cost | None) -> None:
        if type(grant) is LocalLease:
            if grant.is_running:
                self._released = grant
                if self._credits.release(grant, used):
                    self._say_credits(self._credits.held(self._clock()))
                if self._closed:
                    self._end_if_idle()
            return
        assert isinstance(grant, Lease)
        if self._held.get(grant.number) is not grant:
            return
        self._give_back(grant, used)
        self._released = grant
        if self._closed:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closed and not self._held and not self._credits.running:
            self._end()

    def _say_credits(self, held: CreditsHeld) -> None:
        if self._connected:
            with self._out_lock:
                self._out.credits = held
            self._turns.soon()

    def _give_back(self, lease: Lease, used: Cost | None = NOTHING) -> None:
        number = lease.number
        self._held.pop(number, None)
        with self._out_lock:
            self._untold.ended(number)
        if (place := lease.place) is not None:
            place.add(-1, -lease.prompt - lease.output)
        if isinstance(used, QueueUse):
            release = Release(number, used.tokens, used.cached, used.is_whole)
        elif used is not None and used is not NOTHING and used.tokens:
            release = Release(number, used.tokens)
        elif lease.generated:
            release = Release(number, lease.generated)
        else:
            self._say("given_back", number)
            return
        self._say("release", release)

    def progress(self, lease: Lease, generated: int) -> None:
        """From the thread that has the request; it need not hold the router's lock."""
        before, lease.generated = lease.generated, generated
        number, now = lease.number, self._clock()
        with self._out_lock:
            if self._held.get(number) is not lease:
                return  # another thread has given it back
            if not before and self._connected:
                # Its prompt is read: that makes room for others.
                self._out.progress.append((number, generated))
            elif self._untold.came(number, generated, generated - before, now) and self._connected:
                self._out.progress += self._untold.take(now)
            else:
                return
        # Not in this turn, in which the client is sent what has come: it goes first.
        self._turns.within(PROGRESS_S)

    def settle(self, lease: Lease, used: Cost) -> None:
        """It was given back before this was known. From any thread."""
        if isinstance(used, QueueUse):
            self._say("settle", Release(lease.number, used.tokens, used.cached, used.is_whole))

    def died(self, replica: str) -> None:
        if self._places.pop(replica, None) is None:
            return
        self._full.discard(replica)
        self._credits.look_again()
        # Until the queue hears it too it gives no more of it.
        self._say_full(replica, True)
        for request, found in list(self._ready.items()):
            if isinstance(found, Lease) and found.replica == replica:
                del self._ready[request]
                self._ask_again(found)

    def filled(self, replica: str) -> None:
        if replica in self._places:
            self._full.add(replica)
            self._credits.look_again()
            self._say_full(replica, True)

    def emptied(self, replica: str) -> None:
        self._full.discard(replica)
        self._credits.look_again()
        self._say_full(replica, False)

    def _say_full(self, replica: str, is_full: bool) -> None:
        self._say("full", (replica, is_full))

    def close(self) -> None:
        self._closed = True
        for request in [*self._waiting, *self._ready, *self._early]:
            self.withdraw(request)
        self._end_if_idle()

    def _end(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.cancel()
        self._flush()
        if self._session is not None:
            self._session.leave()
            self._session = None

    def statistics(self) -> dict[str, Any]:
        return {id: place.requests for id, place in self._places.items()}

    # ---- what the queue tells; it is kept until the router asks

    def opened(self) -> None:
        pass  # it speaks first

    def came(self, data: bytes) -> None:
        said = to_router.decode(data)
        self._alone.heard_at = self._clock()
        if said.ask:
            with self._out_lock:
                self._out.alive = True
            self._turns.soon()
            said.ask = False
            if not said:
                return
        self._bring(said)

    def closed(self) -> None:
        self._connected, self._alone.is_lost = False, True
        self._bring(None)

    def _bring(self, said: ToRouter | None) -> None:
        if not self._closed:
            self._came.append(said)
            self._context.ready()

    def _take(self, said: ToRouter | None) -> None:
        if said is None:
            self._credits.stop()
            return
        if said.epoch:
            self._welcome(said)
        if said.shares is not None:
            self._alone.shares = said.shares
        for refusal in said.refused:
            if (request := self._by_id.pop(refusal.id, None)) is not None:
                del self._waiting[request]
                self._ready[request] = _refused(refusal)
        if said.grants:
            now = self._clock()
            for granted in said.grants:
                self._granted(granted, now)
        if said.credits is not None:
            self._say_credits(self._credits.hear(said.credits, self._clock()))
        if said.find:
            self._find(said.find)
        self._stops += said.stop
        if said.ended:
            ended = set(said.ended)
            for kept in (self._ready, self._early):
                for request, found in list(kept.items()):
                    if isinstance(found, Lease) and found.number in ended:
                        del kept[request]
                        self._ask_again(found)

    def _find(self, name: str) -> None:
        for request, wait in self._waiting.items():
            if getattr(request, "request_id", None) == name:
                self._say("found", (name, wait.id, 0))
        for number, lease in self._held.items():
            if getattr(lease.request, "request_id", None) == name:
                self._say("found", (name, 0, number))
        for lease in self._credits.running:
            if getattr(lease.request, "request_id", None) == name:
                self._say("found", (name, 0, lease.held.number))

    def _welcome(self, said: ToRouter) -> None:
        """A queue is there: it knows nothing of what was asked before."""
        self.epoch = said.epoch
        self._connected, self._alone.is_lost = True, False
        self._credits.begin(said.epoch)
        now = self._clock()
        with self._out_lock:
            self._out = ToQueue(held=list(self._held), full=[(each, True) for each in self._full])
        for request, wait in self._waiting.items():
            # None of them is too many, if they were taken by a queue before.
            wait.returns = wait.returns or self._was_connected
            self._acquire(request, wait, now)
        self._was_connected = True
        self._turns.soon()

    def _granted(self, granted: Granted, now: float) -> None:
        request = self._by_id.pop(granted.id, None)
        number, replica = granted.number, granted.replica
        if request is None:
            # It was withdrawn, or has gone elsewhere, meanwhile.
            self._say("release", Release(number))
            return
        wait = self._waiting.pop(request)
        lease = Lease(self, replica, number, granted.rank, granted.prompt, granted.output, request, wait, now)
        lease.prefill = granted.prefill
        self._held[number] = lease
        if (place := self._places.get(replica)) is not None:
            self._have(lease, place)
        else:
            self._early[request] = lease

    def _have(self, lease: Lease, place: Place) -> None:
        lease.place = place
        place.add(1, lease.prompt + lease.output)
        self._ready[lease.request] = lease

    def _ask_again(self, lease: Lease) -> None:
        """Its replica has gone, and it was not sent."""
        request, wait = lease.request, lease.wait
        self._give_back(lease)
        wait.returns = True
        self._waiting = {request: wait, **self._waiting}
        self._acquire(request, wait, self._clock())

    def _flush(self) -> None:
        session = self._session
        if session is None or not self._connected:
            return
        with self._out_lock:
            out, self._out = self._out, ToQueue()
            if out:
                out.epoch = self.epoch
                session.write(encode(out))

    # ---- without the queue

    def _is_alone(self, now: float) -> bool:
        # Mostly the queue is there and has just been heard.
        if self._connected and now - self._alone.heard_at <= self._config.silence_s:
            return False
        return self._alone.is_alone(self._connected, self._config.silence_s, now)

    def _own_lease(self, request: Request, wait: Wait, now: float) -> Lease | None:
        """A lease of this router's own, of the replica where it has least, within its share."""
        cost = wait.cost
        best = self._alone.choose(self._places, self._full, cost.tokens + (cost.max_tokens or 0))
        if best is None:
            return None
        number, tokens, output = self._alone.new_number(), cost.tokens, cost.max_tokens or 0
        lease = self._held[number] = Lease(self, best, number, 0, tokens, output, request, wait, now)
        place = lease.place = self._places[best]
        place.add(1, tokens + output)
        return lease

    def _watch(self) -> None:
        """Look whether the queue has gone silent while requests wait: nothing else would."""
        timer = self._watchdog = threading.Timer(LOOK_S, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        self._watchdog = None
        if self._waiting and not self._closed:
            self._watch()
            if self._is_alone(self._clock()):
                self._context.ready()


def _refused(refusal: Refusal) -> Refused:
    if refusal.limit >= 0:
        return QueueFull(refusal.queued, refusal.limit, refusal.retry_after_s or 1.0)
    return Refused(refusal.reason, refusal.retry_after_s, refusal.status, refusal.ticket)
