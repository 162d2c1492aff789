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
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..base.background import later
from ..base.news import DeploymentNews
from ..policies.policy import NOTHING, ONE_REQUEST, Cost, Grant, Policy, PolicyContext, QueueFull, Refused, Request
from .alone import Alone, Place
from .by_credit import ByCredit, LocalLease
from .config import DEFAULT, CapacityQueueConfig, cost_function
from .costs import PLAIN, cost_of, is_one
from .lease import Lease
from .messages import (
    Acquire,
    Alike,
    CreditsHeld,
    Granted,
    QueueCost,
    QueueUse,
    Refusal,
    Release,
    ToRouter,
    to_router,
)  # fmt: skip
from .outbox import Outbox
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
        # What is to be said.
        out = self._out = Outbox()
        self._say_plain, self._say_ended = out.plain.append, out.given_back.append
        self._untold = Untold()
        # What has come and was not looked at yet.
        self._came: deque[ToRouter | None] = deque()
        # Of the queue that was there last; 0: none ever was.
        self.epoch = 0
        self._alone = Alone(context.clock(), -random.SystemRandom().getrandbits(61))
        self._credits = ByCredit(self, self.router, self._open_place, partial(self._say, "learnt"))
        self._configured()
        self._watchdog: threading.Timer | None = None
        self._places: dict[str, Place] = {}
        self._full: set[str] = set()
        # Those that wait, in their order, and which is which for the queue.
        self._waiting: dict[Request, Lease] = {}
        self._by_id: dict[int, Lease] = {}
        # What became of them, until the router takes it; and grants of replicas that are not known here yet.
        self._ready: OrderedDict[Request, Lease | Refused] = OrderedDict()
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
                self._configured()
                self._cost = cost_function(self._config.cost)
            if queue.handle != self._queue:
                self._queue = queue.handle
                self._connect(queue.handle)
        for request, lease in list(self._early.items()):
            if (place := self._places.get(lease.replica)) is not None:
                del self._early[request]
                self._have(lease, place)
        self._credits.look_again()

    def _configured(self) -> None:
        self._bands = {}
        self._silence_s = self._config.silence_s
        # Whether requests that say nothing but that they are one have no deadline, and in which band they are.
        self._may_be_plain = self._config.deadline_s is None
        self._plain_band = self._config.bands[self._config.band("")].name
        self._credits.configure(self._config)

    def _open_place(self, replica: str) -> Place | None:
        """Of a replica that takes requests."""
        return None if replica in self._full else self._places.get(replica)

    def _connect(self, queue: Any) -> None:
        if self._session is not None:
            # It tells of its end no more.
            self._session.leave()
            self._alone.lost()
            self._credits.stop()
        self._alone.asks(self._clock())
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
        arrived = self._last_arrival + _TICK
        if now > arrived:
            arrived = now
        self._last_arrival = arrived
        if cost is PLAIN and self._may_be_plain and self._alone.is_near(self._silence_s, now):
            # As below, where most that is looked at there is known.
            self._last_id = id = self._last_id + 1
            lease = Lease(self, request, cost, self._plain_band, arrived, None, id)
            self._waiting[request] = self._by_id[id] = lease
            self._say_plain((id, now - arrived))
            self._turns.soon()
            if self._watchdog is None:
                self._watch()
            return None
        band = self._bands.get(cost.band)
        if band is None:
            band = self._band_of(cost)
        return self._ask(self._waits(request, cost, band, arrived), now)

    def _waits(self, request: Request, cost: QueueCost, band: str, arrived: float) -> Lease:
        wanted_s = cost.deadline_s if cost.deadline_s is not None else self._config.deadline_s
        return Lease(self, request, cost, band, arrived, None if wanted_s is None else arrived + wanted_s)

    def again(self, request: Request) -> Lease | LocalLease | None:
        lease, now = self._released, self._clock()
        self._released = None
        if lease is None or lease.request is not request:
            # A stream's grant comes back as its source ends, before whoever reads it knows why; others may have since.
            lease = getattr(request, "given", None)
            if not isinstance(lease, Lease | LocalLease) or lease.policy is not self or lease.request is not request:
                return self.submit(request)
        if isinstance(lease, LocalLease):
            if self._open_place(lease.replica) is not None:
                # It is fenced off there, or a later queue is there.
                self._credits.spoil(lease)
            asked = self._waits(request, lease.terms.cost, lease.terms.band, lease.arrived)
            asked.come_back()
            return self._ask(asked, now)
        if lease.number < 0 and lease.replica in self._places.keys() - self._full:
            # A replica knows of a later queue: that is heard of here soon.
            self._alone.stand_back(now + LOOK_S)
        return self._ask(lease.anew(), now)

    def _ask(self, lease: Lease, now: float) -> Lease | None:
        # Mostly the queue is there and has just been heard.
        if not self._alone.is_near(self._silence_s, now) and self._is_alone(now):
            if (not self._waiting or lease.returns) and self._give_itself(lease, now):
                return lease
            most = self._config.most(self._max_queued).requests
            if len(self._waiting) >= most and not lease.returns:
                raise QueueFull(len(self._waiting), most, 1.0).after(lease.waited_ms(now))
        if lease.returns:
            self._waiting = {lease.request: lease, **self._waiting}
        else:
            self._waiting[lease.request] = lease
        self._acquire(lease, now)
        if self._watchdog is None:
            self._watch()
        return None

    def _acquire(self, lease: Lease, now: float) -> None:
        if lease.id:
            self._by_id.pop(lease.id, None)
        self._last_id = id = self._last_id + 1
        lease.ask_as(id)
        self._by_id[id] = lease
        if not self._alone.is_connected:
            return
        cost, deadline = lease.cost, lease.deadline
        if cost is PLAIN and deadline is None and not lease.returns:
            self._say_plain((id, now - lease.arrived))
        else:
            acquire = Acquire(
                id, cost.requests, cost.tokens, cost.max_tokens, cost.model, cost.tenant, cost.user, lease.band,
                now - lease.arrived, None if deadline is None else deadline - now, cost.chain, lease.returns,
                cost.session, cost.adapter, cost.ticket,
            )  # fmt: skip
            self._out.say("acquire", acquire)
        self._turns.soon()

    def _say(self, what: str, value: Any) -> None:
        """Have it told at the end of this turn. While there is no queue nothing is: the next one is told all anew."""
        if self._alone.is_connected:
            self._out.say(what, value)
            self._turns.soon()

    def _say_given_back(self, number: int) -> None:
        if self._alone.is_connected:
            self._say_ended(number)
            self._turns.soon()

    def _band_of(self, cost: QueueCost) -> str:
        try:
            band = self._bands[cost.band] = self._config.bands[self._config.band(cost.band)].name
        except ValueError as error:
            raise Refused(str(error), None, 400) from None
        return band

    def withdraw(self, request: Request) -> None:
        lease = self._waiting.pop(request, None)
        if lease is not None:
            self._by_id.pop(lease.id, None)
            self._say("withdraw", lease.id)
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
                return lease.request, Refused(SHED, 1.0, 429, ticket).after(lease.queue_ms)
        if self._ready:
            return self._ready.popitem(last=False)
        now = self._clock()
        if self._waiting and self._is_alone(now):
            request, lease = next(iter(self._waiting.items()))
            if self._give_itself(lease, now):
                del self._waiting[request]
                self._by_id.pop(lease.id, None)
                return request, lease
        return None

    def release(self, grant: Grant, used: Cost | None) -> None:
        if type(grant) is LocalLease:
            credits = self._credits
            try:
                credits.running.remove(grant)
            except KeyError:
                return
            if credits.release(grant, used):
                self._say_credits(credits.held(self._clock()))
        elif type(grant) is Lease and self._held.get(grant.number) is grant:
            self._give_back(grant, used)
        else:
            return
        self._released = grant
        if self._closed:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closed and not self._held and not self._credits.running:
            self._end()

    def _say_credits(self, held: CreditsHeld) -> None:
        if self._alone.is_connected:
            self._out.say_credits(held)
            self._turns.soon()

    def _give_back(self, lease: Lease, used: Cost | None = NOTHING) -> None:
        number = lease.number
        del self._held[number]
        if (place := lease.place) is not None:
            place.add(-1, -lease.prompt - lease.output)
        if (used is None or used is NOTHING) and not lease.generated:
            if self._alone.is_connected:
                self._say_ended(number)
                self._turns.soon()
            return
        # Who tells that some has come looks first whether it is held still, so nothing of it is told behind this.
        with self._out.lock:
            self._untold.ended(number)
        if isinstance(used, QueueUse):
            release = Release(number, used.tokens, used.cached, used.is_whole)
        elif used is not None and used is not NOTHING and used.tokens:
            release = Release(number, used.tokens)
        elif lease.generated:
            release = Release(number, lease.generated)
        else:
            self._say_given_back(number)
            return
        self._say("release", release)

    def progress(self, lease: Lease, generated: int) -> None:
        """From the thread that has the request; it need not hold the router's lock."""
        before = lease.grow(generated)
        number, now = lease.number, self._clock()
        with self._out.lock:
            if self._held.get(number) is not lease:
                return  # another thread has given it back
            if not before and self._alone.is_connected:
                # Its prompt is read: that makes room for others.
                self._out.say_progress([(number, generated)])
            elif self._untold.came(number, generated, generated - before, now) and self._alone.is_connected:
                self._out.say_progress(self._untold.take(now))
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
        self._alone.hear(self._clock())
        if said.take_question():
            self._out.say_alive()
            self._turns.soon()
            if not said:
                return
        self._bring(said)

    def closed(self) -> None:
        self._alone.lost()
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
            self._alone.share(said.shares)
        now = self._clock()
        for refusal in said.refused:
            if (lease := self._by_id.pop(refusal.id, None)) is not None:
                del self._waiting[lease.request]
                self._ready[lease.request] = _refused(refusal, lease.waited_ms(now))
        if said.grants or said.alike:
            for granted in said.grants:
                self._granted(granted, now)
            for places in said.alike:
                self._granted_alike(places, now)
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
        for request, lease in self._waiting.items():
            if getattr(request, "request_id", None) == name:
                self._say("found", (name, lease.id, 0))
        for number, lease in self._held.items():
            if getattr(lease.request, "request_id", None) == name:
                self._say("found", (name, 0, number))
        for lease in self._credits.running:
            if getattr(lease.request, "request_id", None) == name:
                self._say("found", (name, 0, lease.held.number))

    def _welcome(self, said: ToRouter) -> None:
        """A queue is there: it knows nothing of what was asked before."""
        was_there, self.epoch = self.epoch > 0, said.epoch
        self._credits.begin(said.epoch)
        now = self._clock()
        # Before that other threads send nothing, and after it nothing of theirs is dropped.
        self._out.begin(list(self._held), list(self._full))
        self._alone.found()
        for lease in self._waiting.values():
            if was_there:
                # None of them is too many, as a queue has taken them before.
                lease.come_back()
            self._acquire(lease, now)
        self._turns.soon()

    def _granted(self, granted: Granted, now: float) -> None:
        lease = self._by_id.pop(granted.id, None)
        if lease is None:
            # It was withdrawn, or has gone elsewhere, meanwhile.
            self._say_given_back(granted.number)
            return
        del self._waiting[lease.request]
        number, replica = granted.number, granted.replica
        place = self._places.get(replica)
        lease.give(replica, number, granted.rank, granted.prompt, granted.output, place, now, granted.prefill)
        self._held[number] = lease
        if place is None:
            self._early[lease.request] = lease
        else:
            self._have(lease, place)

    def _granted_alike(self, places: Alike, now: float) -> None:
        waiting, by_id, held = self._waiting, self._by_id, self._held
        prompt, output, first = places.prompt, places.output, places.first
        for replica, rank, ids in places.lines:
            place = self._places.get(replica)
            ready = self._early if place is None else self._ready
            count = 0
            for number, id in enumerate(ids, first):
                lease = by_id.pop(id, None)
                if lease is None:
                    self._say_given_back(number)
                    continue
                count += 1
                request = lease.request
                del waiting[request]
                lease.give(replica, number, rank, prompt, output, place, now)
                held[number] = ready[request] = lease
            if place is not None:
                place.add(count, count * (prompt + output))
            first += len(ids)

    def _have(self, lease: Lease, place: Place) -> None:
        lease.count_at(place)
        place.add(1, lease.prompt + lease.output)
        self._ready[lease.request] = lease

    def _ask_again(self, lease: Lease) -> None:
        """Its replica has gone, and it was not sent."""
        self._give_back(lease)
        again = lease.anew()
        self._waiting = {again.request: again, **self._waiting}
        self._acquire(again, self._clock())

    def _flush(self) -> None:
        session = self._session
        if session is None or not self._alone.is_connected:
            return
        self._out.send(self.epoch, session.write)

    # ---- without the queue

    def _is_alone(self, now: float) -> bool:
        return self._alone.is_alone(self._silence_s, now)

    def _give_itself(self, lease: Lease, now: float) -> bool:
        """Give a request a lease of this router's own, of the replica where it has least, within its share."""
        cost = lease.cost
        tokens, output = cost.tokens, cost.max_tokens or 0
        best = self._alone.choose(self._places, self._full, tokens + output)
        if best is None:
            return False
        place = self._places[best]
        lease.give(best, self._alone.new_number(), 0, tokens, output, place, now)
        self._held[lease.number] = lease
        place.add(1, tokens + output)
        return True

    def _watch(self) -> None:
        """Look whether the queue has gone silent while requests wait: nothing else would."""
        self._watchdog = later(LOOK_S, self._look)

    def _look(self) -> None:
        self._watchdog = None
        if self._waiting and not self._closed:
            self._watch()
            if self._is_alone(self._clock()):
                self._context.ready()


def _refused(refusal: Refusal, queue_ms: int) -> Refused:
    if refusal.limit >= 0:
        return QueueFull(refusal.queued, refusal.limit, refusal.retry_after_s or 1.0).after(queue_ms)
    return Refused(refusal.reason, refusal.retry_after_s, refusal.status, refusal.ticket).after(queue_ms)
