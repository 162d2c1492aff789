"""One run of one side: what it needs to know, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TAIL: Final = 200


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how one side is run once."""

    side: str
    python: Path
    variables: Mapping[str, str]
    folder: Path
    log: Path
    limit_s: float
    quick: bool


class RunError(Exception):
    """A side gave no figures; the text says why, with the last line of its log."""


def last_words(log: Path) -> str:
    """The last line of a log that says anything; in a traceback that is the error itself."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:_TAIL] if said else "its log is empty"
