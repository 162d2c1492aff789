"""How the code of an actor ends it, and what is said of that."""

from __future__ import annotations

from typing import Protocol

from actorrt.core.instance import Actions
from actorrt.core.outcome import ActorExit
from actorrt.types import ProcessId
from actorrt.wire.messages import ActorEnded

from ..links.link import Link
from ..machine.process import exit_code
from ..owner.program import Tenancy
from .instance import Instance


def exit_cause(error: ActorExit | SystemExit) -> str:
    """Why an actor ended that has ended itself."""
    if isinstance(error, ActorExit):
        return "it left by exit_actor"
    return f"it left by sys.exit({'' if error.code is None else repr(error.code)})"


def end_by_exit(instance: Instance, tenancy: Tenancy, error: ActorExit | SystemExit) -> Actions:
    """The actor's own code ends it: by exit_actor, or by sys.exit as it would end a program."""
    code = exit_code(error) if isinstance(error, SystemExit) and instance.has_process else 0
    actions = instance.exit(code)
    if actions and instance.has_process:
        tenancy.exit_with(code)
    return actions


class Owners(Protocol):
    def get(self, process: ProcessId, /) -> Link | None: ...


def report_exit(owners: Owners, instance: Instance, cause: str) -> None:
    """Tell the owner that the actor left by itself."""
    link = owners.get(instance.owner)
    if link is not None:
        link.post(ActorEnded(instance.actor, cause))
