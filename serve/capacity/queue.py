"""The capacity queue: admits each request to the line that answers soonest, lets it wait for its turn, or refuses it.

It joins the parts of this folder and waits for nothing itself. Whoever holds it calls `submit`, tells what has happened
(`progress`, `release`, lines that come and go), and takes from `next` who has a place now. Time comes as `now`, in
seconds that never go back, chance as a number in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from .drain import DrainRate, RetryAfter, retry_after
from .fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT, Band, FairOrder
from .ledger import Lease, Ledger, Placed
from .need import DEFAULT_LIMITS, Limits, LineFacts, LineId, Need
from .output_lengths import OutputLengths
from .prefix_index import PrefixIndex

BANDS: Final = (
    Band("priority", ageing_s=None),
    Band("default"),
    Band("flex", ceiling=0.9, ageing_s=60.0),
    Band("batch", ceiling=0.7, ageing_s=None),
)
# Of those that wait, so many are looked at for a place, in their order, while the first of them fits nowhere.
PASSES: Final = 32

TOO_LONG: Final = 413
TOO_MANY: Final = 429
NO_REPLICA: Final = 503


class Refusal(Exception):
    """A request is not taken, with the HTTP status that says so. It is safe to repeat, where `retry_after` is set."""

    def __init__(self, status: int, reason: str, retry_after: RetryAfter | None = None) -> None:
        super().__init__(status, reason, retry_after)
        self.status, self.reason, self.retry_after = status, reason, retry_after


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How a tenant counts beside others, and what it may have; None: as much as there is."""

    weight: float = 1.0
    waiting_tokens: int | None = None
    waiting_requests: int | None = None
    running_tokens: int | None = None
    """A request beyond it waits, and others pass it."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait, of all tenants together."""

    tokens: int = 10_000_000
    requests: int = 10_000


class Ask:
    """A request as the queue knows it; told from others by its identity."""

    __slots__ = (
        "arrived", "band", "chain", "deadline", "max_tokens", "model", "need", "prompt", "router", "tenant", "user",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        prompt: int,
        max_tokens: int | None = None,
        *,
        tenant: str = "",
        user: str = "",
        band: int = 1,
        arrived: float = 0.0,
        deadline: float = math.inf,
        router: str = "",
        chain: Sequence[int] = (),
    ) -> None:
        """`prompt` in tokens, `arrived` the first time if it was refused before, `deadline` of its first token,
        `chain` of its prompt as prefix_index has it. Raises ValueError for numbers below zero.
        """
        if prompt < 0 or (max_tokens is not None and max_tokens < 0):
            raise ValueError(f"a request has zero or more tokens, not {prompt} and {max_tokens}")
        if math.isnan(deadline) or math.isnan(arrived):
            raise ValueError("a time must be a number")
        self.model, self.prompt, self.max_tokens = model, prompt, max_tokens
        self.tenant, self.user, self.band = tenant, user, band
        self.arrived, self.deadline, self.router, self.chain = arrived, deadline, router, chain
        # As expected when it came.
        self.need = Need(prompt, 0)

    @property
    def tokens(self) -> int:
        return self.need.tokens


class _Tenant:
    """What one tenant has, as long as it has something."""

    __slots__ = ("limits", "running", "running_tokens", "waiting", "waiting_tokens")

    def __init__(self, limits: TenantLimits) -> None:
        self.limits = limits
        self.waiting = self.waiting_tokens = self.running = self.running_tokens = 0


@dataclass(frozen=True, slots=True)
class _Run:
    ask: Ask
    # The one that it was served in, which may be above its own.
    band: int
    # Of its prompt, what was expected to be there.
    cached: int


