"""How long an answer will be: a quantile of those that have come, for the same model, tenant and length of prompt.

Each group keeps a histogram over lengths whose steps grow by a fifth; what is old counts less. A group without enough
answers is as its model is, and a model without them as all are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from itertools import accumulate
from typing import Final

# Upper ends of the steps, in tokens: the last one is more than any answer.
_STEPS: Final = tuple(sorted({round(1.2**n) for n in range(77)}))
# So many answers are enough to go by.
ENOUGH: Final = 20
# Once a group has so many, each counts half from then on.
MEMORY: Final = 512
MOST_GROUPS: Final = 10_000
# Where nothing is known.
FIRST_GUESS: Final = 256


class _Lengths:
    __slots__ = ("counts", "due", "known", "total")

    def __init__(self) -> None:
        self.counts: dict[int, float] = {}
        self.total = 0.0
        # The quantile, and how many answers more may come before it is looked up again.
        self.known = 0
        self.due = 0

    def add(self, step: int) -> None:
        self.counts[step] = self.counts.get(step, 0.0) + 1
        self.total += 1
        self.due -= 1
        if self.total > MEMORY:
            self.counts = {step: count / 2 for step, count in self.counts.items() if count > 0.01}
            self.total = sum(self.counts.values())

    def quantile(self, part: float) -> int:
        """As it was within the last thirtieth of the answers."""
        if self.due <= 0:
            self.known, self.due = self._quantile(part), int(self.total / 30) + 1
        return self.known

    def _quantile(self, part: float) -> int:
        steps = sorted(self.counts)
        sums = list(accumulate(self.counts[step] for step in steps))
        return _STEPS[steps[min(bisect_left(sums, part * self.total), len(steps) - 1)]]


class OutputLengths:
    """What answers were, and hence will be."""

    def __init__(self, quantile: float = 0.7) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"the quantile must be between 0 and 1, not {quantile}")
        self.quantile = quantile
        self._groups: OrderedDict[tuple[str | int, ...], _Lengths] = OrderedDict()

    @staticmethod
    def _keys(model: str, tenant: str, prompt: int) -> tuple[tuple[str | int, ...], ...]:
        return (model, tenant, prompt.bit_length()), (model,), ()

    def learn(self, model: str, tenant: str, prompt: int, output: int) -> None:
        """An answer has ended by itself, after so many tokens."""
        step = min(bisect_left(_STEPS, output), len(_STEPS) - 1)
        groups = self._groups
        for key in self._keys(model, tenant, prompt):
            lengths = groups.get(key)
            if lengths is None:
                lengths = groups[key] = _Lengths()
                if len(groups) > MOST_GROUPS:
                    groups.popitem(last=False)
            groups.move_to_end(key)
            lengths.add(step)

    def expect(self, model: str, tenant: str, prompt: int, max_tokens: int | None = None) -> int:
        """So many tokens; never more than was asked for."""
        if max_tokens is not None and max_tokens <= _STEPS[0]:
            return max_tokens
        expected = FIRST_GUESS
        for key in self._keys(model, tenant, prompt):
            lengths = self._groups.get(key)
            if lengths is not None and lengths.total >= ENOUGH:
                expected = lengths.quantile(self.quantile)
                break
        return expected if max_tokens is None else min(expected, max_tokens)
