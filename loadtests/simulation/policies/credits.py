"""The capacity queue in a process of its own: what routers ask it, and what they let in by credits without asking.

A message takes `MESSAGE_S` from a router to the queue or back. The credits are the queue's own classes: HubCredits of
its process, and a CreditHolder in each router, with the rule of the shell's by_credit.py for who may go by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actorrt.serve.capacity.credit_holder import CreditHolder, Held
from actorrt.serve.capacity.credit_messages import Credit, Grants, Room
from actorrt.serve.capacity.credits import NOBODY, CreditSize
from actorrt.serve.capacity.fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineId
from actorrt.serve.capacity_queue.hub import UNREAD_PART
from actorrt.serve.capacity_queue.hub_credits import HubCredits
from actorrt.serve.capacity_queue.messages import CreditsHeld, CreditsTold, Learnt

from ..requests import Request
from .ours import Asked, Ours

if TYPE_CHECKING:
    from ..fleet import Fleet

MESSAGE_S: Final = 0.0005
CREDIT_SHARE: Final = 0.5


class _Local:
    """A request that runs by a credit."""

    __slots__ = ("held", "is_unread", "tokens")

    def __init__(self, held: Held, tokens: int) -> None:
        self.held, self.tokens = held, tokens
        self.is_unread = True


class Apart(Ours):
    """Everybody asks."""

    def arrive(self, request: Request, now: float) -> None:
        self._later(lambda: super(Apart, self).arrive(request, self.fleet.now))

    def _later(self, call: Callable[[], None]) -> None:
        self.fleet.at(self.fleet.now + MESSAGE_S, call)

    def _send(self, ask: Asked, lease: Lease) -> None:
        self._check(lease)
        request, replica = ask.request, int(lease.line.id.replica)
        request.memo = lease.id.number, request.generated

        def come() -> None:
            if self.fleet.is_up[replica]:
                self.fleet.send(request, replica)
            else:
                self.arrive(request, self.fleet.now)

        self._later(come)

    def first(self, request: Request, now: float) -> None:
        self._later(lambda: super(Apart, self).first(request, self.fleet.now))

    def further(self, request: Request, generated: int, now: float) -> None:
        self._later(lambda: super(Apart, self).further(request, generated, self.fleet.now))

    def ended(self, request: Request, now: float) -> None:
        self._later(lambda: super(Apart, self).ended(request, self.fleet.now))


class ByCredits(Apart):
    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet)
        self.hub = HubCredits(self.queue)
        self.holders = [CreditHolder(str(router), self._is_up) for router in range(fleet.routers)]
        for router in range(fleet.routers):
            self.hub.joined(str(router), 0.0)
        part = CREDIT_SHARE / fleet.routers
        lines = list(self.queue.ledger.lines.values())
        slots = int(min(line.slots for line in lines) * part)
        tokens = int(min(line.fill_tokens for line in lines) * part)
        unread = int(min(tokens, UNREAD_PART * part * min(line.most_backlog for line in lines)))
        self._size = CreditSize(tokens, slots, unread=unread) if slots and unread else None
        self.hub.resize(self._size, False)
        # By router: requests that have ended, and their tokens.
        self._served = [0] * fleet.routers
        self._tokens = [0] * fleet.routers
        # What of each replica runs by credits, in tokens and requests.
        self._filled = [Room(0, 0)] * len(fleet.engines)
        self._let_in = self._asked = 0
        self._stranded: list[float] = []

    def _is_up(self, replica: str) -> bool:
        return self.fleet.is_up[int(replica)]

    # ---- at a router

    def arrive(self, request: Request, now: float) -> None:
        held = self._take(request, now)
        if held is None:
            self._asked += 1
            self.hub.asked(str(request.router))
            super().arrive(request, now)
            return
        self._let_in += 1
        replica = int(held.line.replica)
        local = request.memo = _Local(held, request.prompt + request.max_tokens)
        self._fill(replica, local.tokens, 1)
        self.fleet.send(request, replica)

    def _take(self, request: Request, now: float) -> Held | None:
        """Not of what the queue would place better: by a prefix of a block, a session, or its band."""
        if request.attempts or request.prompt >= self.fleet.model.hash_tokens or request.session:
            return None
        if not self.queue.order.bands[request.band].is_whole:
            return None
        return self.holders[request.router].take(request.prompt + request.max_tokens, now, request.prompt)

    def _fill(self, replica: int, tokens: int, slots: int) -> None:
        before = self._filled[replica]
        filled = self._filled[replica] = Room(before.tokens + tokens, before.slots + slots)
        line = self.queue.ledger.lines.get(LineId(str(replica)))
        if slots < 0 or line is None:
            return
        # The ledger counts all of a credit, filled or not.
        credits = [lease for lease in line.leases.values() if lease.router == NOBODY]
        has_room = filled.tokens <= sum(lease.tokens for lease in credits)
        if not has_room or filled.slots > sum(lease.slots for lease in credits):
            self.over_admitted += 1

    def first(self, request: Request, now: float) -> None:
        local = request.memo
        if not isinstance(local, _Local):
            super().first(request, now)
        elif local.is_unread:
            local.is_unread = False
            local.held.has_read(request.prompt)

    def further(self, request: Request, generated: int, now: float) -> None:
        if not isinstance(request.memo, _Local):
            super().further(request, generated, now)

    def ended(self, request: Request, now: float) -> None:
        local, router = request.memo, request.router
        if not isinstance(local, _Local):
            super().ended(request, now)
            return
        self.first(request, now)
        holder = self.holders[router]
        local.held.filled -= local.tokens
        local.held.running -= 1
        self._fill(request.replica, -local.tokens, -1)
        self._served[router] += 1
        self._tokens[router] += local.tokens
        served = INPUT_WEIGHT * (request.prompt - request.cached) + OUTPUT_WEIGHT * request.output
        band = self.queue.order.bands[request.band].name
        holder.serve((band, request.tenant, ""), served)
        learnt = Learnt(band, "", request.tenant, "", request.prompt, request.output, 0.0, True)
        self._later(lambda: self.hub.learn([learnt]))
        if not local.held.slots:
            # The queue waits for it.
            self._answer(router)

    def _hear(self, router: int, told: CreditsTold) -> None:
        credits = {
            number: Credit(LineId(replica, rank), 1, Room(tokens, slots), unread)
            for number, replica, rank, tokens, slots, unread in told.credits
        }
        grants = Grants(self.queue.ledger.epoch, told.version, credits, told.heard, told.counted)
        self.holders[router].heard(grants, self.fleet.now)
        self._answer(router)

    def _answer(self, router: int) -> None:
        said = self.holders[router].report(self.fleet.now)
        held = [
            (number, room.tokens, room.slots, said.filled[number].tokens, said.filled[number].slots)
            for number, room in said.held.items()
        ]
        served = [(*key, tokens) for key, tokens in said.usage.served.items()]
        answer = CreditsHeld(
            said.number, said.version, held, said.usage.number, served, self._served[router], self._tokens[router]
        )

        def come() -> None:
            self.hub.take(str(router), answer, self.fleet.now)
            self._next(self.fleet.now)

        self._later(come)

    # ---- at the queue

    def _next(self, now: float, passes: int = 32) -> None:
        super()._next(now, passes)
        if self.queue.order:
            self.hub.waits(now)
        self._tell(now)

    def _tell(self, now: float) -> None:
        for router, told in self.hub.told(now):
            self._later(lambda router=int(router), told=told: self._hear(router, told))

    def tick(self, now: float) -> None:
        super().tick(now)
        self.hub.tick(now, self.fleet.dice.random())
        self._tell(now)
        given = self.hub.book.tokens - sum(filled.tokens for filled in self._filled)
        self._stranded.append(given / (self._facts.kv_tokens * len(self.fleet.engines)))

    def down(self, replica: int, now: float) -> None:
        super().down(replica, now)
        self._filled[replica] = Room(0, 0)
        for holder in self.holders:
            holder.look_again()

    def up(self, replica: int, now: float) -> None:
        super().up(replica, now)
        for holder in self.holders:
            holder.look_again()

    def measures(self) -> dict[str, float]:
        lines = min(len(self.fleet.engines), 0 if self._size is None else self._size.lines)
        bound = 0 if self._size is None else self.fleet.routers * lines * self._size.tokens
        return {
            "by_credit": self._let_in / max(1, self._let_in + self._asked),
            "stranded_mean": sum(self._stranded) / max(1, len(self._stranded)),
            "stranded_most": max(self._stranded, default=0.0),
            "stranded_bound": bound / (self._facts.kv_tokens * len(self.fleet.engines)),
        }
