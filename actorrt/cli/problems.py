"""What the command says when it cannot do what was asked: one paragraph for a person, and an exit code.

Exit code 2: what was typed is wrong. Exit code 1: it was right and could not be done.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Final

WRONG_USE: Final = 2
FAILED: Final = 1

# Where no line of the user's own lies: this package, Python's library, and what is installed.
_PACKAGE: Final = Path(__file__).parent.parent
_OF_OTHERS: Final = (
    *(f"{folder}/" for folder in (_PACKAGE, (_PACKAGE / "serve").resolve())),
    *(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib")),
    f"{sys.base_prefix}/lib/",
)


class CommandError(Exception):
    """Ends the command: `text` goes to stderr, without a traceback."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text, code)
        self.text, self.code = text, code

    def __str__(self) -> str:
        return self.text


def describe(error: BaseException) -> str:
    """An exception of the user's code in one line: its class, its text, and the line of theirs that raised it."""
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen")]
    theirs = [each for each in frames if not each.filename.startswith(_OF_OTHERS)]
    for frame in reversed(theirs or frames):
        return f"{what} ({frame.filename}, line {frame.lineno})"
    return what
