"""One queue before all replicas, in the order of arrival: in requests, as Ray's capacity queue, and in tokens."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from actorrt.serve.capacity.ledger import Ledger
from actorrt.serve.capacity.need import Limits, LineFacts, LineId, Need
from actorrt.serve.capacity.output_lengths import OutputLengths

from ..requests import Request
from .direct import Shortest
from .policy import Policy

if TYPE_CHECKING:
    from ..fleet import Fleet


class ShortestHeld(Shortest):
    """The replica with fewest requests, of those with a slot free; where none has, requests wait in their order."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet, 0.0, lambda view: view.requests)
        self._waiting: deque[Request] = deque()

    def arrive(self, request: Request, now: float) -> None:
        if request.attempts:
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        self._place()

    def ended(self, request: Request, now: float) -> None:
        super().ended(request, now)
        self._place()

    def up(self, replica: int, now: float) -> None:
        self._place()

    def _place(self) -> None:
        slots, requests = self.fleet.model.slots, self.views[0].requests
        while self._waiting:
            free = [replica for replica in self.up_replicas() if requests[replica] < slots]
            if not free:
                return
            request = self._waiting.popleft()
            self.dispatch(request, self.choose(request, free), request.tokens)


class Fifo(Policy):
    """The ledger of the capacity queue, in tokens, and nothing else of it: the first that came is the first to go."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet)
        model = fleet.model
        self._facts = LineFacts(model.kv_tokens, model.slots, model.prefill_rate)
        self._ledger = Ledger(1, Limits())
        self._lengths = OutputLengths()
        self._waiting: deque[Request] = deque()
        for replica in range(len(fleet.engines)):
            self._ledger.set_line(LineId(str(replica)), self._facts, 1)

    def arrive(self, request: Request, now: float) -> None:
        if request.attempts:
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        self._place()

    def _place(self) -> None:
        while self._waiting:
            request = self._waiting[0]
            output = self._lengths.expect("", "", request.prompt, request.max_tokens)
            # An engine ends an answer where nothing fits beside it any more.
            output = min(max(output, request.generated), max(0, self.fleet.model.kv_tokens - request.prompt))
            need = Need(request.prompt, output)
            placed = self._ledger.find(need, chance=self.fleet.dice.random())
            if placed is None:
                return
            self._waiting.popleft()
            request.memo = self._ledger.admit(placed, need, "").id.number
            self.fleet.send(request, int(placed.line.id.replica))

    def first(self, request: Request, now: float) -> None:
        self._ledger.progress(request.memo, 1)
        self._place()

    def further(self, request: Request, generated: int, now: float) -> None:
        self._ledger.progress(request.memo, generated)

    def ended(self, request: Request, now: float) -> None:
        self._ledger.release(request.memo, request.output)
        self._lengths.learn("", "", request.prompt, request.output)
        self._place()

    def down(self, replica: int, now: float) -> None:
        self._ledger.drop_line(LineId(str(replica)))

    def up(self, replica: int, now: float) -> None:
        self._ledger.set_line(LineId(str(replica)), self._facts, int(now * 1000) + 2)
        self._place()
