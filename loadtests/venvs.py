"""Virtual environments of the peers, one each, in the git-ignored `.bench/`; the project's own is never touched."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loadtests.sides import ENVIRONMENTS, SIDES

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".bench"
_INSTALL_LIMIT_S: Final = 900.0
_VERSIONS: Final = """
import importlib.metadata as metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class InstallError(Exception):
    """A peer could not be installed; the text is what the installer said last."""


def python_of(side: str) -> Path:
    """The interpreter that runs this side."""
    environment = SIDES[side].environment
    return Path(sys.executable) if environment is None else python_in(environment)


def python_in(environment: str) -> Path:
    return FOLDER / "venvs" / environment / "bin" / "python"


def install(environment: str) -> Path:
    """The environment's interpreter, with what ENVIRONMENTS names installed; nothing is done where it already is.

    Raises InstallError.
    """
    requirements = ENVIRONMENTS[environment]
    python = python_in(environment)
    mark = python.parent.parent / "installed"
    wanted = "\n".join((*requirements, sys.version))
    if python.exists() and mark.exists() and mark.read_text() == wanted:
        return python
    make(python, requirements)
    mark.write_text(wanted)
    return python


def make(python: Path, requirements: Sequence[str]) -> None:
    """A new environment for this interpreter, with that in it; what was there before goes. Raises InstallError."""
    folder = python.parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    add(python, requirements)


def add(python: Path, requirements: Sequence[str]) -> None:
    """What pip installs for these arguments, into an environment that is there. Raises InstallError."""
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"not installed within {_INSTALL_LIMIT_S:.0f} s") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise InstallError(lines[-1] if lines else f"the installer ended with {done.returncode}")


def versions(python: Path, distributions: Iterable[str]) -> Mapping[str, str]:
    """Versions of those distributions that this interpreter has."""
    done = subprocess.run(
        [str(python), "-c", _VERSIONS, *distributions], capture_output=True, text=True, timeout=60, check=True
    )
    found: Mapping[str, str] = json.loads(done.stdout)
    return found
