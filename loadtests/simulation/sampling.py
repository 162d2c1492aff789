"""The requests of one run, from a trace: another seed begins elsewhere in it and leaves out others.

A trace is a ring: after its end it goes on with its beginning, whose prompts then have hashes of their own, so that
nothing is cached of a lap before. A tenth of the requests is left out by chance; times are stretched to the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from .requests import Arrival, Request

LEFT_OUT: Final = 0.1
# Hashes of a lap are so much above those of the lap before.
_LAP: Final = 1 << 40


def sample(arrivals: Sequence[Arrival], count: int, rate: float, dice: Random) -> list[Arrival]:
    """So many requests, at `rate` a second in the mean; the first at 0 s."""
    length = len(arrivals)
    begin = dice.randrange(length)
    lap_s = arrivals[-1].at - arrivals[0].at + (arrivals[-1].at - arrivals[0].at) / max(1, length - 1)
    found: list[Arrival] = []
    at = begin
    while len(found) < count:
        lap, place = divmod(at, length)
        at += 1
        if dice.random() < LEFT_OUT:
            continue
        arrival = arrivals[place]
        chain, answer, session = arrival.chain, arrival.answer, arrival.session
        if lap:
            chain = tuple(hash + lap * _LAP for hash in chain)
            answer = tuple(hash + lap * _LAP for hash in answer)
            session = session and f"{session}/{lap}"
        found.append(arrival._replace(at=arrival.at + lap * lap_s, chain=chain, answer=answer, session=session))
    start, end = found[0].at, found[-1].at
    stretch = (len(found) - 1) / rate / (end - start) if end > start else 0.0
    return [arrival._replace(at=(arrival.at - start) * stretch) for arrival in found]


def requests(
    arrivals: Sequence[Arrival], dice: Random, *, deadline_s: float = math.inf, routers: int = 1
) -> list[Request]:
    """Each with the router that it came to, by chance."""
    return [
        Request(number, arrival, deadline=arrival.at + deadline_s, router=dice.randrange(routers))
        for number, arrival in enumerate(arrivals)
    ]