class CapacityQueue:
    def __init__(
        self,
        epoch: int,
        now: float,
        *,
        bands: Sequence[Band] = BANDS,
        limits: Limits = DEFAULT_LIMITS,
        most: QueueLimits | None = None,
        tenants: Callable[[str], TenantLimits] = lambda _: TenantLimits(),
        lengths: OutputLengths | None = None,
    ) -> None:
        self.ledger = Ledger(epoch, limits)
        self.order: FairOrder[Ask] = FairOrder(bands)
        self.lengths = lengths or OutputLengths()
        self.prefixes: PrefixIndex[LineId] = PrefixIndex()
        self.drain = DrainRate(now)
        self.most = most or QueueLimits()
        self._limits_of = tenants
        self._tenants: dict[str, _Tenant] = {}
        self._runs: dict[int, _Run] = {}
        self._deadlines: list[tuple[float, int, Ask]] = []
        self._count = 0
        # The line that takes nothing but the first that waits, which fits nowhere yet.
        self._kept: tuple[Ask, LineId] | None = None
        # Those for whom there is no place, until there is more room.
        self._without: set[Ask] = set()
        # Whether something has changed by which one that waits may have a place.
        self._may_fit = False

    # ---- requests

    def submit(self, ask: Ask, now: float, chance: float = 0.0) -> Lease | None:
        """A lease, or None: it waits. Raises Refusal if neither, ValueError for a band that there is not."""
        if not 0 <= ask.band < len(self.order.bands):
            raise ValueError(f"there is no band {ask.band}")
        most = self.ledger.most_tokens
        if not most:
            raise Refusal(NO_REPLICA, "no replica serves the model now", RetryAfter(1.0))
        if ask.prompt >= most:
            raise Refusal(TOO_LONG, f"the prompt has {ask.prompt} tokens, and a replica holds {most} at most")
        expected = self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens)
        ask.need = Need(ask.prompt, expected).within(most)
        tenant = self._tenants.get(ask.tenant)
        if tenant is None:
            tenant = self._tenant(ask.tenant)
        if not self.order and self._may_run(tenant, ask):
            lease = self._place(ask, ask.band, tenant, now, chance)
            if lease is not None:
                return lease
        try:
            self._check_room(ask, tenant, now, chance)
        except Refusal:
            self._forget_if_idle(ask.tenant)
            raise
        tenant.waiting += 1
        tenant.waiting_tokens += ask.tokens
        self.order.add(ask, now)
        if ask.deadline < math.inf:
            self._note_deadline(ask)
        self._may_fit = True
        return None

    def withdraw(self, ask: Ask) -> bool:
        """It does not wait any more. False if it did not."""
        if not self.order.remove(ask):
            return False
        tenant = self._tenants[ask.tenant]
        tenant.waiting -= 1
        tenant.waiting_tokens -= ask.tokens
        self._forget_if_idle(ask.tenant)
        if self._kept is not None and self._kept[0] is ask:
            self._let_go()
        self._may_fit = True
        return True

    def next(
        self, now: float, chance: Callable[[], float], passes: int = PASSES
    ) -> Iterator[tuple[Ask, Lease | Refusal]]:
        """Those that wait and have a place now, or whose deadline has passed. It may be left at any item.

        Called after what may make room, and now and then with more `passes`: then those far behind pass too.
        """
        self.order.age(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            ask = heappop(self._deadlines)[2]
            if self.withdraw(ask):
                waited = now - ask.arrived
                yield ask, Refusal(TOO_MANY, f"it has waited for {waited:.3g} s, to its deadline", RetryAfter(1.0))
        if self._may_fit or passes > PASSES:
            self._without.clear()
            while (found := self._next_place(now, chance(), passes)) is not None:
                yield found
            self._may_fit = False

    def progress(self, number: int, generated: int) -> None:
        """So much of the answer has come by now."""
        lease = self.ledger.leases.get(number)
        if lease is None or generated < lease.generated:
            return
        self._charge(self._runs[number], generated - lease.generated)
        self.ledger.progress(number, generated)
        self._may_fit = True

    def release(
        self, number: int, generated: int | None = None, cached: int | None = None, *, is_whole: bool = False
    ) -> bool:
        """A request has ended, after so many tokens; `is_whole` says that its answer ended by itself, `cached` how much
        of its prompt the engine had already. False if it had ended before.
        """
        if generated is not None:
            self.progress(number, generated)
        lease = self.ledger.release(number)
        if lease is None:
            return False
        run = self._runs[number]
        self._ended(number)
        if is_whole:
            self.lengths.learn(run.ask.model, run.ask.tenant, run.ask.prompt, lease.generated)
        if cached is not None:
            self.prefixes.correct(lease.line.id, run.cached, cached)
        self._may_fit = True
        return True

    # ---- lines

    def set_line(self, id: LineId, facts: LineFacts, incarnation: int) -> list[Ask]:
        """A line is there, or offers something else. What ran on its earlier incarnation has ended."""
        before = self.ledger.lines.get(id)
        if before is not None and before.incarnation != incarnation:
            self.prefixes.drop(id)
        self._let_go(id)
        ended = [self._ended(lease.id.number) for lease in self.ledger.set_line(id, facts, incarnation)]
        self._may_fit = True
        return ended

    def drop_line(self, id: LineId) -> list[Ask]:
        """A line has ended, and what ran there with it."""
        self._let_go(id)
        self.prefixes.drop(id)
        self._may_fit = True
        return [self._ended(lease.id.number) for lease in self.ledger.drop_line(id)]

    def open_line(self, id: LineId, is_open: bool) -> None:
        """Have it take requests, or none: what runs there goes on."""
        if not is_open:
            self._let_go(id)
        self.ledger.open_line(id, is_open)
        self._may_fit = True

    def adopt(self, id: LineId, number: int, ask: Ask, generated: int, unread: int) -> bool:
        """A line says that it runs a request which another epoch let it have. False if that is known."""
        output = self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens)
        ask.need = Need(ask.prompt, output)
        if self.ledger.adopt(id, number, ask.router, ask.need, generated, unread) is None:
            return False
        self._begin(number, _Run(ask, ask.band, 0))
        return True

    # ---- tenants

    def limits_changed(self, tenant: str) -> None:
        """Other limits count for a tenant from now on."""
        if (known := self._tenants.get(tenant)) is not None:
            known.limits = self._limits_of(tenant)
            self.order.set_weight(tenant, known.limits.weight)
            self._may_fit = True

    def _tenant(self, name: str) -> _Tenant:
        tenant = self._tenants[name] = _Tenant(self._limits_of(name))
        self.order.set_weight(name, tenant.limits.weight)
        return tenant

    def _forget_if_idle(self, name: str) -> None:
        tenant = self._tenants[name]
        if not tenant.waiting and not tenant.running:
            del self._tenants[name]
            self.order.set_weight(name, 1.0)

    @staticmethod
    def _may_run(tenant: _Tenant, ask: Ask) -> bool:
        most = tenant.limits.running_tokens
        # Alone it may, however large it is.
        return most is None or not tenant.running or tenant.running_tokens + ask.tokens <= most

    def _check_room(self, ask: Ask, tenant: _Tenant, now: float, chance: float) -> None:
        waiting = len(self.order)
        waiting_tokens = sum(self.order.tokens)
        limits = tenant.limits
        for have, more, most, what in (
            (waiting, 1, self.most.requests, "requests wait"),
            (waiting_tokens, ask.tokens, self.most.tokens, "tokens wait"),
            (tenant.waiting, 1, limits.waiting_requests, f"requests of tenant {ask.tenant} wait"),
            (tenant.waiting_tokens, ask.tokens, limits.waiting_tokens, f"tokens of tenant {ask.tenant} wait"),
        ):
            if most is not None and have + more > most:
                wait_s = self.drain.wait_s(have + more - most if what.startswith("tokens") else ask.tokens, now)
                raise Refusal(TOO_MANY, f"{have} {what}, and {most} is the limit", retry_after(wait_s, 0.0, chance))
        left = ask.deadline - now
        if left == math.inf:
            return
        wait_s = self.drain.wait_s(self.order.ahead(ask), now)
        if wait_s is not None and wait_s > left:
            reason = f"it would wait for {wait_s:.3g} s, and its deadline is in {max(0.0, left):.3g} s"
            raise Refusal(TOO_MANY, reason, retry_after(wait_s, left, chance))

    def _note_deadline(self, ask: Ask) -> None:
        self._count += 1
        heappush(self._deadlines, (ask.deadline, self._count, ask))
        if len(self._deadlines) > 2 * len(self.order) + 64:
            # Most have left before theirs.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.order]
            heapify(self._deadlines)

    def _next_place(self, now: float, chance: float, passes: int) -> tuple[Ask, Lease] | None:
        is_first = True
        largest = self.ledger.largest_room
        for count, (ask, band) in enumerate(self.order.turns()):
            if count == passes:
                break
            if ask in self._without:
                is_first = False
                continue
            tenant = self._tenants[ask.tenant]
            if not self._may_run(tenant, ask):
                continue
            lease = None
            if ask.tokens <= largest or self._is_kept_for(ask):
                lease = self._place(ask, self.order.bands.index(band), tenant, now, chance)
            if lease is not None:
                self.withdraw(ask)
                return ask, lease
            self._without.add(ask)
            if is_first:
                self._keep_a_line(ask, band)
                is_first = False
        return None

    def _place(self, ask: Ask, band: int, tenant: _Tenant, now: float, chance: float) -> Lease | None:
        ledger, share = self.ledger, self.order.bands[band].ceiling
        lines = ledger.lines
        hits = [(lines[id], tokens) for id, tokens in self.prefixes.hits(ask.chain)] if ask.chain else []
        kept = lines[self._kept[1]] if self._kept is not None and self._is_kept_for(ask) else None
        if kept is not None and kept.has_room(ask.tokens, share):
            self._let_go()
            placed = Placed(kept, max(0, ask.prompt - dict(hits).get(kept, 0)))
        elif (found := ledger.find(ask.need, hits, share, chance)) is not None:
            placed = found
        else:
            return None
        lease = ledger.admit(placed, ask.need, ask.router)
        run = _Run(ask, band, ask.prompt - placed.uncached)
        self._begin(lease.id.number, run)
        self.order.charge(band, ask.tenant, ask.user, INPUT_WEIGHT * placed.uncached)
        self.prefixes.note(lease.line.id, ask.chain, lease.line.kv_tokens)
        self.drain.add(ask.tokens, now)
        return lease

    def _begin(self, number: int, run: _Run) -> None:
        tenant = self._tenants.get(run.ask.tenant) or self._tenant(run.ask.tenant)
        tenant.running += 1
        tenant.running_tokens += run.ask.tokens
        self._runs[number] = run

    def _ended(self, number: int) -> Ask:
        ask = self._runs.pop(number).ask
        tenant = self._tenants[ask.tenant]
        tenant.running -= 1
        tenant.running_tokens -= ask.tokens
        self._forget_if_idle(ask.tenant)
        return ask

    def _charge(self, run: _Run, generated: int) -> None:
        self.order.charge(run.band, run.ask.tenant, run.ask.user, OUTPUT_WEIGHT * generated)

    def _keep_a_line(self, ask: Ask, band: Band) -> None:
        """Keep the line that will fit it soonest from taking others, or smaller ones pass it for ever."""
        if self._kept is not None:
            if self._kept[0] is ask:
                return
            self._let_go()
        able = [line for line in self.ledger.lines.values() if line.kv_tokens >= ask.tokens and line.is_open]
        if able:
            line = min(able, key=lambda line: (line.used + ask.tokens - line.fill_tokens * band.ceiling, line.number))
            self._kept = ask, line.id
            self.ledger.keep_line(line.id, True)

    def _is_kept_for(self, ask: Ask) -> bool:
        return self._kept is not None and self._kept[0] is ask

    def _let_go(self, id: LineId | None = None) -> None:
        """Of the line that is kept, or of this one if it is that."""
        if self._kept is not None and id in (None, self._kept[1]):
            self.ledger.keep_line(self._kept[1], False)
            self._kept = None
            self._may_fit = True
            self._without.clear()
