"""What a replica's code may ask about its surroundings: the replica it is in, and the request it works on."""

from __future__ import annotations

import asyncio
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from actorrt import get_runtime_context

from ..exceptions import ServeError


class Child(Protocol):
    def cancel(self) -> None: ...
    async def until_done(self) -> None: ...


class RequestContext:
    """One request. `children` are the calls that it made and that have no answer yet."""

    __slots__ = ("answers", "children", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        # Its response has begun: what ends the call that carries it does not end what made it.
        self.answers = False
        self.children: set[Child] = set()

    def add(self, child: Child) -> None:
        if not self.children:
            # Whatever the request's own code makes of its cancellation, what it asked for ends.
            get_runtime_context().on_cancel(self._call_cancelled)
        self.children.add(child)

    def _call_cancelled(self) -> None:
        if not self.answers:
            self.cancel_children()

    def cancel_children(self) -> None:
        """The request was cancelled, so nobody waits for what it asked for."""
        for child in list(self.children):
            child.cancel()


class HookContext(RequestContext):
    """Code that runs for no request: a constructor, and what ends with the replica. Each of its calls is for itself."""

    __slots__ = ()

    def __init__(self) -> None:
        self.children = set()
        self.answers = False

    @property
    def request_id(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return uuid.uuid4().hex

    async def settled(self, limit_s: float) -> bool:
        """Wait for the calls that it made. False if some have no answer after `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                while self.children:
                    await next(iter(self.children)).until_done()
        except TimeoutError:
            return False
        return True


current_request: ContextVar[RequestContext | None] = ContextVar("actorrt_serve_request", default=None)


@dataclass(frozen=True, slots=True)
class ReplicaContext:
    """Where code of a deployment runs. `servable_object` is the user's instance, None for a function."""

    app_name: str
    deployment: str
    replica_id: str
    servable_object: Any = None

    @property
    def replica_tag(self) -> str:
        return self.replica_id


_replica: ReplicaContext | None = None


def set_replica_context(context: ReplicaContext | None) -> None:
    global _replica
    _replica = context


def get_replica_context() -> ReplicaContext:
    """The replica that this code runs in. ServeError outside of one."""
    if _replica is None:
        raise ServeError("get_replica_context() is for the code of a deployment: this is no replica")
    return _replica


def in_replica() -> bool:
    return _replica is not None
