"""The report as Markdown. Pure: text in, text out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from loadtests.catalogue import MEASURES, Bound, Relation
from loadtests.plan import WORKLOADS
from loadtests.report import Change, Line, Outcome, Verdict, by_round, changes, median
from loadtests.sides import SIDES

BEGIN: Final = "<!-- measured: begin (written by loadtests/compare.py) -->"
END: Final = "<!-- measured: end -->"
_NONE: Final = "-"


def number(value: float | None) -> str:
    """Three significant digits, thousands set apart."""
    if value is None:
        return _NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_unit(value: float | None, unit: str) -> str:
    return _NONE if value is None else f"{number(value)} {unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def limit(bound: Bound, value: float | None) -> str:
    """An `at least` or an `aim`, with the sign that says which way it holds."""
    if value is None:
        return _NONE
    measure = MEASURES[bound.measure]
    if bound.relation is Relation.TIMES:
        return f"{number(value)} x"
    return f"{'≥' if measure.more_is_better else '≤'} {with_unit(value, measure.unit)}"


def judged(line: Line) -> str:
    if line.value is None:
        return _NONE
    unit = "x" if line.bound.relation is Relation.TIMES else MEASURES[line.bound.measure].unit
    spread = "" if line.low == line.high else f" ({number(line.low)} to {number(line.high)})"
    return f"{number(line.value)} {unit}{spread}"


def verdict_table(lines: Sequence[Line]) -> list[str]:
    """The table of wishes, judged."""
    rows: list[list[str]] = []
    previous = ""
    for line in lines:
        measure = MEASURES[line.bound.measure]
        beside = SIDES[line.bound.against].title if line.bound.against else _NONE
        told = f"**{line.verdict.value}**" if line.verdict is Verdict.NOT_MET else line.verdict.value
        rows.append(
            [
                line.title if line.title != previous else "",
                measure.title,
                with_unit(line.ours, measure.unit),
                beside,
                with_unit(line.theirs, MEASURES[line.bound.theirs].unit),
                judged(line),
                limit(line.bound, line.bound.at_least),
                limit(line.bound, line.bound.aim),
                f"{told}: {line.why}" if line.why else told,
            ]
        )
        previous = line.title
    head = ["workload", "measure", "actorrt", "beside", "its figure", "ratio or value", "at least", "aim", "result"]
    return table(head, rows)


def change_table(found: Sequence[Change]) -> list[str]:
    """Each measure beside an earlier revision."""
    rows: list[list[str]] = []
    for one in found:
        measure = MEASURES[one.measure]
        spread = f" ({number(min(one.ratios))} to {number(max(one.ratios))})"
        figures = [with_unit(value, measure.unit) for value in (one.now, one.before)]
        rows.append([measure.title, *figures, f"{number(one.ratio)}{spread}"])
    return table(["measure", "now", "before", "how much better"], rows)


def figure_tables(outcomes: Sequence[Outcome]) -> list[str]:
    """All figures of all sides: medians, and the range where there was more than one round."""
    text: list[str] = []
    for title, servers in (("Core", False), ("HTTP and Serve", True)):
        measures = [name for workload in WORKLOADS if workload.server is servers for name in workload.gives]
        sides = [side for side in SIDES if any(median(outcomes, side, name) is not None for name in measures)]
        rows = [
            [f"{MEASURES[name].title}, {MEASURES[name].unit}", *(_cell(outcomes, side, name) for side in sides)]
            for name in measures
            if any(median(outcomes, side, name) is not None for side in sides)
        ]
        if rows:
            text += [f"### {title}", "", *table(["", *(SIDES[side].title for side in sides)], rows), ""]
    return text


def _cell(outcomes: Sequence[Outcome], side: str, name: str) -> str:
    values = by_round(outcomes, side, name).values()
    if not values:
        return ""
    middle = number(median(outcomes, side, name))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def render(
    lines: Sequence[Line],
    outcomes: Sequence[Outcome],
    *,
    machine: Mapping[str, str],
    versions: Mapping[str, Mapping[str, str]],
    absent: Mapping[str, str],
    facts: Mapping[str, str],
) -> str:
    """The whole measured part; `facts` are those of the run: command, date, rounds."""
    text = ["## The machine and the run", ""]
    text += table(["", ""], [[name, f"`{value}`"] for name, value in {**machine, **facts}.items()])
    text += ["", "Versions: " + "; ".join(_versions(side, found) for side, found in versions.items()) + ".", ""]
    if absent:
        text += ["Not installed: " + "; ".join(f"{SIDES[side].title}: {why}" for side, why in absent.items()), ""]
    text += ["## What is wanted, and what is there", ""]
    text += ["Medians; in brackets the lowest and the highest of the rounds. A ratio is the median of those of the"]
    text += ["single rounds, in which both sides ran right after each other.", ""]
    text += [*verdict_table(lines), ""]
    if beside := changes(outcomes):
        text += ["## Beside the revision before", "", "More than 1 is better, whatever is measured.", ""]
        text += [*change_table(beside), ""]
    text += ["## All figures", "", *figure_tables(outcomes)]
    errors = [outcome for outcome in outcomes if outcome.error is not None]
    if errors:
        text += ["### Runs that gave no figures", ""]
        text += table(
            ["side", "workload", "round", "why"],
            [[one.side, one.workload, str(one.round + 1), one.error or ""] for one in errors],
        )
        text += [""]
    return "\n".join(text)


def _versions(side: str, found: Mapping[str, str]) -> str:
    return f"{SIDES[side].title}: " + (
        ", ".join(f"{name} {version}" for name, version in found.items()) or "standard library"
    )


def put_into(page: str, measured: str) -> str:
    """The page with its measured part replaced; what was written by hand around it stays.

    A page without the two marks is not ours to change: ValueError.
    """
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        raise ValueError("the page has no marks for the measured part")
    return f"{page[:begin]}{BEGIN}\n\n{measured}\n{page[end:]}"


def new_page(measured: str) -> str:
    return f"# Benchmarks\n\n{BEGIN}\n\n{measured}\n{END}\n"
