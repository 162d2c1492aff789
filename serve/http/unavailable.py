"""What a client is told when there is nothing that runs its request, and when to ask again.

Reasons may hold what no client should see (hosts, paths, passwords in the error of a constructor): they are for logs.
"""

from typing import Final, NamedTuple, cast

from ..exceptions import DeploymentUnavailableError, ReplicaUnavailableError, RequestRefusedError

# Where no router was asked, or it did not refuse: a replica has gone, or none is there yet.
RETRY_AFTER_S: Final = 1
NOT_AVAILABLE: Final = "the application is not available"


class Answer(NamedTuple):
    """`retry_after_s` None: it is not worth a try."""

    status: int
    text: str
    retry_after_s: float | None
    ticket: str = ""
    """What a retry may bring along."""
    queue_ms: int | None = None
    """How long it has waited for its place, where that is known."""


def unavailable_in(error: BaseException | None) -> Exception | None:
    """The error that says so, if this is one or a group of nothing else."""
    if isinstance(error, RequestRefusedError | DeploymentUnavailableError | ReplicaUnavailableError):
        return error
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        found = [unavailable_in(each) for each in members]
        return found[0] if all(found) else None
    return None


def answer_to(error: BaseException | None) -> Answer | None:
    """What the client gets if this says that nothing runs its request."""
    found = unavailable_in(error)
    if found is None:
        return None
    if isinstance(found, RequestRefusedError):
        return Answer(found.status, client_text(found), found.retry_after_s, found.ticket, found.queue_ms)
    return Answer(503, client_text(found), RETRY_AFTER_S)


def client_text(error: Exception) -> str:
    """The text of the page."""
    if isinstance(error, RequestRefusedError):
        return str(error)
    if isinstance(error, ReplicaUnavailableError) and error.may_have_run:
        return f"{NOT_AVAILABLE}; the request may have run"
    return NOT_AVAILABLE
