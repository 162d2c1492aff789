"""One run of one side: what it needs to know, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TAIL: Final = 400


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
    """A side gave no figures; the text says why, with the end of its log."""


def last_words(log: Path) -> str:
    """The end of a log, on one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return " ".join(text.split())[-_TAIL:]
