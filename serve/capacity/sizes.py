"""How many numbers there are of each power of two: about the largest and smallest, without a look at each."""

from __future__ import annotations


class Sizes:
    def __init__(self) -> None:
        self._counts = [0] * 64
        # A bit for each size of which there is one.
        self._there = 0

    def add(self, size: int) -> None:
        """There is one more of this `bit_length`."""
        if not self._counts[size]:
            self._there |= 1 << size
        self._counts[size] += 1

    def take(self, size: int) -> None:
        """There is one less."""
        self._counts[size] -= 1
        if not self._counts[size]:
            self._there &= ~(1 << size)

    @property
    def most(self) -> int:
        """None is larger; -1 if there is none."""
        return (1 << (self._there.bit_length() - 1)) - 1 if self._there else -1

    @property
    def least(self) -> int:
        """None is smaller; 0 if there is none."""
        return (self._there & -self._there) >> 1
