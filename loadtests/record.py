"""The record of a comparison: all that was measured, as JSON, from which the report can be made again. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests import markdown
from loadtests.catalogue import Row
from loadtests.report import Line, Outcome, judge


@dataclass(slots=True)
class Record:
    """One comparison. `facts` are those of the run (command, date, rounds), `absent` the sides that never ran."""

    machine: Mapping[str, str]
    facts: Mapping[str, str]
    versions: Mapping[str, Mapping[str, str]]
    absent: Mapping[str, str]
    outcomes: list[Outcome] = field(default_factory=list[Outcome])

    def lines(self, rows: Sequence[Row]) -> list[Line]:
        return judge(rows, self.outcomes, self.absent)

    def as_markdown(self, rows: Sequence[Row]) -> str:
        return markdown.render(
            self.lines(rows),
            self.outcomes,
            machine=self.machine,
            versions=self.versions,
            absent=self.absent,
            facts=self.facts,
        )

    def as_json(self, rows: Sequence[Row]) -> dict[str, Any]:
        lines: list[dict[str, Any]] = []
        for line in self.lines(rows):
            entry = asdict(line)
            entry["verdict"] = line.verdict.value
            entry["bound"]["relation"] = line.bound.relation.value
            lines.append(entry)
        return {
            "machine": dict(self.machine),
            "facts": dict(self.facts),
            "versions": {side: dict(found) for side, found in self.versions.items()},
            "absent": dict(self.absent),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "lines": lines,
        }


def from_json(told: Mapping[str, Any]) -> Record:
    """The record again; the lines are not read, they follow from the rest."""
    return Record(
        told["machine"],
        told["facts"],
        told["versions"],
        told["absent"],
        [Outcome(**outcome) for outcome in told["outcomes"]],
    )
