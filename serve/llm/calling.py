"""The one place where a call goes to a model's replicas and its answer comes back.

What goes on at another replica when one dies is wrapped around this and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from ..exceptions import ReplicaUnavailableError
from .engines.interface import Delta, EngineCall, Head

if TYPE_CHECKING:
    from ..response import DeploymentResponseGenerator
    from .catalogue import Served


class Answer(Protocol):
    """What an engine answers to one call."""

    @property
    def head(self) -> Head: ...
    @property
    def resumes(self) -> int:
        """How often it went on at another replica."""
        ...

    async def take(self) -> list[Delta]:
        """All that is there, at least one; `[]` at the end. Raises what `Open` does.

        Whoever is cancelled in it ends the call at its engine.
        """
        ...

    def close(self) -> None:
        """Nobody wants the rest: the engine is told at once, and nothing is waited for."""
        ...


# Of a plain tuple, as a replica gives it, without a call of Python code.
_new: Final = cast(Any, tuple).__new__

Open = Callable[["Served", EngineCall], Awaitable[Answer]]
"""Make the call and return when the engine's Head is there.

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

    async def take(self) -> list[Delta]:
        if self._first:
            first, self._first = self._first, []
            return first
        return [_new(Delta, value) for value in await self._stream.next_values()]

    def close(self) -> None:
        self._stream.close()


async def open_call(served: Served, call: EngineCall) -> Answer:
    """`Open` without anything around it."""
    stream = served.generate.remote(call)
    try:
        if stream.waits:
            await served.room_within(stream.until_done())
        values = await stream.next_values()
    except BaseException:
        stream.close()
        raise
    if not values:
        raise ReplicaUnavailableError(served.handle.deployment_name, "", "its answer ended before it began")
    return ReplicaAnswer(stream, Head(*values[0]), [_new(Delta, value) for value in values[1:]])
