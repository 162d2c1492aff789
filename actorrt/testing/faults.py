"""What is done to a cluster while its programs run: a schedule of faults, drawn from the dice of a history."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from random import Random
from typing import Final

from .network import Wire
from .schedule import Life
from .world import Process, World

# How long a process is stopped, or slow, or two are kept apart, in seconds.
HELD_S: Final = (0.01, 3.0)
SLOWNESS: Final = (10.0, 300.0)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what happens, on average, in a second of virtual time."""

    cuts: float = 0.0
    """A connection is cut; its link goes on over another one."""
    partitions: float = 0.0
    """Two processes are parted: for a while neither reaches the other."""
    slow: float = 0.0
    """All that comes to a process, or from it, takes longer for a while."""
    stops: float = 0.0
    """A process is stopped for a while."""
    worker_crashes: float = 0.0
    """A worker process crashes."""
    driver_crashes: float = 0.0
    """A program crashes. Not for `simulate`, whose program is the scenario."""
    head_crashes: float = 0.0
    """The head crashes, and another one is started."""
    node_crashes: float = 0.0
    """The node crashes, and the session ends."""

    @property
    def total(self) -> float:
        """All of them together."""
        return sum(getattr(self, name) for name in self.__slots__)

    @property
    def crash_callees(self) -> bool:
        """Whether processes crash that calls run in, or depend on."""
        return bool(self.worker_crashes or self.driver_crashes or self.node_crashes)


def drawn(dice: Random) -> Faults:
    """A mixture of faults: none, some kinds, or all of them; often many of few kinds."""
    rates = {"cuts": 60.0, "partitions": 5.0, "slow": 5.0, "stops": 5.0, "worker_crashes": 10.0, "head_crashes": 2.0}
    if dice.random() < 0.1:
        return Faults()
    chosen = {name: rate * dice.choice((0.2, 1.0, 3.0)) for name, rate in rates.items() if dice.random() < 0.4}
    if dice.random() < 0.1:
        chosen["driver_crashes"] = 4.0
    if dice.random() < 0.03:
        chosen["node_crashes"] = 2.0
    return Faults(**chosen)


class Chaos:
    """Does to a world what its faults say, and what a program asks for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        self._loop = world.outside
        self._network = world.network
        self._story = world.story
        # When the last fault may happen.
        self._until = math.inf

    async def run(self, faults: Faults, until: float) -> None:
        """Do what `faults` says, at random moments until `until`."""
        names = [name for name in faults.__slots__ if getattr(faults, name)]
        rates = [getattr(faults, name) for name in names]
        while names and self._loop.time() <= min(until, self._until):
            await asyncio.sleep(self._dice.expovariate(faults.total))
            if self._loop.time() <= min(until, self._until):
                self._do(self._dice.choices(names, rates)[0])

    def calm(self) -> None:
        """No more faults: what is stopped goes on, what is slow is not any more."""
        self._until = self._loop.time()
        self._network.calm()
        for process in self._world.processes:
            process.loop.go_on()

    # ---- single faults

    def _do(self, name: str) -> None:
        match name:
            case "cuts":
                self.cut()
            case "partitions":
                one, other = self._any(), self._any()
                if one is not None and other is not None and one is not other:
                    self.part(one, other, self._dice.uniform(*HELD_S))
            case "slow":
                if (process := self._any()) is not None:
                    self.slow(process, self._dice.uniform(*HELD_S), self._dice.uniform(*SLOWNESS))
            case "stops":
                if (process := self._any()) is not None:
                    self.stop(process, self._dice.uniform(*HELD_S))
            case "worker_crashes":
                self._crash_one("worker")
            case "driver_crashes":
                self._crash_one("driver")
            case "head_crashes":
                self._crash_one("head")
            case "node_crashes":
                self._crash_one("node")
            case _:
                raise AssertionError(name)

    def _any(self) -> Process | None:
        living = [process for process in self._world.processes if process.lives and process.role != "outside"]
        return self._dice.choice(living) if living else None

    def _crash_one(self, role: str) -> None:
        living = [process for process in self._world.processes if process.lives and process.role == role]
        if living:
            self._world.crash(self._dice.choice(living).pid)

    def cut(self) -> None:
        """Cut one connection, whichever."""
        # A process that talks to itself does so whatever happens to the network.
        wires = [wire for wire in self._network.wires if wire.ends[0] != wire.ends[1]]
        if wires:
            self._cut(self._dice.choice(wires))

    def cut_off(self, process: Process) -> None:
        """Cut all connections of a process."""
        for wire in list(self._network.wires):
            if process.process in wire.ends and wire.ends[0] != wire.ends[1]:
                self._cut(wire)

    def _cut(self, wire: Wire) -> None:
        named = self._story.named
        self._story.event("cuts", named(wire.ends[0]), f"its connection to {named(wire.ends[1])} is cut")
        wire.cut()

    def part(self, one: Process, other: Process, seconds: float) -> None:
        """Neither of two processes reaches the other for a while."""
        pair = frozenset((one.process, other.process))
        self._network.apart[pair] = None
        self._story.event("partitions", one.name, f"cannot reach {other.name} for {seconds:.3f} s")
        for wire in list(self._network.wires):
            if pair == frozenset(wire.ends):
                wire.cut()
        self._loop.call_later(seconds, self._network.apart.pop, pair, None)

    def slow(self, process: Process, seconds: float, factor: float) -> None:
        """All that comes to a process, or from it, takes longer for a while."""
        slowness = self._network.slowness
        slowness[process.process] = factor
        self._story.event("slow", process.name, f"is slow for {seconds:.3f} s")
        self._loop.call_later(seconds, slowness.pop, process.process, None)

    def stop(self, process: Process, seconds: float) -> None:
        """Stop a process (SIGSTOP) and let it go on."""
        if process.loop.life is Life.RUNNING:
            self._story.event("stops", process.name, f"is stopped for {seconds:.3f} s")
            process.loop.stop_process()
            self._loop.call_later(seconds, self._go_on, process)

    def _go_on(self, process: Process) -> None:
        if process.loop.life is Life.STOPPED:
            self._story.row(process.name, "goes on")
            process.loop.go_on()
