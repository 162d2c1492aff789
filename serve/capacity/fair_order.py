"""Whose turn it is among those that wait.

Bands are strict: a higher one (a smaller number) goes first, but who has waited long enough in a band goes up by one,
so that none starves. Within a band the tenant goes first that has been served least for its weight, by the virtual
token counters of VTC (OSDI '24); within a tenant its users likewise; within a user the earliest deadline, then the
earliest arrival. Whoever comes back is lifted to those that are there: nobody saves up service by being away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

INPUT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 2.0
# Of tenants, and of users of a tenant, so many are remembered that have nothing waiting.
MOST_AWAY: Final = 10_000


@dataclass(frozen=True, slots=True)
class Band:
    """What is the same for all requests of one urgency."""

    name: str
    ceiling: float = 1.0
    """How much of each line its requests may fill: the rest is kept for higher bands."""
    ageing_s: float | None = 30.0
    """After so many seconds of waiting a request goes up by one band; None: never."""

    def __post_init__(self) -> None:
        if not 0 < self.ceiling <= 1:
            raise ValueError(f"the ceiling of band {self.name} must be above 0 and at most 1, not {self.ceiling}")
        if self.ageing_s is not None and not self.ageing_s > 0:
            raise ValueError(f"ageing_s of band {self.name} must be above 0 or None, not {self.ageing_s}")


class Waiting(Protocol):
    """A request that waits; told from others by its identity."""

    @property
    def tenant(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def band(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def arrived(self) -> float: ...
    @property
    def tokens(self) -> int:
        """What it will take, for who comes after it within one look at the order."""
        ...


W = TypeVar("W", bound=Waiting)


class _User(Generic[W]):
    """Requests of one user, by deadline and arrival. Those that are gone stay in the heap until their turn comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, int, W]] = []
        self._here: dict[W, None] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._here)

    def add(self, request: W) -> None:
        self._count += 1
        self._here[request] = None
        heappush(self._heap, (request.deadline, request.arrived, self._count, request))

    def remove(self, request: W) -> None:
        del self._here[request]
        if len(self._heap) > 2 * len(self._here) + 16:
            self._heap = [entry for entry in self._heap if entry[3] in self._here]
            heapify(self._heap)

    def turns(self) -> Iterator[W]:
        heap, here = self._heap, self._here
        while heap and heap[0][3] not in here:
            heappop(heap)
        if heap:
            yield heap[0][3]
        rest = [entry for entry in heap[1:] if entry[3] in here]
        heapify(rest)
        while rest:
            yield heappop(rest)[3]


class _Group(Generic[W]):
    """Those that share by weight: the tenants of a band, or the users of a tenant."""

    def __init__(self, depth: int) -> None:
        # 1: of users.
        self._depth = depth
        # Of all that are remembered, how much they were served, by weight; those that came last at the end.
        self.served: OrderedDict[str, float] = OrderedDict()
        self.weights: dict[str, float] = {}
        self._members: dict[str, _Group[W] | _User[W]] = {}
        self._here: dict[str, None] = {}
        # Of those that are here, by what they were served; entries that are not true any more are passed over.
        self._heap: list[tuple[float, str]] = []
        self._least = 0.0

    def __bool__(self) -> bool:
        return bool(self._here)

    def least_served(self) -> float:
        """Of those that are here; of those that were here last if nobody is."""
        heap, here, served = self._heap, self._here, self.served
        while heap and (heap[0][1] not in here or served[heap[0][1]] != heap[0][0]):
            heappop(heap)
        if heap:
            self._least = heap[0][0]
        return self._least

    def add(self, request: W, path: tuple[str, ...]) -> None:
        name = path[0]
        if name not in self._here:
            least = self.least_served()
            self.served[name] = max(self.served.get(name, 0.0), least)
            self.served.move_to_end(name)
            self._here[name] = None
            self._push(name)
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = _User() if self._depth == 1 else _Group(self._depth - 1)
        if isinstance(member, _Group):
            member.add(request, path[1:])
        else:
            member.add(request)

    def remove(self, request: W, path: tuple[str, ...]) -> None:
        name = path[0]
        member = self._members[name]
        if isinstance(member, _Group):
            member.remove(request, path[1:])
        else:
            member.remove(request)
        if not member:
            self.least_served()
            del self._here[name]
            if isinstance(member, _User):
                del self._members[name]
            self._forget_some()

    def _forget_some(self) -> None:
        while len(self.served) - len(self._here) > MOST_AWAY:
            name = next(name for name in self.served if name not in self._here)
            del self.served[name]
            self._members.pop(name, None)

    def charge(self, tokens: float, path: tuple[str, ...]) -> None:
        name = path[0]
        if name not in self.served:
            # It was forgotten meanwhile; or nothing of it has waited.
            self.served[name] = self.least_served()
            self._forget_some()
        self.served[name] += tokens / self.weights.get(name, 1.0)
        if name in self._here:
            self._push(name)
        member = self._members.get(name)
        if isinstance(member, _Group):
            member.charge(tokens, path[1:])

    def _push(self, name: str) -> None:
        heappush(self._heap, (self.served[name], name))
        if len(self._heap) > 4 * len(self._here) + 16:
            self._heap = [(self.served[each], each) for each in self._here]
            heapify(self._heap)

    def turns(self) -> Iterator[W]:
        """All requests in the order in which they would be served, were each to take what it needs."""
        self.least_served()
        if not self._heap:
            return
        served, first = self._heap[0]
        turns = self._members[first].turns()
        request = next(turns)
        yield request
        # Few look further, and few of those at many: members are taken from the heap one by one, and put back.
        seen = {first}
        began = [(served + request.tokens / self.weights.get(first, 1.0), first, turns)]
        taken: list[tuple[float, str]] = []
        try:
            while True:
                following = self._next_unseen(seen, taken)
                if following is not None and (not began or following < began[0][:2]):
                    served, name = following
                    seen.add(name)
                    turns = self._members[name].turns()
                elif began:
                    served, name, turns = heappop(began)
                else:
                    return
                request = next(turns, None)
                if request is not None:
                    heappush(began, (served + request.tokens / self.weights.get(name, 1.0), name, turns))
                    yield request
        finally:
            for entry in taken:
                heappush(self._heap, entry)

    def _next_unseen(self, seen: set[str], taken: list[tuple[float, str]]) -> tuple[float, str] | None:
        heap, here, served = self._heap, self._here, self.served
        while heap:
            entry = heap[0]
            is_true = entry[1] in here and served[entry[1]] == entry[0]
            if is_true and entry[1] not in seen:
                return entry
            heappop(heap)
            if is_true:
                taken.append(entry)
        return None


