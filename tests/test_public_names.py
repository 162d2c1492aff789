import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest

import actorrt

ROOT = Path(__file__).resolve().parent.parent


def test_every_public_name_is_there_for_programs_and_for_type_checkers() -> None:
    tree = ast.parse((ROOT / "actorrt/__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(actorrt.__all__) - {"__version__"}
    assert seen == set(actorrt._HOME_OF) | set(actorrt._MODULES)
    for name in actorrt.__all__:
        assert getattr(actorrt, name) is not None
        assert name in dir(actorrt)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'actorrt' has no attribute 'gte'"):
        cast(Any, actorrt).gte  # noqa: B018


def test_importing_the_package_loads_hardly_anything_but_itself() -> None:
    code = "import sys; before = set(sys.modules); import actorrt; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"actorrt", "actorrt.version"}
    assert not loaded & {"asyncio", "dataclasses", "inspect", "typing"}


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert actorrt.__version__ == project["version"]
