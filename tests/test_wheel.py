"""What is released works without a checkout: the sdist, and the wheel that is built from it."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Without --wheel or --sdist, build makes the sdist and then the wheel from what the sdist holds.
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh virtual environment with the wheel; the dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("venv")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Files named *.pth in a folder that is added like this are not read, so the editable install stays out.
    (folder / "lib" / version / "site-packages" / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_every_module_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.endswith(".py")}
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "actorrt").rglob("*.py")}
    wanted |= {f"actorrt/{path.relative_to(ROOT)}" for path in (ROOT / "serve").rglob("*.py")}
    assert held == wanted


def test_the_wheel_carries_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "actorrt/py.typed" in archive.namelist()


def test_serve_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import actorrt; from actorrt import serve; print(actorrt.__version__, serve.__name__, serve.__file__)"
    version, name, file = _run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert name == "actorrt.serve"
    assert Path(file).is_relative_to(installed)


def test_the_wheel_brings_the_command(installed: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in _run(installed / "bin" / "actorrt", "--version", cwd=tmp_path)


def test_serve_refuses_another_name_than_its_own(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\ntry: import serve\nexcept ImportError as e: print(e)"
    assert "write `from actorrt import serve`" in _run(sys.executable, "-c", code, cwd=tmp_path)
