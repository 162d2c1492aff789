"""The README's program for OpenAI's client runs as it is printed, but for its address and key."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from .application import KEY

README: Final = Path(__file__).resolve().parent.parent.parent / "README.md"


def test_the_program_prints_an_answer(url: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (program,) = [block for block in blocks if "import OpenAI" in block]
    for said, meant in (("http://127.0.0.1:8000", url), ('api_key="any"', f'api_key="{KEY}"')):
        assert said in program
        program = program.replace(said, meant)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100, cwd=README.parent
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3
