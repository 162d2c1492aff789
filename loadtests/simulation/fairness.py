"""Who was served how much, and how far apart tenants came that waited at the same time.

Service is tokens by VTC's weights: one for each token of a prompt that was read, two for each that was given. For each
two tenants that both have requests waiting, the gap is how much more service, by weight, one of them got than the other
over any stretch of the time in which both had: VTC bounds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from actorrt.serve.capacity.fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT

from .requests import Request

MOST_TENANTS: Final = 400


class Fairness:
    def __init__(self, tenants: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        self.tenants = tuple(tenants)
        self._place = {tenant: place for place, tenant in enumerate(tenants)}
        count = len(tenants)
        self.weights = np.array([(weights or {}).get(tenant, 1.0) for tenant in tenants])
        self._weights = self.weights.tolist()
        self.service = np.zeros(count)
        self.shares_until = self.service
        self._by_weight = np.zeros(count)
        self._waiting = [0] * count
        self._here = np.zeros(count, dtype=bool)
        self._watches = 1 < count <= MOST_TENANTS
        # Of each pair that waits: the least and the most that the first was ahead by since both do.
        self._least = np.zeros((count, count))
        self._most = np.zeros((count, count))
        self.gap = np.zeros((count, count))
        self._outside: set[Request] = set()
        self._given: dict[Request, int] = {}
        self.longest_prompt = 0

    def all_came(self) -> None:
        """No more come: who is served by now counts, or all would be the same once everybody is."""
        self.shares_until = self.service.copy()

    def waits(self, request: Request, now: float) -> None:
        """It is with the policy."""
        self._outside.add(request)
        self.longest_prompt = max(self.longest_prompt, request.prompt)
        place = self._place[request.tenant]
        self._waiting[place] += 1
        if self._waiting[place] == 1 and self._watches:
            self._here[place] = True
            ahead = self._by_weight[place] - self._by_weight
            self._least[place] = self._most[place] = ahead
            self._least[:, place] = self._most[:, place] = -ahead

    def left(self, request: Request, now: float) -> None:
        """It was sent to a replica, or refused."""
        if request not in self._outside:
            return
        self._outside.discard(request)
        place = self._place[request.tenant]
        self._waiting[place] -= 1
        if not self._waiting[place] and self._watches:
            both = self._here.copy()
            both[place] = False
            gap = np.where(both, self._most[place] - self._least[place], 0.0)
            self.gap[place] = np.maximum(self.gap[place], gap)
            self.gap[:, place] = self.gap[place]
            self._here[place] = False

    def served(self, request: Request, read: int, generated: int, now: float) -> None:
        """So much was read of its prompt now, and so much of its answer has come by now."""
        more = generated - self._given.get(request, 0)
        if generated >= request.output:
            self._given.pop(request, None)
        else:
            self._given[request] = generated
        if more <= 0 and not read:
            return
        place = self._place[request.tenant]
        service = INPUT_WEIGHT * read + OUTPUT_WEIGHT * max(0, more)
        self.service[place] += service
        self._by_weight[place] += service / self._weights[place]
        if self._watches and self._here[place]:
            ahead = self._by_weight[place] - self._by_weight
            np.maximum(self._most[place], ahead, out=self._most[place])
            np.minimum(self._least[place], ahead, out=self._least[place])
            np.maximum(self._most[:, place], -ahead, out=self._most[:, place])
            np.minimum(self._least[:, place], -ahead, out=self._least[:, place])

    def largest_gap(self) -> float:
        """Of all pairs, over all times at which both waited."""
        if not self._watches:
            return 0.0
        both = np.outer(self._here, self._here)
        np.fill_diagonal(both, False)
        return float(max(self.gap.max(), np.where(both, self._most - self._least, 0.0).max()))

    def bound(self, kv_tokens: int, late_tokens: int) -> float:
        """VTC's: twice the most that may be under way at once of one tenant, by the weights of tokens."""
        most = 2 * max(INPUT_WEIGHT * self.longest_prompt, OUTPUT_WEIGHT * (kv_tokens + late_tokens))
        return most / min(self._weights, default=1.0)


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 where all are the same, 1 / n where one has everything."""
    total, squares = sum(shares), sum(share * share for share in shares)
    return total * total / (len(shares) * squares) if squares else 1.0


def fair_shares(demands: Sequence[float], total: float, weights: Sequence[float]) -> list[float]:
    """What each would get of `total`, were as much as is wanted given by weight and none more than it wants."""
    shares = [0.0] * len(demands)
    left = total
    order = sorted(range(len(demands)), key=lambda place: demands[place] / weights[place])
    weight = sum(weights)
    for place in order:
        shares[place] = min(demands[place], left * weights[place] / weight) if weight > 0 else 0.0
        left -= shares[place]
        weight -= weights[place]
    return shares
