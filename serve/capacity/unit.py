"""What a queue counts, as people are told of it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Unit(NamedTuple):
    name: str
    size: int
    """How much of a need, or of a limit, is one of them."""

    def say(self, amount: int) -> str:
        return f"{amount // self.size} {self.name}"


TOKENS: Final = Unit("tokens", 1)
