"""What a client is told when there is nothing that could run its request: 503, and when to ask again.

Reasons may hold what no client should see (hosts, paths, passwords in the error of a constructor): they are for logs.
"""

from typing import Final, cast

from .exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

RETRY_AFTER_S: Final = 1
NOT_AVAILABLE: Final = "the application is not available"


def unavailable_in(error: BaseException | None) -> Exception | None:
    """The error that says so, if this is one or a group of nothing else."""
    if isinstance(error, BackPressureError | DeploymentUnavailableError | ReplicaUnavailableError):
        return error
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        found = [unavailable_in(each) for each in members]
        return found[0] if all(found) else None
    return None


def client_text(error: Exception) -> str:
    """The text of the 503 page."""
    if isinstance(error, BackPressureError):
        return str(error)
    if isinstance(error, ReplicaUnavailableError) and error.may_have_run:
        return f"{NOT_AVAILABLE}; the request may have run"
    return NOT_AVAILABLE
