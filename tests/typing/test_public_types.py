"""pyright, in strict mode, finds in public_types.py what it must, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright", reason="pyright is not installed: make check installs it")


@pytest.mark.timeout(180)  # its first run on a machine may unpack Node
def test_the_public_types_are_what_they_should_be() -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pyright", "--project", here, "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
