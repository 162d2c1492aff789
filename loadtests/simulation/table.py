"""A comparison as a table, each figure with its 95 % confidence interval, and as lines of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .intervals import Interval


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    factor: float = 1.0
    """What is shown for one of what is measured."""
    digits: int = 3


COLUMNS: Final[dict[str, Column]] = {
    **{
        f"{name}_{part}": Column(f"{title} {part}, {unit}", factor)
        for name, title, unit, factor in (
            ("ttft", "TTFT", "s", 1.0),
            ("tpot", "TPOT", "ms", 1000.0),
            ("itl", "ITL", "ms", 1000.0),
            ("e2e", "end to end", "s", 1.0),
        )
        for part in ("mean", "p50", "p90", "p99")
    },
    "tokens_per_s": Column("tokens/s", digits=4),
    "in_time_tokens_per_s": Column("in time, tokens/s", digits=4),
    "output_tokens_per_s": Column("answers, tokens/s", digits=4),
    "goodput": Column("goodput, req/s"),
    "good_share": Column("good, %", 100),
    "refused_share": Column("refused, %", 100),
    "queued_mean": Column("queued, s"),
    "hit_ratio": Column("hits, %", 100),
    "jain": Column("Jain's index", digits=3),
    "least_share": Column("least share, %", 100),
    "vtc_gap": Column("VTC gap, tokens", digits=4),
    "vtc_bound": Column("VTC bound, tokens", digits=4),
    "over_admission": Column("over-admitted"),
    "preemptions": Column("pre-empted"),
    "resumed": Column("resumed"),
    "used_p25": Column("KV p25, %", 100),
    "used_p50": Column("KV p50, %", 100),
    "used_p75": Column("KV p75, %", 100),
    "batch_tokens_per_s": Column("batch, tokens/s", digits=4),
    "batch_left": Column("batch left"),
    "busy": Column("busy, %", 100),
    "by_credit": Column("by credit, %", 100),
    "stranded_mean": Column("idle in credits, %", 100),
    "stranded_most": Column("at most, %", 100),
    "stranded_bound": Column("bound, %", 100),
}
USUAL: Final = (
    "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "tpot_p90", "itl_p99", "e2e_p50", "tokens_per_s", "goodput",
    "refused_share", "hit_ratio", "preemptions", "over_admission", "used_p50",
)  # fmt: skip
OF_TENANTS: Final = ("jain", "vtc_gap", "vtc_bound")


# About as wide are the names of measures and a figure.
_FIRST_WIDTH: Final = 24
_WIDTH: Final = 22


def number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    if value and abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def cell(found: Interval | None, column: Column) -> str:
    if found is None or math.isnan(found.mean):
        return "-"
    mean = number(found.mean * column.factor, column.digits)
    if math.isnan(found.half):
        return mean
    return f"{mean} ± {number(found.half * column.factor, 2)}"


Found = Mapping[str, Mapping[str, Interval]]


def columns(found: Found, wanted: Sequence[str] = ()) -> list[str]:
    if wanted:
        return list(wanted)
    there = {name for measures in found.values() for name in measures}
    return [name for name in (*USUAL, *OF_TENANTS) if name in there]


def show(found: Found, wanted: Sequence[str], title: str, console: Console) -> None:
    """As many policies beside each other as there is width for, and the others below."""
    names = columns(found, wanted)
    console.print(title)
    policies = list(found)
    most = max(1, (console.width - _FIRST_WIDTH) // _WIDTH)
    for start in range(0, len(policies), most):
        part = policies[start : start + most]
        table = Table(box=SIMPLE)
        table.add_column("")
        for policy in part:
            table.add_column(policy, justify="right")
        for name in names:
            column = COLUMNS.get(name, Column(name))
            table.add_row(column.title, *(cell(found[policy].get(name), column) for policy in part))
        console.print(table)


def markdown(found: Found, wanted: Sequence[str] = ()) -> str:
    names = columns(found, wanted)
    titles = [COLUMNS.get(name, Column(name)).title for name in names]
    lines = [f"| policy | {' | '.join(titles)} |", f"|---|{'---:|' * len(names)}"]
    lines += [
        f"| {policy} | {' | '.join(cell(measures.get(name), COLUMNS.get(name, Column(name))) for name in names)} |"
        for policy, measures in found.items()
    ]
    return "\n".join(lines) + "\n"
