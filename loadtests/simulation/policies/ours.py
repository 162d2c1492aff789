"""The capacity queue itself, actorrt.serve.capacity.queue, with the parts of it that are not switched off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from actorrt.serve.capacity.ask import Ask, Refusal
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import Limits, LineFacts, LineId
from actorrt.serve.capacity.output_lengths import OutputLengths
from actorrt.serve.capacity.queue import CapacityQueue, QueueLimits
from actorrt.serve.capacity.tenants import TenantLimits

from ..requests import Request
from .policy import Policy

if TYPE_CHECKING:
    from ..fleet import Fleet

PARTS: Final = {
    "prefix": "the score of prefixes",
    "lengths": "learnt lengths of answers: each is as long as its client allows",
    "vtc": "fairness between tenants: all are one",
    "backlog": "the limit on prompts that wait to be read at a replica",
    "headroom": "the tenth of each cache that is not given",
    "line": "the line that is kept for the first that waits",
    "tokens": "tokens: replicas are filled by requests up to their slots",
    "sessions": "sessions that stay where they ran",
    "deadlines": "deadlines: nobody is refused",
}
# As the actor of the shell does it.
TICK_S: Final = 0.1
MANY_PASSES: Final = 512


class _AsAllowed(OutputLengths):
    def expect(self, model: str, tenant: str, prompt: int, max_tokens: int | None = None) -> int:
        return max_tokens or 0


class _KeepsNoLine(CapacityQueue):
    def _keep_a_line(self, ask: Ask) -> None:
        pass


class Asked(Ask):
    __slots__ = ("request",)

    def __init__(self, request: Request, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.request = request


class Ours(Policy):
    def __init__(
        self,
        name: str,
        fleet: Fleet,
        without: frozenset[str] = frozenset(),
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(name, fleet)
        self.tick_s = TICK_S
        self.without = without
        model = fleet.model
        weights = weights or {}
        limits = Limits(1.0 if "headroom" in without else 0.9, 1e9 if "backlog" in without else 2.0)
        self._facts = LineFacts(model.kv_tokens, model.slots, model.prefill_rate)
        if "tokens" in without:
            limits = Limits(1.0)
            self._facts = LineFacts(2 * model.slots, model.slots, 1e15)
        self.queue = (_KeepsNoLine if "line" in without else CapacityQueue)(
            1,
            0.0,
            limits=limits,
            most=QueueLimits(10**12, 10**9),
            lengths=_AsAllowed() if "lengths" in without else OutputLengths(),
            tenants=lambda tenant: TenantLimits(weights.get(tenant, 1.0)),
        )
        for replica in range(len(fleet.engines)):
            self.queue.set_line(LineId(str(replica)), self._facts, 1)

    def _ask(self, request: Request) -> Asked:
        without = self.without
        in_requests = "tokens" in without
        most = request.max_tokens - request.generated
        return Asked(
            request,
            "",
            1 if in_requests else request.tokens,
            1 if in_requests else most,
            tenant="" if "vtc" in without else request.tenant,
            band=request.band,
            arrived=request.arrived,
            router=str(request.router),
            deadline=math.inf if "deadlines" in without else request.deadline,
            chain=() if "prefix" in without or in_requests else request.chain,
            session="" if "sessions" in without else request.session,
        )

    def arrive(self, request: Request, now: float) -> None:
        ask = self._ask(request)
        try:
            lease = self.queue.submit(ask, now, self.fleet.dice.random(), returns=request.attempts > 0)
        except Refusal as refusal:
            self.fleet.refuse(request, refusal.reason)
            return
        if lease is not None:
            self._send(ask, lease)

    def _send(self, ask: Asked, lease: Lease) -> None:
        self._check(lease)
        ask.request.memo = lease.id.number, ask.request.generated
        self.fleet.send(ask.request, int(lease.line.id.replica))

    def _check(self, lease: Lease) -> None:
        line = lease.line
        if line.used > line.fill_tokens and line.running > 1:
            self.over_admitted += 1

    def _next(self, now: float, passes: int = 32) -> None:
        if not self.queue.order:
            return
        for ask, found in self.queue.next(now, self.fleet.dice.random, passes):
            assert isinstance(ask, Asked)
            if isinstance(found, Refusal):
                self.fleet.refuse(ask.request, found.reason)
            else:
                self._send(ask, found)

    def first(self, request: Request, now: float) -> None:
        self.queue.progress(request.memo[0], 1)
        self._next(now)

    def further(self, request: Request, generated: int, now: float) -> None:
        number, before = request.memo
        self.queue.progress(number, 1 if "tokens" in self.without else generated - before)
        self._next(now)

    def ended(self, request: Request, now: float) -> None:
        number, before = request.memo
        in_requests = "tokens" in self.without
        self.queue.release(
            number,
            1 if in_requests else request.output - before,
            None if "prefix" in self.without or in_requests or before else request.cached,
            is_whole=not before,
        )
        self._next(now)

    def tick(self, now: float) -> None:
        self._next(now, MANY_PASSES)

    def down(self, replica: int, now: float) -> None:
        self.queue.drop_line(LineId(str(replica)))

    def up(self, replica: int, now: float) -> None:
        self.queue.set_line(LineId(str(replica)), self._facts, int(now * 1000) + 2)
        self._next(now)
