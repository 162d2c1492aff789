"""Whether a request of a batch that was refused is made again, and when. Chance is an argument."""

from typing import Final

# What says that there was no room, and nothing about the request.
AGAIN: Final = frozenset({429, 503})
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 60.0
_MOST_DOUBLINGS: Final = 10


def wait_s(status: int, said_s: float | None, tries: int, chance: float) -> float | None:
    """Seconds until it is made again; None: this was its answer.

    `said_s`: what the refusal said, `tries`: how many there were, from 1. `chance` in [0, 1) spreads those that were
    refused together.
    """
    if status not in AGAIN:
        return None
    pause_s = FIRST_WAIT_S * 2.0 ** min(tries - 1, _MOST_DOUBLINGS)
    return min(max(pause_s, said_s or 0.0), LONGEST_WAIT_S) * (1 + 0.25 * chance)
