"""How a replica that answers calls the one that reads its prompt: the lease names it, and goes there too.

A request router without a choice: who has gone, or takes no more, is refused at once, and the request asks its capacity
queue again. One of whom there was no news yet is waited for, since the queue may have heard of it before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from ..base.background import later
from ..base.news import DeploymentNews
from ..policies.policy import Cost, Grant, Policy, PolicyContext, Refused, Request
from .messages import Tag, incarnation_of

_GONE: Final = "the replica that was to read its prompt has gone, or takes no more"
# News take milliseconds. Whom nobody has heard of after so long will not come.
NEWS_S: Final = 2.0
_LEAST_S: Final = 0.05
_MOST_GONE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBy(Cost):
    """`replica` is to read it, by the lease of this `tag`."""

    replica: str
    tag: Tag


def read_by(lease: Tag) -> ReadBy | None:
    """Of a lease that also names who reads its prompt; None: whoever answers does."""
    if lease.prefill is None:
        return None
    replica, rank = lease.prefill
    tag = lease._replace(incarnation=incarnation_of(replica), rank=rank, output=0, prefill=None)
    return ReadBy(replica=replica, tag=tag)


class _Reads(Grant):
    __slots__ = ("tag",)

    def __init__(self, policy: Policy, cost: ReadBy) -> None:
        super().__init__(policy, cost.replica)
        self.tag = cost.tag


class ByLease(Policy):
    def __init__(self, context: PolicyContext) -> None:
        self._context = context
        self._replicas: set[str] = set()
        # Those that were there once.
        self._gone: OrderedDict[str, None] = OrderedDict()
        # Whose replica is not known yet, and until when that is waited for.
        self._waiting: dict[Request, float] = {}
        self._timer: threading.Timer | None = None

    def update(self, news: DeploymentNews) -> None:
        before, self._replicas = self._replicas, {each.id for each in news.replicas}
        for id in before - self._replicas:
            self._went(id)

    def _went(self, id: str) -> None:
        self._gone[id] = None
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)

    def submit(self, request: Request) -> Grant | None:
        cost = request.cost
        if isinstance(cost, ReadBy) and cost.replica in self._replicas:
            return _Reads(self, cost)
        if not isinstance(cost, ReadBy) or cost.replica in self._gone:
            raise Refused(_GONE)
        self._waiting[request] = self._context.clock() + NEWS_S
        if self._timer is None:
            self._look_in(NEWS_S)
        return None

    def again(self, request: Request) -> Grant:
        raise Refused(_GONE)

    def died(self, replica: str) -> None:
        self._replicas.discard(replica)
        self._went(replica)

    def next(self) -> tuple[Request, Grant | Refused] | None:
        now = self._context.clock()
        for request, until in self._waiting.items():
            cost = request.cost
            assert isinstance(cost, ReadBy)
            if cost.replica in self._replicas:
                del self._waiting[request]
                return request, _Reads(self, cost)
            if now >= until or cost.replica in self._gone:
                del self._waiting[request]
                return request, Refused(_GONE)
        # The first of them has waited for longest.
        if self._timer is None and (first := next(iter(self._waiting.values()), None)) is not None:
            self._look_in(max(_LEAST_S, first - now))
        return None

    def _look_in(self, seconds: float) -> None:
        self._timer = later(seconds, self._look)

    def _look(self) -> None:
        # On a thread of its own: what is kept is looked at by `next`.
        self._timer = None
        self._context.ready()

    def withdraw(self, request: Request) -> None:
        self._waiting.pop(request, None)

    def close(self) -> None:
        self._waiting.clear()
        if (timer := self._timer) is not None:
            timer.cancel()

    def release(self, grant: Grant, used: Cost | None) -> None: ...
    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...

    def statistics(self) -> dict[str, Any]:
        return {}
