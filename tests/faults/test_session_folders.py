"""Sessions beside the user's own files, beside each other, and after the death of all that belonged to them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt.runtime.machine.session_folder import INFO

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RunProgram = Callable[..., Any]

START_AND_END = "import actorrt; actorrt.init(num_cpus=1); actorrt.shutdown()"
SESSIONS = Path(os.environ["ACTORRT_TEMP_DIR"]) / f"actorrt-{os.getuid()}"


@actorrt.remote
class Process:
    def pid(self) -> int:
        return os.getpid()


def test_what_else_lies_in_the_temporary_folder_is_nobodys_business(tmp_path: Path, run_program: RunProgram) -> None:
    home = tmp_path / "home"
    for path in ("Documents/thesis.tex", ".ssh/id", "project/logs/run.txt", "20260101-000000-1-0123456789abcdef/x"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("precious")
    (home / "notes.txt").write_text("precious")
    (home / "link").symlink_to(home / "Documents")
    long_ago = time.time() - 30 * 86400
    for path in home.iterdir():
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    before = sorted(home.rglob("*"))
    ended = run_program(START_AND_END, ACTORRT_TEMP_DIR=str(home))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(path for path in home.rglob("*") if "actorrt-" not in str(path)) == before


def test_a_session_whose_mark_was_cleaned_away_goes_on_and_can_be_joined(run_program: RunProgram) -> None:
    with actorrt.init(num_cpus=2) as context:
        session = Path(context["session_dir"])
        actorrt.get(Process.remote().pid.remote())
        (session / INFO).unlink()
        long_ago = time.time() - 30 * 86400
        os.utime(session, (long_ago, long_ago))
        assert run_program(START_AND_END).returncode == 0
        assert actorrt.get(Process.remote().pid.remote(), timeout=30)
        for address in ("auto", str(session)):
            joined = run_program(f"import actorrt; print(actorrt.init({address!r})['session_dir'])")
            assert joined.stdout.strip() == str(session), joined.stderr
    assert not session.exists() or os.listdir(session) == ["logs"]


def test_a_session_of_which_all_was_killed_is_cleared_away_by_the_next_program(
    tmp_path: Path, run_program: RunProgram
) -> None:
    code = """
import os, time, actorrt
context = actorrt.init(num_cpus=1)
@actorrt.remote
class Process:
    def node(self):
        return os.getppid()
print(context["session_dir"], actorrt.get(Process.remote().node.remote()), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        path, zygote = driver.stdout.readline().split()
        node = int(Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[1])
        # Stopped first, so that none of them learns that another has died.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (driver.pid, node):
                os.kill(pid, number)
    session = Path(path)
    assert {INFO, "logs"} < set(os.listdir(session))
    # The head, which has a copy of neither, ends with its driver.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and session.exists() and set(os.listdir(session)) - {INFO, "logs"}:
        assert run_program(START_AND_END).returncode == 0
    assert not session.exists() or set(os.listdir(session)) == {INFO, "logs"}


@pytest.fixture(scope="module")
def session() -> Iterator[Path]:
    """The folder of a session that the tests below share."""
    with actorrt.init(num_cpus=2) as context:
        yield Path(context["session_dir"])


def files_of_processes(session: Path) -> set[str]:
    return {path.name for path in session.iterdir() if path.suffix in (".sock", ".at")}


def test_the_files_of_a_worker_go_with_it_however_it_ends(session: Path) -> None:
    def one(end: Callable[[Any], Any]) -> None:
        actor: Any = Process.remote()
        ended = os.pidfd_open(actorrt.get(actor.pid.remote()))
        end(actor)
        del actor
        select.select([ended], [], [])
        os.close(ended)

    one(lambda actor: None)
    before = files_of_processes(session)
    for _ in range(5):
        one(actorrt.kill)
        one(lambda actor: None)
        one(lambda actor: os.kill(actorrt.get(actor.pid.remote()), signal.SIGKILL))
    while files_of_processes(session) - before:
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["actorrt.shutdown()", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_the_files_of_a_program_that_joined_go_with_it(session: Path, run_program: RunProgram, end: str) -> None:
    before = files_of_processes(session)
    # It listens, since an actor of another process has to reach what it owns.
    code = f"""
import os, actorrt
actorrt.init({str(session)!r})
@actorrt.remote
class Keeper:
    def keep(self, refs):
        return actorrt.get(refs[0])
@actorrt.remote
class Passer:
    def pass_on(self, keeper, refs):
        return actorrt.get(keeper.keep.remote(refs))
print(actorrt.get(Passer.remote().pass_on.remote(Keeper.remote(), [actorrt.put(1)])), flush=True)
{end}
"""
    assert run_program(code).stdout == "1\n"
    while files_of_processes(session) - before:
        time.sleep(0.01)
