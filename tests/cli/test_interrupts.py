"""Ctrl-C before a command has begun its work: while modules are imported, and as the program ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Sends Ctrl-C as a module is about to be imported, or as the program ends.
INTERRUPTING = """
import atexit, os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
if os.environ["INTERRUPT_AT"] == "exit":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""


@pytest.fixture
def interrupted(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that gets Ctrl-C at INTERRUPT_AT."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("where", ["actorrt.cli.commands", "click", "actorrt.cli.serve", "actorrt.cli.status"])
@pytest.mark.parametrize("command", [["serve", "some:app"], ["status"], ["--help"]])
@pytest.mark.parametrize(
    "program", [[str(Path(sys.executable).with_name("actorrt"))], [sys.executable, "-m", "actorrt"]]
)
def test_ctrl_c_while_modules_are_imported_is_a_line_and_130(
    program: list[str], command: list[str], where: str, interrupted: dict[str, str]
) -> None:
    interrupted["INTERRUPT_AT"] = where
    done = subprocess.run([*program, *command], env=interrupted, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "actorrt: interrupted\n")


@pytest.mark.parametrize("where", ["actorrt.runtime.api.driver", "msgspec", "actorrt.runtime.api.join"])
@pytest.mark.usefixtures("node")
def test_ctrl_c_while_a_node_is_asked_is_a_line_and_130(where: str, interrupted: dict[str, str]) -> None:
    interrupted["INTERRUPT_AT"] = where
    done = subprocess.run(
        [sys.executable, "-m", "actorrt", "status"], env=interrupted, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "actorrt: interrupted\n")


def test_ctrl_c_as_the_command_ends_is_a_line_and_130(interrupted: dict[str, str]) -> None:
    interrupted["INTERRUPT_AT"] = "exit"
    done = subprocess.run(
        [sys.executable, "-m", "actorrt", "--version"], env=interrupted, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "actorrt: interrupted\n")


def test_who_has_ctrl_c_ignored_is_not_interrupted(interrupted: dict[str, str]) -> None:
    interrupted["INTERRUPT_AT"] = "click"
    shell = "trap '' INT; exec \"$0\" -m actorrt --version"
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable], env=interrupted, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
