"""Machines and programs as they are found: few descriptors, long paths, closed streams, folders that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunProgram = Callable[..., Any]

USE = """
import os
import actorrt
actorrt.init(num_cpus=1)
@actorrt.remote
class Process:
    def where(self):
        return os.getcwd()
@actorrt.remote
async def coroutine():
    return 1
where = actorrt.get(Process.remote().where.remote())
assert actorrt.get(coroutine.remote()) == 1
actorrt.shutdown()
"""


def test_a_temporary_folder_may_have_a_path_of_any_length(tmp_path: Path, run_program: RunProgram) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    ended = run_program(USE, TMPDIR=str(folder), ACTORRT_TEMP_DIR="")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert os.listdir(folder / f"actorrt-{os.getuid()}") == []


def test_names_of_folders_files_and_arguments_need_not_be_utf_8(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    file = os.path.join(folder, b"\xe9.py")
    with open(file, "w", encoding="utf-8") as program:
        program.write(
            f"""{USE}
import contextlib, sys, psutil
actorrt.init(num_cpus=1)
@actorrt.remote
def told():
    return sys.argv, sys.path[0], os.getcwd(), sys.modules["__main__"].__file__
here = sys.argv, sys.path[0], os.getcwd(), os.path.abspath(__file__)
assert actorrt.get(told.remote()) == here
doomed = []
for process in psutil.Process().children(recursive=True):
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.name() in ("actorrt-head", "actorrt-zygote"):
            doomed.append(process)
assert len(doomed) == 2
for process in doomed:
    process.kill()
assert actorrt.get(told.remote(), timeout=30) == here
actorrt.shutdown()
assert where == os.getcwd()
"""
        )
    variables = {**os.environb, b"TMPDIR": folder, b"ACTORRT_TEMP_DIR": b""}
    subprocess.run([sys.executable, file, b"\xff"], cwd=folder, env=variables, check=True, timeout=50)


def test_a_folder_in_which_no_session_can_lie_is_named_with_the_setting(run_program: RunProgram) -> None:
    ended = run_program(USE, ACTORRT_TEMP_DIR="/proc/here")
    assert ended.returncode == 1
    assert "/proc/here" in ended.stderr
    assert "set ACTORRT_TEMP_DIR" in ended.stderr


def test_a_machine_may_have_thousands_of_resources(run_program: RunProgram) -> None:
    ended = run_program(
        """
import actorrt
with actorrt.init(num_cpus=1, resources={f"kind_{i}": 1 for i in range(10_000)}):
    print(len(actorrt.cluster_resources()) > 10_000)
"""
    )
    assert ended.stdout == "True\n", ended.stderr


@pytest.mark.parametrize("closed", [[0, 1], [0, 1, 2]])
def test_a_program_may_have_closed_its_standard_streams(tmp_path: Path, closed: list[int]) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    command = [sys.executable, "-c", f"{USE}\nopen('ended', 'w').close()"]
    subprocess.run(command, cwd=tmp_path, preexec_fn=close, check=True, timeout=50)
    assert (tmp_path / "ended").exists()


def test_workers_of_a_program_whose_folder_is_gone_run_in_the_root(tmp_path: Path, run_program: RunProgram) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = run_program(f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n{USE}\nprint(where)")
    assert ended.stdout == "/\n", ended.stderr
    assert ended.stderr.count("workers run in /") == 1


def test_objects_leave_descriptors_for_workers_and_programs_that_join(run_program: RunProgram) -> None:
    ended = run_program(
        """
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
import actorrt
actorrt.init(num_cpus=1)

# Several owners: none comes to its own limit.
@actorrt.remote
class Owner:
    def fill(self):
        self.held = []
        for _ in range(100):
            self.held.append(actorrt.put(bytes(110_000)))

@actorrt.remote
class Process:
    def value(self):
        return 1

owners = [Owner.options(num_cpus=0).remote() for _ in range(4)]
full = ""
for owner in owners:
    try:
        actorrt.get(owner.fill.remote())
    except Exception as error:
        full = str(error)
print("ulimit" in full, actorrt.get(Process.remote().value.remote(), timeout=30))
joined = "import actorrt; actorrt.init('auto'); print('joined', actorrt.get(actorrt.put(1)))"
print(subprocess.run([sys.executable, "-c", joined], capture_output=True, text=True).stdout.strip())
for owner in owners:
    actorrt.kill(owner)
"""
    )
    assert ended.stdout.splitlines() == ["True 1", "joined 1"], ended.stderr


def test_a_program_raises_its_own_limit_before_it_is_out_of_descriptors(run_program: RunProgram) -> None:
    ended = run_program(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2000))
import actorrt
actorrt.init(num_cpus=1)
held = [actorrt.put(bytes(110_000)) for _ in range(100)]
print(sum(map(len, actorrt.get(held))))
"""
    )
    assert ended.stdout == "11000000\n", ended.stderr


def test_what_was_looked_at_holds_no_descriptor_that_the_next_needs(run_program: RunProgram) -> None:
    ended = run_program(
        """
import actorrt
actorrt.init(num_cpus=1)

@actorrt.remote
class Owner:
    def fill(self):
        return [actorrt.put(bytes(110_000)) for _ in range(100)]

owner = Owner.remote()
held = actorrt.get(owner.fill.remote())
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
print(sum(len(actorrt.get(ref)) for ref in held))
"""
    )
    assert ended.stdout == "11000000\n", ended.stderr
