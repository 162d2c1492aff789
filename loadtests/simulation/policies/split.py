"""The capacity queue with prefill and decode on separate replicas: the first of them read prompts, the others answer.

A prompt goes to the engine of its lease that reads, as a request of one token, then its keys and values to the other
one, which goes on from the prompt's last token.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import Limits, LineFacts, LineId
from actorrt.serve.capacity.output_lengths import OutputLengths
from actorrt.serve.capacity.queue import CapacityQueue, QueueLimits

from ..requests import Arrival, Request
from .ours import Asked, Ours

if TYPE_CHECKING:
    from ..fleet import Fleet

# Below those of all requests of the background.
_FIRST_NUMBER: Final = -(10**9)
_ENDLESS_RATE: Final = 1e15
_REVISION: Final = "one"


class _Reading(Request):
    """The prompt of a request where it is read, by the lease of this number, with what was generated of its answer."""

    __slots__ = ("answerer", "lease", "of")
    answers = False

    def __init__(self, number: int, of: Request, lease: int, answerer: int) -> None:
        super().__init__(
            number, Arrival(of.arrived, of.prompt, of.generated + 1, of.chain, tenant=of.tenant, session=of.session)
        )
        self.generated = of.generated
        self.of, self.lease, self.answerer = of, lease, answerer


class Split(Ours):
    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet)
        self._readers = fleet.prefill or max(1, len(fleet.engines) // 2)
        if self._readers >= len(fleet.engines):
            raise ValueError(f"of {len(fleet.engines)} replicas {self._readers} read, and none is left to answer")
        model = fleet.model
        alone = model.chunk_tokens / model.step_s(model.chunk_tokens, 0, 0)
        self._reads = LineFacts(model.kv_tokens, model.slots, alone)
        self._answers = LineFacts(model.kv_tokens, model.slots, _ENDLESS_RATE)
        self._numbers = count()
        # Those whose prompts are read or handed over, with that.
        self._coming: dict[Request, _Reading] = {}
        # Those that came while nobody read, or nobody answered.
        self._parked: list[Request] = []
        self.queue = CapacityQueue(
            1, 0.0, limits=Limits(), most=QueueLimits(10**12, 10**9), lengths=OutputLengths(), reads_elsewhere=True
        )
        for replica in range(len(fleet.engines)):
            self._set(replica, 1)

    def _set(self, replica: int, incarnation: int) -> None:
        line = LineId(str(replica))
        if replica < self._readers:
            self.queue.set_reader(line, self._reads, incarnation, _REVISION)
        else:
            self.queue.set_line(line, self._answers, incarnation)
            assert self.queue.prefill is not None
            self.queue.prefill.answers_in(line, _REVISION)

    def arrive(self, request: Request, now: float) -> None:
        if isinstance(request, _Reading):
            # Who read it has died.
            if self._coming.get(request.of) is not request:
                return
            del self._coming[request.of]
            self.queue.release(request.lease)
            request = request.of
        if self.queue.longest:
            super().arrive(request, now)
        else:
            self._parked.append(request)

    def _send(self, ask: Asked, lease: Lease) -> None:
        self._check(lease)
        fleet, request, number = self.fleet, ask.request, lease.id.number
        request.memo = number, request.generated
        if not request.attempts:
            request.queued_s = fleet.now - request.arrived
        if fleet.fairness is not None:
            fleet.fairness.left(request, fleet.now)
        assert self.queue.prefill is not None
        reads = self.queue.prefill.lease(number)
        assert reads is not None
        reads.has_begun = True
        reading = _Reading(_FIRST_NUMBER - next(self._numbers), request, number, int(lease.line.id.replica))
        self._coming[request] = reading
        fleet.send(reading, int(reads.line.id.replica))

    def first(self, request: Request, now: float) -> None:
        if not isinstance(request, _Reading):
            super().first(request, now)

    def further(self, request: Request, generated: int, now: float) -> None:
        if not isinstance(request, _Reading):
            super().further(request, generated, now)

    def ended(self, request: Request, now: float) -> None:
        if not isinstance(request, _Reading):
            super().ended(request, now)
            return
        self.queue.handed_over(request.lease)
        if self._coming.get(request.of) is request:
            if not request.of.generated:
                request.of.cached = request.cached
            self.fleet.at(
                now + request.prompt * self.fleet.model.handover_per_token_s, lambda: self._handed_over(request)
            )
        self._next(now)

    def _handed_over(self, reading: _Reading) -> None:
        request = reading.of
        if self._coming.get(request) is not reading:
            return
        del self._coming[request]
        request.is_handed_over, queued_s = True, request.queued_s
        self.fleet.send(request, reading.answerer)
        request.queued_s = queued_s

    def down(self, replica: int, now: float) -> None:
        if replica < self._readers:
            self.queue.drop_reader(LineId(str(replica)))
            return
        super().down(replica, now)
        for request, reading in list(self._coming.items()):
            if reading.answerer == replica:
                del self._coming[request]
                request.attempts += 1
                self.fleet.at(now, lambda request=request: self.arrive(request, self.fleet.now))  # type: ignore[misc]

    def up(self, replica: int, now: float) -> None:
        self._set(replica, int(now * 1000) + 2)
        parked, self._parked = self._parked, []
        for request in parked:
            self.arrive(request, now)
        self._next(now)
