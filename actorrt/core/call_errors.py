"""What a call ends with that got no answer from its callee, and why. No I/O."""

from __future__ import annotations

from enum import auto

from actorrt.exceptions import (
    ActorrtError,
    ActorUnavailableError,
    LinkError,
    NodeDiedError,
    OutOfMemoryError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)

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


def crashed(name: str, cause: str, oom: bool) -> WorkerCrashedError | OutOfMemoryError:
    """For a call whose worker died of this `cause`; `oom`: its node says that memory ran out."""
    kind = OutOfMemoryError if oom else WorkerCrashedError
    return kind(name, cause, True)


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
