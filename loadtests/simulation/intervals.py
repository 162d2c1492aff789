"""Means of several runs, with 95 % confidence intervals by Student's t."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

# Two-sided, 95 %, by degrees of freedom.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
             2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052)  # fmt: skip


class Interval(NamedTuple):
    mean: float
    half: float
    """The mean lies within so much of the true one, in 95 of 100 such experiments; nan of one run."""


def interval(values: Sequence[float]) -> Interval:
    """Runs without the value are left out."""
    there = [value for value in values if not math.isnan(value)]
    count = len(there)
    if not count:
        return Interval(math.nan, math.nan)
    mean = math.fsum(there) / count
    if count == 1:
        return Interval(mean, math.nan)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in there) / (count - 1))
    t = _T[count - 2] if count - 2 < len(_T) else 1.96
    return Interval(mean, t * deviation / math.sqrt(count))


def intervals(runs: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: interval([run.get(name, math.nan) for run in runs]) for name in names}
