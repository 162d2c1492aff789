"""The capacity queue: admits each request to the line that answers soonest, lets it wait for its turn, or refuses it.

It joins the parts of this folder and waits for nothing itself. Whoever holds it calls `submit`, tells what has happened
(`progress`, `release`, lines that come and go), and takes from `next` who has a place now. Time comes as `now`, in
seconds that never go back, chance as a number in [0, 1).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

from .adapters import MOST_LOOKS, Adapters
from .ask import NO_REPLICA, TOO_LONG, TOO_MANY, Ask, Refusal, failure
from .credit_messages import Room
from .drain import DrainRate, RetryAfter, retry_after
from .eviction import victims, work
from .fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT, Band, FairOrder
from .holdback import Holdback
from .ledger import Lease, Ledger, Line, Placed
from .need import DEFAULT_LIMITS, Limits, LineFacts, LineId
from .output_lengths import OutputLengths
from .prefill import Prefill
from .prefix_index import MOST_HITS, PrefixIndex
from .sessions import Sessions
from .share import Share
from .sizes import Sizes
from .tenants import Tenant, TenantLimits, Tenants
from .unit import TOKENS, Unit
from .window import PASSES, Window

BANDS: Final = (
    Band("priority", ageing_s=None),
    Band("default"),
    Band("flex", ceiling=0.9, ageing_s=60.0),
    Band("batch", ceiling=0.7, beside=0.125, beside_backlog=0.0, ageing_s=None),
)


MOST_ENDED_EARLY: Final = 100_000
# So many that came beyond a limit may wait for one look whether there is room for them at once.
MOST_ON_TRIAL: Final = 1024
# So many lines that have got more room are looked at one by one, for those whom no other has room for.
FEW: Final = 8


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait, of all tenants together."""

    tokens: int = 10_000_000
    requests: int = 10_000


