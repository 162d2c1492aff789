"""Make the policy that the news name, and what stands in for one that cannot be made or does not know where to send."""

from __future__ import annotations

import logging
import pickle
from typing import Any, Final, NoReturn

from ..base.news import DeploymentNews, PolicyKind
from ..base.user_errors import in_a_line
from ..capacity_queue.config import NAME as CAPACITY_QUEUE
from ..capacity_queue.policy import CapacityQueuePolicy
from ..policies.policy import Cost, Grant, Policy, PolicyContext, Request
from ..policies.routing import BUILT_IN

logger = logging.getLogger("actorrt.serve")

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


def make_policy(kind: PolicyKind, context: PolicyContext) -> Policy:
    if kind.name == CAPACITY_QUEUE and not kind.code:
        return CapacityQueuePolicy(context)
    if not kind.code:
        return BUILT_IN[kind.name](context)
    try:
        cls, kwargs = pickle.loads(kind.code)
        return cls(context, **kwargs)
    except FAILURES as error:
        logger.exception("the request router %s of %s could not be made", kind.name, context.deployment)
        return Unusable(f"it could not be made: {in_a_line(error)}")
