"""What a queue counts, as people are told of it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Unit(NamedTuple):
    name: str
    size: int
    """How much of a need, or of a limit, is one of them."""

    def say(self, amount: int) -> str:
        return f"{amount // self.size} {self.name}"

    def say_of(self, amount: int, output: int) -> str:
        """The same of a request, with what of it is an answer that is expected."""
        said = self.say(amount)
        if self is not TOKENS or not output:
            return said
        return f"{said} ({amount - output} of its prompt, {output} expected of its answer)"


TOKENS: Final = Unit("tokens", 1)
