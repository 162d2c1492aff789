"""The capacity queue with its routers and replicas: what they say goes in, what they are told comes out.

Pure: time and chance are arguments. `queue.py` of ../capacity decides who may run where; this knows who asked, which
leases their routers and replicas still have, and what is believed after a restart or a death.

A lease ends when its router gives it back, when its replica says that it ended or has gone itself, or, where its router
has gone, once its replica has said that it neither runs it nor will. Age alone ends none.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from ..capacity.ask import FAILED, NO_REPLICA, TOO_MANY, Ask, failure
from ..capacity.ask import Refusal as Refused
from ..capacity.credit_messages import Room
from ..capacity.credits import NOBODY, CreditSize
from ..capacity.drain import RetryAfter
from ..capacity.engine_load import NOTHING, Beside, EngineLoad
from ..capacity.fair_order import OUTPUT_WEIGHT
from ..capacity.ledger import Lease, Line
from ..capacity.need import Limits, LineFacts, LineId
from ..capacity.output_lengths import OutputLengths
from ..capacity.queue import CapacityQueue, QueueLimits, TenantLimits
from ..capacity.tickets import First, Tickets
from ..capacity.unit import TOKENS
from .config import CapacityQueueConfig
from .fences import Fences
from .hub_credits import HubCredits
from .looks import Look, Looks
from .messages import (
    Acquire,
    Alike,
    Granted,
    Offer,
    Refusal,
    Release,
    Report,
    Share,
    Snapshot,
    Tag,
    ToQueue,
    ToRouter,
    incarnation_of,
    plain_acquire,
)  # fmt: skip
from .offers import PER_REQUEST, REQUESTS, Replica, context_of, counts_requests, offer_of
from .read_rates import LEAST_READ, ReadRates
from .readers import Readers
from .shown import lines_shown, runs, tenants_shown, waits

logger = logging.getLogger("actorrt.serve")

# After a restart, what a replica is good for that has not said yet what it runs.
FLOOR: Final = 1
# Of those that wait, so many are looked at now and then, however little has changed.
MANY_PASSES: Final = 512
# A router that nothing was said to, or heard of, is asked so many times before its leases end, or it does without.
ASKS: Final = 5
# Of the prompts that may wait at a line, so much may be those that came by credits.
UNREAD_PART: Final = 0.25
# Leases that have ended and whose use is not known yet.
MOST_ENDED: Final = 4096
# A turn of a session waits so long for credits to come back that lie idle in its place: a few round trips.
TURN_WAITS_S: Final = 0.1


_line_of: Callable[[Lease], Line] = attrgetter("line")


class _Asked(Ask):
    """`id` is the router's. `goes_at`: when it goes elsewhere than where its session ran last, if that is set."""

    __slots__ = ("goes_at", "id", "returns")

    id: int
    returns: bool
    goes_at: float | None

    def of_router(self, id: int, returns: bool) -> None:
        self.id, self.returns, self.goes_at = id, returns, None

    def go_elsewhere(self, at: float) -> float:
        """From then on, unless that was set before. From when on."""
        if self.goes_at is None:
            self.goes_at = at
        return self.goes_at


class _Ended:
    """A lease that has ended before its use was known: how long its answer was by the last word, and whether that said
    what the engine had of its prompt.
    """

    __slots__ = ("ask", "generated", "is_corrected", "line")

    def __init__(self, lease: Lease, ask: Ask, is_corrected: bool) -> None:
        self.ask, self.line, self.generated, self.is_corrected = ask, lease.line.id, lease.generated, is_corrected

    def grow(self, tokens: int) -> None:
        """Its answer was so much longer."""
        self.generated += tokens

    def correct(self) -> bool:
        """What the engine had of its prompt is said now. False: it was said before."""
        was_corrected, self.is_corrected = self.is_corrected, True
        return not was_corrected


class _Router:
    __slots__ = ("asked", "full", "heard_at", "spoke_at", "told")

    def __init__(self, now: float, epoch: int) -> None:
        # Those that wait, by its ids.
        self.asked: dict[int, _Asked] = {}
        # Replicas that are full for it.
        self.full: set[str] = set()
        self.heard_at = self.spoke_at = now
        self.told = ToRouter(epoch=epoch)

    def hear(self, now: float) -> None:
        self.heard_at = now

    def ask(self, now: float) -> None:
        """Whether it is there; it knows by this that there is a queue."""
        self.spoke_at = now
        self.told.question()

    def tell(self, now: float) -> ToRouter:
        """What it is to be told, which it has been from now on."""
        self.spoke_at = now
        told, self.told = self.told, ToRouter()
        return told