class FairOrder(Generic[W]):
    def __init__(self, bands: Sequence[Band]) -> None:
        if not bands:
            raise ValueError("there must be a band")
        self.bands = tuple(bands)
        self._groups: list[_Group[W]] = [_Group(2) for _ in bands]
        # Where each request is by now, and since when; in each band those that came first at the beginning.
        self._places: dict[W, int] = {}
        self._since: list[OrderedDict[W, float]] = [OrderedDict() for _ in bands]
        # Tokens that wait in each band, and of each tenant in it.
        self.tokens = [0] * len(bands)
        self._tenants: list[dict[str, int]] = [{} for _ in bands]

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request: object) -> bool:
        return request in self._places

    def set_weight(self, tenant: str, weight: float) -> None:
        """From now on it is served by this weight beside others. Raises ValueError unless above 0 and finite."""
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of tenant {tenant} must be above 0, not {weight}")
        for group in self._groups:
            # One is what everybody has: of those who have it nothing is kept.
            if weight == 1.0:
                group.weights.pop(tenant, None)
            else:
                group.weights[tenant] = weight

    def weights(self) -> dict[str, float]:
        """Of those who have another than 1."""
        return dict(self._groups[0].weights)

    def add(self, request: W, now: float) -> None:
        """It waits from now on. Raises ValueError for a band that there is not."""
        if not 0 <= request.band < len(self.bands):
            raise ValueError(f"there is no band {request.band}")
        self._enter(request, request.band, now)

    def remove(self, request: W) -> bool:
        """It has its turn, or is not wanted any more. False if it did not wait."""
        band = self._places.pop(request, None)
        if band is None:
            return False
        del self._since[band][request]
        self._groups[band].remove(request, (request.tenant, request.user))
        self._count(band, request, -request.tokens)
        return True

    def _enter(self, request: W, band: int, now: float) -> None:
        self._places[request] = band
        self._since[band][request] = now
        self._groups[band].add(request, (request.tenant, request.user))
        self._count(band, request, request.tokens)

    def _count(self, band: int, request: W, tokens: int) -> None:
        self.tokens[band] += tokens
        tenants = self._tenants[band]
        left = tenants.get(request.tenant, 0) + tokens
        if left:
            tenants[request.tenant] = left
        else:
            tenants.pop(request.tenant, None)

    def age(self, now: float) -> None:
        """Have those go up that have waited long enough."""
        for band in range(1, len(self.bands)):
            limit = self.bands[band].ageing_s
            waiting = self._since[band]
            while limit is not None and waiting:
                request, since = next(iter(waiting.items()))
                if now - since < limit:
                    break
                self.remove(request)
                self._enter(request, band - 1, now)

    def turns(self) -> Iterator[tuple[W, Band]]:
        """All that wait, in their order, with the band that each is in by now."""
        for band, group in zip(self.bands, self._groups, strict=True):
            for request in group.turns():
                yield request, band

    def charge(self, band: int, tenant: str, user: str, tokens: float) -> None:
        """It was served so many tokens, by their weights."""
        self._groups[band].charge(tokens, (tenant, user))

    def served(self, band: int, tenant: str) -> float:
        """Tokens by weight that a tenant was served in a band; those that it was lifted by are among them."""
        return self._groups[band].served.get(tenant, 0.0)

    def ahead(self, request: W) -> int:
        """Tokens that will have been served before a request that came now: of higher bands all, of its own those of
        its tenant, and of the others what they are served meanwhile.
        """
        own = self._tenants[request.band].get(request.tenant, 0)
        weights = self._groups[request.band].weights
        weight = weights.get(request.tenant, 1.0)
        meanwhile = sum(
            min(tokens, (own + request.tokens) * weights.get(tenant, 1.0) / weight)
            for tenant, tokens in self._tenants[request.band].items()
            if tenant != request.tenant
        )
        return sum(self.tokens[: request.band]) + own + round(meanwhile)
