"""What a replica's code may ask about its surroundings: the replica it is in, and the request it works on."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from actorrt import get_runtime_context

from .exceptions import ServeError


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class RequestContext:
    """One request. `children` are the calls that it made and that have no answer yet."""

    __slots__ = ("children", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.children: set[Cancellable] = set()

    def add(self, child: Cancellable) -> None:
        if not self.children:
            # Whatever the request's own code makes of its cancellation, what it asked for ends.
            get_runtime_context().on_cancel(self.cancel_children)
        self.children.add(child)

    def cancel_children(self) -> None:
        """The request was cancelled, so nobody waits for what it asked for."""
        for child in list(self.children):
            child.cancel()


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
