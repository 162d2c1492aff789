"""One call at a model, from its opening to its end, with what is counted of it on the way.

All that asks a model for an answer goes through here, so that nothing is left out of the metrics.
"""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..exceptions import RequestRefusedError
from ..policies.policy import Cost
from .costs import ModelCost
from .engines.interface import Delta, EngineCall, Head
from .usage import USAGE_MARK, Usage, finish_in, usage_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calling import Answer, Open
    from .catalogue import Chosen


class Generation:
    """A context manager: at its end the call is closed, wherever it was, and told to who counts."""

    def __init__(
        self,
        chosen: Chosen,
        tenant: str,
        operation: str,
        cost: Cost,
        open_: Open,
        ended: Callable[[Generation], None],
    ) -> None:
        """`cost`: what it is expected to take of a replica."""
        self.served, self.model = chosen
        self.tenant, self.operation = tenant, operation
        self._cost = cost
        self._open = open_
        self._ended = ended
        self._answer: Answer | None = None
        self.started_at = monotonic()
        # When the first generated token came, and the last; 0.0: none did.
        self.first_at = self.last_at = 0.0
        # Generated tokens that have come.
        self.tokens = 0
        self.status = 0
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.error: BaseException | None = None
        # How long it waited for a replica, where that is known.
        self.queue_ms: int | None = None

    @property
    def resumes(self) -> int:
        return self._answer.resumes if self._answer is not None else 0

    async def open(self, call: EngineCall) -> Head:
        """Raises as `Open`."""
        try:
            self._answer = await self._open(self.served, call, self._cost)
        except RequestRefusedError:
            if self.served.is_queued:
                self.queue_ms = int((monotonic() - self.started_at) * 1000)
            raise
        self.queue_ms = self._answer.queue_ms
        head = self._answer.head
        self.status = head.status
        return head

    async def take(self) -> list[Delta]:
        """All deltas that are there; `[]` at the end. Raises as `Open`."""
        assert self._answer is not None
        values = await self._answer.take()
        came, known = 0, (self.usage, self.finish)
        for data, tokens in values:
            came += tokens
            if USAGE_MARK in data and (usage := usage_in(data)) is not None:
                self.usage = usage
            if (finish := finish_in(data)) is not None:
                self.finish = finish
        if came:
            self.last_at = monotonic()
            if not self.tokens:
                self.first_at = self.last_at
            self.tokens += came
        if (self.usage, self.finish) != known:
            self._report(self._answer)
        return values

    def _report(self, answer: Answer) -> None:
        """While the answer goes on: at its end it is too late."""
        if self.usage is not None:
            answer.report_usage(self.usage, self.finish)
        elif isinstance(self._cost, ModelCost):
            answer.report_used(Cost(tokens=self._cost.prompt_tokens + self.tokens))

    async def rest(self) -> bytes:
        """All that is still to come, as one."""
        parts: list[bytes] = []
        while values := await self.take():
            parts += [data for data, _ in values]
        if len(parts) == 1:
            return parts[0]
        body = b"".join(parts)
        if self.usage is None:
            # It may lie across two parts.
            self.usage = usage_in(body)
        return body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.error = error
        if self._answer is not None:
            self._report(self._answer)
            self._answer.close()
        self._ended(self)
