"""Every public exception of Serve.

    ActorrtError
      ServeError
        DeployFailedError            a deployment could not be brought up: the reason is in it
        RequestRefusedError          the deployment's request router did not take the request
          RequestStoppedError        its place was taken away while it ran
          BackPressureError          the queue in front of a deployment is full
        RequestRouterError           the deployment's request router failed, by its own fault
        RequestCancelledError        the caller cancelled the request, or a waiter for it was cancelled
        DeploymentUnavailableError   no such application or deployment, or it failed
        ReplicaUnavailableError      the replica went away while it had the request

PlainError is no more than a base of what parts of Serve raise in a replica. What user code raises is not here: it
arrives as the user's own class. Fields are the arguments, so that pickle can rebuild each of them.
"""

from actorrt.exceptions import ActorrtError


class PlainError(Exception):
    """Its text tells a person all there is to know: class and frames would hide it."""


class ServeError(ActorrtError):
    """Something in Serve, not in user code, went wrong."""


class DeployFailedError(ServeError):
    """An application did not come up; what ran before still serves.

    `application` and `reason` say which and why. You do not get this for a graph that is wrong: that is a TypeError or
    ValueError, raised before anything is started.
    """

    def __init__(self, application: str, reason: str) -> None:
        super().__init__(application, reason)
        self.application, self.reason = application, reason

    def __str__(self) -> str:
        return f"application {self.application!r} could not be deployed: {self.reason}"


class RequestRefusedError(ServeError):
    """The deployment's request router did not take the request, which was not sent and is safe to repeat.

    `retry_after_s` says when that is worth a try; None: never. `status` is what HTTP clients get. With `ticket`, if
    there is one, a retry keeps its place in a capacity queue (`QueueCost(ticket=...)`). You do not get this where there
    is nothing to send to: that is DeploymentUnavailableError. `queue_ms` is how long it waited for its place, as of a
    capacity queue; None where no router has looked.
    """

    queue_ms: int | None = None

    def __init__(
        self, deployment: str, reason: str, retry_after_s: float | None = 1.0, status: int = 503, ticket: str = ""
    ) -> None:
        super().__init__(deployment, reason, retry_after_s, status, ticket)
        self.deployment, self.reason, self.retry_after_s, self.status = deployment, reason, retry_after_s, status
        self.ticket = ticket

    def __str__(self) -> str:
        return f"deployment {self.deployment!r} does not take the request: {self.reason}"


class RequestStoppedError(RequestRefusedError):
    """The deployment's request router took the request's place away while it ran, for another: it may have run in part.

    You get it only where a capacity queue sheds (`sheds`).
    """


class BackPressureError(RequestRefusedError):
    """`max_queued_requests` requests already wait for the deployment; this one was not sent and is safe to repeat."""

    def __init__(self, deployment: str, queued: int, limit: int, retry_after_s: float = 1.0) -> None:
        super().__init__(deployment, f"{queued} requests wait, max_queued_requests is {limit}", retry_after_s)
        self.args = (deployment, queued, limit, retry_after_s)
        self.queued, self.limit = queued, limit

    def __str__(self) -> str:
        return f"deployment {self.deployment!r} is full: {self.reason}"


class RequestRouterError(ServeError):
    """The request router of the deployment, a class of the user's, raised or gave what it must not. Not sent."""

    def __init__(self, deployment: str, router: str, cause: str) -> None:
        super().__init__(deployment, router, cause)
        self.deployment, self.router, self.cause = deployment, router, cause

    def __str__(self) -> str:
        return f"the request router {self.router} of deployment {self.deployment!r} failed: {self.cause}"


class RequestCancelledError(ServeError):
    """The request was cancelled. If it had been sent, its `finally` blocks have run or will."""

    def __init__(self, deployment: str, request_id: str) -> None:
        super().__init__(deployment, request_id)
        self.deployment, self.request_id = deployment, request_id

    def __str__(self) -> str:
        return f"request {self.request_id} to deployment {self.deployment!r} was cancelled"


class DeploymentUnavailableError(ServeError):
    """There is nothing to send to: the deployment does not exist, was deleted, or failed to come up."""

    def __init__(self, deployment: str, reason: str) -> None:
        super().__init__(deployment, reason)
        self.deployment, self.reason = deployment, reason

    def __str__(self) -> str:
        return f"deployment {self.deployment!r} is not available: {self.reason}"


class ReplicaUnavailableError(ServeError):
    """The replica went away while it had the request.

    `may_have_run` says whether user code may have seen the request. You do not get this if it surely has not: then the
    request is sent to another replica.
    """

    def __init__(self, deployment: str, replica: str, cause: str, may_have_run: bool = True) -> None:
        super().__init__(deployment, replica, cause, may_have_run)
        self.deployment, self.replica, self.cause, self.may_have_run = deployment, replica, cause, may_have_run

    def __str__(self) -> str:
        ran = "it may have run" if self.may_have_run else "it has not run"
        return f"replica {self.replica} of {self.deployment!r} went away while it had the request ({ran}): {self.cause}"
