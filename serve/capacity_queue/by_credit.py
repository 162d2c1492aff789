"""A router's requests that need not ask the queue: those that fit into a credit, and that it would place no better.

A request is let in by a credit only where all that it may ever take fits, so that no answer gets longer than was given;
where nothing is known of it that the queue would place it by (a prefix of a block, a session, an adapter); and where
its tenant and band may have all that there is. Called with the router's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..capacity.credit_holder import CreditHolder, Held
from ..capacity.credit_messages import Credit, Grants, Room
from ..capacity.fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT
from ..capacity.need import LineId
from ..policy import NOTHING, Cost, Grant, Policy, Request
from .alone import Place
from .config import CapacityQueueConfig
from .costs import PLAIN
from .messages import CreditsHeld, CreditsTold, Learnt, QueueCost, QueueUse, Tag, incarnation_of
from .offers import PER_REQUEST

# Tenants whose settings were looked up and are remembered.
_MOST_TERMS: Final = 10_000


class LocalLease(Grant):
    """The grant of one request by a credit."""

    __slots__ = (
        "arrived", "band", "cost", "credits", "generated", "held", "is_running", "place", "request", "tokens", "unread",
    )  # fmt: skip

    queue_ms = 0

    def __init__(
        self, policy: Policy, credits: ByCredit, held: Held, place: Place, request: Request, cost: QueueCost,
        band: int, tokens: int, unread: int, arrived: float,
    ) -> None:  # fmt: skip
        self.policy = policy
        self.replica = held.line.replica
        self.credits, self.held, self.place, self.request, self.cost = credits, held, place, request, cost
        self.band, self.tokens, self.unread, self.arrived = band, tokens, unread, arrived
        self.generated = 0
        self.is_running = True

    @property
    def tag(self) -> Tag:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.credits.tag_of(self)

    def progress(self, tokens: int) -> None:
        self.generated = tokens
        if self.unread:
            self.credits.read.append(self)

    def settle(self, used: Cost) -> None:
        self.credits.settle(self, used)

    def __repr__(self) -> str:
        return f"LocalLease({self.replica}: credit {self.held.number})"


class ByCredit:
    def __init__(
        self, policy: Policy, router: str, place_of: Callable[[str], Place | None], learn: Callable[[Learnt], None]
    ) -> None:
        """`place_of` a replica that takes requests; `learn` is told what an answer was, on any thread."""
        self._policy, self._router, self._place_of, self._learn = policy, router, place_of, learn
        self._holder = CreditHolder(router, lambda replica: place_of(replica) is not None)
        self._in_requests = True
        # By tenant and band as requests name them: its number, if such may be let in here.
        self._terms: dict[tuple[str, str], int | None] = {}
        self._config: CapacityQueueConfig | None = None
        self._plain: int | None = None
        self.running: set[LocalLease] = set()
        # Those whose first token has come.
        self.read: deque[LocalLease] = deque()
        self._admitted = self._tokens = 0

    def configure(self, config: CapacityQueueConfig) -> None:
        self._config = config
        self._terms.clear()
        self._plain = self._look_up("", "")

    def begin(self, epoch: int) -> None:
        """A queue is there, or is there again."""
        self._holder.begin(epoch)
        self._admitted = self._tokens = 0

    def stop(self) -> None:
        self._holder.stop()

    def look_again(self) -> None:
        """Other replicas than before take requests."""
        self._holder.look_again()

    # ---- requests

    def admit(self, request: Request, cost: QueueCost, now: float) -> LocalLease | None:
        """A grant; None: ask the queue."""
        if cost is PLAIN:
            band = self._plain
        elif cost.chain or cost.session or cost.adapter or cost.ticket:
            return None
        else:
            band = self._look_up(cost.tenant, cost.band)
        if band is None:
            return None
        if self._in_requests:
            tokens, unread = PER_REQUEST * cost.requests, 0
        elif cost.max_tokens is None:
            return None
        else:
            tokens, unread = cost.tokens + cost.max_tokens, cost.tokens
        while self.read:
            self._has_read(self.read.popleft())
        held = self._holder.take(tokens, now, unread)
        if held is None:
            return None
        place = held.place
        if place is None:
            place = held.place = self._place_of(held.line.replica)
            assert place is not None
        place.requests += 1
        place.tokens += tokens
        lease = LocalLease(self._policy, self, held, place, request, cost, band, tokens, unread, now)
        self.running.add(lease)
        self._admitted += 1
        self._tokens += tokens
        return lease

    def _look_up(self, tenant: str, band: str) -> int | None:
        key = tenant, band
        if key in self._terms:
            return self._terms[key]
        config, number = self._config, None
        if config is not None and config.tenant(tenant).running_tokens is None:
            try:
                number = config.band(band)
            except ValueError:
                number = None  # the queue's router says so
            if number is not None and config.bands[number].ceiling < 1.0:
                number = None
        if len(self._terms) >= _MOST_TERMS:
            self._terms.clear()
        self._terms[key] = number
        return number

    def release(self, lease: LocalLease, used: Cost | None) -> bool:
        """It has ended. Whether the queue waits for what is left of its credit."""
        lease.is_running = False
        self.running.discard(lease)
        held, place, tokens = lease.held, lease.place, lease.tokens
        place.requests -= 1
        place.tokens -= tokens
        self._holder.give(held, tokens, lease.unread)
        lease.unread = 0
        if used is not NOTHING:
            cost = lease.cost
            served = INPUT_WEIGHT * (cost.requests if self._in_requests else cost.tokens)
            if isinstance(used, QueueUse):
                served -= INPUT_WEIGHT * min(used.cached or 0, cost.tokens)
            generated = lease.generated
            if used is not None and used.tokens > generated:
                generated = lease.generated = used.tokens
            self._holder.serve((lease.band, cost.tenant, cost.user), served + OUTPUT_WEIGHT * generated)
            if isinstance(used, QueueUse) and used.is_whole:
                self._tell(lease, generated, 0.0, True)
        return not held.slots

    def settle(self, lease: LocalLease, used: Cost) -> None:
        """It was given back before this was known. From any thread."""
        if isinstance(used, QueueUse):
            more = max(0, used.tokens - lease.generated)
            self._tell(lease, max(used.tokens, lease.generated), float(OUTPUT_WEIGHT * more), used.is_whole)

    def _tell(self, lease: LocalLease, generated: int, charge: float, is_whole: bool) -> None:
        cost = lease.cost
        if charge or is_whole:
            self._learn(
                Learnt(lease.band, cost.model, cost.tenant, cost.user, cost.tokens, generated, charge, is_whole)
            )

    def spoil(self, lease: LocalLease) -> None:
        """Its replica does not take that credit any more."""
        self._holder.spoil(lease.held)

    def _has_read(self, lease: LocalLease) -> None:
        lease.held.unread -= lease.unread
        lease.unread = 0

    def tag_of(self, lease: LocalLease) -> Tag:
        held, cost = lease.held, lease.cost
        if cost is PLAIN and held.tag is not None:
            return held.tag
        prompt = lease.tokens // PER_REQUEST if self._in_requests else cost.tokens
        tag = Tag(
            self._holder.epoch, incarnation_of(lease.replica), held.number, held.line.rank, 0, self._router,
            prompt, lease.tokens - prompt, cost.model, cost.tenant, cost.user, lease.band, True,
        )  # fmt: skip
        if cost is PLAIN:
            held.tag = tag
        return tag

    # ---- the queue

    def hear(self, told: CreditsTold, now: float) -> CreditsHeld:
        """What the queue says, and the answer."""
        self._in_requests = told.in_requests
        credits = {
            number: Credit(LineId(replica, rank), incarnation_of(replica), Room(tokens, slots), unread)
            for number, replica, rank, tokens, slots, unread in told.credits
        }
        self._holder.heard(Grants(self._holder.epoch, told.version, credits, told.heard, told.counted), now)
        return self.held(now)

    def held(self, now: float) -> CreditsHeld:
        report = self._holder.report(now)
        filled = report.filled
        held = [
            (number, room.tokens, room.slots, filled[number].tokens, filled[number].slots)
            for number, room in report.held.items()
        ]
        served = [(*key, tokens) for key, tokens in report.usage.served.items()]
        return CreditsHeld(
            report.number, report.version, held, report.usage.number, served, self._admitted, self._tokens
        )
