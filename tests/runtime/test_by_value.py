"""A program whose own classes, helpers and sentinels travel: they stay what they were, there and back."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = Path(__file__).parent / "programs" / "by_value.py"


def _checks() -> list[str]:
    tree = ast.parse(PROGRAM.read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_check(node)]


def _is_check(function: ast.FunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "check" for mark in function.decorator_list)


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", _checks())
def test_in_a_program(name: str, found: dict[str, str]) -> None:
    assert found[name] == "right", found[name]
