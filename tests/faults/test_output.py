"""What workers print reaches the driver and the log files, up to the last line before the end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

RunProgram = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import os, sys
import actorrt

@actorrt.remote
def say(text, to_stderr=False):
    print(text, file=sys.stderr if to_stderr else sys.stdout)
    return os.getpid()

@actorrt.remote
def flood(count):
    for number in range(count):
        print(number)

@actorrt.remote
def die(text):
    sys.stdout.write(text)
    sys.stdout.flush()
    os.kill(os.getpid(), 9)

"""


def test_the_last_lines_are_printed_before_a_shutdown_returns(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
with actorrt.init(num_cpus=1):
    pid = actorrt.get(say.remote("hello"))
    actorrt.get(say.remote("oh", to_stderr=True))
print("pid", pid)
"""
    )
    # The name comes from the worker on another way than the line, and may be late for the first one.
    found = re.fullmatch(r"\((?:say|worker) pid=(\d+)\) hello\npid (\d+)\n", result.stdout)
    assert found is not None, result.stdout
    assert found[1] == found[2]
    assert re.fullmatch(rf"\((say|worker) pid={found[1]}\) oh\n", result.stderr)


def test_what_a_worker_printed_before_it_was_killed_is_printed(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
with actorrt.init(num_cpus=1):
    try:
        actorrt.get(die.options(max_retries=0).remote("last words"))
    except actorrt.exceptions.WorkerCrashedError as error:
        print(error)
"""
    )
    # An unbuffered program prints a line and its end one by one, so that other lines may come between.
    assert re.search(r"\((die|worker) pid=\d+\) last words\n", result.stdout)
    assert "killed by signal 9 (SIGKILL)" in result.stdout


def test_a_flood_is_whole_in_the_files_and_all_accounted_for_on_the_screen(run_program: RunProgram) -> None:
    count = 200_000
    result = run_program(
        PROGRAM
        + f"""
with actorrt.init(num_cpus=1) as context:
    actorrt.get(flood.remote({count}))
print(context["session_dir"])
"""
    )
    *lines, session = result.stdout.splitlines()
    missed = sum(map(int, re.findall(r"\[(\d+) lines dropped", result.stderr)))
    assert len(lines) + missed == count
    (file,) = Path(session, "logs").glob("worker-*.out")
    assert file.read_text() == "".join(f"{number}\n" for number in range(count))


def test_a_driver_that_wants_no_output_gets_none(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
with actorrt.init(num_cpus=1, log_to_driver=False) as context:
    actorrt.get(say.remote("hello"))
print(context["session_dir"])
"""
    )
    session = result.stdout.strip()
    (file,) = Path(session, "logs").glob("worker-*.out")
    assert file.read_text() == "hello\n"
