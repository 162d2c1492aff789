"""Show on a terminal what the command is doing, with a spinner; elsewhere nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """Use it as a context manager; `close` is safe to call twice."""

    __slots__ = ("_status",)

    def __init__(self) -> None:
        self._status: Status | None = None
        if sys.stderr.isatty():
            # Only where a person watches: the import takes as long as three forks of a worker.
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("starting")
            self._status.start()

    @property
    def watched(self) -> bool:
        """Whether a person sees the steps."""
        return self._status is not None

    def step(self, text: str) -> None:
        """What it is doing now."""
        if self._status is not None:
            self._status.update(text)

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
