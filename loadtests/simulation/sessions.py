"""A workload of conversations: each turn's prompt is all that was said before, and a little more.

Sessions begin at even chance; each belongs to one of a few applications, whose system prompt begins all its prompts. A
next turn comes some time after the one before, whether that has been answered or not. What has been answered is in the
cache of the engine that did it, prompt and answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from .requests import Arrival


@dataclass(frozen=True, slots=True)
class Conversations:
    applications: int = 8
    system_tokens: int = 1024
    turns: float = 6.0
    """In the mean."""
    gap_s: float = 40.0
    """From one turn to the next, in the mean."""
    first_tokens: float = 1200.0
    """The median of what the first turn says; of later ones, and of answers, below."""
    next_tokens: float = 150.0
    answer_tokens: float = 220.0
    hash_tokens: int = 512


def make(count: int, rate: float, seed: int = 0, shape: Conversations | None = None) -> list[Arrival]:
    """About `count` turns at `rate` a second, from sessions that are at any of their turns when it begins."""
    shape = shape or Conversations()
    dice = Random(seed)
    span, before = count / rate, shape.turns * shape.gap_s
    found: list[Arrival] = []
    hashes = 1 << 32
    at = -before
    number = 0
    while at < span:
        at += dice.expovariate(rate / shape.turns)
        number += 1
        application = min(shape.applications - 1, int(dice.paretovariate(1.2)) - 1)
        history = shape.system_tokens
        common = application * 1000
        chain = [common + place for place in range(history // shape.hash_tokens)]
        said = _around(shape.first_tokens, 0.8, dice)
        turn = at
        while True:
            prompt, output = history + said, _around(shape.answer_tokens, 0.7, dice)
            history = prompt + output
            while len(chain) < history // shape.hash_tokens:
                hashes += 1
                chain.append(hashes)
            whole = prompt // shape.hash_tokens
            if 0 <= turn < span:
                found.append(
                    Arrival(
                        turn, prompt, output, tuple(chain[:whole]), tuple(chain[whole:]),
                        f"application {application}", str(number),
                    )
                )  # fmt: skip
            if dice.random() < 1 / shape.turns:
                break
            turn += 2.0 + dice.expovariate(1 / (shape.gap_s - 2.0))
            said = _around(shape.next_tokens, 0.8, dice)
    found.sort(key=lambda arrival: arrival.at)
    return found


def _around(median: float, spread: float, dice: Random) -> int:
    return max(8, min(8000, round(dice.lognormvariate(math.log(median), spread))))
