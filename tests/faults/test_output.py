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
    found = re.fullmatch(r"\(say pid=(\d+)\) hello\npid (\d+)\n", result.stdout)
    assert found is not None, result.stdout
    assert found[1] == found[2]
    assert re.fullmatch(rf"\(say pid={found[1]}\) oh\n", result.stderr)


def test_what_code_does_to_its_streams_holds_up_and_silences_nobody_after_it(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
import gc, io

def replaced(name, made):
    setattr(sys, name, made)

CHANGES = [
    lambda: sys.stdout.close(),
    lambda: sys.stderr.close(),
    lambda: sys.stdout.buffer.close(),
    lambda: sys.stdout.detach(),
    lambda: replaced("stdout", io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")),
    lambda: replaced("stdout", io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")),
    lambda: replaced("stdout", io.StringIO()),
    lambda: replaced("stdout", None),
    lambda: replaced("stderr", open(os.devnull, "w")),
    lambda: replaced("stdin", io.StringIO("typed")),
]

@actorrt.remote
def change(number):
    sys.stdout.write(f"before {number}")
    CHANGES[number]()
    gc.collect()
    return os.getpid()

@actorrt.remote
def reads():
    return sys.stdin.read()

@actorrt.remote
class Neighbour:
    async def change(self):
        sys.stdout.close()
        sys.stderr.detach()

    async def say(self, text):
        print(text)
        print(text, file=sys.stderr)

with actorrt.init(num_cpus=1):
    pid = actorrt.get(say.remote("hello"))
    for number in range(len(CHANGES)):
        assert actorrt.get(change.remote(number), timeout=20) == pid
        for to_stderr in (False, True):
            assert actorrt.get(say.remote(f"after {number}", to_stderr=to_stderr), timeout=20) == pid
    assert actorrt.get(reads.remote()) == ""
    one, other = Neighbour.remote(), Neighbour.remote()
    actorrt.get(one.change.remote())
    actorrt.get(other.say.remote("neighbour"), timeout=20)
"""
    )
    said = [f"after {number}" for number in range(10)]
    assert re.findall(r"\(change pid=\d+\) (before .*)", result.stdout) == [f"before {number}" for number in range(10)]
    assert re.findall(r"\(say pid=\d+\) (.*)", result.stdout) == ["hello", *said]
    assert re.findall(r"\(say pid=\d+\) (.*)", result.stderr) == said
    assert re.findall(r"\(Neighbour pid=\d+\) (.*)", result.stdout + result.stderr) == ["neighbour", "neighbour"]


def test_a_call_that_fails_before_its_own_code_runs_is_answered(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
@actorrt.remote
def breaks():
    os.fstat = None

with actorrt.init(num_cpus=1):
    actorrt.get(breaks.remote())
    try:
        actorrt.get(say.remote("hello"), timeout=20)
    except TypeError as error:
        print("answered:", error)
"""
    )
    assert "answered: 'NoneType' object is not callable" in result.stdout


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
    assert re.search(r"\(die pid=\d+\) last words\n", result.stdout)
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


def test_what_no_line_break_ends_is_printed_all_the_same(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
@actorrt.remote
class Prints:
    async def dots(self, to):
        for i in range(3):
            print(i, end=" ", file=sys.stderr if to else None)

with actorrt.init(num_cpus=2):
    actorrt.get([Prints.remote().dots.remote(to) for to in (0, 1)])
"""
    )
    text = re.sub(r"\(Prints pid=\d+\) ", "", result.stdout)
    assert text.split() == ["0", "1", "2"], result.stdout
    assert re.sub(r"\(Prints pid=\d+\) ", "", result.stderr).split() == ["0", "1", "2"], result.stderr


def test_a_line_that_goes_on_for_long_is_shown_while_it_does(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
import io, threading

class Seen(io.StringIO):
    came = threading.Event()

    def write(self, text):
        if "working" in text:
            self.came.set()
        return super().write(text)

@actorrt.remote
def waits():
    print("working", end="")
    threading.Event().wait()

real, sys.stdout = sys.stdout, Seen()
with actorrt.init(num_cpus=1):
    ref = waits.remote()
    Seen.came.wait()
print("seen", file=real)
"""
    )
    assert result.stdout == "seen\n"


def test_each_line_stands_under_the_name_of_who_has_printed_it(run_program: RunProgram) -> None:
    result = run_program(
        PROGRAM
        + """
import asyncio

@actorrt.remote
def foo():
    print("from foo")

@actorrt.remote
def bar():
    print("from bar")
    os.system("echo from bar")

@actorrt.remote
class Talks:
    async def talk(self, name, to):
        for _ in range(20):
            print("from", name, file=sys.stderr if to else None)
            await asyncio.sleep(0)

    @actorrt.method(thread=True)
    def in_thread(self, name, to):
        for _ in range(20):
            print("from", name, file=sys.stderr if to else None)

with actorrt.init(num_cpus=1):
    for _ in range(20):
        actorrt.get([foo.remote(), bar.remote()])
    talkers = {f"Talks({name})": Talks.options(name=name).remote() for name in "ab"}
    refs = []
    for to in (0, 1):
        refs += [actor.talk.remote(name, to) for name, actor in talkers.items()]
        refs += [actor.in_thread.remote(name, to) for name, actor in talkers.items()]
    actorrt.get(refs)
"""
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert [line for line in lines if not re.fullmatch(r"\((.+) pid=\d+\) from \1", line)] == []
    assert len(lines) == 60 + 160