class Hub:
    def __init__(
        self,
        epoch: int,
        now: float,
        chance: Callable[[], float],
        config: CapacityQueueConfig,
        *,
        key: bytes = bytes(32),
    ) -> None:
        """Replicas may run what an earlier queue let them: until one has said what it runs, it counts as full but for a
        small floor. `key`: random bytes that nobody else has; who knows it can make tickets.
        """
        self.epoch = epoch
        self.config = config
        self._chance = chance
        self._now = now
        self._max_ongoing = 1
        self._max_queued = -1
        self.queue = CapacityQueue(
            epoch,
            now,
            bands=config.bands,
            limits=config.limits(),
            most=config.most(-1),
            tenants=self._limits_of,
            lengths=OutputLengths(config.output_quantile),
            sheds=config.sheds,
            reads_elsewhere=config.prefill is not None,
        )
        # Parts of the queue that are looked at from here.
        self._ledger, self._order, self._tenants = self.queue.ledger, self.queue.order, self.queue.tenants
        self._leases, self._lines, self._prefill = self._ledger.leases, self._ledger.lines, self.queue.prefill
        self._lengths, self._prefixes, self._bands = self.queue.lengths, self.queue.prefixes, self._order.numbers
        # Those that read prompts for the others, where they are apart.
        self._readers = None if self._prefill is None else Readers(self.queue, self._prefill)
        self._tickets = Tickets(key)
        self._replicas: dict[str, Replica] = {}
        # What engines have beside the ledger, where they say what they have: the one that was heard last at the end.
        self._beside: OrderedDict[LineId, Beside] = OrderedDict()
        self._routers: dict[str, _Router] = {}
        # Those that came while there was no replica, or whose place lies in credits, in their order.
        self._parked: dict[_Asked, None] = {}
        # Leases that ended a while ago: what each has used may be known only now.
        self._ended: OrderedDict[int, _Ended] = OrderedDict()
        self._rates = ReadRates()
        # What each router may have at each replica without the queue, as all were told last; None: that is another now.
        self._shares: dict[str, Share] | None = {}
        # Whether needs are in requests, as it is with the replicas that are known.
        self._in_requests_now = config.units != "tokens"
        self._full: dict[str, int] = {}
        self._credits = HubCredits(self.queue)
        # Leases that routers had in hand when they left, by the replica that may still be sent the request.
        self._in_hand: dict[int, str] = {}
        self._fences = Fences()
        # Whether what a credit holds is to be looked at.
        self._credits_changed = True
        self._looks = Looks()
        # Requests that were admitted since the beginning.
        self.granted = 0
        self.refused = 0
        self._count_in(self._in_requests_now)

    def _limits_of(self, tenant: str) -> TenantLimits:
        limits = self.config.tenant(tenant)
        return limits.times(PER_REQUEST) if self._in_requests_now else limits

    def _count_in(self, in_requests: bool) -> None:
        """What has a size, and what may be had, is in requests or in tokens from now on."""
        self._in_requests_now = in_requests
        self.queue.count_in(REQUESTS if in_requests else TOKENS)
        self._set_most()
        for tenant in list(self._tenants.known):
            self.queue.limits_changed(tenant)

    def _set_most(self) -> None:
        most = self.config.most(self._max_queued)
        if self._in_requests_now:
            most = QueueLimits(most.tokens * PER_REQUEST, most.requests)
        self.queue.set_most(most)

    def begin_epoch(self, epoch: int) -> None:
        """A later queue than this was there once: this one comes after it."""
        self.epoch = epoch
        self._ledger.begin_epoch(epoch)
        for name in list(self._routers):
            self.join(name, self._now)

    def _changed(self) -> None:
        """What there is, or who shares it, is another than before."""
        self._shares, self._credits_changed = None, True

    # ---- the deployment

    def update(
        self, config: CapacityQueueConfig, max_ongoing: int, max_queued: int, replicas: Iterable[str], now: float
    ) -> None:
        """These replicas serve by these settings; all others have gone, or take no requests any more. Other bands than
        it began with count only for a later queue.
        """
        before, self.config = self.config, config
        changed = (max_ongoing, max_queued) != (self._max_ongoing, self._max_queued) or before != config
        self._max_ongoing, self._max_queued = max_ongoing, max_queued
        self._set_most()
        wanted = dict.fromkeys(replicas)
        for id in [id for id in self._replicas if id not in wanted]:
            self._drop(id)
        if before != config:
            for tenant in {*before.tenants, *config.tenants}:
                self.queue.limits_changed(tenant)
        for id in wanted:
            is_new = id not in self._replicas
            if is_new:
                self._replicas[id] = Replica(now)
            if is_new or changed:
                self._set_lines(id, now)
        self._unpark(now)
        self._place(now)

    def update_readers(self, max_ongoing: int, replicas: Iterable[str], now: float) -> None:
        """These replicas of another deployment read prompts for this one's."""
        if self._readers is not None:
            self._lost_reads(self._readers.update(self.config, max_ongoing, replicas, now))
            self._unpark(now)
            self._place(now)

    def _lost_reads(self, numbers: Iterable[int]) -> None:
        """Nobody reads the prompts of these leases: who was not sent yet asks again, the others fail and do so."""
        for number in numbers:
            lease = self._leases.get(number)
            if lease is not None and (router := self._routers.get(lease.router)) is not None:
                router.told.ended.append(number)

    def drop_replica(self, id: str, now: float) -> None:
        """It has gone, with all that it ran."""
        if self._readers is not None and id in self._readers:
            self._lost_reads(self._readers.drop(id))
        self._drop(id)
        self._place(now)

    def _drop(self, id: str) -> None:
        replica = self._replicas.pop(id, None)
        if replica is None:
            return
        for line in replica.lines:
            self._drop_line(line)
        for router in self._routers.values():
            router.full.discard(id)
        self._full.pop(id, None)
        self._changed()

    def _drop_line(self, line: LineId) -> None:
        found = self._lines.get(line)
        there = {} if found is None else found.leases
        leases = {number: lease.router for number, lease in there.items() if lease.router != NOBODY}
        self.queue.drop_line(line)
        self._rates.forget(line)
        self._beside.pop(line, None)
        for number, name in leases.items():
            if (router := self._routers.get(name)) is not None:
                router.told.ended.append(number)

    def _set_lines(self, id: str, now: float) -> None:
        """Offer what a replica is known to hold."""
        replica = self._replicas[id]
        offer = self._offer(replica)
        silent = not replica.said and now - replica.since < self.config.grace_s
        in_requests = self._counts_requests
        if in_requests != self._in_requests_now:
            self._count_in(in_requests)
        self._ledger.set_limits(Limits(1.0) if in_requests else self.config.limits())
        wanted: list[LineId] = []
        if offer is not None:
            slots = FLOOR if silent else offer.slots
            for rank in range(offer.ranks):
                line = LineId(id, rank)
                wanted.append(line)
                rate = self._rates.of(line) or offer.prefill_rate or self.config.prefill_rate
                self.queue.set_line(line, LineFacts(offer.kv_tokens, slots, rate), incarnation_of(id))
                if self._prefill is not None and replica.said:
                    self._prefill.answers_in(line, offer.revision)
                if self._full.get(id):
                    self.queue.open_line(line, False)
        for line in replica.lines:
            if line not in wanted:
                self._drop_line(line)
        replica.serve(wanted)
        self._changed()

    def _set_context(self) -> None:
        kinds = () if self._readers is None else (self._readers.replicas,)
        self.queue.set_context(context_of(self._replicas.values(), *kinds))

    def _offer(self, replica: Replica) -> Offer | None:
        return offer_of(replica, self._replicas.values(), self.config, self._max_ongoing)

    @property
    def _counts_requests(self) -> bool:
        return counts_requests(self.config, self._replicas.values())

    # ---- replicas

    def replica_said(self, id: str, said: Snapshot, now: float) -> None:
        """What a replica runs, as it begins to report. All older leases are void there from now on."""
        if self._readers is not None and id in self._readers:
            self._readers.said(id, said, self.config)
            self._set_context()
            self._unpark(now)
            self._place(now)
            return
        replica = self._replicas.get(id)
        if replica is None:
            return
        replica.hear(said.offer)
        self._set_context()
        self._set_lines(id, now)
        for other, each in self._replicas.items():
            # What one offers tells of those that are silent still.
            if not each.said:
                self._set_lines(other, now)
        runs = {tag.number for tag in said.running}
        for tag in said.running:
            self._adopt(id, tag)
        self._credits.replica_said(id, replica.lines, said.credits)
        # What it was told to run and does not may still be on its way, if this queue has given it.
        for line in replica.lines:
            found = self._lines.get(line)
            for number, lease in [] if found is None else list(found.leases.items()):
                if lease.has_begun and number not in runs:
                    self._end(number)
        self._unpark(now)
        self._place(now)

    def replica_reports(self, id: str, said: Report, now: float) -> None:
        if self._readers is not None and id not in self._replicas:
            # One that is no more among those that read is not to end what others answer.
            if id in self._readers:
                self._readers.reports(said, now)
                self._place(now)
            return
        for tag in said.unknown:
            self._adopt(id, tag)
        leases = self._leases
        for number in said.begun:
            if (lease := leases.get(number)) is not None:
                lease.begin()
        for number in said.ended:
            self._end(number)
        if said.rooms:
            self._credits.fenced(said.rooms)
        self._place(now)

    def to_fence(self, now: float) -> dict[str, list[int]]:
        """By replica, the leases and credits of routers that are silent or have left, which it is to fence off, and to
        say what runs by them; each replica one time after the other.
        """
        leases = self._leases
        for number in list(self._in_hand):
            if (lease := leases.get(number)) is None or lease.has_begun:
                del self._in_hand[number]
        return self._fences.due(self._credits.unanswered(now) | self._in_hand, now)

    def fence_ended(self, id: str) -> None:
        """A replica that was to fence some off has answered, or could not be asked."""
        self._fences.ended(id)

    def replica_fenced(self, rooms: Iterable[tuple[int, int, int]], now: float) -> None:
        """What runs by leases and credits that a replica was told to fence off: number, tokens, slots."""
        credits: list[tuple[int, int, int]] = []
        for number, tokens, slots in rooms:
            lease = self._leases.get(number)
            if lease is None or lease.router == NOBODY:
                credits.append((number, tokens, slots))
            elif slots:
                lease.begin()
            else:
                # Should its router be back with it, the replica refuses it and it is asked for again.
                self._end(number)
        self._credits.fenced(credits)
        self._place(now)

    def _adopt(self, id: str, tag: Tag) -> None:
        line = LineId(id, tag.rank)
        ask = Ask(
            tag.model, tag.prompt, tag.output, tenant=tag.tenant, user=tag.user, router=tag.router,
            band=self._order.number_of(tag.band),
        )  # fmt: skip
        self.queue.adopt(line, tag.number, ask, 0, 0)
        if (lease := self._leases.get(tag.number)) is not None:
            lease.begin()

    def _end(
        self, number: int, generated: int | None = None, cached: int | None = None, is_whole: bool = False
    ) -> None:
        lease = self._leases.get(number)
        if lease is None:
            return
        self.queue.release(number, generated, cached, is_whole)
        if not is_whole:
            self._note_ended(lease, cached is not None)

    def _given_back(self, numbers: list[int]) -> None:
        """Leases that have ended, of which no more is to be said."""
        queue = self.queue
        if queue.sheds or queue.prefill is not None:
            for number in numbers:
                try:
                    self._end(number)
                except Exception as error:
                    self._failed_at(number, error)
            return
        for lease in queue.release_all(numbers):
            self._note_ended(lease)

    def _note_ended(self, lease: Lease, is_corrected: bool = False) -> None:
        # Where requests are counted, nothing is said of most of them but that they have ended.
        if (lease.generated or not self._in_requests_now) and isinstance(lease.ask, _Asked):
            self._ended[lease.number] = _Ended(lease, lease.ask, is_corrected)
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def _settle(self, used: Release) -> None:
        """What a lease has used that had ended before that was known. The last word counts; of an answer that ended by
        itself there is none after it.
        """
        found = self._ended.get(used.number)
        if found is None:
            return
        if used.is_whole:
            del self._ended[used.number]
        ask, more = found.ask, (used.generated or 0) - found.generated
        if more > 0:
            found.grow(more)
            self._order.charge(ask.served_in, ask.tenant, ask.user, OUTPUT_WEIGHT * more)
        if used.is_whole:
            self._lengths.learn(ask.model, ask.tenant, ask.prompt, found.generated)
        if used.cached is not None and found.correct() and self._readers is None and found.line in self._lines:
            self._prefixes.correct(found.line, ask.cached, used.cached)

    def engine_says(self, id: str, load: EngineLoad, now: float) -> None:
        """What a replica's engine says that it has. Of one with several ranks it is not known which has it."""
        replica = self._replicas.get(id)
        if replica is None or not replica.said or len(replica.lines) != 1:
            return
        line = self._lines[replica.lines[0]]
        if self._in_requests_now:
            load = load._replace(kv_tokens=None)
        idle = self._credits.idle(line)
        beside = self._beside.setdefault(line.id, Beside())
        self._beside.move_to_end(line.id)
        self._set_others(line, beside.hear(load, Room(line.used - idle.tokens, line.running - idle.slots), now))
        self._place(now)

    def _set_others(self, line: Line, others: Room) -> None:
        if line.others != others:
            self.queue.set_others(line.id, others)

    # ---- routers

    def join(self, name: str, now: float) -> None:
        """A router is there, or is back: what it asked for before is void."""
        before = self._routers.get(name)
        if before is not None:
            self._forget_asked(before, now)
        self._routers[name] = _Router(now, self.epoch)
        self._credits.joined(name, now)
        self._changed()

    def leave(self, name: str, now: float) -> None:
        """A router has ended, or its stream has. What it sent to replicas ends there; what it had in hand stands until
        they have said that they do not run it, or the router is back and says what it has.
        """
        router = self._routers.pop(name, None)
        if router is None:
            return
        self._credits.left(name)
        self._forget_asked(router, now)
        for lease in self._ledger.of_router(name):
            if not lease.has_begun:
                self._in_hand[lease.number] = lease.line.id.replica
        self._changed()
        self._place(now)

    def _holds(self, name: str, held: Collection[int]) -> None:
        """A router is back, and has no others than these in hand."""
        for lease in list(self._ledger.of_router(name)):
            self._in_hand.pop(lease.number, None)
            if not lease.has_begun and lease.number not in held:
                self._end(lease.number)

    def _forget_asked(self, router: _Router, now: float) -> None:
        for ask in router.asked.values():
            self._parked.pop(ask, None)
            self.queue.withdraw(ask)
        router.asked.clear()
        for id in list(router.full):
            self._set_full(router, id, False)

    def take(self, name: str, batch: ToQueue, now: float) -> None:
        """What a router says."""
        router = self._routers.get(name)
        # What was said to another queue is said anew, once this one is known.
        if router is None or batch.epoch != self.epoch:
            return
        router.hear(now)
        if batch.held is not None:
            self._holds(name, set(batch.held))
        for id, is_full in batch.full:
            self._set_full(router, id, is_full)
        for called, id, number in batch.found:
            sentence = self._why(router, id, number, now) if called in self._looks else ""
            self._looks.hear(called, name, id, number, sentence)
        for number, generated in batch.progress:
            try:
                self._progress(number, generated, now)
            except Exception as error:
                self._failed_at(number, error)
        for each in batch.release:
            try:
                if each.number in self._leases:
                    self._end(each.number, each.generated, each.cached, each.is_whole)
                else:
                    # Its replica's word was here before.
                    self._settle(each)
            except Exception as error:
                self._failed_at(each.number, error)
        if batch.given_back:
            self._given_back(batch.given_back)
        for each in batch.settle:
            try:
                self._settle(each)
            except Exception as error:
                self._failed_at(each.number, error)
        if batch.credits is not None:
            self._credits.take(name, batch.credits, now)
            self._unpark(now)
        if batch.learnt:
            self._credits.learn(batch.learnt)
        if batch.acquire or batch.plain:
            self._credits.asked(name)
        for each in batch.acquire:
            try:
                self._acquire(name, router, each, now)
            except Exception as error:
                self._fail(router, each.id, each.tenant, error)
        if batch.plain:
            self._acquire_plain(name, router, batch.plain, now)
        for id in batch.withdraw:
            if (ask := router.asked.pop(id, None)) is not None and ask not in self._parked:
                self.queue.withdraw(ask)
            elif ask is not None:
                del self._parked[ask]
        self._place(now)

    def _failed_at(self, number: int, error: Exception) -> None:
        """At what was said of a lease, and of nothing else."""
        logger.error("the capacity queue failed at what a router says of lease %d", number, exc_info=error)

    def _acquire(self, name: str, router: _Router, asked: Acquire, now: float) -> None:
        if asked.id in router.asked:
            return
        ask = self._ask_of(name, asked, now)
        if not self._lines:
            self._park(router, ask)
            return
        self._submit(router, ask, now)

    def _park(self, router: _Router, ask: _Asked, *, waited: bool = False) -> None:
        """Have it wait for a replica, unless too much does."""
        waiting = len(self._parked) + len(self._order)
        if waiting >= self.queue.most.requests and not (ask.returns or waited):
            self._refuse(router, ask, Refused(TOO_MANY, f"{waiting} requests wait", RetryAfter(1.0)))
        else:
            router.asked[ask.id] = ask
            self._parked[ask] = None

    def _acquire_plain(self, name: str, router: _Router, plain: list[tuple[int, float]], now: float) -> None:
        """The same for requests that are alike: what is so for all of them is looked at once."""
        band, given = self.config.default_band, 0
        if not router.asked and self._lines:
            try:
                ask = self._ask_of(name, plain_acquire(*plain[0], band), now)
                leases = self.queue.submit_alike(ask, len(plain), now, self._chance())
            except Exception as error:
                for id, _ in plain:
                    self._fail(router, id, "", error)
                return
            given = len(leases)
            self.granted += given
            if leases:
                ids, at = [id for id, _ in plain], 0
                lines: list[tuple[str, int, list[int]]] = []
                for line, here in groupby(leases, _line_of):
                    end = at + len(list(here))
                    lines.append((line.id.replica, line.id.rank, ids[at:end]))
                    at = end
                router.told.alike.append(Alike(leases[0].number, ask.prompt, ask.output, lines))
        for id, age_s in plain[given:]:
            try:
                self._acquire(name, router, plain_acquire(id, age_s, band), now)
            except Exception as error:
                self._fail(router, id, "", error)

    def _ask_of(self, name: str, asked: Acquire, now: float) -> _Asked:
        in_requests, first = self._in_requests_now, None
        if asked.ticket:
            first = self._tickets.first(asked.ticket, asked.tenant, now, again=asked.returns)
        # By place: by name they would cost three times as much.
        ask = _Asked(
            asked.model,
            asked.requests if in_requests else asked.prompt,
            asked.requests if in_requests else asked.max_tokens,
            asked.tenant,
            asked.user,
            self._bands.get(asked.band, self.queue.last_band),
            now - asked.age_s if first is None else first.arrived,
            math.inf if asked.left_s is None else now + asked.left_s,
            name,
            None if first is None else first.place,
            asked.chain,
            # Other tenants may call theirs the same.
            f"{asked.tenant}\n{asked.session}" if asked.session else "",
            asked.adapter,
            self.config.load_tokens if asked.adapter else 0,
        )
        ask.of_router(asked.id, asked.returns)
        return ask

    def _submit(self, router: _Router, ask: _Asked, now: float, *, waited: bool = False) -> None:
        if ask.session and self._waits_for_credits(ask, now):
            router.asked[ask.id] = ask
            self._parked[ask] = None
            return
        try:
            lease = self.queue.submit(ask, now, self._chance(), ask.returns, waited)
        except Refused as refusal:
            router.asked.pop(ask.id, None)
            if refusal.status == NO_REPLICA:
                self._park(router, ask, waited=waited)
            else:
                self._refuse(router, ask, refusal)
            return
        if lease is None:
            router.asked[ask.id] = ask
        else:
            self._grant(router, ask, lease, now)

    def _waits_for_credits(self, ask: _Asked, now: float) -> bool:
        """Whether a turn of a session is to wait until credits have come back that lie idle where it ran last."""
        line = self.queue.missed_line(ask, now)
        if line is None:
            return False
        return now < ask.go_elsewhere(now + TURN_WAITS_S) and self._credits.make_room(
            line, ask.tokens, self.queue.share_of(ask, now), now
        )

    def _unpark(self, now: float) -> None:
        if not self._parked or not self.queue.longest:
            return
        # One that was here before the last line went, and did not start there, was first.
        parked, self._parked = sorted(self._parked, key=lambda ask: ask.arrived), {}
        for ask in parked:
            if (router := self._routers.get(ask.router)) is not None:
                try:
                    # One that waits for credits was looked at by nobody yet.
                    self._submit(router, ask, now, waited=ask.goes_at is None)
                except Exception as error:
                    self._fail(router, ask.id, ask.tenant, error)

    def _grant(self, router: _Router, ask: _Asked, lease: Lease, now: float) -> None:
        if router.asked:
            router.asked.pop(ask.id, None)
        if lease.unread >= LEAST_READ:
            lease.reads_from(now)
        self.granted += 1
        replica, rank = lease.line.id
        granted = Granted(ask.id, lease.number, replica, rank, ask.prompt, lease.output)
        router.told.grants.append(granted if self._readers is None else self._readers.granted(granted, now))

    def _fail(self, router: _Router, id: int, tenant: str, error: Exception) -> None:
        """The queue has failed at one request of a router: that one alone is refused, and forgotten."""
        if (ask := router.asked.pop(id, None)) is not None:
            self._parked.pop(ask, None)
            self.queue.withdraw(ask)
        self._tenants.forget_if_idle(tenant)
        refusal = failure(error)
        self._count(refusal)
        router.told.refused.append(Refusal(id, refusal.status, refusal.reason, None))

    def _count(self, refusal: Refused) -> None:
        self.refused += 1
        if refusal.status == FAILED:
            logger.error("%s", refusal.reason, exc_info=refusal.__cause__)

    def _refuse(self, router: _Router, ask: _Asked, refusal: Refused) -> None:
        router.asked.pop(ask.id, None)
        self._count(refusal)
        again = refusal.retry_after
        ticket = ""
        if refusal.status == TOO_MANY:
            ticket = self._tickets.issue(ask.tenant, First(ask.arrived, ask.place), self._now)
        waiting = len(self._order) + len(self._parked)
        is_full = refusal.status == TOO_MANY and 0 <= self._max_queued <= waiting
        numbers = (waiting, self._max_queued) if is_full else ()
        said = Refusal(
            ask.id, refusal.status, refusal.reason, None if again is None else again.seconds, *numbers, ticket=ticket
        )
        router.told.refused.append(said)

    def _set_full(self, router: _Router, id: str, is_full: bool) -> None:
        replica = self._replicas.get(id)
        if replica is None or (id in router.full) == is_full:
            return
        (router.full.add if is_full else router.full.discard)(id)
        before = self._full.get(id, 0)
        self._full[id] = before + (1 if is_full else -1)
        if bool(before) != bool(self._full[id]):
            for line in replica.lines:
                self.queue.open_line(line, not is_full)

    def _progress(self, number: int, generated: int, now: float) -> None:
        lease = self._leases.get(number)
        if lease is not None:
            self._rates.came(lease, now)
        if self._readers is not None:
            self._readers.came(number, now)
        self.queue.progress(number, generated)

    # ---- time

    def tick(self, now: float) -> list[str]:
        """Called a few times a second: who is silent has gone, who has waited long enough goes up or is refused.

        The routers that have gone.
        """
        gone: list[str] = []
        ask_s = min(self.config.lease_ttl_s, self.config.silence_s) / ASKS
        for id, replica in self._replicas.items():
            if not replica.said and now - replica.since >= self.config.grace_s:
                self._set_lines(id, now)
        for name, router in list(self._routers.items()):
            if now - router.heard_at > self.config.lease_ttl_s:
                gone.append(name)
                self.leave(name, now)
            elif now - min(router.spoke_at, router.heard_at) > ask_s:
                router.ask(now)
        for line, rate in self._rates.take_changed():
            found = self._lines.get(line)
            if found is not None and (replica := self._replicas.get(line.replica)) is not None:
                offer = self._offer(replica)
                if (
                    offer is not None
                    and abs(found.most_backlog - rate * self.config.backlog_s) > 0.1 * found.most_backlog
                ):
                    self._set_lines(line.replica, now)
        if self._readers is not None:
            self._readers.tick(self.config)
        while self._beside and next(iter(self._beside.values())).is_stale(now):
            id, _ = self._beside.popitem(last=False)
            self._set_others(self._lines[id], NOTHING)
        for ask in [each for each in self._parked if each.deadline <= now]:
            del self._parked[ask]
            if (router := self._routers.get(ask.router)) is not None:
                self._refuse(router, ask, Refused(TOO_MANY, "it had no place by its deadline", RetryAfter(1.0)))
        self._unpark(now)
        self._place(now, MANY_PASSES)
        if self._credits_changed:
            self._credits_changed = False
            self._credits.resize(self._credit_size(), self._in_requests_now)
        self._credits.tick(now, self._chance())
        return gone

    def _credit_size(self) -> CreditSize | None:
        """What a router may have at one line; None: too little."""
        said = [replica.lines for replica in self._replicas.values() if replica.said]
        lines = [self._lines[line] for each in said for line in each]
        part = self.config.credits(in_requests=self._in_requests_now) / max(1, len(self._routers))
        slots = int(min((line.slots for line in lines), default=0) * part)
        if not slots or self.config.sheds or self._readers is not None:
            # What may be stopped one by one has to be known one by one; and two lines are the queue's to give.
            return None
        if self._in_requests_now:
            return CreditSize(PER_REQUEST * slots, slots)
        tokens = int(min(line.fill_tokens for line in lines) * part)
        unread = int(min(tokens, UNREAD_PART * part * min(line.most_backlog for line in lines)))
        return CreditSize(tokens, slots, unread=unread) if unread else None

    def _place(self, now: float, passes: int = 0) -> None:
        """Give those that wait what there is for them."""
        self._now = now
        more = {"passes": passes} if passes else {}
        for ask, found in self.queue.next(now, self._chance, **more):
            assert isinstance(ask, _Asked)
            # What one that has left had asked for does not wait any more.
            router = self._routers[ask.router]
            if isinstance(found, Lease):
                self._grant(router, ask, found, now)
            else:
                self._refuse(router, ask, found)
        if self._order:
            self._credits.waits(now)
        for number in self.queue.to_stop():
            self._stop(self._leases[number])

    def _stop(self, lease: Lease) -> None:
        """Have its request make way. It ends as any other, and until then it counts."""
        number = lease.number
        if (router := self._routers.get(lease.router)) is None:
            return  # its replica ends it anyway
        ask, ticket = lease.ask, ""
        if isinstance(ask, _Asked):
            ticket = self._tickets.issue(ask.tenant, First(ask.arrived, ask.place), self._now)
        router.told.stop.append((number, ticket))

    # ---- what comes out

    def told(self) -> list[tuple[str, ToRouter]]:
        """What each router is to be told, since the last time."""
        if self._shares is None:
            self._shares = shares = self._share_out()
            for router in self._routers.values():
                router.told.share(shares)
        for name, credits in self._credits.told(self._now):
            self._routers[name].told.credit(credits)
        found: list[tuple[str, ToRouter]] = []
        for name, router in self._routers.items():
            if router.told:
                found.append((name, router.tell(self._now)))
        return found

    def _share_out(self) -> dict[str, Share]:
        count = max(1, len(self._routers))
        shares: dict[str, Share] = {}
        for id, replica in self._replicas.items():
            lines = [self._lines[line] for line in replica.lines]
            slots, tokens = sum(line.slots for line in lines), sum(line.fill_tokens for line in lines)
            shares[id] = Share(max(FLOOR, slots // count), tokens // count)
        return shares

    def statistics(self) -> dict[str, Any]:
        """The ledger by line and the queue by tenant, for people."""
        bands = self._order.bands
        asked = (ask for router in self._routers.values() for ask in router.asked.values())
        return {
            "epoch": self.epoch, "units": "requests" if self._in_requests_now else "tokens",
            "lines": lines_shown(self.queue, self._credits.idle),
            "tenants": tenants_shown(asked, bands, self.queue.unit, self._now),
            "routers": len(self._routers), "granted": self.granted + self._credits.admitted, "refused": self.refused,
            "short": self._ledger.short,
        }  # fmt: skip

    def look_for(self, name: str) -> Look:
        """Ask all routers for a request of this name. Others may look for it at the same time."""
        look = self._looks.begin(name)
        for router in self._routers.values():
            router.told.look_for(name)
        return look

    def found(self, name: str, look: Look) -> list[str]:
        """What is known of it by now, a sentence for each that has the name. What is said later is not heard."""
        return self._looks.end(name, look)

    def _why(self, router: _Router, id: int, number: int, now: float) -> str:
        if (lease := self._leases.get(number)) is not None:
            return runs(lease, self.queue.unit) + ("" if self._readers is None else self._readers.where(number))
        ask = router.asked.get(id)
        if ask is None:
            return "it has just begun, or has ended"
        return waits(self.queue, ask, self._order.bands[ask.band].name, now)
