"""An earlier revision of this project, installed beside the present one, so that both are measured in one run."""

import subprocess
from pathlib import Path
from typing import Final

from loadtests import venvs
from loadtests.sides import BEFORE

_PRODUCT: Final = ("actorrt", "serve", "pyproject.toml", "README.md", "LICENSE")
FOLDER: Final = venvs.FOLDER / BEFORE


def resolve(name: str) -> str:
    """The full hash of a commit, tag or branch. ValueError where there is none of that name."""
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"no revision {name!r} in this repository") from error


def install(revision: str) -> None:
    """Put that revision's product into FOLDER, with today's load tests, and into an environment of its own.

    Both revisions run with the releases that are installed here, so that they differ by their own code alone. Raises
    venvs.InstallError.
    """
    python = venvs.python_in(BEFORE)
    mark = FOLDER / "revision"
    if python.exists() and mark.exists() and mark.read_text() == revision:
        return
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run(["rm", "-rf", *(str(FOLDER / part) for part in _PRODUCT)], check=True)
        packed = _git("archive", "--format=tar", revision, *_PRODUCT)
        subprocess.run(["tar", "-x", "-C", str(FOLDER)], input=packed, check=True)
        loadtests = FOLDER / "loadtests"
        loadtests.unlink(missing_ok=True)
        loadtests.symlink_to(venvs.ROOT / "loadtests")
    except (OSError, subprocess.CalledProcessError) as error:
        raise venvs.InstallError(f"{revision} could not be unpacked: {error}") from error
    venvs.make(python, ["--constraint", str(_installed()), "hatchling", "editables"])
    venvs.add(python, ["--constraint", str(_installed()), "--no-build-isolation", "--editable", str(FOLDER)])
    mark.write_text(revision)


def _installed() -> Path:
    return venvs.ROOT / "requirements.lock"


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(venvs.ROOT), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