_ask_of: Callable[[Lease], Ask] = attrgetter("ask")


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
        sheds: bool = False,
        reads_elsewhere: bool = False,
    ) -> None:
        """`sheds` lets requests of the last band that run be stopped for those of others;
        `reads_elsewhere`: prompts are read by lines of their own, those of `prefill`.
        """
        self.ledger = Ledger(epoch, limits)
        self.order: FairOrder[Ask] = FairOrder(bands)
        self.last_band = len(self.order.bands) - 1
        self.holdback = Holdback(bands)
        self.lengths = lengths or OutputLengths()
        self.prefixes: PrefixIndex[LineId] = PrefixIndex()
        self.sessions = Sessions()
        self.adapters = Adapters()
        # None: each line reads the prompts that it answers.
        self.prefill: Prefill | None = None
        # Tokens of one prompt and its answer at most; 0: as many as a line holds.
        self.context = 0
        if reads_elsewhere:
            self.prefill = Prefill(self.ledger, self.prefixes, self.sessions, self.adapters, limits)
        self.drain = DrainRate(now)
        # What people are told that it counts.
        self.unit: Unit = TOKENS
        self.most = most or QueueLimits()
        self.tenants = Tenants(tenants, self.order.set_weight)
        self.sheds = sheds
        # Of the ledger, and never others.
        self._lines, self._leases = self.ledger.lines, self.ledger.leases
        # Who made way for others while it waited.
        self._shed: list[Ask] = []
        # Those that came beyond a limit for who waits, and whether each was taken before.
        self._on_trial: dict[Ask, bool] = {}
        # Of the last band: what runs, and for whom some of that was stopped last.
        self._sheddable: dict[LineId, dict[int, None]] = {}
        self._stopped_for: Ask | None = None
        # Leases of other epochs that have ended, as far as was heard.
        self._ended_early: OrderedDict[int, None] = OrderedDict()
        self._deadlines: list[tuple[float, int, Ask]] = []
        self._count = 0
        # What those that wait need.
        self._needs = Sizes()
        # The line that takes nothing but the first that waits, which fits nowhere yet.
        self._kept: tuple[Ask, LineId] | None = None
        self._window = Window(self.order, self.tenants)
        # Whether more may have a place by what the last look has changed.
        self._look_on = False
        # Whether something has changed by which one that waits may have a place.
        self._may_fit = False

    @property
    def longest(self) -> int:
        """The most tokens that some line can ever hold of a prompt; 0 where none takes any."""
        most = self.ledger.most_tokens
        return most if self.prefill is None else min(most, self.prefill.most_tokens)

    def count_in(self, unit: Unit) -> None:
        """What people are told that it counts, from now on."""
        self.unit = unit

    def set_most(self, most: QueueLimits) -> None:
        """What may wait from now on; what waits does."""
        self.most = most

    def set_context(self, context: int) -> None:
        """Tokens of one prompt and its answer at most; 0: as many as a line holds."""
        self.context = context

    def _check_length(self, ask: Ask) -> None:
        longest, unit = self.longest, self.unit
        if unit is not TOKENS:
            if ask.prompt * unit.size > longest:
                has = f"it takes {ask.prompt} {unit.name}, and a replica holds {longest // unit.size} at most"
                raise Refusal(TOO_LONG, has)
        elif ask.prompt >= longest:
            raise Refusal(TOO_LONG, f"the prompt has {ask.prompt} tokens, and {self._most_of(longest)}")

    def _most_of(self, longest: int) -> str:
        # A request may be of several prompts, each of which the engine itself holds to the limit of one.
        holds = f"a replica holds {longest} at most"
        return f"{holds}, {self.context} of one prompt and its answer" if 0 < self.context < longest else holds

    # ---- requests

    def submit(
        self, ask: Ask, now: float, chance: float = 0.0, returns: bool = False, waited: bool = False
    ) -> Lease | None:
        """A lease, or None: it waits. Raises Refusal if neither, ValueError for a band that there is not.

        `returns`: it had a lease and did not begin; `waited`: it was taken before. Neither is refused because too
        much waits, and what returns has no deadline any more. Where there may be room for it at once, what is too much
        waits for the next look (`next`), and is refused by that if it has no place.
        """
        band = ask.band
        if not 0 <= band <= self.last_band:
            raise ValueError(f"there is no band {band}")
        most = self.ledger.most_tokens
        if not self.longest:
            raise Refusal(NO_REPLICA, "no replica serves the model now", RetryAfter(1.0))
        self._check_length(ask)
        ask.expect(self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens), most)
        if returns:
            ask.come_back()
        elif ask.deadline < math.inf:
            there = next((tokens for _, tokens in self.prefixes.hits(ask.chain, 1)), 0) if ask.chain else 0
            fastest = self.ledger.fastest if self.prefill is None else self.prefill.fastest
            ask.begin_in_time(now, max(0, ask.prompt - there) / fastest)
        tenant = self.tenants.of(ask.tenant)
        if not self.order.places and (tenant.limits.running_tokens is None or tenant.may_run(ask.tokens)):
            lease = self._place(ask, band, tenant, now, chance)
            if lease is not None:
                self.holdback.came(band, now)
                if isinstance(lease, Lease):
                    return lease
                self.tenants.forget_if_idle(ask.tenant)
                raise lease
        if returns:
            self.holdback.came(band, now)
        else:
            may_fit = self._may_fit_at_once(ask, tenant)
            try:
                self._check(ask, now, chance, waited, others_go=not may_fit)
            except Refusal:
                if not may_fit:
                    self.tenants.forget_if_idle(ask.tenant)
                    raise
                self._on_trial[ask] = waited
        if ask.session and self.sessions.line_of(ask.session) is not None:
            ask.go_first()
        self._enter(ask, now)
        return None

    def _may_fit_at_once(self, ask: Ask, tenant: Tenant) -> bool:
        """Whether the next look may find it a place, as far as that is known without one."""
        if len(self._on_trial) >= MOST_ON_TRIAL or not tenant.may_run(ask.tokens):
            return False
        if self._kept is not None and self.order.band_of(self._kept[0]) > ask.band:
            # Nobody keeps a line from higher bands.
            return ask.tokens <= max(self.ledger.largest_room, self.ledger.lines[self._kept[1]].room)
        return ask.tokens <= self.ledger.largest_room

    def _check(self, ask: Ask, now: float, chance: float, waited: bool, *, others_go: bool) -> None:
        """Refusal if it may not wait. `others_go`: have others make way for it."""
        if not waited:
            self._check_tenant(ask, self.tenants.of(ask.tenant), now, chance)
        # Its tenant may have it served, so others make room for it.
        self.holdback.came(ask.band, now)
        self._check_deadline(ask, now, chance)
        if not waited:
            self._check_room(ask, now, chance, others_go=others_go)

    def _enter(self, ask: Ask, now: float) -> None:
        """It waits from now on."""
        # Its tenant may have been forgotten, if all that it had was shed.
        tenant = self.tenants.of(ask.tenant)
        tenant.wait(ask.tokens)
        self.order.add(ask, now)
        self._needs.add(ask.tokens.bit_length())
        self._window.came(ask)
        if ask.deadline < math.inf:
            self._note_deadline(ask)
        self.gained()

    def submit_alike(self, ask: Ask, count: int, now: float, chance: float) -> list[Lease]:
        """Leases of so many requests that take the same, have no deadline and need no line of their own; fewer, if the
        rest has no place at once or cannot go with others: those are submitted one by one. They share what they ask.
        """
        ledger = self.ledger
        most = ledger.most_tokens
        if self.sheds or self.order.places or self._kept is not None or ask.prompt >= most or self.prefill is not None:
            return []
        tenant = self.tenants.of(ask.tenant)
        if tenant.limits.running_tokens is not None:
            self.tenants.forget_if_idle(ask.tenant)
            return []
        ask.expect(self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens), most)
        leases = ledger.admit_alike(ask, count, ask.router, self.holdback.share(ask.band, now), chance, ask)
        given = len(leases)
        if not given:
            # Whether others are to make room for it is seen as it is submitted alone.
            self.tenants.forget_if_idle(ask.tenant)
            return []
        ask.run(ask.band, 0, tenant)
        tenant.begin(ask.tokens, given)
        try:
            self.holdback.came(ask.band, now)
            self.order.charge(ask.band, ask.tenant, ask.user, INPUT_WEIGHT * ask.prompt * given)
            self.drain.add(ask.tokens * given, now)
        except Exception:
            # Nobody else would give them back.
            for lease in leases:
                self.release(lease.number)
            raise
        return leases

    def missed_line(self, ask: Ask, now: float) -> Line | None:
        """Where the session ran last of which this is a turn, if its prefix is there and it has no place although
        nobody waits.
        """
        id = self.sessions.line_of(ask.session) if ask.session and not self.order else None
        line = None if id is None else self._lines.get(id)
        if line is None or self._has_lost(ask, line):
            return None
        ask.expect(self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens), self.ledger.most_tokens)
        return (
            line if line.backlog > line.stays_backlog or not line.admits(ask.tokens, self.share_of(ask, now)) else None
        )

    def share_of(self, ask: Ask, now: float) -> Share:
        """How much of a line its band may fill."""
        return self.holdback.share(ask.band, now)

    def withdraw(self, ask: Ask) -> bool:
        """It does not wait any more. False if it did not."""
        if not self.order.remove(ask):
            return False
        self._on_trial.pop(ask, None)
        tenant = self.tenants.known[ask.tenant]
        tenant.leave(ask.tokens)
        if not tenant.waiting:
            self.tenants.forget_if_idle(ask.tenant)
        self._needs.take(ask.tokens.bit_length())
        self._window.left(ask)
        if self._kept is not None and self._kept[0] is ask:
            self._let_go()
        if self.prefill is not None and self.prefill.let_go(ask):
            self._look_on = True
        self.gained()
        return True

    def next(
        self, now: float, chance: Callable[[], float], passes: int = PASSES
    ) -> Iterator[tuple[Ask, Lease | Refusal]]:
        """Those that wait and have a place now, or whose deadline has passed. It may be left at any item.

        Called after what may make room, and now and then with more `passes`: then those far behind pass too.
        """
        if self.order.age(now):
            # In another band it may fill more of a line.
            self._look_again()
        if self.holdback.has_ended(now, self.order.waiting):
            self._look_again()
        yield from self._take_shed()
        while self._deadlines and self._deadlines[0][0] <= now:
            ask = heappop(self._deadlines)[2]
            if self.withdraw(ask):
                waited = now - ask.arrived
                yield ask, Refusal(TOO_MANY, f"it has waited for {waited:.3g} s, to its deadline", RetryAfter(1.0))
        if not self._may_fit and passes <= PASSES:
            return
        if self._on_trial:
            # They are to be among those that are looked at, if it is their turn.
            self._window.look_up_anew()
        while True:
            if self.prefill is not None and self.prefill.take_gained():
                self._window.look_again()
            gained = self.ledger.take_gained()
            try:
                yield from self._places(now, chance, passes, gained)
            except GeneratorExit:
                self.ledger.give_back_gained(gained)
                raise
            # A line that was kept for one that went elsewhere is there for others, and others may be among the next.
            if self._look_on:
                continue
            yield from self._judged(now, chance)
            if not self._look_on:
                break
        # Who is among the next by now may have a place too, at the next look.
        self._may_fit = self._window.is_behind

    def _take_shed(self) -> Iterator[tuple[Ask, Refusal]]:
        """Those that made way."""
        while self._shed:
            reason = "others of a higher band came, and the queue is full"
            yield self._shed.pop(), Refusal(TOO_MANY, reason, RetryAfter(1.0))

    def _judged(self, now: float, chance: Callable[[], float]) -> Iterator[tuple[Ask, Refusal]]:
        """Who came beyond a limit and had no place waits if it may by now, and is refused else: the last first."""
        while self._on_trial:
            ask, waited = next(reversed(self._on_trial.items()))
            self.withdraw(ask)
            try:
                self._check(ask, now, chance(), waited, others_go=True)
            except Refusal as refusal:
                self.tenants.forget_if_idle(ask.tenant)
                yield ask, refusal
            else:
                self._enter(ask, now)
            yield from self._take_shed()

    def progress(self, number: int, generated: int) -> None:
        """So much of the answer has come by now."""
        lease = self._leases.get(number)
        if lease is None or lease.ask is None or generated < lease.generated:
            return
        self._charge(lease.ask, generated - lease.generated)
        self.ledger.progress(number, generated)
        if self.prefill is not None:
            self.prefill.release(number)
        self.gained()

    def handed_over(self, number: int) -> None:
        """A line has read a prompt for another, or will not."""
        if self.prefill is not None and self.prefill.release(number):
            self.gained()

    def release(
        self, number: int, generated: int | None = None, cached: int | None = None, is_whole: bool = False
    ) -> bool:
        """A request has ended, after so many tokens; `is_whole` says that its answer ended by itself, `cached` how much
        of its prompt the engine had already. False if it had ended before.
        """
        lease = self._leases.get(number)
        ask: Ask | None = None if lease is None else lease.ask
        if self.prefill is not None:
            # Of an answer that has begun the prompt was read.
            (self.prefill.release if generated else self.prefill.unwanted)(number)
        if lease is None or ask is None:
            if number <= self.ledger.epoch:
                # Its line may have said before that it runs it, and be heard after.
                self._ended_early[number] = None
                if len(self._ended_early) > MOST_ENDED_EARLY:
                    self._ended_early.popitem(last=False)
            return False
        more = (generated or 0) - lease.generated
        # It ends, whatever fails at what is learnt of it.
        self.ledger.release(number, generated or 0)
        self._ended(lease)
        self.gained()
        if more > 0:
            self._charge(ask, more)
        if is_whole:
            self.lengths.learn(ask.model, ask.tenant, ask.prompt, lease.generated)
        if cached is not None and self.prefill is None:
            self.prefixes.correct(lease.line.id, ask.cached, cached)
        return True

    def release_all(self, numbers: Sequence[int]) -> list[Lease]:
        """Requests have ended of which no more is to be said, where none are stopped and none have prompts read
        elsewhere. The leases of those that had not ended before.
        """
        ended = self.ledger.release_all(numbers)
        self.gained()
        asks: list[Ask] = []
        for ask, alike in groupby(ended, _ask_of):
            asks.append(ask)
            count = len(list(alike))
            ask.account.end(ask.tokens, count)
        for ask in asks:
            self._has_less(ask)
        return ended

    # ---- lines

    def set_line(self, id: LineId, facts: LineFacts, incarnation: int) -> list[Ask]:
        """A line is there, or offers something else. What ran on its earlier incarnation has ended."""
        before = self._lines.get(id)
        if before is not None and before.incarnation != incarnation:
            self.prefixes.drop(id)
            self.adapters.drop(id)
        self._let_go(id)
        ended = self.ledger.set_line(id, facts, incarnation)
        self.gained()
        return self._all_ended(ended)

    def drop_line(self, id: LineId) -> list[Ask]:
        """A line has ended, and what ran there with it."""
        self._let_go(id)
        self.prefixes.drop(id)
        self.adapters.drop(id)
        if self.prefill is not None:
            self.prefill.answers_no_more(id)
        self.gained()
        return self._all_ended(self.ledger.drop_line(id))

    def set_reader(self, id: LineId, facts: LineFacts, incarnation: int, revision: str) -> None:
        """A line that reads prompts is there, for those that answer in its revision, or offers something else."""
        assert self.prefill is not None
        self.prefill.set_line(id, facts, incarnation, revision)
        self.gained()

    def drop_reader(self, id: LineId) -> list[int]:
        """A line that reads prompts has ended. The leases whose prompts it had not handed over: they are read by no
        other, and end as their requests are told.
        """
        assert self.prefill is not None
        self.gained()
        return self.prefill.drop_line(id)

    def _all_ended(self, leases: Sequence[Lease]) -> list[Ask]:
        if self.prefill is not None:
            for lease in leases:
                self.prefill.unwanted(lease.number)
        # Credits are leases too, but nobody's requests.
        return [self._ended(lease) for lease in leases if lease.ask is not None]

    def open_line(self, id: LineId, is_open: bool) -> None:
        """Have it take requests, or none: what runs there goes on."""
        if not is_open:
            self._let_go(id)
        self.ledger.open_line(id, is_open)
        self.gained()

    def set_others(self, id: LineId, others: Room) -> None:
        """The engine of a line has so much beside what was let in here."""
        self.ledger.set_others(id, others)
        self.gained()

    def adopt(self, id: LineId, number: int, ask: Ask, generated: int, unread: int) -> bool:
        """A line says that it runs a request which another epoch let it have. False if that is known, or has ended."""
        if number in self._ended_early:
            return False
        ask.expect(self.lengths.expect(ask.model, ask.tenant, ask.prompt, ask.max_tokens))
        lease = self.ledger.adopt(id, number, ask.router, ask, generated, unread)
        if lease is None:
            return False
        self._begin(lease, ask, self.tenants.of(ask.tenant), ask.band, 0)
        return True

    # ---- tenants

    def limits_changed(self, tenant: str) -> None:
        """Other limits count for a tenant from now on. Raises ValueError for a weight that is none."""
        if self.tenants.changed(tenant):
            self._look_again()

    def _check_tenant(self, ask: Ask, tenant: Tenant, now: float, chance: float) -> None:
        limits, whose = tenant.limits, f" of tenant {ask.tenant}"
        self._check_requests(ask, tenant.waiting, limits.waiting_requests, whose, now, chance)
        self._check_tokens(ask, tenant.waiting_tokens, limits.waiting_tokens, whose, now, chance)

    def _check_room(self, ask: Ask, now: float, chance: float, *, others_go: bool) -> None:
        order = self.order
        if len(order) < self.most.requests and order.all_tokens + ask.tokens <= self.most.tokens:
            return
        if not (others_go and self._make_way(ask)):
            self._check_requests(ask, len(order), self.most.requests, "", now, chance)
            self._check_tokens(ask, order.all_tokens, self.most.tokens, "", now, chance)

    def _check_requests(self, ask: Ask, have: int, most: int | None, whose: str, now: float, chance: float) -> None:
        if most is not None and have >= most:
            reason = f"{have} requests{whose} wait, and {most} is the limit"
            raise Refusal(TOO_MANY, reason, retry_after(self.drain.wait_s(ask.tokens, now), 0.0, chance))

    def _check_tokens(self, ask: Ask, have: int, most: int | None, whose: str, now: float, chance: float) -> None:
        if most is not None and have + ask.tokens > most:
            reason = f"{self.unit.say(have)}{whose} wait, and {most // self.unit.size} is the limit: it has "
            reason += self.unit.say_of(ask.tokens, ask.output)
            raise Refusal(TOO_MANY, reason, retry_after(self.drain.wait_s(have + ask.tokens - most, now), 0.0, chance))

    def _check_deadline(self, ask: Ask, now: float, chance: float) -> None:
        left = ask.begins_by - now
        if left == math.inf:
            return
        # Who would not wait too long behind all needs no closer look.
        wait_s = self.drain.wait_s(self.order.all_tokens, now)
        if wait_s is None or wait_s <= left:
            return
        wait_s = self.drain.wait_s(self.order.ahead(ask), now)
        if wait_s is not None and wait_s > left:
            until = max(0.0, ask.deadline - now)
            reason = f"it would wait for {wait_s:.3g} s, and its deadline is in {until:.3g} s"
            raise Refusal(TOO_MANY, reason, retry_after(wait_s, left, chance))

    def _make_way(self, ask: Ask) -> bool:
        """Have those of lower bands go, of the lowest first who came last, if that makes room for it among those that
        wait.
        """
        order, most = self.order, self.most
        requests, tokens = len(order) + 1 - most.requests, order.all_tokens + ask.tokens - most.tokens
        lower = range(self.last_band, ask.band, -1)
        if sum(map(order.waiting, lower)) < requests or sum(order.tokens[band] for band in lower) < tokens:
            return False
        go: list[Ask] = []
        for each in (each for band in lower for each in order.latest(band) if each.makes_way):
            go.append(each)
            requests -= 1
            tokens -= each.tokens
            if requests <= 0 and tokens <= 0:
                break
        else:
            return False
        for each in go:
            self.withdraw(each)
        # They are told of from the end on.
        self._shed += reversed(go)
        return True

    def to_stop(self) -> list[int]:
        """Leases of the last band to be stopped for the first that waits, if it is of another and fits nowhere: asked
        after `next`. What is stopped is released as any other; for one request it is asked once.
        """
        if not self._sheddable:
            return []
        found = self.order.first()
        last = self.last_band
        if found is None or found[1] == last or found[0] is self._stopped_for:
            return []
        if self.prefill is not None and self.prefill.why(found[0]) is not None:
            # What is stopped answers, and makes no room where prompts are read.
            return []
        leases, best = self.ledger.leases, None
        for line, numbers in islice(self._sheddable.items(), MOST_LOOKS):
            chosen = victims(self.ledger.lines[line], found[0].tokens, [leases[number] for number in numbers])
            if chosen is not None and (best is None or sum(map(work, chosen)) < sum(map(work, best))):
                best = chosen
        if best is None:
            return []
        self._stopped_for = found[0]
        # What comes free there is for it, and for nobody who passes it.
        self._keep(found[0], best[0].line)
        return [lease.number for lease in best]

    def _note_deadline(self, ask: Ask) -> None:
        self._count += 1
        heappush(self._deadlines, (min(ask.begins_by, ask.deadline), self._count, ask))
        if len(self._deadlines) > 2 * len(self.order) + 64:
            # Most have left before theirs.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.order]
            heapify(self._deadlines)

    def _places(
        self, now: float, chance: Callable[[], float], passes: int, gained: dict[Line, None]
    ) -> Iterator[tuple[Ask, Lease | Refusal]]:
        """Those that have a place now, or are too late for it; none but lines that have `gained` have more room than
        at the last look.
        """
        ledger, order, tenants, window = self.ledger, self.order, self.tenants.known, self._window
        tried = window.tried
        self._look_on = False
        # Many lines are not looked at one by one.
        few = gained if len(gained) <= FEW else None
        room = max((line.room for line in gained), default=-1)
        while True:
            found = order.first()
            if found is None:
                return
            first, band = found
            if self._kept is not None and order.band_of(self._kept[0]) > band:
                # Nobody keeps a line from higher bands.
                self._let_go()
            if self.prefill is not None and (kept := self.prefill.kept_for) is not None and order.band_of(kept) > band:
                self.prefill.let_go()
            tenant = tenants[first.tenant]
            if not tenant.may_run(first.tokens):
                first = None
                break
            was_tried = first in tried
            if was_tried and first.tokens > room:
                break
            lease = self._try(first, band, tenant, now, chance, few if was_tried else None)
            if lease is None:
                tried.add(first)
                break
            yield first, lease
        most = ledger.largest_room
        if most < self._needs.least:
            return
        window.refresh(now, passes)
        if few is not None:
            room = max((line.free for line in few), default=-1)
        if window.least is not None and room < window.least:
            return
        some = False
        for ask in window.asks:
            was_tried = ask in tried
            if ask.tokens > (room if was_tried else most):
                tried.add(ask)
                continue
            if ask not in order:
                continue
            tenant = tenants[ask.tenant]
            if not tenant.may_run(ask.tokens):
                continue
            if first is None or first not in order:
                first = ask
            elif ask is not first and (self.prefill is None or self._has_no_answer(first, self.prefill, now)):
                self._keep_a_line(first)
            lease = self._try(ask, order.band_of(ask), tenant, now, chance, few if was_tried else None)
            if few is not None:
                room = max((line.free for line in few), default=-1)
            most = ledger.largest_room
            if lease is None:
                tried.add(ask)
            else:
                some = True
                yield ask, lease
        window.was_tried()
        if some and window.is_spent:
            self._look_on = True

    def _try(
        self,
        ask: Ask,
        band: int,
        tenant: Tenant,
        now: float,
        chance: Callable[[], float],
        among: dict[Line, None] | None,
    ) -> Lease | Refusal | None:
        """Its lease, and it waits no more, as one that is too late does not; None if it has no place, where one can
        only be `among` these lines.
        """
        if ask.tokens > self.ledger.largest_room and not self._is_kept_for(ask):
            return None
        try:
            lease = self._place(ask, band, tenant, now, chance(), among)
        except Exception as error:
            lease = failure(error)
        if lease is not None:
            if ask in self._on_trial:
                self.holdback.came(ask.band, now)
            self.withdraw(ask)
        return lease

    def _place(
        self, ask: Ask, band: int, tenant: Tenant, now: float, chance: float, among: dict[Line, None] | None = None
    ) -> Lease | Refusal | None:
        ledger, share = self.ledger, self.holdback.share(band, now)
        prefill = self.prefill
        if prefill is not None:
            kept = self._kept_by(ask)
            pair = prefill.find(ask, kept, share, chance, among)
            if pair is None:
                return None
            # Where it is read, and where it is answered.
            where, placed = pair
            if placed.line is kept:
                self._let_go()
        elif self._kept is None and not (ask.chain or ask.session or ask.adapter):
            found = ledger.least_busy(ask.tokens, ask.prompt, share, chance, among)
            if found is None:
                return None
            where = placed = found, ask.prompt, 0
        else:
            best = self._best_place(ask, share, chance, among)
            if best is None:
                return None
            where = placed = best
        line, unread, _ = where
        if ask.begins_by < math.inf and (late := self._too_late(ask, line, now, chance)) is not None:
            return late
        lease = ledger.admit(placed, ask, ask.router)
        if ask.load:
            # What is to be loaded beside is nobody's input.
            unread = min(unread, ask.prompt)
        self._begin(lease, ask, tenant, band, ask.prompt - unread)
        try:
            if prefill is not None:
                prefill.admit(where, ask, lease)
            self.order.charge(band, ask.tenant, ask.user, INPUT_WEIGHT * unread)
            if ask.chain:
                self.prefixes.note(line.id, ask.chain, line.kv_tokens)
            if ask.session:
                self.sessions.note(ask.session, line.id, has_blocks=bool(ask.chain))
            if ask.adapter:
                self.adapters.note(line.id, ask.adapter)
            self.drain.add(ask.tokens, now)
        except Exception:
            # Nobody else would give it back.
            self.release(lease.number)
            raise
        return lease

    def _best_place(self, ask: Ask, share: Share, chance: float, among: dict[Line, None] | None) -> Placed | None:
        """The same as the ledger finds, for one that may have a line of its own, or parts of its prompt at some."""
        lines = self.ledger.lines
        hits = [(lines[id], tokens) for id, tokens in self.prefixes.hits(ask.chain)] if ask.chain else []
        if ask.adapter and ask.load:
            hits = self._with_adapter(ask, hits)
        kept = self._kept_by(ask)
        if kept is not None and kept.has_room(ask.tokens, share):
            self._let_go()
            return Placed(kept, self._unread(ask, kept))
        if ask.session and (stays := self._line_of_session(ask, share)) is not None:
            return Placed(stays, self._unread(ask, stays))
        found = self.ledger.find(ask, hits, share, chance, among, ask.load)
        if found is not None and len(hits) >= MOST_HITS and found.uncached >= ask.prompt:
            # More lines hold its beginning than were looked at.
            return found._replace(uncached=max(0, found.uncached - self.prefixes.held(found.line.id, ask.chain)))
        return found

    def _unread(self, ask: Ask, line: Line) -> int:
        """What a line has to read of its prompt."""
        return max(0, ask.prompt - self.prefixes.held(line.id, ask.chain)) if ask.chain else ask.prompt

    @staticmethod
    def _too_late(ask: Ask, line: Line, now: float, chance: float) -> Refusal | None:
        """Its refusal, if the line that is best for it cannot begin with it in time, as it has to read others.
        To wait would not help: that gets less no faster than time passes.
        """
        wait_s, left = line.backlog / line.prefill_rate, ask.begins_by - now
        if wait_s <= left:
            return None
        reason = f"the replica that is best for it would begin in {wait_s:.3g} s, and it must in {max(0.0, left):.3g} s"
        return Refusal(TOO_MANY, reason, retry_after(wait_s, left, chance))

    def _line_of_session(self, ask: Ask, share: Share) -> Line | None:
        """Where it ran last, if that line has not too much to read, and has not lost what it had read."""
        id = self.sessions.line_of(ask.session)
        line = None if id is None else self._lines.get(id)
        if line is None or line.backlog > line.stays_backlog or not line.admits(ask.tokens, share):
            return None
        return None if self._has_lost(ask, line) else line

    def _has_lost(self, ask: Ask, line: Line) -> bool:
        """Whether the line where a session ran last holds nothing any more of what it read there."""
        return bool(ask.chain) and self.sessions.has_blocks(ask.session) and not self.prefixes.held(line.id, ask.chain)

    def _with_adapter(self, ask: Ask, hits: list[tuple[Line, int]]) -> list[tuple[Line, int]]:
        """With what need not be loaded where its adapter is."""
        saved = dict(hits)
        for id in self.adapters.lines(ask.adapter):
            line = self.ledger.lines[id]
            saved[line] = saved.get(line, 0) + ask.load
        return list(saved.items())

    def _begin(self, lease: Lease, ask: Ask, tenant: Tenant, band: int, cached: int) -> None:
        lease.belongs_to(ask)
        ask.run(band, cached, tenant)
        tenant.begin(ask.tokens)
        if self.sheds and band == self.last_band:
            self._sheddable.setdefault(lease.line.id, {})[lease.number] = None

    def _ended(self, lease: Lease) -> Ask:
        if self.sheds and (sheddable := self._sheddable.get(line := lease.line.id)) is not None:
            sheddable.pop(lease.number, None)
            if not sheddable:
                del self._sheddable[line]
        ask: Ask = lease.ask
        ask.account.end(ask.tokens)
        self._has_less(ask)
        return ask

    def _has_less(self, ask: Ask) -> None:
        """Its tenant runs less than before."""
        tenant = ask.account
        if not tenant.running:
            self.tenants.forget_if_idle(ask.tenant)
        if tenant.limits.running_tokens is not None:
            # It may run others now, wherever there is room.
            self._look_again()

    def _charge(self, ask: Ask, generated: int) -> None:
        self.order.charge(ask.served_in, ask.tenant, ask.user, OUTPUT_WEIGHT * generated)

    def _keep_a_line(self, ask: Ask) -> None:
        """Keep the line that will fit it soonest from taking others, or smaller ones pass it for ever."""
        if self._kept is not None:
            if self._kept[0] is ask:
                return
            self._let_go()
        line = self.ledger.soonest(ask.tokens)
        if line is not None:
            self._keep(ask, line)

    def _has_no_answer(self, ask: Ask, prefill: Prefill, now: float) -> bool:
        """Whether it waits for a line to answer it, and not only for one to read it, which is seen to here."""
        share = self.holdback.share(self.order.band_of(ask), now)
        return prefill.keep_for(ask, self._kept_by(ask), share)

    def _kept_by(self, ask: Ask) -> Line | None:
        return None if self._kept is None or not self._is_kept_for(ask) else self.ledger.lines[self._kept[1]]

    def _keep(self, ask: Ask, line: Line) -> None:
        if self._kept is not None:
            self._let_go()
        self._kept = ask, line.id
        self.ledger.keep_line(line.id, True)

    def _look_again(self) -> None:
        """Any that waits may have a place now, whatever lines have gained."""
        self._window.look_again()
        self.gained()

    def gained(self) -> None:
        """Whoever changes the ledger beside this says so: one that waits may have a place now."""
        self._may_fit = True

    def kept_line(self, ask: Ask) -> LineId | None:
        """The line that is kept for one that waits."""
        return self._kept[1] if self._kept is not None and self._kept[0] is ask else None

    def _is_kept_for(self, ask: Ask) -> bool:
        return self._kept is not None and self._kept[0] is ask

    def _let_go(self, id: LineId | None = None) -> None:
        """Of the line that is kept, or of this one if it is that."""
        if self._kept is not None and id in (None, self._kept[1]):
            self.ledger.keep_line(self._kept[1], False)
            self._kept = None
            self._look_on = True
            self.gained()
