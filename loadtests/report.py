"""From the figures of all runs to one verdict a line. Pure: no clock, no files.

Two sides are compared round by round, since a round's runs lie close in time, and the median of those ratios counts;
its lowest and highest are reported beside it.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from loadtests.catalogue import MEASURES, OURS, Bound, Relation, Row
from loadtests.sides import BEFORE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of one side gave: its figures, or why there are none."""

    round: int
    workload: str
    side: str
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    error: str | None = None
    seconds: float = 0.0


class Verdict(Enum):
    AIM = "aim met"
    MET = "met"
    NOT_MET = "not met"
    REPORTED = "reported"
    MISSING = "not measured"


@dataclass(frozen=True, slots=True)
class Line:
    """One bound, judged. `value` is what is held against it: a ratio, a difference, or our figure alone."""

    row: str
    title: str
    bound: Bound
    ours: float | None
    theirs: float | None
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    why: str = ""


def by_round(outcomes: Iterable[Outcome], side: str, measure: str) -> dict[int, float]:
    """A side's figures of one measure, by the round they were taken in."""
    return {
        outcome.round: outcome.figures[measure]
        for outcome in outcomes
        if outcome.side == side and measure in outcome.figures
    }


def median(outcomes: Iterable[Outcome], side: str, measure: str) -> float | None:
    values = by_round(outcomes, side, measure).values()
    return statistics.median(values) if values else None


def compare(ours: Mapping[int, float], theirs: Mapping[int, float], relation: Relation) -> list[float]:
    """The values to judge, one for each round that has what is needed."""
    if relation is Relation.ALONE:
        return list(ours.values())
    rounds = sorted(ours.keys() & theirs.keys())
    if relation is Relation.OVER:
        return [ours[number] - theirs[number] for number in rounds]
    return [ours[number] / theirs[number] for number in rounds if theirs[number]]


def verdict(bound: Bound, value: float) -> Verdict:
    """How the value stands to the bound. A ratio is better the higher it is; all else as its measure says."""
    up = bound.relation is Relation.TIMES or MEASURES[bound.measure].more_is_better

    def reaches(limit: float) -> bool:
        return value >= limit if up else value <= limit

    if bound.at_least is None and bound.aim is None:
        return Verdict.REPORTED
    if bound.aim is not None and reaches(bound.aim):
        return Verdict.AIM
    if bound.at_least is None or not reaches(bound.at_least):
        return Verdict.NOT_MET
    return Verdict.MET


@dataclass(frozen=True, slots=True)
class Change:
    """One measure beside an earlier revision. Of `ratios`, one a round, more is better, whatever the measure."""

    measure: str
    now: float
    before: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def changes(outcomes: Sequence[Outcome]) -> list[Change]:
    """Every measure that both revisions have given in the same round."""
    found: list[Change] = []
    for name, measure in MEASURES.items():
        now, before = by_round(outcomes, OURS, name), by_round(outcomes, BEFORE, name)
        ours, theirs = (now, before) if measure.more_is_better else (before, now)
        if ratios := compare(ours, theirs, Relation.TIMES):
            medians = statistics.median(now.values()), statistics.median(before.values())
            found.append(Change(name, *medians, tuple(ratios)))
    return found


def judge(rows: Iterable[Row], outcomes: Sequence[Outcome], absent: Mapping[str, str]) -> list[Line]:
    """One line for each bound of the rows; `absent` says of sides that never ran why."""
    return [_judge(row, bound, outcomes, absent) for row in rows for bound in row.bounds]


def _judge(row: Row, bound: Bound, outcomes: Sequence[Outcome], absent: Mapping[str, str]) -> Line:
    ours = by_round(outcomes, OURS, bound.measure)
    theirs = by_round(outcomes, bound.against, bound.theirs) if bound.against else {}
    values = compare(ours, theirs, bound.relation)
    our_median = statistics.median(ours.values()) if ours else None
    their_median = statistics.median(theirs.values()) if theirs else None
    if not values:
        sides = [(OURS, ours), *([(bound.against, theirs)] if bound.against else [])]
        why = "; ".join(_why(side, bound, outcomes, absent) for side, figures in sides if not figures)
        return Line(row.key, row.title, bound, our_median, their_median, None, None, None, Verdict.MISSING, why)
    middle = statistics.median(values)
    judged = verdict(bound, middle)
    return Line(row.key, row.title, bound, our_median, their_median, middle, min(values), max(values), judged)


def _why(side: str, bound: Bound, outcomes: Sequence[Outcome], absent: Mapping[str, str]) -> str:
    """In a few words; what a run said when it failed stands in the list of errors."""
    if side in absent:
        return f"{side} is not installed"
    tried = any(outcome.side == side and outcome.error is not None for outcome in outcomes)
    return f"{side} failed" if tried else f"{side} did not run"
