"""Measure actorrt beside its peers and the machine's limits, all in one run, and judge it by what is wanted.

    python loadtests/compare.py [--rows ROW ...] [--peers PEER ...] [--quick] [--rounds N]
                                [--before REVISION] [--json FILE] [--markdown FILE] [--chart FILE] [--from-json FILE]

Each peer is installed into a virtual environment of its own under .bench/. Each round runs every side of a workload
once, each alone and in fresh processes, right after each other. `--peers` names sides; ours always runs, and with
`--before` an earlier revision of ours beside it. The record so far is written to .bench/record.json after every run, so
that a comparison that was cut short can still be reported.
"""

import argparse
import json
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import http_side, machine, markdown, processes, revision, script_side, venvs
from loadtests.catalogue import MEASURES, OURS, ROWS, Row
from loadtests.llm import side as llm_side
from loadtests.plan import Step, Workload, choose_rows, choose_sides, choose_workloads, steps
from loadtests.record import Record, from_json
from loadtests.report import Change, Line, Outcome, changes
from loadtests.running import Run, RunError
from loadtests.sides import BEFORE, SIDES

_ROUNDS = 5
_QUICK_LIMIT_S = 90.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help=", ".join(row.key for row in ROWS))
    parser.add_argument("--peers", nargs="+", default=[], metavar="PEER", help=", ".join(choose_sides(())))
    parser.add_argument("--quick", action="store_true", help="one short round: shows that all of it works, no figures")
    parser.add_argument("--rounds", type=int, help=f"{_ROUNDS} by default, 1 with --quick")
    parser.add_argument(
        "--before", metavar="REVISION", help="a commit of this repository to set beside the present one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the record goes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the page whose measured part is written anew")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="where a picture of the ratios goes (.svg, .png)")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, report that record")
    return parser.parse_args()


