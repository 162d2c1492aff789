"""What the command says when it cannot do what was asked: one paragraph for a person, and an exit code.

Exit code 2: what was typed is wrong. Exit code 1: it was right and could not be done.
"""

from __future__ import annotations

import traceback
from typing import Final

WRONG_USE: Final = 2
FAILED: Final = 1


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
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<frozen"):
            return f"{what} ({frame.filename}, line {frame.lineno})"
    return what
