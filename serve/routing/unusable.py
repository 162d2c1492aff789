"""What stands in for a policy that cannot be made, does not know where to send, or has no deployment any more. Pure."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from ..base.news import DeploymentNews
from ..policies.policy import Cost, Grant, Request

# What the code of a policy may raise without harm to others: anything. It is called and returns, so that CancelledError
# and GeneratorExit, too, are its own.
FAILURES: Final = (BaseException,)


class PolicyFailed(Exception):
    """There is no policy to ask; this says why."""


class DeploymentGone(Exception):
    """There is no deployment; this says why."""


class Unusable:
    """In the place of a policy that failed: each request that it is asked about fails."""

    error: type[Exception] = PolicyFailed

    def __init__(self, cause: str) -> None:
        self._cause = cause

    def update(self, news: DeploymentNews) -> None: ...
    def withdraw(self, request: Request) -> None: ...
    def release(self, grant: Grant, used: Cost | None) -> None: ...
    def died(self, replica: str) -> None: ...
    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...
    def close(self) -> None: ...

    def submit(self, request: Request) -> NoReturn:
        raise self.error(self._cause)

    def again(self, request: Request) -> NoReturn:
        raise self.error(self._cause)

    def next(self) -> NoReturn:
        raise self.error(self._cause)

    def statistics(self) -> dict[str, Any]:
        return {}


class Gone(Unusable):
    """In the place of the policy of a deployment that is not there."""

    error = DeploymentGone
