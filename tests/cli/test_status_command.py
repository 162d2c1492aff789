"""`actorrt status` and `actorrt --version`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import actorrt


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("actorrt")), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_the_version_is_printed() -> None:
    assert actorrt.__version__ in _run("--version").stdout


def test_python_runs_the_package_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "actorrt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == _run("--version").stdout


def test_the_status_without_a_node_is_an_error_that_says_so() -> None:
    done = _run("status")
    assert done.returncode == 1
    assert "no cluster runs on this machine" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("node")
def test_the_status_shows_the_node_and_its_resources() -> None:
    done = _run("status")
    assert done.returncode == 0, done.stderr
    assert "alive" in done.stdout
    assert "CPU                           2 of            2" in done.stdout


@pytest.mark.usefixtures("node")
def test_the_status_is_there_for_programs_too() -> None:
    facts = json.loads(_run("status", "--json").stdout)
    assert facts["total"]["CPU"] == 2
    assert facts["nodes"][0]["Alive"] is True


def test_an_unknown_command_is_refused() -> None:
    done = _run("severe")
    assert done.returncode == 2
    assert "severe" in done.stderr