def stop(number: int, _: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    # So that what runs is ended and cleared away as on Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    given = parse()
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        rows = choose_rows(given.rows)
        sides = choose_sides({*given.peers, OURS} if given.peers else ())
        before: str | None = None if given.before is None else revision.resolve(given.before)
    except ValueError as error:
        console.print(f"[red]{error}")
        return 2
    if given.from_json is not None:
        record = from_json(json.loads(given.from_json.read_text()))
    else:
        quick: bool = given.quick
        # Without a choice of rows everything is measured, also what no row asks for.
        workloads = choose_workloads(rows, sides if before is None else (*sides, BEFORE), quick=quick)
        wanted = frozenset(bound.measure for row in rows for bound in row.bounds) if given.rows else frozenset(MEASURES)
        record = measure(
            workloads, wanted, console, quick=quick, rounds=given.rounds or (1 if quick else _ROUNDS), before=before
        )
    show(record.lines(rows), console)
    show_changes(changes(record.outcomes), console)
    write(record, rows, given.json, given.markdown)
    return 0 if given.chart is None else chart(record, rows, given.chart, console)


def measure(
    workloads: Sequence[Workload],
    wanted: frozenset[str],
    console: Console,
    *,
    quick: bool,
    rounds: int,
    before: str | None = None,
) -> Record:
    """Run every step; a side that fails is recorded with its reason, and the rest goes on."""
    processes.become_subreaper()
    described = machine.describe()
    began = time.monotonic()
    started_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    needed = [side for side in SIDES if any(side in workload.sides for workload in workloads)]
    absent, versions = prepare(needed, console, before)
    facts = {
        "command": shlex.join(["python", *sys.argv]),
        "started": started_at,
        **({} if before is None else {"before": before}),
        "rounds": f"{rounds}{', quick: these are no figures' if quick else ''}",
    }
    record = Record(described, facts, versions, absent)
    with folder() as logs, progress(console) as bar:
        todo = [step for step in steps(workloads, rounds) if step.side not in absent]
        task = bar.add_task("", total=len(todo))
        for step in todo:
            bar.update(task, description=f"{step.workload.key}: {SIDES[step.side].title}")
            outcome = run(step, wanted, logs, quick=quick)
            record.outcomes.append(outcome)
            facts["took"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
            write(record, ROWS, venvs.FOLDER / "record.json", None)
            console.print(_told(outcome), highlight=False, soft_wrap=True)
            bar.advance(task)
    return record


def prepare(
    sides: Sequence[str], console: Console, before: str | None
) -> tuple[dict[str, str], dict[str, Mapping[str, str]]]:
    """Install what the sides need: why some are absent, and the versions of the others."""
    absent: dict[str, str] = {}
    failed: dict[str, str] = {}
    versions: dict[str, Mapping[str, str]] = {}
    for side in sides:
        environment = SIDES[side].environment
        if environment is not None and environment not in failed:
            with console.status(f"installing {environment}"):
                try:
                    if environment == BEFORE:
                        assert before is not None
                        revision.install(before)
                    else:
                        venvs.install(environment)
                except venvs.InstallError as error:
                    failed[environment] = str(error)
        if environment in failed:
            absent[side] = f"could not be installed: {failed[environment]}"
            console.print(f"{side} {absent[side]}")
        else:
            versions[side] = venvs.versions(venvs.python_of(side), SIDES[side].distributions)
    return absent, versions


def run(step: Step, wanted: frozenset[str], logs: Path, *, quick: bool) -> Outcome:
    side = SIDES[step.side]
    root = revision.FOLDER if step.side == BEFORE else venvs.ROOT
    begin = time.monotonic()
    # Temporary files of a side, Ray's session among them, go with this folder. Its name is short: sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="lt-", ignore_cleanup_errors=True) as own:
        one = Run(
            side.runs or step.side,
            venvs.python_of(step.side),
            {**side.variables, **_variables(Path(own), root)},
            root,
            logs / f"{step.workload.key}-{step.side}-{step.round}.log",
            min(step.workload.limit_s, _QUICK_LIMIT_S) if quick else step.workload.limit_s,
            quick,
        )
        figures: Mapping[str, float] = {}
        reason: str | None = None
        try:
            if step.workload.llm:
                figures = llm_side.measure(one, step.workload.key)
            elif step.workload.server:
                given = frozenset(step.workload.gives)
                measured = http_side.measure(one, wanted & given)
                figures = {measure: value for measure, value in measured.items() if measure in given}
            else:
                figures = script_side.measure(one, step.workload.key)
        except (RunError, RuntimeError) as error:
            reason = str(error)
    seconds = time.monotonic() - begin
    return Outcome(step.round, step.workload.key, step.side, figures, reason, seconds)


def _variables(own: Path, root: Path) -> dict[str, str]:
    """For every side: where it may write, and a token so that Ray writes none into the home folder.

    And its modules compiled, as they are where it is installed: not at each start, whatever is set here.
    """
    return {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": str(root),
        "TMPDIR": str(own),
        "RAY_TMPDIR": str(own),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(own / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(own / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(own),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(own / "haproxy-state"),
    }


@contextmanager
def folder() -> Generator[Path]:
    """Where the logs of the runs lie; they stay, for whoever wants to know why a side failed."""
    logs = venvs.FOLDER / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    yield logs


def progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Redrawing takes time from what is measured.
    return Progress(*columns, console=console, refresh_per_second=1)


def _told(outcome: Outcome) -> str:
    figures = ", ".join(
        f"{name} {markdown.with_unit(value, MEASURES[name].unit)}" for name, value in outcome.figures.items()
    )
    return f"{outcome.round + 1} {outcome.side}: {outcome.error or figures} [{outcome.seconds:.0f} s]"


def show(lines: Sequence[Line], console: Console) -> None:
    table = Table("workload", "measure", "actorrt", "beside", "its figure", "ratio", "at least", "aim", "result")
    for line in lines:
        unit = MEASURES[line.bound.measure].unit
        table.add_row(
            line.title,
            MEASURES[line.bound.measure].title,
            markdown.with_unit(line.ours, unit),
            line.bound.against or "",
            markdown.with_unit(line.theirs, unit),
            markdown.judged(line),
            markdown.limit(line.bound, line.bound.at_least),
            markdown.limit(line.bound, line.bound.aim),
            line.verdict.value,
        )
    console.print(table)


def show_changes(found: Sequence[Change], console: Console) -> None:
    """The present revision beside the one before, where there is one."""
    if not found:
        return
    table = Table("measure", "now", "before", "how much better", title="Beside the revision before")
    for one in found:
        measure = MEASURES[one.measure]
        ratio = f"{one.ratio:.2f} ({min(one.ratios):.2f} to {max(one.ratios):.2f})"
        table.add_row(
            measure.title,
            markdown.with_unit(one.now, measure.unit),
            markdown.with_unit(one.before, measure.unit),
            ratio,
        )
    console.print(table)


def chart(record: Record, rows: Sequence[Row], target: Path, console: Console) -> int:
    """Draw the ratios, in an environment that has what it takes."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as told:
        json.dump(record.as_json(rows), told)
        told.flush()
        try:
            python = venvs.install("matplotlib")
            subprocess.run([str(python), str(Path(__file__).with_name("chart.py")), told.name, str(target)], check=True)
        except (venvs.InstallError, subprocess.CalledProcessError) as error:
            console.print(f"[red]no chart was drawn: {error}")
            return 1
    return 0


def write(record: Record, rows: Sequence[Row], as_json: Path | None, page: Path | None) -> None:
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(record.as_json(rows), indent=1) + "\n")
    if page is not None:
        measured = record.as_markdown(rows)
        text = markdown.put_into(page.read_text(), measured) if page.exists() else markdown.new_page(measured)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
