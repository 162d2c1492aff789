"""docs/semantics.md: every promise names a test, and that test is there."""

import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGE: Final = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
ROWS: Final = re.findall(r"^\| (?!what is promised |---)(.+) \| (.+) \|$", PAGE, re.MULTILINE)


@cache
def _tests_of(path: Path) -> set[str]:
    return set(re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_promise_names_a_test_that_is_there() -> None:
    assert ROWS
    missing: list[str] = []
    for promise, holders in ROWS:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", holders)
        if not named:
            missing.append(f"no test: {promise}")
        for file, test in named:
            path = ROOT / "tests" / file
            if not path.is_file() or test not in _tests_of(path):
                missing.append(f"{file}::{test}")
    assert missing == []
