"""What a capacity queue says of itself: the values that `serve.queues()` gives. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LineStatus:
    """One rank of a replica. Tokens, or requests where these are counted."""

    replica: str
    rank: int
    kv_tokens: int
    used: int
    """Prompts and expected answers of what runs."""
    backlog: int
    """Of these, prompts that are not read yet; without those that were let in by credits."""
    running: int
    begun: int
    """Of those that run, the ones that the replica has said to have."""
    slots: int
    is_open: bool
    done: int = 0
    """Of `used`, the tokens that are there: prompts that were read, and answers that have come."""
    credits: int = 0
    """Of the slots, those that routers have by credits and have not filled."""
    others: int = 0
    """Requests that its engine says to have beside these."""
    others_tokens: int = 0
    """Tokens that its engine says to have beyond `used`."""
    role: str = ""
    """"prefill" where it only reads prompts, for the other lines."""


@dataclass(frozen=True, slots=True)
class TenantStatus:
    waiting: int
    tokens: int
    """Or requests where these are counted, by their costs."""
    longest_s: float
    """How long the first of them has waited."""
    bands: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many of them wait in each band."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """`trouble` says why a queue does not answer; the rest is empty then."""

    application: str
    deployment: str
    units: str = ""
    """"requests" or "tokens"."""
    epoch: int = 0
    lines: tuple[LineStatus, ...] = ()
    tenants: Mapping[str, TenantStatus] | None = None
    """Those of which something waits."""
    routers: int = 0
    granted: int = 0
    refused: int = 0
    short: int = 0
    """Answers that were longer than expected."""
    trouble: str = ""

    @classmethod
    def of(cls, application: str, deployment: str, said: Mapping[str, Any]) -> QueueStatus:
        """What an actor has said."""
        lines = tuple(LineStatus(**each) for each in said["lines"])
        tenants = {name: TenantStatus(**each) for name, each in said["tenants"].items()}
        rest = {name: said[name] for name in ("units", "epoch", "routers", "granted", "refused", "short")}
        return cls(application, deployment, lines=lines, tenants=tenants, **rest)
