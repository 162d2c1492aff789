"""The programs in README.md and docs/ run as they are printed.

The ```python blocks of one page are one program, run top to bottom from the repository's folder. A block that cannot
run alone says so on the line before it: `<!-- not run: the reason -->`. Where a comment `# prints: ...` ends a block,
the page's output must hold that text. The `$ ` commands of a ```console block are run where `<!-- run -->` stands on
the line before it; the lines that follow a command must be in its output.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK: Final = re.compile(
    r"(?P<skip><!-- not run: [^\n]+ -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

CONSOLE: Final = re.compile(r"^<!-- run -->\n```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: Path) -> list[str]:
    """The blocks that run, each with as many empty lines before it that a traceback gives the page's line numbers."""
    text = page.read_text(encoding="utf-8")
    found: list[str] = []
    lines = 0
    for match in BLOCK.finditer(text):
        if match["skip"]:
            continue
        first = text.count("\n", 0, match.start("code"))
        found.append("\n" * (first - lines) + match["code"])
        lines = first + match["code"].count("\n")
    return found


WITH_CODE: Final = [page for page in PAGES if _blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    source = "".join(_blocks(page))
    program = tmp_path / f"{page.stem.replace('-', '_')}.py"
    program.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for wanted in re.findall(r"# prints: (.+)$", source, re.MULTILINE):
        assert wanted.strip() in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_print_what_it_says(page: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in CONSOLE.finditer(page.read_text(encoding="utf-8")):
        for command, printed in re.findall(r"^\$ (.+)\n((?:(?!\$ ).+\n)*)", block["text"], re.MULTILINE):
            done = subprocess.run(
                command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            for line in printed.splitlines():
                assert line.strip() in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []
