"""What fairness.py has measured as a picture: `python loadtests/llm/fairness_chart.py RECORD.json TARGET.svg`.

Runs in an environment that has matplotlib; `fairness.py --chart FILE` makes one.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

COLOURS = {"steady": "#0969da", "flood": "#bc4c00"}


def by_second(run: dict[str, Any], tenant: str) -> list[int]:
    """Parts of text in each second after the warm-up."""
    found = [0] * int(run["seconds"])
    for each in run["all"]:
        if each["tenant"] == tenant:
            for at in each["came_at"]:
                second = int(at - run["warm_s"])
                if at >= run["warm_s"] and second < len(found):
                    found[second] += 1
    return found


def draw(record: list[dict[str, Any]], target: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "actorrt", "svg.fonttype": "none"})
    figure, rows = plt.subplots(2, len(record), figsize=(9, 4.6), sharex="col", sharey="row", layout="constrained")
    for run, rate, first in zip(record, rows[0], rows[1], strict=True):
        rate.set_title(run["title"], fontsize=9)
        for tenant in run["figures"]:
            rate.plot(by_second(run, tenant), color=COLOURS[tenant], label=tenant)
            own = [
                each
                for each in run["all"]
                if each["tenant"] == tenant and each["asked_at"] >= run["warm_s"] and each["ttft"]
            ]
            times = [each["asked_at"] - run["warm_s"] for each in own]
            first.plot(times, [each["ttft"] for each in own], ".", color=COLOURS[tenant], markersize=4)
        first.set_yscale("log")
        first.set_xlabel("seconds")
    rows[0][0].set_ylim(bottom=0)
    rows[0][0].set_ylabel("tokens a second")
    rows[1][0].set_ylabel("time to first token, s")
    rows[0][-1].legend(frameon=False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
