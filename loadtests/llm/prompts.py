"""Prompts that no cache has seen, but for a beginning that all share. Pure: the source of chance is an argument."""

from dataclasses import dataclass
from random import Random
from typing import Final

_LETTERS: Final = "abcdefghijklmnoprstuvwy"


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of `words` words, of which the share `common` is the same in all of them, at the beginning."""

    words: int
    common: float

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ValueError(f"a prompt has at least one word, not {self.words}")
        if not 0 <= self.common <= 1:
            raise ValueError(f"the common share is 0 to 1, not {self.common}")

    def draw(self, chance: Random) -> str:
        """The next prompt. Words are drawn so freely that two prompts differ in their first own word."""
        shared = round(self.words * self.common)
        return " ".join((*_draw(Random(0), shared), *_draw(chance, self.words - shared)))


def _draw(chance: Random, count: int) -> list[str]:
    return ["".join(chance.choices(_LETTERS, k=5)) for _ in range(count)]
