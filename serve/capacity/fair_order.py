"""Whose turn it is among those that wait.

Bands are strict: a higher one (a smaller number) goes first, but who has waited long enough in a band goes up by one,
so that none starves. Within a band the tenant goes first that has been served least for its weight, by the virtual
token counters of VTC (OSDI '24); within a tenant its users likewise; within a user turns of sessions that run, then
the earliest deadline, then the earliest arrival. Whoever comes back is lifted to those that are there: nobody saves up
service by being away.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

INPUT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 2.0
# Charges of so many users are kept until somebody waits.
MOST_DUE: Final = 1_000
# Of tenants, and of users of a tenant, so many are remembered that have nothing waiting.
MOST_AWAY: Final = 10_000


@dataclass(frozen=True, slots=True)
class Band:
    """What is the same for all requests of one urgency."""

    name: str
    ceiling: float = 1.0
    """How much of each line its requests may fill, of tokens and of requests: the rest is kept for higher bands."""
    beside: float = 1.0
    """How many requests may run on a line, as a part of those that it runs at most, to begin another one there while
    higher bands are in use: each that runs makes all tokens of that line later."""
    beside_backlog: float = 1.0
    """How much may wait there to be read then, as a part of what may at all; 0: it begins only where nothing does."""
    ageing_s: float | None = 30.0
    """After so many seconds of waiting a request goes up by one band; None: never."""

    def __post_init__(self) -> None:
        if not 0 < self.ceiling <= 1:
            raise ValueError(f"the ceiling of band {self.name} must be above 0 and at most 1, not {self.ceiling}")
        if not 0 < self.beside <= 1:
            raise ValueError(f"beside of band {self.name} must be above 0 and at most 1, not {self.beside}")
        if not 0 <= self.beside_backlog <= 1:
            raise ValueError(f"beside_backlog of band {self.name} must be 0 to 1, not {self.beside_backlog}")
        if self.ageing_s is not None and not self.ageing_s > 0:
            raise ValueError(f"ageing_s of band {self.name} must be above 0 or None, not {self.ageing_s}")

    @property
    def is_whole(self) -> bool:
        """Whether nothing of a line is kept from it."""
        return self.ceiling >= 1 and self.beside >= 1 and self.beside_backlog >= 1


class Waiting(Protocol):
    """A request that waits; told from others by its identity."""

    @property
    def tenant(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def band(self) -> int: ...
    @property
    def rank(self) -> int:
        """The least goes first, within a user."""
        ...

    @property
    def place(self) -> float:
        """Its deadline, or that of its first arrival: the earliest goes first."""
        ...

    @property
    def arrived(self) -> float: ...
    @property
    def tokens(self) -> int:
        """What it will take, for who comes after it within one look at the order."""
        ...


W = TypeVar("W", bound=Waiting)


class _User(Generic[W]):
    """Requests of one user, sorted by deadline and arrival. Most come at the end and go from the beginning."""

    def __init__(self) -> None:
        # Those before `_start` are gone.
        self._sorted: list[tuple[int, float, float, int, W]] = []
        self._start = 0
        self._entries: dict[W, tuple[int, float, float, int, W]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, request: W) -> None:
        self._count += 1
        entry = self._entries[request] = request.rank, request.place, request.arrived, self._count, request
        insort(self._sorted, entry, self._start)

    def remove(self, request: W) -> None:
        entry = self._entries.pop(request)
        at = bisect_left(self._sorted, entry, self._start)
        if at > self._start:
            del self._sorted[at]
            return
        self._start += 1
        if 2 * self._start > len(self._sorted):
            del self._sorted[: self._start]
            self._start = 0

    def first(self) -> W | None:
        return self._sorted[self._start][4] if self._entries else None

    def turns(self) -> Iterator[W]:
        for at in range(self._start, len(self._sorted)):
            yield self._sorted[at][4]


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
        # Those that are here, sorted by what they were served.
        self._sorted: list[tuple[float, str]] = []
        self._least = 0.0

    def __bool__(self) -> bool:
        return bool(self._here)

    def least_served(self) -> float:
        """Of those that are here; of those that were here last if nobody is."""
        return self._sorted[0][0] if self._sorted else self._least

    def add(self, request: W, path: tuple[str, ...]) -> None:
        name = path[0]
        if name not in self._here:
            least = self.least_served()
            self.served[name] = max(self.served.get(name, 0.0), least)
            self.served.move_to_end(name)
            self._here[name] = None
            insort(self._sorted, (self.served[name], name))
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
            self._least = self.least_served()
            del self._here[name]
            self._take(name)
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
        weight = self.weights.get(name) if self.weights else None
        before = self.served[name]
        after = self.served[name] = before + (tokens if weight is None else tokens / weight)
        if name in self._here:
            del self._sorted[bisect_left(self._sorted, (before, name))]
            insort(self._sorted, (after, name))
        member = self._members.get(name)
        if isinstance(member, _Group):
            member.charge(tokens, path[1:])

    def _take(self, name: str) -> None:
        del self._sorted[bisect_left(self._sorted, (self.served[name], name))]

    def first(self) -> W | None:
        return self._members[self._sorted[0][1]].first() if self._sorted else None

    def turns(self, left_out: Container[str] = ()) -> Iterator[W]:
        """All requests in the order in which they would be served, were each to take what it needs; nothing more of
        members that are left out, from when they are on. As long as nothing is added, removed or charged.
        """
        following, weights = self._sorted, self.weights
        at = 0
        # Members that have had a turn, by what they would have been served with it.
        began: list[tuple[float, str, Iterator[W]]] = []
        while at < len(following) or began:
            if at < len(following) and (not began or following[at] < began[0][:2]):
                value, name = following[at]
                turns = self._members[name].turns()
                at += 1
            else:
                value, name, turns = heappop(began)
            if name in left_out:
                continue
            request = next(turns, None)
            if request is not None:
                yield request
                heappush(began, (value + request.tokens / weights.get(name, 1.0), name, turns))


class FairOrder(Generic[W]):
    def __init__(self, bands: Sequence[Band]) -> None:
        if not bands:
            raise ValueError("there must be a band")
        self.bands = tuple(bands)
        self.numbers = {band.name: number for number, band in enumerate(bands)}
        self._groups: list[_Group[W]] = [_Group(2) for _ in bands]
        # Where each request is by now, and since when; in each band those that came first at the beginning.
        self.places: dict[W, int] = {}
        self._since: list[OrderedDict[W, float]] = [OrderedDict() for _ in bands]
        # Tokens that wait in each band, and of each tenant in it.
        self.tokens = [0] * len(bands)
        self.all_tokens = 0
        self._tenants: list[dict[str, int]] = [{} for _ in bands]
        # What is to be charged, by band, tenant and user. While nobody waits it changes nothing.
        self._due: dict[tuple[int, str, str], float] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, request: object) -> bool:
        return request in self.places

    def number_of(self, band: str) -> int:
        """That of a band with this name; of one that there is not, as of later settings, that of the last."""
        return self.numbers.get(band, len(self.bands) - 1)

    def set_weight(self, tenant: str, weight: float) -> None:
        """From now on it is served by this weight beside others. Raises ValueError unless above 0 and finite."""
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of tenant {tenant} must be above 0, not {weight}")
        self._charge_due()
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
        band = self.places.pop(request, None)
        if band is None:
            return False
        del self._since[band][request]
        self._groups[band].remove(request, (request.tenant, request.user))
        self._count(band, request, -request.tokens)
        return True

    def _enter(self, request: W, band: int, now: float) -> None:
        if self._due:
            self._charge_due()
        self.places[request] = band
        self._since[band][request] = now
        self._groups[band].add(request, (request.tenant, request.user))
        self._count(band, request, request.tokens)

    def _count(self, band: int, request: W, tokens: int) -> None:
        self.tokens[band] += tokens
        self.all_tokens += tokens
        tenants = self._tenants[band]
        left = tenants.get(request.tenant, 0) + tokens
        if left:
            tenants[request.tenant] = left
        else:
            tenants.pop(request.tenant, None)

    def age(self, now: float) -> bool:
        """Have those go up that have waited long enough. Whether there were any."""
        some = False
        for band in range(1, len(self.bands)):
            limit = self.bands[band].ageing_s
            waiting = self._since[band]
            while limit is not None and waiting:
                request, since = next(iter(waiting.items()))
                if now - since < limit:
                    break
                self.remove(request)
                self._enter(request, band - 1, now)
                some = True
        return some

    def first(self) -> tuple[W, int] | None:
        """The first that waits, and the band that it is in by now."""
        for band, group in enumerate(self._groups):
            if group and (request := group.first()) is not None:
                return request, band
        return None

    def waiting(self, band: int) -> int:
        """How many wait in a band."""
        return len(self._since[band])

    def latest(self, band: int) -> Iterator[W]:
        """Those that wait in a band, from the one that came to it last. As long as none comes or goes."""
        return reversed(self._since[band])

    def turns(self, left_out: Container[str] = ()) -> Iterator[tuple[W, Band]]:
        """All that wait, in their order, with the band that each is in by now; nothing more of tenants that are left
        out, from when they are on. As long as nothing is added, removed or charged.
        """
        for band, group in zip(self.bands, self._groups, strict=True):
            for request in group.turns(left_out):
                yield request, band

    def band_of(self, request: W) -> int:
        """The band that one which waits is in by now."""
        return self.places[request]

    def charge(self, band: int, tenant: str, user: str, tokens: float) -> None:
        """It was served so many tokens, by their weights."""
        if self.places:
            self._groups[band].charge(tokens, (tenant, user))
            return
        due, key = self._due, (band, tenant, user)
        due[key] = due.get(key, 0.0) + tokens
        if len(due) > MOST_DUE:
            self._charge_due()

    def _charge_due(self) -> None:
        due, self._due = self._due, {}
        for (band, tenant, user), tokens in due.items():
            self._groups[band].charge(tokens, (tenant, user))

    def served(self, band: int, tenant: str) -> float:
        """Tokens by weight that a tenant was served in a band; those that it was lifted by are among them."""
        self._charge_due()
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
