"""Comparisons as pictures: for each of them bars by policy, with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .intervals import Interval
from .table import COLUMNS, Column

OURS: Final = "#1a7f37"
OTHERS: Final = "#8c959f"
Found = Mapping[str, Mapping[str, Interval]]


def draw(panels: Sequence[tuple[str, Found, str]], target: Path) -> None:
    """Each panel is a title, what was found, and the measure that it shows. The file's ending says the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 8, "svg.hashsalt": "actorrt", "svg.fonttype": "none"})
    wide = min(3, len(panels))
    high = math.ceil(len(panels) / wide)
    most = max(len(found) for _, found, _ in panels)
    figure, axes = plt.subplots(
        high,
        wide,
        figsize=(3.4 * wide + 1, (0.19 * most + 0.75) * high),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for axis, (title, found, measure) in zip(axes.flat, panels, strict=False):
        column = COLUMNS.get(measure, Column(measure))
        policies = list(reversed(found))
        values = [found[policy].get(measure, Interval(math.nan, math.nan)) for policy in policies]
        axis.barh(
            range(len(policies)),
            [value.mean * column.factor for value in values],
            xerr=[0 if math.isnan(value.half) else value.half * column.factor for value in values],
            color=[OURS if policy.startswith("ours") else OTHERS for policy in policies],
            error_kw={"linewidth": 0.8},
            height=0.7,
        )
        axis.set_yticks(range(len(policies)), policies)
        means = [value.mean for value in values if not math.isnan(value.mean)]
        if means and max(means) > 20 * min(means) > 0:
            axis.set_xscale("log")
        axis.set_title(title, fontsize=8)
        axis.set_xlabel(column.title, fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    plt.close(figure)
