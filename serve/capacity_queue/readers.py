"""The hub's replicas that read prompts for a deployment's others: what they say, and how fast each is. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

from ..capacity.ask import Ask
from ..capacity.ledger import Lease
from ..capacity.need import Limits, LineFacts, LineId
from ..capacity.prefill import Prefill
from ..capacity.queue import CapacityQueue
from .config import CapacityQueueConfig
from .messages import Granted, Report, Snapshot, Tag, incarnation_of
from .offers import Replica, offer_of
from .read_rates import LEAST_READ, ReadRates

# A rate that has changed by less is no reason to offer something else.
_CHANGE: Final = 0.1
# Prompts that may have been read, and of whose answers nothing has come yet.
_MOST_OVER: Final = 4096


class Readers:
    """None of them is a line before it has said what it reads: only then its revision is known."""

    def __init__(self, queue: CapacityQueue, prefill: Prefill) -> None:
        self._queue, self._prefill = queue, prefill
        self._replicas: dict[str, Replica] = {}
        self._rates = ReadRates()
        # When a reader was done with each. Whether it has read it is known by the first token: it may have refused.
        self._over: OrderedDict[int, tuple[Lease, float]] = OrderedDict()
        self._max_ongoing = 1

    @property
    def replicas(self) -> Collection[Replica]:
        return self._replicas.values()

    def __contains__(self, id: str) -> bool:
        return id in self._replicas

    def update(self, config: CapacityQueueConfig, max_ongoing: int, replicas: Iterable[str], now: float) -> list[int]:
        """These are there, and no others. The leases whose prompts are read by none now."""
        self._max_ongoing = max_ongoing
        wanted = dict.fromkeys(replicas)
        lost = [number for id in [id for id in self._replicas if id not in wanted] for number in self.drop(id)]
        for id in wanted:
            if id not in self._replicas:
                self._replicas[id] = Replica(now)
            self.offer(id, config)
        return lost

    def drop(self, id: str) -> list[int]:
        replica = self._replicas.pop(id, None)
        lost: list[int] = []
        for line in () if replica is None else replica.lines:
            self._rates.forget(line)
            lost += self._queue.drop_reader(line)
        return lost

    def offer(self, id: str, config: CapacityQueueConfig) -> None:
        replica = self._replicas[id]
        if not replica.said or (offer := offer_of(replica, (replica,), config, self._max_ongoing)) is None:
            return
        self._prefill.set_limits(Limits(config.headroom, config.backlog_s))
        revision = "" if replica.offer is None else replica.offer.revision
        replica.serve([LineId(id, rank) for rank in range(offer.ranks)])
        for line in replica.lines:
            rate = self._rates.of(line) or offer.prefill_rate or config.prefill_rate
            self._queue.set_reader(line, LineFacts(offer.kv_tokens, offer.slots, rate), incarnation_of(id), revision)

    def said(self, id: str, said: Snapshot, config: CapacityQueueConfig) -> None:
        """What a replica reads, as it begins to report."""
        replica = self._replicas[id]
        replica.hear(said.offer)
        self.offer(id, config)
        runs = {tag.number for tag in said.running}
        for tag in said.running:
            self._adopt(id, tag)
        for id_ in replica.lines:
            line = self._prefill.line(id_)
            for number, lease in [] if line is None else list(line.leases.items()):
                if lease.has_begun and number not in runs:
                    self._queue.handed_over(number)

    def _adopt(self, id: str, tag: Tag) -> None:
        ask = Ask(tag.model, tag.prompt, 0, tenant=tag.tenant, user=tag.user, router=tag.router)
        self._prefill.adopt(LineId(id, tag.rank), tag.number, ask)
        if (lease := self._prefill.lease(tag.number)) is not None:
            lease.begin()

    def reports(self, said: Report, now: float) -> None:
        for number in said.begun:
            if (lease := self._prefill.lease(number)) is not None:
                lease.begin()
        for number in said.ended:
            if (lease := self._prefill.lease(number)) is not None and lease.granted_at is not None:
                self._over[number] = lease, now
                if len(self._over) > _MOST_OVER:
                    self._over.popitem(last=False)
            self._queue.handed_over(number)

    def granted(self, granted: Granted, now: float) -> Granted:
        """The same with who reads its prompt."""
        lease = self._prefill.lease(granted.number)
        assert lease is not None
        if lease.unread >= LEAST_READ:
            lease.reads_from(now)
        replica, rank = lease.line.id
        return Granted(
            granted.id, granted.number, granted.replica, granted.rank, granted.prompt, granted.output, (replica, rank)
        )

    def came(self, number: int, now: float) -> None:
        """Some of its answer has come, so its prompt was read, by now at the latest."""
        over = self._over.pop(number, None)
        if over is None and (lease := self._prefill.lease(number)) is not None:
            over = lease, now
        if over is not None and self._prefill.line(over[0].line.id) is over[0].line:
            self._rates.came(*over)

    def where(self, number: int) -> str:
        """Of a lease whose prompt is not handed over, as the end of a sentence."""
        if (lease := self._prefill.lease(number)) is None:
            return ""
        return f"; its prompt is read by replica {lease.line.id.replica}, rank {lease.line.id.rank}"

    def tick(self, config: CapacityQueueConfig) -> None:
        for id, rate in self._rates.take_changed():
            line = self._prefill.line(id)
            if line is not None and abs(line.prefill_rate - rate) > _CHANGE * line.prefill_rate:
                self.offer(id.replica, config)
