"""Runs a workload that measures itself, answers its questions about memory, and takes its figures."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping

from loadtests import processes
from loadtests.running import Run, RunError, last_words
from loadtests.workloads.protocol import ASKS_MEMORY, GIVES


def measure(run: Run, workload: str) -> Mapping[str, float]:
    """The figures of one run. Raises RunError."""
    seconds, samples = (0.5, 1) if run.quick else (1.0, 3)
    command = [str(run.python), "-m", f"loadtests.workloads.{workload}", run.side]
    command += ["--seconds", str(seconds), "--samples", str(samples), *(["--quick"] if run.quick else [])]
    with processes.started(command, variables=run.variables, log=run.log, folder=run.folder, talks=True) as process:
        for line in _lines(process, time.monotonic() + run.limit_s):
            if line == ASKS_MEMORY:
                _answer(process)
            elif line.startswith(GIVES):
                figures: Mapping[str, float] = json.loads(line.removeprefix(GIVES))
                return figures
    raise RunError(f"ended with {process.returncode} and no figures: {last_words(run.log)}")


def _answer(process: subprocess.Popen[str]) -> None:
    used = processes.memory_of(processes.descendants())
    assert process.stdin is not None
    answer = {"pss": used.pss, "private": used.private, "processes": used.processes}
    process.stdin.write(json.dumps(answer) + "\n")
    process.stdin.flush()


def _lines(process: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """Lines of standard output until it ends; RunError at the deadline."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise RunError("took longer than its limit")
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
