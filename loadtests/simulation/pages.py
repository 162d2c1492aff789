"""The tables of docs/benchmarks.md that come of simulations: `python -m loadtests.simulation.pages --traces FOLDER`.

It runs each scenario below, writes the tables between two marks of the page, their figures by run to
docs/simulation.json and the plots beside it. About fifteen minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import plots, sessions, table, traces
from .engine_model import EngineModel
from .intervals import Interval, interval, intervals
from .policies.catalogue import USUAL
from .progress import Progress
from .requests import Arrival
from .runs import Plan, compare, saturation

BEGIN: Final = "<!-- simulated: begin -->"
END: Final = "<!-- simulated: end -->"
DOCS: Final = Path(__file__).resolve().parent.parent.parent / "docs"
REPLICAS: Final = 8
DEADLINE_S: Final = 2.0
_NORMAL: Final = ("ttft_p50", "ttft_p90", "ttft_p99", "tpot_p90", "e2e_p50", "tokens_per_s", "goodput", "hit_ratio")
_OVER: Final = ("ttft_p90", "tpot_p90", "tokens_per_s", "goodput", "refused_share", "hit_ratio", "preemptions")
_TENANTS: Final = ("ttft_p50", "tokens_per_s", "goodput", "jain", "least_share", "vtc_gap", "vtc_bound")
_PARTS: Final = ("ttft_p50", "ttft_p90", "tpot_p90", "goodput", "hit_ratio", "preemptions")
_BESIDE: Final = ("ttft_p50", "ttft_p99", "tpot_p90", "batch_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    trace: str
    load: float
    columns: tuple[str, ...]
    count: int = 1500
    deadline_s: float = math.inf
    batch: int = 0
    policies: tuple[str, ...] = ()
    """None: those that are shown."""
    routers: int = 1
    stale_s: float = 0.0
    group: str = ""
    """Those of one group are one table: of a single measure with a column for each."""
    label: str = ""


Runs = dict[str, list[dict[str, float]]]
_PARTS_OF: Final = tuple(
    f"ours{part}" for part in ("", "-no-prefix", "-no-lengths", "-no-vtc", "-no-backlog", "-no-headroom", "-no-line",
                               "-no-tokens", "-no-sessions", "-no-deadlines")
)  # fmt: skip
_TRACES: Final = ("mooncake", "mooncake-synthetic", "azure-conv", "azure-code", "sessions")
_CREDITS: Final = (
    "ttft_p50", "ttft_p90", "tpot_p90", "by_credit", "stranded_mean", "stranded_most", "stranded_bound",
    "over_admission",
)  # fmt: skip
_STALE: Final = ("two-requests", "two-tokens", "shortest-uncached", "sticky", "deficits", "classes", "ours-apart")
_ALONE: Final = "sessions at 0.5"
_BESIDE_BATCH: Final = "sessions at 0.5 beside a full batch band"
_BANDED: Final = ("sticky", "classes", "ours")
SCENARIOS: Final = (
    *(Scenario(f"{name} at 0.7", name, 0.7, _NORMAL) for name in _TRACES),
    *(Scenario(f"{name} at 1.3", name, 1.3, _OVER, deadline_s=DEADLINE_S) for name in _TRACES),
    Scenario(
        "mooncake without deadlines at 1.3", "mooncake", 1.3, _OVER, policies=("shortest-requests", "fifo", "ours")
    ),
    Scenario("servegen-deepseek at 1.3", "servegen-deepseek", 1.3, _TENANTS, 4000),
    Scenario(_ALONE, "sessions", 0.5, _BESIDE, policies=_BANDED),
    Scenario(_BESIDE_BATCH, "sessions", 0.5, _BESIDE, batch=3000, policies=_BANDED),
    *(
        Scenario(f"parts, {name} at 0.7", name, 0.7, _PARTS, policies=_PARTS_OF)
        for name in ("mooncake-synthetic", "sessions")
    ),
    Scenario(
        "parts, sessions at 1.3", "sessions", 1.3, (*_PARTS, "refused_share"), deadline_s=DEADLINE_S, policies=_PARTS_OF
    ),
    Scenario(
        "parts, servegen-deepseek at 1.3", "servegen-deepseek", 1.3, _TENANTS, 4000, policies=("ours", "ours-no-vtc")
    ),
    *(
        Scenario(
            f"stale, sessions at 0.7, {routers} routers, {stale:g} s",
            "sessions",
            0.7,
            ("ttft_p90",),
            1000,
            policies=_STALE,
            routers=routers,
            stale_s=stale,
            group="stale views, sessions at 0.7: TTFT p90, s",
            label="1 router" if routers == 1 else f"{routers}, {1000 * stale:g} ms",
        )
        for routers, stale in ((1, 0.0), *((routers, stale) for routers in (4, 16) for stale in (0.0, 0.1, 1.0)))
    ),
    *(
        Scenario(
            f"credits, servegen-small at {load:g}, {routers} routers",
            "servegen-small",
            load,
            _CREDITS,
            1000,
            policies=("ours", "ours-apart", "ours-credits"),
            routers=routers,
            group="credits, servegen-small",
            label=f"{load:g}, {routers}",
        )
        for load in (0.3, 0.7, 1.3)
        for routers in (1, 4, 16)
    ),
)


class Traces:
    """Read once, with where each saturates."""

    def __init__(self, folder: Path | None, model: EngineModel) -> None:
        self._folder, self._model = folder, model
        self._read: dict[str, tuple[list[Arrival], float]] = {}

    def of(self, name: str) -> tuple[list[Arrival], float]:
        if name not in self._read:
            is_made = name == "sessions"
            arrivals = sessions.make(3000, 5.0) if is_made else traces.read(traces.find(name, self._folder))
            self._read[name] = arrivals, saturation(arrivals, self._model, REPLICAS)
        return self._read[name]


def ratio(runs: Runs, measure: str, other: str) -> Interval:
    """Of ours to another policy, run by run: both had the same requests."""
    pairs = zip(runs["ours"], runs[other], strict=True)
    return interval([ours[measure] / theirs[measure] for ours, theirs in pairs if theirs[measure]])


def best(runs: Runs, measure: str, least: bool) -> str:
    """The best of the policies that are not ours."""
    others = {name: interval([run[measure] for run in each]).mean for name, each in runs.items() if name != "ours"}
    return (min if least else max)(others, key=lambda name: others[name])


def put_into(page: str, text: str) -> str:
    """ValueError for a page without the marks."""
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{page[:begin]}{BEGIN}\n\n{text}\n{page[end:]}"


def render(found: dict[str, Runs], saturated: dict[str, float]) -> str:
    lines: list[str] = [_verdicts(found), ""]
    groups: list[str] = []
    for scenario in SCENARIOS:
        if scenario.name not in found:
            continue
        if scenario.group:
            if scenario.group not in groups:
                groups.append(scenario.group)
                lines.append(_group(scenario.group, found))
            continue
        rate = saturated[scenario.trace]
        deadline = "" if scenario.deadline_s == math.inf else f", deadline {scenario.deadline_s:g} s"
        lines.append(
            f"#### {scenario.name}: {rate * scenario.load:.3g} of {rate:.3g} requests/s, "
            f"{scenario.count:,} requests{deadline}\n"
        )
        runs = {policy: intervals(each) for policy, each in found[scenario.name].items()}
        lines.append(table.markdown(runs, scenario.columns))
    return "\n".join(lines)


def _group(name: str, found: dict[str, Runs]) -> str:
    """Scenarios beside each other, by policy, or below each other."""
    scenarios = [each for each in SCENARIOS if each.group == name and each.name in found]
    of_each = [{policy: intervals(runs) for policy, runs in found[each.name].items()} for each in scenarios]
    measures = scenarios[0].columns
    columns = [table.COLUMNS[measure] for measure in measures]
    lines = [f"#### {name}\n"]
    if len(measures) == 1:
        lines += [f"| policy | {' | '.join(each.label for each in scenarios)} |", f"|---|{'---:|' * len(scenarios)}"]
        for policy in of_each[0]:
            cells = [table.cell(each.get(policy, {}).get(measures[0]), columns[0]) for each in of_each]
            lines.append(f"| {policy} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"
    lines += [f"| load, routers | policy | {' | '.join(column.title for column in columns)} |"]
    lines += [f"|---|---|{'---:|' * len(columns)}"]
    for scenario, each in zip(scenarios, of_each, strict=True):
        for policy, there in each.items():
            cells = [table.cell(there.get(measure), column) for measure, column in zip(measures, columns, strict=True)]
            lines.append(f"| {scenario.label} | {policy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _verdicts(found: dict[str, Runs]) -> str:
    rows = ["| | ours / other | the other |", "|---|---:|---|"]

    def row(what: str, runs: Runs, measure: str, other: str) -> None:
        column = table.Column("", digits=3)
        rows.append(f"| {what} | {table.cell(ratio(runs, measure, other), column)} | {other} |")

    for name, runs in found.items():
        if name.startswith(("parts", "stale", "credits")):
            continue
        if name.endswith("0.7"):
            row(f"p90 TTFT, {name}", runs, "ttft_p90", best(runs, "ttft_p90", least=True))
        elif name.endswith("1.3") and "shortest-requests" in runs and not name.startswith("servegen"):
            if "without" not in name:
                row(f"goodput, {name}", runs, "goodput", "shortest-requests")
                row(f"goodput, {name}", runs, "goodput", best(runs, "goodput", least=False))
            row(f"tokens/s, {name}", runs, "tokens_per_s", "fifo")
    if _ALONE in found and _BESIDE_BATCH in found:
        both = {"ours": found[_BESIDE_BATCH]["ours"], "alone": found[_ALONE]["ours"]}
        row(f"p99 TTFT, {_BESIDE_BATCH}", both, "ttft_p99", "alone")
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("loadtests.simulation.pages", description=__doc__)
    parser.add_argument("--traces", type=Path, help="the folder of traces")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="scenarios whose name has this; the others stay as they were")
    parser.add_argument("--missing", action="store_true", help="only policies of which there are no figures")
    given = parser.parse_args(argv)
    progress = Progress()
    written = DOCS / "simulation.json"
    model = EngineModel()
    there = Traces(given.traces, model)
    keeps = (given.only or given.missing) and written.is_file()
    kept = json.loads(written.read_text(encoding="utf-8")) if keeps else {}
    found: dict[str, Runs] = kept.get("runs", {})
    saturated: dict[str, float] = kept.get("saturation", {})
    for scenario in SCENARIOS:
        if given.only not in scenario.name:
            continue
        if given.missing and set(scenario.policies or USUAL) <= found.get(scenario.name, {}).keys():
            continue
        try:
            arrivals, most = there.of(scenario.trace)
        except traces.TraceError as error:
            progress.done()
            print(f"simulate-queue: {error}", file=sys.stderr)
            return 2
        saturated[scenario.trace] = most
        plan = Plan(
            model, REPLICAS, most * scenario.load, scenario.count, scenario.routers, scenario.stale_s,
            scenario.deadline_s, batch=scenario.batch,
        )  # fmt: skip
        if scenario.trace == "sessions":
            arrivals = sessions.make(2 * scenario.count, plan.rate)
        seeds = range(1, given.seeds + 1)
        policies = scenario.policies or USUAL
        there_are = found.get(scenario.name, {}) if given.missing else {}
        runs = compare(
            arrivals, plan, [policy for policy in policies if policy not in there_are], seeds, given.processes,
            lambda text, name=scenario.name: progress.say(f"{name}: {text}"),
        )  # fmt: skip
        found[scenario.name] = {policy: (there_are | runs)[policy] for policy in policies}
        _write(written, found, saturated)
    progress.done()
    return 0


def _write(written: Path, runs: dict[str, Runs], saturated: dict[str, float]) -> None:
    """What there is by now."""
    found = {scenario.name: runs[scenario.name] for scenario in SCENARIOS if scenario.name in runs}
    said = {"saturation": saturated, "runs": _rounded(found)}
    written.write_text(json.dumps(said, indent=0) + "\n", encoding="utf-8")
    page = DOCS / "benchmarks.md"
    page.write_text(put_into(page.read_text(encoding="utf-8"), render(found, saturated)), encoding="utf-8")
    of_all = {name: {policy: intervals(each) for policy, each in of_one.items()} for name, of_one in found.items()}
    panels = [(name, of_all[name], "ttft_p90") for name in of_all if name.endswith("0.7") and "parts" not in name]
    panels += [
        (name, of_all[name], "goodput")
        for name in of_all
        if name.endswith("1.3") and not name.startswith(("parts", "servegen", "mooncake without"))
    ]
    if panels:
        plots.draw(panels, DOCS / "simulation.svg")


def _rounded(found: dict[str, Runs]) -> dict[str, Runs]:
    """What the tables show."""
    shown = {scenario.name: scenario.columns for scenario in SCENARIOS}
    return {
        name: {
            policy: [{column: float(f"{run[column]:.5g}") for column in shown[name] if column in run} for run in each]
            for policy, each in runs.items()
        }
        for name, runs in found.items()
    }


if __name__ == "__main__":
    sys.exit(main())
