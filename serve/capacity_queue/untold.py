"""How many tokens of a router's answers have come that its queue was not told of yet, and when it is to hear.

Pure. Of each answer only the latest number counts, so all of them are told together: that costs a message for so much
time, or for so many tokens, however many answers there are and however fast they come.
"""

from __future__ import annotations

from typing import Final

# So long, or so many tokens of all answers together, a queue does without: a small part of what a replica holds.
MOST_S: Final = 0.25
MOST_TOKENS: Final = 2048


class Untold:
    def __init__(self) -> None:
        self._generated: dict[int, int] = {}
        self._tokens = 0
        self._told_at = -MOST_S

    def came(self, number: int, generated: int, more: int, now: float) -> bool:
        """Of the answer with this lease so many tokens have come, `more` than before. True: tell it."""
        self._generated[number] = generated
        self._tokens += more
        return self._tokens >= MOST_TOKENS or now - self._told_at >= MOST_S

    def ended(self, number: int) -> None:
        """The end of its lease says more."""
        self._generated.pop(number, None)

    def take(self, now: float) -> list[tuple[int, int]]:
        """Leases, and how many tokens of each have come."""
        taken, self._generated = list(self._generated.items()), {}
        self._tokens, self._told_at = 0, now
        return taken
