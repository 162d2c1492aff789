"""How the code of an actor ends it, and what is said of that."""

from __future__ import annotations

from typing import Any, Protocol, cast

from actorrt.types import ProcessId
from actorrt.wire.messages import ActorEnded

from ..links.link import Link
from .instance import Instance


class ActorExit(BaseException):
    """Raised by exit_actor; no user's `except Exception` should stop it."""


def exit_cause(error: ActorExit | SystemExit) -> str:
    """Why an actor ended that has ended itself."""
    if isinstance(error, ActorExit):
        return "it left by exit_actor"
    return f"it left by sys.exit({'' if error.code is None else repr(error.code)})"


def exit_in(group: BaseExceptionGroup[Any]) -> ActorExit | SystemExit | None:
    """That of one of several tasks that ended together, as asyncio.TaskGroup tells of them."""
    for error in cast("tuple[BaseException, ...]", group.exceptions):
        found = exit_in(cast("BaseExceptionGroup[Any]", error)) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, ActorExit | SystemExit):
            return found
    return None


class Owners(Protocol):
    def get(self, process: ProcessId, /) -> Link | None: ...


def report_exit(owners: Owners, instance: Instance, cause: str) -> None:
    """Tell the owner that the actor left by itself."""
    link = owners.get(instance.owner)
    if link is not None:
        link.post(ActorEnded(instance.actor, cause))
