"""A router's requests that need not ask the queue: those that fit into a credit, and that it would place no better.

A request is let in by a credit only where all that it may ever take fits, so that no answer gets longer than was given;
where nothing is known of it that the queue would place it by (a prefix of a block, a session, an adapter); and where
its tenant and band may have all that there is. Called with the router's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..capacity.credit_holder import CreditHolder, Held
from ..capacity.credit_messages import Credit, Grants, Room
from ..capacity.fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT
from ..capacity.need import LineId
from ..policies.policy import NOTHING, Cost, Grant, Policy, Request
from .alone import Place
from .config import CapacityQueueConfig
from .costs import PLAIN
from .messages import CreditsHeld, CreditsTold, Learnt, QueueCost, QueueUse, Tag, incarnation_of
from .offers import PER_REQUEST

# Tenants whose settings were looked up and are remembered.
_MOST_TERMS: Final = 10_000


class Terms:
    """What a request is let in with: `tokens` of a credit, of which `unread` are its prompt, if prompts matter."""

    __slots__ = ("band", "cost", "tokens", "unread")

    def __init__(self, cost: QueueCost, band: str, tokens: int, unread: int) -> None:
        self.cost, self.band, self.tokens, self.unread = cost, band, tokens, unread


class LocalLease(Grant):
    """The grant of one request by a credit. Made by `admit` of ByCredit alone, which writes what it is."""

    __slots__ = ("arrived", "generated", "held", "is_unread", "request", "terms")

    queue_ms = 0

    held: Held
    request: Request
    terms: Terms
    arrived: float
    # Of one whose prompt counts as unread until its first token has come: whether it does so still.
    is_unread: bool
    generated: int

    # One of its own would take a tenth of what such a decision costs.
    __init__ = object.__init__  # pyright: ignore[reportAssignmentType]

    @property
    def _credits(self) -> ByCredit:
        return self.held.keeper  # type: ignore[no-any-return]

    @property
    def tag(self) -> Tag:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._credits.tag_of(self)

    def progress(self, tokens: int) -> None:
        if not self.generated:
            self._credits.has_begun(self)
        self.generated = tokens

    def grow(self, generated: int) -> None:
        """Its answer has so many tokens by now."""
        self.generated = generated

    def read(self) -> bool:
        """Its prompt counts as read from now on. Whether it did not before."""
        was_unread, self.is_unread = self.is_unread, False
        return was_unread

    def settle(self, used: Cost) -> None:
        self._credits.settle(self, used)

    def __repr__(self) -> str:
        return f"LocalLease({self.replica}: credit {self.held.number})"


class ByCredit:
    def __init__(
        self, policy: Policy, router: str, place_of: Callable[[str], Place | None], learn: Callable[[Learnt], None]
    ) -> None:
        """`place_of` a replica that takes requests; `learn` is told what an answer was, on any thread."""
        self.policy, self._router, self._place_of, self._learn = policy, router, place_of, learn
        self._holder = CreditHolder(router, lambda replica: place_of(replica) is not None)
        self._in_requests = True
        # By tenant and band as requests name them: the band, if such may be let in here.
        self._terms: dict[tuple[str, str], str | None] = {}
        self._config: CapacityQueueConfig | None = None
        # Of requests of which nothing is known but that they are one.
        self._plain: Terms | None = None
        self._plain_key = ("", "", "")
        self._plain_served = 0
        self.running: set[LocalLease] = set()
        # Those whose first token has come.
        self.read: deque[LocalLease] = deque()
        # Requests that have ended, and their tokens.
        self._served = self._tokens = 0

    def configure(self, config: CapacityQueueConfig) -> None:
        self._config = config
        self._terms.clear()
        self._set_plain()

    def _set_plain(self) -> None:
        band = self._look_up("", "")
        self._plain = Terms(PLAIN, band, PER_REQUEST, 0) if band is not None and self._in_requests else None
        self._plain_key = (band or "", "", "")

    def begin(self, epoch: int) -> None:
        """A queue is there, or is there again."""
        self._holder.begin(epoch)
        self._served = self._tokens = 0

    def stop(self) -> None:
        self._holder.stop()

    def look_again(self) -> None:
        """Other replicas than before take requests."""
        self._holder.look_again()

    # ---- requests

    def has_begun(self, lease: LocalLease) -> None:
        """Its first token has come. From any thread."""
        self.read.append(lease)

    def admit(self, request: Request, cost: QueueCost, now: float) -> LocalLease | None:
        """A grant; None: ask the queue."""
        terms = self._plain if cost is PLAIN else self._terms_of(cost)
        if terms is None:
            return None
        while self.read:
            self._has_read(self.read.popleft())
        held = self._holder.take(terms.tokens, now, terms.unread)
        if held is None:
            return None
        if held.place is None:
            self._count_at_place(held)
        lease = LocalLease()  # pyright: ignore[reportCallIssue]
        # Written here, since a constructor would cost a tenth of a request by credit.
        lease.policy = self.policy
        lease.replica = held.replica
        lease.held = held
        lease.request = request
        lease.terms = terms
        lease.arrived = now
        lease.generated = 0
        if terms.unread:
            lease.is_unread = True
        self.running.add(lease)
        return lease

    def _count_at_place(self, held: Held) -> None:
        place = self._place_of(held.replica)
        assert place is not None
        held.keep_by(self, place)
        place.counts(held)

    def _terms_of(self, cost: QueueCost) -> Terms | None:
        if cost.chain or cost.session or cost.adapter or cost.ticket:
            return None
        band = self._look_up(cost.tenant, cost.band)
        if band is None:
            return None
        if self._in_requests:
            return Terms(cost, band, PER_REQUEST * cost.requests, 0)
        if cost.max_tokens is None:
            return None
        return Terms(cost, band, cost.tokens + cost.max_tokens, cost.tokens)

    def _look_up(self, tenant: str, band: str) -> str | None:
        key = tenant, band
        if key in self._terms:
            return self._terms[key]
        config, name = self._config, None
        if config is not None and config.tenant(tenant).running_tokens is None:
            # Of one that there is not the queue's router says so.
            with suppress(ValueError):
                found = config.bands[config.band(band)]
                name = found.name if found.is_whole else None
        if len(self._terms) >= _MOST_TERMS:
            self._terms.clear()
        self._terms[key] = name
        return name

    def release(self, lease: LocalLease, used: Cost | None) -> bool:
        """One of those that are `running` has ended. Whether the queue waits for what is left of its credit."""
        held = lease.held
        terms = lease.terms
        held.end(terms.tokens)
        if used is None and terms is self._plain and not lease.generated:
            self._plain_served += 1
        else:
            self._has_read(lease)
            self._served += 1
            self._tokens += terms.tokens
            if used is not NOTHING:
                self._charge(lease, used)
        return not held.slots

    def _charge(self, lease: LocalLease, used: Cost | None) -> None:
        cost = lease.terms.cost
        served = INPUT_WEIGHT * (cost.requests if self._in_requests else cost.tokens)
        if isinstance(used, QueueUse):
            served -= INPUT_WEIGHT * min(used.cached or 0, cost.tokens)
        if used is not None and used.tokens > lease.generated:
            lease.grow(used.tokens)
        self._holder.serve((lease.terms.band, cost.tenant, cost.user), served + OUTPUT_WEIGHT * lease.generated)
        if isinstance(used, QueueUse) and used.is_whole:
            self._tell(lease, lease.generated, 0.0, True)

    def settle(self, lease: LocalLease, used: Cost) -> None:
        """It was given back before this was known. From any thread."""
        if isinstance(used, QueueUse):
            more = max(0, used.tokens - lease.generated)
            lease.grow(lease.generated + more)
            self._tell(lease, lease.generated, float(OUTPUT_WEIGHT * more), used.is_whole)

    def _tell(self, lease: LocalLease, generated: int, charge: float, is_whole: bool) -> None:
        cost = lease.terms.cost
        if charge or is_whole:
            self._learn(
                Learnt(lease.terms.band, cost.model, cost.tenant, cost.user, cost.tokens, generated, charge, is_whole)
            )

    def spoil(self, lease: LocalLease) -> None:
        """Its replica does not take that credit any more."""
        self._holder.spoil(lease.held)

    def _has_read(self, lease: LocalLease) -> None:
        unread = lease.terms.unread
        if unread and lease.read():
            lease.held.has_read(unread)

    def tag_of(self, lease: LocalLease) -> Tag:
        held, terms = lease.held, lease.terms
        cost, band, tokens = terms.cost, terms.band, terms.tokens
        if cost is PLAIN and held.tag is not None:
            return held.tag
        prompt = tokens // PER_REQUEST if self._in_requests else cost.tokens
        tag = Tag(
            held.epoch, incarnation_of(lease.replica), held.number, held.line.rank, 0, self._router,
            prompt, tokens - prompt, cost.model, cost.tenant, cost.user, band, True,
        )  # fmt: skip
        if cost is PLAIN:
            held.name(tag)
        return tag

    # ---- the queue

    def hear(self, told: CreditsTold, now: float) -> CreditsHeld:
        """What the queue says, and the answer."""
        if told.in_requests != self._in_requests:
            self._in_requests = told.in_requests
            self._set_plain()
        credits = {
            number: Credit(LineId(replica, rank), incarnation_of(replica), Room(tokens, slots), unread)
            for number, replica, rank, tokens, slots, unread in told.credits
        }
        self._holder.heard(Grants(self._holder.epoch, told.version, credits, told.heard, told.counted), now)
        return self.held(now)

    def held(self, now: float) -> CreditsHeld:
        if self._plain_served:
            self._holder.serve(self._plain_key, float(INPUT_WEIGHT * self._plain_served))
            self._served += self._plain_served
            self._tokens += PER_REQUEST * self._plain_served
            self._plain_served = 0
        report = self._holder.report(now)
        filled = report.filled
        held = [
            (number, room.tokens, room.slots, filled[number].tokens, filled[number].slots)
            for number, room in report.held.items()
        ]
        served = [(*key, tokens) for key, tokens in report.usage.served.items()]
        return CreditsHeld(report.number, report.version, held, report.usage.number, served, self._served, self._tokens)
