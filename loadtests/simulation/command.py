"""What `python loadtests/simulate.py` is given, and what it does with it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from . import engine_model, plots, probe, sessions, table, traces
from .engine_model import EngineModel, ModelError
from .intervals import intervals
from .measures import Targets
from .policies.catalogue import POLICIES, SPLIT, UnknownPolicyError, names
from .progress import Progress
from .runs import Plan, compare, saturation
from .traces import TraceError

HELP: Final = f"""
Replay a trace of requests to language models, in virtual time, against several ways to route them.

  python loadtests/simulate.py azure-conv --traces FOLDER                       all policies, 0.7 of saturation
  python loadtests/simulate.py mooncake --load 1.3 --deadline 2 --seeds 5       more than the replicas can do
  python loadtests/simulate.py mooncake --policy parts                          what each part of the queue brings
  python loadtests/simulate.py --workload sessions --policy ours,sticky         conversations, without a trace
  python loadtests/simulate.py azure-conv --policy ours,ours-split --prefill 5  prompts are read by 5 of 8 replicas
  python loadtests/simulate.py ./my_trace.csv --policy ours,fifo --rate 12      12 requests a second, any trace

TRACE is a file, or a name of one in the folder of traces: {", ".join(traces.SHORT_NAMES)}.
{traces.SOURCES}

Replicas are engines with continuous batching, chunked prompts, a key-value cache in blocks and a prefix cache. A load
of 1 is what they end a second while requests queue up in one line before them (--load 0.7 is 0.7 of that). Each figure
is the mean of the runs by seed, and how far off it may be (95 %). Another seed begins elsewhere in the trace and
leaves out other requests.

Policies:
""" + "\n".join(f"  {name:20} {entry.what}" for name, entry in POLICIES.items())


# A run takes no longer in virtual time: policies look each tenth of a second whether there is something to do.
LONGEST_RUN_S: Final = 7 * 24 * 3600
# Conversations that are under way as a run begins are as many as come in some minutes.
MOST_SESSIONS_RATE: Final = 10_000
MOST_SEEDS: Final = 1000


class _UsageError(Exception):
    """What was asked for cannot be done, in a sentence."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "simulate.py", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("trace", nargs="?", metavar="TRACE", help="a file, or a name within the folder of traces")
    made.add_argument("--workload", choices=("trace", "sessions"), default="trace",
                      help="sessions: conversations whose prompts grow, made by chance; names no TRACE")  # fmt: skip
    made.add_argument("--traces", type=Path, metavar="FOLDER",
                      help=f"where traces lie (also: the environment variable {traces.FOLDER_VARIABLE})")  # fmt: skip
    made.add_argument("--policy", default="all", metavar="NAMES",
                      help="names with commas between; all: each; parts: ours without one part each")  # fmt: skip
    made.add_argument("--replicas", type=int, default=8, metavar="N", help="engines (8)")
    rate = made.add_mutually_exclusive_group()
    rate.add_argument("--load", type=float, metavar="X", help="the rate as a part of saturation (0.7)")
    rate.add_argument("--rate", type=float, metavar="X",
                      help="requests a second, for all replicas together; a run takes a week at most in virtual time, "
                           f"and --workload sessions has {MOST_SESSIONS_RATE:,} a second at most")  # fmt: skip
    rate.add_argument("--factor", type=float, metavar="X", help="as a multiple of the trace's own rate")
    made.add_argument("--requests", type=int, default=3000, metavar="N", help="of each run, 100 at least (3000)")
    made.add_argument("--seeds", default="5", metavar="S", help="how many runs of each policy, or which: 5, or 3,8,21")
    made.add_argument("--routers", type=int, default=1, metavar="N",
                      help="processes that route; what others sent each knows only as of --stale ago (1)")  # fmt: skip
    made.add_argument("--stale", type=float, default=0.1, metavar="S", help="seconds (0.1)")
    made.add_argument("--deadline", type=float, default=math.inf, metavar="S",
                      help="for the first token; who would wait longer may be refused (none)")  # fmt: skip
    made.add_argument("--failures", type=int, default=0, metavar="N",
                      help="deaths, spread over the run: each of a replica by chance, back after 30 s, so that "
                           "there may be more of them than replicas; their requests resume (0)")  # fmt: skip
    made.add_argument("--prefill", type=int, metavar="N",
                      help="with ours-split: replicas that only read prompts (half of them)")  # fmt: skip
    made.add_argument("--batch", type=int, default=0, metavar="N",
                      help="requests of the batch band that wait from the beginning on (0)")  # fmt: skip
    made.add_argument("--engine", type=Path, metavar="FILE", help="a model of an engine, as --fit writes it")
    made.add_argument("--fit", metavar="URL",
                      help="fit a model to a server with OpenAI's API, write it to --engine FILE, and end")  # fmt: skip
    made.add_argument(
        "--kv-tokens",
        type=int,
        metavar="N",
        help="tokens that a replica holds (what --engine says), or the server of --fit, which does not say it",
    )
    made.add_argument("--columns", default="", metavar="NAMES",
                      help=f"which measures to show, of {', '.join(table.COLUMNS)}")  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="write all measures of all runs there")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw TTFT p90 and goodput (.svg, .png, .pdf)")
    made.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), metavar="N",
                      help="runs at the same time")  # fmt: skip
    return made


