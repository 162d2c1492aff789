"""Requests of many tenants, made from tables of ServeGen's clients: how often each sends, how unevenly, and how much.

A table of clients has rows client, window_start_s, rate_rps, cv, pattern, param1, param2 for windows of ten minutes; a
table beside it, ..._token_quantiles.csv, has the quantiles of their prompts and answers. The window with most clients
is taken. The parameters of a row give the shape of the times between requests, its rate their mean. A client without
quantiles of its own has those of another.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Final

from .requests import Arrival

WINDOW_S: Final = 600.0
MOST: Final = 40_000
_PARTS: Final = ("p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99")
_SHARES: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_CLIENTS: Final = "_clients.csv"
_QUANTILES: Final = "_token_quantiles.csv"
HEAD: Final = "client,window_start_s,rate_rps"


class _Client:
    def __init__(self, name: str, rate: float, pattern: str, shape: float) -> None:
        self.name, self.rate, self.pattern, self.shape = name, rate, pattern, shape

    def gap(self, dice: Random) -> float:
        """Seconds to its next request, 1 / rate in the mean."""
        if self.pattern == "Weibull":
            return dice.weibullvariate(1.0, self.shape) / math.gamma(1 + 1 / self.shape) / self.rate
        return dice.gammavariate(self.shape, 1 / self.shape) / self.rate


def read(path: Path, seed: int = 0) -> list[Arrival]:
    """The window's requests in their order. KeyError or ValueError for tables that are damaged."""
    windows: dict[float, list[_Client]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rate, shape = float(row["rate_rps"]), float(row["param1"])
            if rate > 0 and shape > 0.01:
                client = _Client(row["client"], rate, row["pattern"], shape)
                windows.setdefault(float(row["window_start_s"]), []).append(client)
    if not windows:
        raise ValueError("no client sends anything")
    clients = max(windows.values(), key=lambda window: (len(window), sum(client.rate for client in window)))
    quantiles = _quantiles(_beside(path))
    dice = Random(seed)
    others = sorted(quantiles)
    lengths = {client.name: quantiles.get(client.name) or quantiles[dice.choice(others)] for client in clients}
    due: list[tuple[float, int]] = []
    for place, client in enumerate(clients):
        heappush(due, (client.gap(dice) * dice.random(), place))
    found: list[Arrival] = []
    while due and due[0][0] < WINDOW_S and len(found) < MOST:
        at, place = heappop(due)
        client = clients[place]
        prompt, output = (_draw(each, dice) for each in lengths[client.name])
        found.append(Arrival(at, prompt, output, tenant=f"client {client.name}"))
        heappush(due, (at + client.gap(dice), place))
    return found


def _beside(path: Path) -> Path:
    own = path.with_name(path.name.replace(_CLIENTS, _QUANTILES))
    if own != path and own.is_file():
        return own
    others = sorted(path.parent.glob(f"*{_QUANTILES}"))
    if not others:
        raise ValueError(f"beside it lies no table of tokens (*{_QUANTILES})")
    return others[-1]


def _quantiles(path: Path) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    fields: dict[str, dict[str, list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            fields.setdefault(row["client"], {})[row["field"]] = [float(row[part]) for part in _PARTS]
    return {
        client: (field["input_tokens"], field["output_tokens"])
        for client, field in fields.items()
        if "input_tokens" in field and "output_tokens" in field
    }


def _draw(quantiles: Sequence[float], dice: Random) -> int:
    """Between two quantiles all are as likely."""
    share = dice.random()
    at = bisect_right(_SHARES, share)
    if at == 0 or at == len(_SHARES):
        return max(1, round(quantiles[min(at, len(_SHARES) - 1)]))
    low, high = _SHARES[at - 1], _SHARES[at]
    part = (share - low) / (high - low)
    return max(1, round(quantiles[at - 1] + part * (quantiles[at] - quantiles[at - 1])))
