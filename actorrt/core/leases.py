"""A node's resources: what is there, what is taken, who waits for it, and which GPU goes to whom. Pure.

Amounts are in units of 1/10000. Nothing here knows of processes, or of what a lease is used for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final

UNIT: Final = 10_000
# Looks for GPUs that many shapes fit on together end after so many steps; then they are taken not to fit.
MOST_TRIES: Final = 20_000
# In ticks of a queue: how long a request waits until others may be held up for it, and for how long they are at first
# and at most.
OLD: Final = 2
FIRST_HOLD: Final = 4
LONGEST_HOLD: Final = 128


class Resources:
    """What a machine, or a part of it, has and what is free of it. CPUs may be overdrawn: a worker that goes on after
    a block takes its CPU back at once, whoever has it meanwhile."""

    def __init__(self, total: Mapping[str, int], gpus: Mapping[int, int] | None = None) -> None:
        """`gpus`: how much of which GPU, by index; None: as many as `total` has, from 0 on."""
        self.total = dict(total)
        self.free = dict(total)
        if gpus is None:
            whole, rest = divmod(self.total.get("GPU", 0), UNIT)
            gpus = dict(enumerate([UNIT] * whole + [rest] * bool(rest)))
        self._gpu_sizes = dict(gpus)
        self._gpus = dict(gpus)

    @property
    def rooms(self) -> Mapping[int, int]:
        """How much of each GPU is free, by index."""
        return self._gpus

    def report(self, free: Mapping[str, int], rooms: Mapping[int, int]) -> None:
        """What is free, as somebody says who knows it."""
        self.free = dict(free)
        self._gpus = dict(rooms)

    def copy(self, *, emptied: bool = False) -> Resources:
        """The same, to try things out; `emptied`: as if nothing was taken."""
        twin = Resources(self.total, self._gpu_sizes)
        if not emptied:
            twin.report(self.free, self._gpus)
        return twin

    def lacking(self, shape: Mapping[str, int]) -> str:
        """Why `shape` can never be had here; empty if it can."""
        missing = [
            f"{(amount - self.total.get(name, 0)) / UNIT:g} more {name}"
            for name, amount in sorted(shape.items())
            if amount > self.total.get(name, 0)
        ]
        if not missing and _choose_gpus(self._gpu_sizes, shape.get("GPU", 0)) is None:
            missing.append("one GPU with room for it" if shape["GPU"] < UNIT else "whole GPUs")
        return ", ".join(missing)

    def fits(self, shape: Mapping[str, int]) -> bool:
        """True if `shape` is free now."""
        free = self.free
        for name, amount in shape.items():
            if amount > free.get(name, 0):
                return False
        return "GPU" not in shape or _choose_gpus(self._gpus, shape["GPU"]) is not None

    def could(self, shape: Mapping[str, int]) -> bool:
        """True if `shape` would fit if nothing was taken."""
        total = self.total
        for name, amount in shape.items():
            if amount > total.get(name, 0):
                return False
        return "GPU" not in shape or _choose_gpus(self._gpu_sizes, shape["GPU"]) is not None

    def short_of(self, shape: Mapping[str, int]) -> set[str]:
        """The resources of which too little is free for `shape` now."""
        short = {name for name, amount in shape.items() if amount > self.free.get(name, 0)}
        if _choose_gpus(self._gpus, shape.get("GPU", 0)) is None:
            short.add("GPU")
        return short

    def take(self, shape: Mapping[str, int]) -> list[int]:
        """Take what `fits`; the GPUs that go with it, by index."""
        gpus = _choose_gpus(self._gpus, shape.get("GPU", 0)) or []
        self._take(shape, gpus)
        return gpus

    def _take(self, shape: Mapping[str, int], gpus: Sequence[int]) -> None:
        for name, amount in shape.items():
            self.free[name] = self.free.get(name, 0) - amount
        for index in gpus:
            self._gpus[index] -= min(shape["GPU"], UNIT)

    def give(self, shape: Mapping[str, int], gpus: Sequence[int]) -> None:
        """Give back what was taken."""
        for name, amount in shape.items():
            self.free[name] = self.free.get(name, 0) + amount
        for index in gpus:
            self._gpus[index] += min(shape.get("GPU", 0), UNIT)

    def fits_all(self, shapes: Sequence[Mapping[str, int]]) -> bool:
        """True if all of them are free together."""
        return self._gpus_for(shapes) is not None

    def take_all(self, shapes: Sequence[Mapping[str, int]]) -> list[list[int]]:
        """Take all of what `fits_all`; the GPUs of each."""
        gpus = self._gpus_for(shapes)
        assert gpus is not None
        for shape, some in zip(shapes, gpus, strict=True):
            self._take(shape, some)
        return gpus

    def _gpus_for(self, shapes: Sequence[Mapping[str, int]]) -> list[list[int]] | None:
        """The GPUs of each shape; None if they do not fit together."""
        if any(amount > self.free.get(name, 0) for name, amount in add_up(shapes).items()):
            return None
        wanted = sorted(((shape.get("GPU", 0), number) for number, shape in enumerate(shapes)), reverse=True)
        found: list[list[int]] = [[] for _ in shapes]
        return found if _pack_gpus(dict(self._gpus), [one for one in wanted if one[0]], found, [MOST_TRIES]) else None

    def pause(self, shape: Mapping[str, int]) -> None:
        """A worker waits: its CPUs are free meanwhile."""
        self.free["CPU"] = self.free.get("CPU", 0) + shape.get("CPU", 0)

    def resume(self, shape: Mapping[str, int]) -> None:
        self.free["CPU"] = self.free.get("CPU", 0) - shape.get("CPU", 0)


def add_up(shapes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """All of them together."""
    total: dict[str, int] = {}
    for shape in shapes:
        for name, amount in shape.items():
            total[name] = total.get(name, 0) + amount
    return total


def _choose_gpus(free: Mapping[int, int], wanted: int) -> list[int] | None:
    """Indices of GPUs for `wanted`; None if they are not free."""
    if not wanted:
        return []
    if wanted >= UNIT:
        whole = [index for index, room in free.items() if room == UNIT]
        count = -(-wanted // UNIT)
        return whole[:count] if len(whole) >= count else None
    # The fullest one with room, so that whole ones stay whole.
    roomy = [(room, index) for index, room in free.items() if room >= wanted]
    return [min(roomy)[1]] if roomy else None


def _pack_gpus(
    rooms: dict[int, int], wanted: Sequence[tuple[int, int]], found: list[list[int]], tries: list[int]
) -> bool:
    """Find GPUs for all that is `wanted` together, as (amount, number), the largest first. The fullest with room is
    tried first, and of several with the same room one only."""
    if not wanted:
        return True
    tries[0] -= 1
    (amount, number), rest = wanted[0], wanted[1:]
    if amount >= UNIT:
        options = [whole] if (whole := _choose_gpus(rooms, amount)) is not None else []
    else:
        by_room = {room: [index] for index, room in sorted(rooms.items(), reverse=True) if room >= amount}
        options = [by_room[room] for room in sorted(by_room)]
    for gpus in options:
        for index in gpus:
            rooms[index] -= min(amount, UNIT)
        found[number] = gpus
        if _pack_gpus(rooms, rest, found, tries):
            return True
        for index in gpus:
            rooms[index] += min(amount, UNIT)
        if tries[0] <= 0:
            return False
    return False


class Request:
    """One who asked for `shape`, of one of `among`. `kind` says who, and what for: leases of one kind can stand in for
    each other. `parts`: what it takes together, each with GPUs of its own, where that is more than one thing."""

    __slots__ = ("_given", "_hold", "_since", "among", "kind", "number", "parts", "shape", "source")

    def __init__(
        self,
        number: int,
        shape: Mapping[str, int],
        kind: Hashable,
        among: tuple[Resources, ...],
        parts: tuple[Mapping[str, int], ...],
        since: int,
    ) -> None:
        self.number = number
        self.shape = shape
        self.kind = kind
        self.among = among
        self.parts = parts
        # Of which of them it has been granted.
        self.source: Resources = among[0]
        # None until it is granted.
        self._given: list[list[int]] | None = None
        self._since = since
        self._hold = FIRST_HOLD

    @property
    def granted(self) -> bool:
        return self._given is not None

    @property
    def gpus(self) -> list[int]:
        """Those that go with it, by index."""
        return self._given[0] if self._given else []

    @property
    def gpus_of_parts(self) -> list[list[int]]:
        """The same of each part."""
        return self._given or []

    def fits(self, source: Resources) -> bool:
        return source.fits_all(self.parts) if len(self.parts) > 1 else source.fits(self.shape)

    def take(self, source: Resources) -> None:
        """Take what `fits`: it is granted."""
        self.source = source
        self._given = source.take_all(self.parts) if len(self.parts) > 1 else [source.take(self.shape)]

    def give(self) -> None:
        """Give back what it has been granted."""
        for part, gpus in zip(self.parts, self.gpus_of_parts, strict=True):
            self.source.give(part, gpus)

    def is_old(self, now: int) -> bool:
        return now - self._since >= OLD

    def next_hold(self) -> int:
        """For how long it may hold now; the next time for longer."""
        hold, self._hold = self._hold, min(LONGEST_HOLD, self._hold * 2)
        return hold


Key = tuple[tuple[tuple[str, int], ...], tuple[int, ...]]


class Queue:
    """Those who wait for resources. Who came first is served first, but a request that does not fit holds up nobody
    whose does.

    So that a large request does not wait for ever beside many small ones, the oldest one that could be served by what
    tasks give back is held for: what it lacks goes to nobody else. Those that it keeps from work may be waited for by
    those that it waits for, as children are by their parent. So a hold has an end, all others have their turn for as
    long, and the next hold is twice as long. Time is counted in ticks.
    """

    def __init__(self, resources: Resources) -> None:
        self._all = (resources,)
        # By shape, each in order of arrival: a shape that does not fit is looked at once, however many ask for it.
        self._waiting: dict[Key, dict[Request, None]] = {}
        self._kinds: dict[Hashable, int] = {}
        self._last_number = 0
        self._now = 0
        # Who is held for, and of what, until when; then nobody is, until `_rests`.
        self._holder: Request | None = None
        self._held = resources
        self._began = 0
        self._until = 0
        self._rests = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def holder(self) -> Request | None:
        """The one that others are kept from work for."""
        return self._holder

    def ask(
        self,
        shape: Mapping[str, int],
        kind: Hashable,
        among: tuple[Resources, ...] = (),
        parts: tuple[Mapping[str, int], ...] = (),
    ) -> Request:
        """Stand in line; `grant` says when it is one's turn. `among`: of which of these; of the machine's, if empty."""
        self._last_number += 1
        request = Request(self._last_number, shape, kind, among or self._all, parts or (shape,), self._now)
        self._waiting.setdefault(_key(request), {})[request] = None
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        return request

    def withdraw(self, request: Request) -> bool:
        """Leave the line. False: it was granted already, and what it got has to be given back."""
        if request.granted:
            return False
        self._remove(request)
        return True

    def ahead(self, request: Request) -> int:
        """How many came before it and wait."""
        return sum(one.number < request.number for requests in self._waiting.values() for one in requests)

    def grant(self) -> list[Request]:
        """Take resources for all who can have them now, in order."""
        granted: list[Request] = []
        open_shapes = dict(self._waiting)
        while open_shapes:
            request = min((next(iter(requests)) for requests in open_shapes.values()), key=lambda one: one.number)
            key = _key(request)
            source = self._source(request)
            if source is None:
                del open_shapes[key]
                continue
            request.take(source)
            self._remove(request)
            granted.append(request)
            if key not in self._waiting:
                del open_shapes[key]
        return granted

    def _source(self, request: Request) -> Resources | None:
        """Where it can have now what it asks for."""
        for source in request.among:
            if request.fits(source) and not self._is_held(request, source):
                return source
        return None

    def _is_held(self, request: Request, source: Resources) -> bool:
        """True if some of what it would take there is held for another."""
        holder = self._holder
        if holder is None or holder is request or source is not self._held:
            return False
        return any(
            name in holder.shape and (name == "GPU" or source.free[name] - amount < holder.shape[name])
            for name, amount in request.shape.items()
        )

    def tick(self, coming: Callable[[Resources], Mapping[str, int]]) -> None:
        """Some time is over; `grant` follows. `coming`: what those have of these resources that will give it back."""
        self._now += 1
        if self._holder is not None:
            if self._now < self._until:
                return
            self._holder = None
            self._rests = self._now + self._until - self._began
        if self._now < self._rests:
            return
        for request in sorted((next(iter(some)) for some in self._waiting.values()), key=lambda one: one.number):
            if not request.is_old(self._now):
                break
            for source in request.among:
                back = coming(source)
                if all(
                    amount <= source.free.get(name, 0) + back.get(name, 0) for name, amount in request.shape.items()
                ):
                    self._holder, self._held = request, source
                    self._began, self._until = self._now, self._now + request.next_hold()
                    return

    def wanted_back(self, shape: Mapping[str, int], kind: Hashable, source: Resources | None = None) -> bool:
        """True if somebody of another kind waits for something of which a lease of `shape` has some."""
        if len(self._kinds) <= (kind in self._kinds):
            return False
        source = source or self._all[0]
        for requests in self._waiting.values():
            first = next(iter(requests))
            if source not in first.among or all(request.kind == kind for request in requests):
                continue
            if any(shape.get(name) for name in source.short_of(first.shape)):
                return True
        return False

    def _remove(self, request: Request) -> None:
        key = _key(request)
        requests = self._waiting[key]
        del requests[request]
        if not requests:
            del self._waiting[key]
        left = self._kinds[request.kind] - 1
        if left:
            self._kinds[request.kind] = left
        else:
            del self._kinds[request.kind]
        if request is self._holder:
            self._holder = None


def _key(request: Request) -> Key:
    return tuple(sorted(request.shape.items())), tuple(map(id, (*request.among, *request.parts[1:])))
