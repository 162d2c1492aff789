"""The ratios of a comparison as a picture: `python loadtests/chart.py docs/benchmarks.json docs/benchmarks.svg`.

Runs in an environment that has matplotlib; `compare.py --chart FILE` makes one.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests.catalogue import MEASURES
from loadtests.sides import SIDES

COLOURS = {"aim met": "#1a7f37", "met": "#57ab5a", "not met": "#cf222e"}


def ratios(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines that compare with another side and have a value, in the order of the table."""
    return [line for line in record["lines"] if line["bound"]["relation"] == "times" and line["value"] is not None]


def draw(lines: list[dict[str, Any]], target: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "actorrt", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(lines) + 1.2), layout="constrained")
    for place, line in enumerate(reversed(lines)):
        value, bound = line["value"], line["bound"]
        axes.barh(place, value - 1, left=1, height=0.62, color=COLOURS[line["verdict"]])
        axes.plot([line["low"], line["high"]], [place, place], color="black", linewidth=0.8)
        if bound["at_least"] is not None:
            axes.plot(bound["at_least"], place, "|", color="black", markersize=13, markeredgewidth=2)
        if bound["aim"] is not None:
            axes.plot(bound["aim"], place, "D", color="black", fillstyle="none", markersize=5)
        axes.annotate(
            f"{value:.3g} x",
            (max(value, line["high"], bound["aim"] or 0), place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(
        range(len(lines)),
        [_label(line["bound"]["measure"], line["bound"]["against"]) for line in reversed(lines)],
    )
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} x"))
    left, right = axes.get_xlim()
    axes.set_xlim(left / 1.2, right * 1.5)
    figure.supxlabel(
        "actorrt as a multiple of the other side; bar: median, line: lowest to highest round, stroke: at least, "
        "diamond: aim",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def _label(measure: str, against: str) -> str:
    return f"{MEASURES[measure].title.replace('`', '')} / {SIDES[against].title}"


def main() -> None:
    draw(ratios(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