def _seeds(said: str) -> list[int]:
    try:
        found = [int(part) for part in said.split(",")]
    except ValueError:
        raise _UsageError(f"--seeds is a number of runs, or numbers with commas between, not {said!r}") from None
    if len(found) == 1:
        found = list(range(1, found[0] + 1))
    if not found:
        raise _UsageError(f"--seeds must name one run at least, not {said!r}")
    if len(found) > MOST_SEEDS:
        raise _UsageError(f"--seeds must name {MOST_SEEDS:,} runs at most, not {len(found):,}")
    if min(found) < 0:
        raise _UsageError(f"--seeds must be zero or more, not {min(found)}")
    if len(set(found)) < len(found):
        raise _UsageError(f"--seeds {said!r} names a run twice, which would be the same again")
    return found


def _check_files(given: argparse.Namespace) -> None:
    """What is to be written can be, before anything is run for it."""
    written = ("json", "markdown", "plot") if given.fit is None else ("engine",)
    for option in written:
        path: Path | None = getattr(given, option)
        if path is None:
            continue
        if path.is_dir():
            raise _UsageError(f"--{option} {path} is a folder: name a file")
        if not path.parent.is_dir():
            raise _UsageError(f"--{option} {path} cannot be written: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise _UsageError(f"--{option} {path} cannot be written: you may not write there")


def _check_rate(rate: float, count: int, is_made: bool) -> None:
    if not count / rate <= LONGEST_RUN_S:
        raise _UsageError(
            f"{count:,} requests at {rate:.3g} a second take {count / rate:.3g} s of virtual time, and a run a week "
            f"({LONGEST_RUN_S:,} s) at most: have a higher --rate or fewer --requests"
        )
    if is_made and rate > MOST_SESSIONS_RATE:
        raise _UsageError(f"--workload sessions has {MOST_SESSIONS_RATE:,} requests a second at most, not {rate:.3g}")


def _check(given: argparse.Namespace) -> None:
    for name, least in (
        ("replicas", 1),
        ("requests", 100),
        ("routers", 1),
        ("failures", 0),
        ("batch", 0),
        ("processes", 1),
    ):
        if getattr(given, name) < least:
            raise _UsageError(f"--{name} must be at least {least}, not {getattr(given, name)}")
    for name in ("load", "rate", "factor", "deadline"):
        value = getattr(given, name)
        if value is not None and not value > 0:
            raise _UsageError(f"--{name} must be above 0, not {value:g}")
    if given.prefill is not None and not 0 < given.prefill < given.replicas:
        raise _UsageError(f"--prefill must be above 0 and below --replicas ({given.replicas}), not {given.prefill}")
    if not given.stale >= 0:
        raise _UsageError(f"--stale must be zero or more, not {given.stale:g}")
    if given.workload == "sessions" and given.trace is not None:
        raise _UsageError(f"--workload sessions makes its requests by chance: leave out {given.trace!r}")
    if given.workload == "sessions" and given.factor is not None:
        raise _UsageError("--factor needs a trace: sessions have --load or --rate")
    if given.plot is not None and given.plot.suffix not in (".svg", ".png", ".pdf"):
        raise _UsageError(f"--plot draws .svg, .png or .pdf, not {given.plot.name!r}")
    if given.trace is None and given.workload == "trace":
        raise _UsageError(f"name a trace: {', '.join(traces.SHORT_NAMES)}, or a file. {traces.SOURCES}")


def main(argv: Sequence[str] | None = None) -> int:
    given = parser().parse_args(argv)
    progress = Progress()
    try:
        _check_files(given)
        if given.fit is not None:
            return _fit(given, progress)
        _check(given)
        return _run(given, progress)
    except (_UsageError, TraceError, ModelError, UnknownPolicyError) as error:
        progress.done()
        print(f"simulate.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        progress.done()
        print(f"simulate.py: {error.filename} cannot be written or read: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        progress.done()
        print("simulate.py: interrupted", file=sys.stderr)
        return 130


def _fit(given: argparse.Namespace, progress: Progress) -> int:
    if given.engine is None:
        raise _UsageError("--fit writes to --engine FILE: name one")
    base = EngineModel() if given.kv_tokens is None else EngineModel(kv_tokens=given.kv_tokens)
    found = probe.fit(given.fit, base, progress.say)
    progress.done()
    engine_model.save(found, given.engine)
    step, more = 1000 * found.decode_step_s, 1000 * found.decode_step_per_request_s
    slots = f"{found.slots} slots"
    if found.slots == probe.STREAMS[-1]:
        slots += " assumed (so many streams ran at once, and more were not tried)"
    chunks = f"steps of {found.batch_tokens} tokens at most" if found.batch_tokens else "not measured: chunks"
    print(
        f"{given.engine}: {found.prefill_tokens_per_s:,.0f} tokens of prompts a second, a step of {step:.3g} ms and "
        f"{more:.3g} ms for each further stream, {slots}, {1000 * found.overhead_s:.3g} ms beside; "
        f"{chunks}; a cache of {found.kv_tokens:,} tokens, which is not measured"
    )
    return 0


def _run(given: argparse.Namespace, progress: Progress) -> int:
    policies = names([name.strip() for name in given.policy.split(",")])
    if SPLIT in policies and given.replicas < 2:
        raise _UsageError(f"{SPLIT} needs two replicas at least")
    if given.prefill is not None and SPLIT not in policies:
        raise _UsageError(f"--prefill is for the policy {SPLIT} alone")
    seeds = _seeds(given.seeds)
    columns = [name.strip() for name in given.columns.split(",") if name.strip()]
    if unknown := [name for name in columns if name not in table.COLUMNS]:
        raise _UsageError(f"there is no measure {unknown[0]!r}: there are {', '.join(table.COLUMNS)}")
    model = engine_model.load(given.engine) if given.engine is not None else EngineModel()
    if given.kv_tokens is not None:
        model = replace(model, kv_tokens=given.kv_tokens)
    if model.longest < 1:
        raise _UsageError(f"a replica with {model.kv_tokens} tokens has no block of {model.block_tokens}")
    is_made = given.workload == "sessions"
    if given.rate is not None:
        _check_rate(given.rate, given.requests, is_made)
    progress.say("reading the trace")
    arrivals = sessions.make(3000, 5.0) if is_made else traces.read(traces.find(given.trace, given.traces))
    own_rate = (len(arrivals) - 1) / max(arrivals[-1].at, 1e-9)
    saturated = math.nan
    if given.rate is not None:
        rate = given.rate
    elif given.factor is not None:
        rate = own_rate * given.factor
    else:
        progress.say("measuring saturation")
        saturated = saturation(arrivals, model, given.replicas)
        rate = saturated * (given.load or 0.7)
    _check_rate(rate, given.requests, is_made)
    if is_made:
        # Their own times count: from one turn to the next.
        arrivals = sessions.make(2 * given.requests, rate)
    plan = Plan(
        model, given.replicas, rate, given.requests, given.routers, given.stale, given.deadline, given.failures,
        prefill=given.prefill or 0, batch=given.batch, targets=Targets(),
    )  # fmt: skip
    runs = compare(arrivals, plan, policies, seeds, given.processes, progress.say)
    progress.done()
    found = {policy: intervals(measures) for policy, measures in runs.items()}
    of = "" if math.isnan(saturated) else f", {rate / saturated:.2f} of saturation ({saturated:.3g})"
    title = (
        f"{given.trace or given.workload}: {given.replicas} replicas, {rate:.3g} requests/s{of}, "
        f"{plan.count:,} requests, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        f"{f', {plan.failures} deaths' if plan.failures else ''}"
    )
    table.show(found, columns, title, Console())
    if given.markdown is not None:
        given.markdown.write_text(table.markdown(found, columns), encoding="utf-8")
    if given.plot is not None:
        plots.draw([(f"{title[: title.find(',')]}", found, measure) for measure in ("ttft_p90", "goodput")], given.plot)
    if given.json is not None:
        said = {
            "trace": given.trace or given.workload, "title": title,
            "saturation": None if math.isnan(saturated) else saturated,
            "plan": asdict(plan), "seeds": seeds, "runs": runs,
            "intervals": {policy: dict(each) for policy, each in found.items()},
        }  # fmt: skip
        given.json.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return 0
