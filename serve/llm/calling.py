"""The one place where a call goes to a model's replicas and its answer comes back.

What goes on at another replica when one dies is wrapped around this and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from ..base.user_errors import in_a_line, is_interrupt
from ..capacity_queue.config import NAME
from ..capacity_queue.costs import checked
from ..capacity_queue.messages import QueueCost, QueueUse
from ..exceptions import ReplicaUnavailableError, RequestCancelledError, RequestRouterError
from ..policies.policy import Cost
from .costs import ModelCost
from .demand import filled_up, queue_cost_of
from .engines.interface import Delta, EngineCall, Head
from .usage import Usage

if TYPE_CHECKING:
    from ..routing.response import DeploymentResponseGenerator
    from .catalogue import Served


class Answer(Protocol):
    """What an engine answers to one call."""

    @property
    def head(self) -> Head: ...
    @property
    def resumes(self) -> int:
        """How often it went on at another replica."""
        ...

    @property
    def queue_ms(self) -> int | None:
        """How long it waited for a replica at first, in milliseconds; None: nobody has looked."""
        ...

    async def take(self) -> list[Delta]:
        """All that is there, at least one and as few as that may be; `[]` at the end. Raises what `Open` does.

        Whoever is cancelled in it ends the call at its engine.
        """
        ...

    def report_used(self, used: Cost) -> None:
        """Tell the request router, when the answer has ended, what it has really used; the last word counts."""
        ...

    def report_usage(self, usage: Usage, finish: str | None) -> None:
        """The same, as its engine says it: who counts tokens learns more by that. `finish`: why it ended, if it has."""
        ...

    def close(self) -> None:
        """Nobody wants the rest: the engine is told at once, and nothing is waited for."""
        ...


# Of a plain tuple, as a replica gives it, without a call of Python code.
_new: Final = cast(Any, tuple).__new__

Open = Callable[["Served", EngineCall, "Cost"], Awaitable[Answer]]
"""Make the call and return when the engine's Head is there. The cost is what the model's request router is told.

EngineError if the engine fails; BackPressureError, DeploymentUnavailableError or ReplicaUnavailableError of Serve's.
"""


class ReplicaAnswer:
    """The answer of one replica, as it comes."""

    __slots__ = ("_first", "_stream", "head")

    resumes = 0

    def __init__(self, stream: DeploymentResponseGenerator[Any], head: Head, first: list[Delta]) -> None:
        self._stream = stream
        self.head = head
        self._first = first

    @property
    def queue_ms(self) -> int | None:
        return self._stream.queue_ms

    async def take(self) -> list[Delta]:
        if self._first:
            first, self._first = self._first, []
            return first
        return _together(await self._stream.next_values())

    def report_used(self, used: Cost) -> None:
        self._stream.report_used(used)

    def report_usage(self, usage: Usage, finish: str | None) -> None:
        self._stream.report_used(Cost(tokens=usage.prompt + usage.completion))

    def close(self) -> None:
        self._stream.close()


class QueuedAnswer(ReplicaAnswer):
    """The same of a replica whose tokens a capacity queue counts: it is told of them."""

    __slots__ = ("_cost", "_learn", "_said", "_tokens")

    def __init__(
        self, stream: DeploymentResponseGenerator[Any], head: Head, first: list[Delta], served: Served, cost: ModelCost
    ) -> None:
        super().__init__(stream, head, first)
        self._tokens = 0
        self._said: tuple[Usage, str | None] | None = None
        self._cost = cost
        self._learn = served.sizes.learn

    async def take(self) -> list[Delta]:
        deltas = await super().take()
        came = 0
        for _, tokens in deltas:
            came += tokens
        if came:
            self._tokens += came
            self._stream.report_progress(self._tokens)
        return deltas

    def report_used(self, used: Cost) -> None:
        # Its tokens are told as they come, but for those that were read here after its end; what its engine says is
        # told better.
        if self._tokens and self._said is None:
            self._stream.report_used(QueueUse(tokens=self._tokens))

    def report_usage(self, usage: Usage, finish: str | None) -> None:
        if (said := (usage, finish)) == self._said:
            return
        if self._said is None or usage.prompt != self._said[0].prompt:
            self._learn(self._cost, usage.prompt)
        self._said = said
        whole = finish in WHOLE
        self._stream.report_used(QueueUse(tokens=usage.completion, cached=usage.cached, is_whole=whole))


# An answer that ends so is as long as the model made it.
WHOLE: Final = frozenset({"stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use"})


async def open_call(served: Served, call: EngineCall, cost: Cost) -> Answer:
    """`Open` without anything around it."""
    own = cost if isinstance(cost, ModelCost) else ModelCost(prompt_bytes=len(call.body))
    if served.is_queued:
        cost = _queue_cost(served, call, own)
    stream = served.generate.options(cost=cost).remote(call)
    patience = _Patience(stream, served.config.queue_timeout_s)
    try:
        values = await stream.next_values()
    except BaseException as error:
        stream.close()
        if patience.is_over and isinstance(error, RequestCancelledError):
            raise served.no_room() from None
        raise
    finally:
        patience.end()
    if not values:
        raise ReplicaUnavailableError(served.handle.deployment_name, "", "its answer ended before it began")
    head, first = Head(*values[0]), _together(values[1:])
    return QueuedAnswer(stream, head, first, served, own) if served.is_queued else ReplicaAnswer(stream, head, first)


def _queue_cost(served: Served, call: EngineCall, cost: ModelCost) -> QueueCost:
    """As the deployment's own cost function says, where it has one. RequestRouterError if that fails."""
    found = queue_cost_of(call, served.sizes, cost)
    if served.own_cost is None:
        return found
    try:
        return filled_up(checked(served.own_cost(call)), found)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise RequestRouterError("#".join(served.deployment), NAME, in_a_line(error)) from error


class _Patience:
    """Ends a call that waits for a replica too long: at first, or since one has refused it, being full by others."""

    __slots__ = ("_limit_s", "_loop", "_stream", "_timer", "is_over")

    def __init__(self, stream: DeploymentResponseGenerator[Any], limit_s: float) -> None:
        self._stream, self._limit_s = stream, limit_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(limit_s, self._look)
        self.is_over = False

    def _look(self) -> None:
        if self._stream.waits:
            self.is_over = True
            self._stream.cancel()
        else:
            self._timer = self._loop.call_later(self._limit_s, self._look)

    def end(self) -> None:
        self._timer.cancel()


def _together(values: list[tuple[bytes, int]]) -> list[Delta]:
    """Deltas that came together as one: what is done for each is done once."""
    if len(values) < 2:
        return [_new(Delta, value) for value in values]
    data, tokens = zip(*values, strict=True)
    return [Delta(b"".join(data), sum(tokens))]
