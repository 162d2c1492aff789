"""How much of a line those of one band may fill: what is left is kept for higher bands."""

from __future__ import annotations

from typing import Final, NamedTuple


class Share(NamedTuple):
    """Parts of what a line may give at all. An empty line takes whatever it can ever hold."""

    tokens: float = 1.0
    slots: float = 1.0
    backlog: float = 1.0
    """Of the prompts that may wait to be read there when another is admitted; 0: only where none waits."""


WHOLE: Final = Share()
