"""How the code of an actor ends it, and what is said of that."""

from __future__ import annotations

from typing import Protocol

from actorrt.core.outcome import ActorExit
from actorrt.types import ProcessId
from actorrt.wire.messages import ActorEnded

from ..links.link import Link
from .instance import Instance


def exit_cause(error: ActorExit | SystemExit) -> str:
    """Why an actor ended that has ended itself."""
    if isinstance(error, ActorExit):
        return "it left by exit_actor"
    return f"it left by sys.exit({'' if error.code is None else repr(error.code)})"


class Owners(Protocol):
    def get(self, process: ProcessId, /) -> Link | None: ...


def report_exit(owners: Owners, instance: Instance, cause: str) -> None:
    """Tell the owner that the actor left by itself."""
    link = owners.get(instance.owner)
    if link is not None:
        link.post(ActorEnded(instance.actor, cause))
