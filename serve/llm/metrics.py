"""What is counted of requests to models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .generation import Generation


class Meter:
    def began(self, generation: Generation) -> None:
        """A request goes to its model."""

    def ended(self, generation: Generation) -> None:
        """It has been answered, or has come to another end."""
