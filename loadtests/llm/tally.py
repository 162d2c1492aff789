"""All requests of a load, tenant by tenant, and the table that they make. Pure.

Gaps between tokens are too many to be kept one by one: they are counted in steps of 2 %.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.llm.stream import Seen

ALL: Final = "all"
_STEP: Final = math.log(1.02)
_SMALLEST_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Targets:
    """What a good answer keeps to, in seconds; goodput counts those alone."""

    ttft: float
    tpot: float

    def are_met(self, seen: Seen) -> bool:
        return (
            seen.ttft is not None and seen.ttft <= self.ttft and (seen.tpot is None or seen.tpot <= self.tpot)
        )  # fmt: skip


class Gaps:
    """Durations, counted in steps."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: Iterable[float]) -> None:
        self._counts.update(math.floor(math.log(max(gap, _SMALLEST_S)) / _STEP) for gap in seconds)

    def quantile(self, share: float) -> float | None:
        """At most 2 % above the gap that this share of all does not exceed."""
        left = math.ceil(self._counts.total() * share)
        for step, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return math.exp((step + 1) * _STEP)
        return None


@dataclass(slots=True)
class Tally:
    """What one tenant's requests came to."""

    ttfts: list[float] = field(default_factory=list[float])
    tpots: list[float] = field(default_factory=list[float])
    gaps: Gaps = field(default_factory=Gaps)
    answered: int = 0
    good: int = 0
    refused: int = 0
    failed: int = 0
    truncated: int = 0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def add(self, seen: Seen, targets: Targets) -> None:
        """A request that was not refused, with what came of it."""
        self.gaps.add(seen.gaps)
        if seen.error is not None:
            self.failed += 1
            return
        if seen.truncated:
            self.truncated += 1
            return
        self.answered += 1
        self.good += targets.are_met(seen)
        self.completion_tokens += seen.completion_tokens or 0
        self.prompt_tokens += seen.prompt_tokens or 0
        self.cached_tokens += seen.cached_tokens
        if seen.ttft is not None:
            self.ttfts.append(seen.ttft)
        if seen.tpot is not None:
            self.tpots.append(seen.tpot)

    def figures(self, seconds: float) -> dict[str, Any]:
        """By the names of the CSV's columns; None where there was nothing."""
        p99 = self.gaps.quantile(0.99)
        return {
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "truncated": self.truncated,
            "ttft_p50_ms": _ms(quantile(self.ttfts, 0.5)),
            "ttft_p95_ms": _ms(quantile(self.ttfts, 0.95)),
            "tpot_p50_ms": _ms(quantile(self.tpots, 0.5)),
            "tpot_p95_ms": _ms(quantile(self.tpots, 0.95)),
            "gap_p99_ms": _ms(p99),
            "tokens_per_s": round(self.completion_tokens / seconds, 1),
            "requests_per_s": round(self.answered / seconds, 2),
            "goodput_per_s": round(self.good / seconds, 2),
            "cached_share": round(self.cached_tokens / self.prompt_tokens, 3) if self.prompt_tokens else None,
        }


class Tallies:
    """By tenant, and all together."""

    def __init__(self, targets: Targets) -> None:
        self.targets: Final = targets
        self._by_tenant: dict[str, Tally] = {ALL: Tally()}

    def refused(self, tenant: str) -> None:
        for tally in self._of(tenant):
            tally.refused += 1

    def failed(self, tenant: str) -> None:
        for tally in self._of(tenant):
            tally.failed += 1

    def add(self, tenant: str, seen: Seen) -> None:
        for tally in self._of(tenant):
            tally.add(seen, self.targets)

    def table(self, seconds: float) -> list[dict[str, Any]]:
        names = sorted(self._by_tenant.keys() - {ALL})
        return [{"tenant": name, **self._by_tenant[name].figures(seconds)} for name in (*names, ALL)]

    def _of(self, tenant: str) -> tuple[Tally, Tally]:
        return self._by_tenant[ALL], self._by_tenant.setdefault(tenant, Tally())


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that this share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)] if values else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
