"""What a load saw, as a picture: `python loadtests/llm/chart.py FOLDER PICTURE`, from the files that the load wrote.

Runs in an environment that has matplotlib; `loadtests/llm/load.py` makes one.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(figures: dict[str, Any], requests: list[dict[str, str]], seconds: list[dict[str, str]], target: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "actorrt", "svg.fonttype": "none"})
    figure, (first, per_token, rate) = plt.subplots(3, 1, figsize=(9, 8), layout="constrained", sharex=True)
    options = figures["options"]
    for tenant in sorted({row["tenant"] for row in requests}):
        mine = [row for row in requests if row["tenant"] == tenant]
        for axes, column in ((first, "ttft_ms"), (per_token, "tpot_ms")):
            shown = [row for row in mine if row[column]]
            axes.plot(
                [float(row["asked_at_s"]) for row in shown],
                [float(row[column]) for row in shown],
                ".",
                markersize=3,
                label=tenant,
            )
    first.axhline(options["ttft_target_ms"], color="grey", linewidth=0.8, linestyle="--")
    per_token.axhline(options["tpot_target_ms"], color="grey", linewidth=0.8, linestyle="--")
    first.set_ylabel("time to first token, ms")
    per_token.set_ylabel("time per output token, ms")
    for axes in (first, per_token):
        axes.set_yscale("log")
        axes.legend(loc="upper right", title="tenant", fontsize=8)
    # The last second is not a whole one.
    rate.step([int(row["second"]) for row in seconds[:-1]], [int(row["events_with_text"]) for row in seconds[:-1]])
    rate.set_ylabel("reads with text a second")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("seconds since the load began; a dot is a request, the dashed line the target that goodput wants")
    for axes in (first, per_token, rate):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    figures = json.loads((folder / "figures.json").read_text())
    draw(figures, read(folder / "requests.csv"), read(folder / "seconds.csv"), target)


if __name__ == "__main__":
    main()
