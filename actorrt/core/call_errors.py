"""What a call ends with that got no answer from its callee, and why. No I/O."""

from __future__ import annotations

from enum import auto

from actorrt.exceptions import (
    ActorrtError,
    ActorUnavailableError,
    CallTimeoutError,
    LinkError,
    NodeDiedError,
    OutOfMemoryError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)

from .call_terms import OPTIONS, CallTerms, Limit
from .calls import MOST_DEATHS
from .labels import Label


class Why(Label):
    """Why a call ends without an answer."""

    # Its caller wanted it cancelled.
    CANCELLED = auto()
    # The same, and its worker was ended for that.
    FORCED = auto()
    # Its worker died of it, or maybe of it.
    CRASHED = auto()
    # The node has no worker for it.
    REFUSED = auto()
    # Its caller ends.
    CLOSED = auto()


def crashed(name: str, cause: str, oom: bool, deaths: int) -> WorkerCrashedError | OutOfMemoryError:
    """For a call whose worker died of this `cause`; `oom`: its node says that memory ran out. `deaths`: so many
    workers in a row have died under it."""
    kind = OutOfMemoryError if oom else WorkerCrashedError
    if deaths >= MOST_DEATHS:
        cause = f"{cause}; {deaths} workers in a row have died under it, so it is not tried again"
    return kind(name, cause, True)


def late(name: str, terms: CallTerms, limit: Limit) -> CallTimeoutError:
    """For a call that this limit of its own has ended."""
    return CallTimeoutError(name, OPTIONS[limit], terms.limits.of(limit) or 0.0, terms.began)


def forced(name: str, cause: str) -> WorkerCrashedError:
    """For a call whose worker was ended so that it ends."""
    return WorkerCrashedError(name, f"cancelled with force: {cause}", True)


def refused(name: str, error: ActorrtError, node_died: NodeDiedError) -> ActorrtError:
    """For a call for which the node has no worker, as `error` says; `node_died` is what to say if there is no node."""
    if isinstance(error, LinkError):
        return node_died
    if isinstance(error, TaskPlacementGroupRemoved | TaskUnschedulableError | WorkerCrashedError):
        # It was asked for no call in particular.
        return type(error)(name, *error.args[1:])
    return error


def unavailable(title: str, cause: str) -> ActorUnavailableError:
    """For a call that may have run, of an actor that comes back."""
    return ActorUnavailableError(title, f"{cause}; it is being restarted", True)
