"""Make the policy that the news name; where that cannot be, what stands in for it."""

from __future__ import annotations

import logging
import pickle

from ..base.news import PolicyKind
from ..base.user_errors import in_a_line
from ..capacity_queue.config import NAME as CAPACITY_QUEUE
from ..capacity_queue.policy import CapacityQueuePolicy
from ..policies.policy import Policy, PolicyContext
from ..policies.routing import BUILT_IN
from .unusable import FAILURES, Unusable

logger = logging.getLogger("actorrt.serve")


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
