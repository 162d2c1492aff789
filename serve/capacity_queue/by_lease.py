"""How a replica that answers calls the one that reads its prompt: the lease names it, and goes there too.

A request router without a choice: who is not there, or takes no more, is refused at once, and the request asks its
capacity queue again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..news import DeploymentNews
from ..policy import Cost, Grant, Policy, PolicyContext, Refused, Request
from .messages import Tag, incarnation_of

_GONE: Final = "the replica that was to read its prompt has gone, or takes no more"


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
        self._replicas: set[str] = set()

    def update(self, news: DeploymentNews) -> None:
        self._replicas = {each.id for each in news.replicas}

    def submit(self, request: Request) -> Grant:
        cost = request.cost
        if not isinstance(cost, ReadBy) or cost.replica not in self._replicas:
            raise Refused(_GONE)
        return _Reads(self, cost)

    def again(self, request: Request) -> Grant:
        raise Refused(_GONE)

    def died(self, replica: str) -> None:
        self._replicas.discard(replica)

    def next(self) -> None:
        return None

    def withdraw(self, request: Request) -> None: ...
    def release(self, grant: Grant, used: Cost | None) -> None: ...
    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...
    def close(self) -> None: ...

    def statistics(self) -> dict[str, Any]:
        return {}
