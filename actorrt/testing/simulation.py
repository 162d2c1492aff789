"""A user's program in virtual time: `simulate` runs it with many seeds, a `Simulation` does things to its cluster."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random
from typing import Any, Final

from actorrt.runtime.owner import current
from actorrt.runtime.owner.handles import client_of

from .faults import Chaos, Faults
from .world import MOST_TURNS, Process, World

# The last lines of the story that an error tells.
TOLD_LINES: Final = 60
NOT_HERE: Final = (
    "simulate() puts its own clock in the place of the system's, which a session would not survive: call it before "
    "init(), or after shutdown()"
)


class Simulation:
    """The cluster that a scenario runs in, and what it may do to it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chaos = Chaos(world)
        # Dice of the scenario's own, the same for each run of a seed.
        self.random = Random(f"scenario {world.seed}")

    @property
    def seed(self) -> int:
        """What decides all that happens."""
        return self._world.seed

    @property
    def time(self) -> float:
        """Seconds of virtual time since the cluster began."""
        return self._world.schedule.now

    def workers(self) -> list[str]:
        """The names of the worker processes that live, in the order of their starts."""
        return [process.name for process in self._world.processes if process.lives and process.role == "worker"]

    def worker_of(self, actor: Any) -> str | None:
        """The worker process in which an actor of this program lives; None while it has none."""
        record = client_of(actor).record
        link = None if record is None else record.link
        return None if link is None else self._world.story.named(link.peer)

    # ---- what may happen to a process: `process` is an actor of this program, or a name of `workers()`, or "head"

    def crash(self, process: Any) -> None:
        """A process ends without a word, as by SIGKILL.

        LookupError if it does not live; ValueError for one without which the scenario would end itself.
        """
        found = self._find(process)
        if found.role not in ("worker", "head"):
            raise ValueError(f"a crash of {found.name!r} would end the scenario itself: crash a worker, or the head")
        self._world.crash(found.pid)

    def stop(self, process: Any, seconds: float) -> None:
        """Stop a process, as SIGSTOP does, and let it go on after so long.

        LookupError if it does not live; ValueError for a time that is none.
        """
        self._chaos.stop(self._find(process), _seconds(seconds))

    def slow(self, process: Any, seconds: float, factor: float = 100.0) -> None:
        """For so long, all that comes to a process or from it takes `factor` times as long.

        LookupError if it does not live; ValueError for a time or factor that is none.
        """
        if not factor > 0:
            raise ValueError(f"factor must be more than 0, not {factor!r}")
        self._chaos.slow(self._find(process), _seconds(seconds), factor)

    def cut(self, process: Any) -> None:
        """Cut all connections of a process: what is under way is lost from any byte on, and links go on over other
        connections. LookupError if it does not live."""
        self._chaos.cut_off(self._find(process))

    def part(self, one: Any, other: Any, seconds: float) -> None:
        """For so long neither of two processes reaches the other: their connection is cut, and no other one is made.

        LookupError if one does not live; ValueError for a time that is none.
        """
        self._chaos.part(self._find(one), self._find(other), _seconds(seconds))

    def inject(self, faults: Faults, seconds: float) -> None:
        """From now on, for so long, have faults happen at random moments. ValueError for a time that is none, and where
        `faults` would end the scenario itself."""
        _check_faults(faults)
        world = self._world
        world.spawn(world.outside_process, partial(self._chaos.run, faults, world.schedule.now + _seconds(seconds)))

    async def kill(self, actor: Any, *, no_restart: bool = True) -> None:
        """End an actor, as `actorrt.kill` does, which would block."""
        await self._world.kill_actor(actor, no_restart)

    def note(self, text: str) -> None:
        """Add a line to the story."""
        process = self._world.current
        self._world.story.row("scenario" if process is None else process.name, text)

    def _find(self, process: Any) -> Process:
        name = process if isinstance(process, str) else self.worker_of(process)
        for one in self._world.processes:
            if one.name == name and one.lives and one.role != "outside":
                return one
        said = "the actor has no process at this moment" if name is None else f"there is no process {name!r}"
        raise LookupError(f"{said}; these workers live: {', '.join(self.workers()) or 'none'}")


def _seconds(given: float) -> float:
    if not 0 <= given < math.inf:
        raise ValueError(f"seconds must be a number, at least 0, not {given!r}")
    return given


Scenario = Callable[[Simulation], Awaitable[object]]


def simulate(
    scenario: Scenario,
    *,
    seeds: Iterable[int] = range(100),
    cpus: int = 4,
    limit_s: float = 3600.0,
    faults: Faults | None = None,
) -> None:
    """Run `await scenario(simulation)` as a program of a cluster in virtual time, once for each seed.

    `cpus`: how many CPUs the cluster's node has. `limit_s`: how many virtual seconds a run may take. `faults`: what
    happens all the while, at random moments.

    Raises AssertionError with the seed and the end of its story at the first seed whose scenario raises an error, has
    not ended in time, or brings an error of the runtime to light; the same seed gives the same run. RuntimeError where
    this process has a session of actorrt; ValueError where there are no seeds, and where `faults` would end the
    scenario itself.
    """
    _check(faults)
    seed = None
    for seed in seeds:
        _run(scenario, seed, cpus, limit_s, faults or Faults())
    if seed is None:
        raise ValueError("seeds is empty: nothing was run, and so nothing is shown")


def story_of(
    scenario: Scenario, seed: int, *, cpus: int = 4, limit_s: float = 3600.0, faults: Faults | None = None
) -> str:
    """The whole story of one seed, whether it fails or not: who sent what to whom, and which rows of tables were taken.

    Raises RuntimeError and ValueError as `simulate` does.
    """
    _check(faults)
    world = World(seed, cpus)
    _failure(scenario, world, limit_s, faults or Faults())
    return world.story.tell()


def _check(faults: Faults | None) -> None:
    if current.maybe_runtime() is not None:
        raise RuntimeError(NOT_HERE)
    if faults is not None:
        _check_faults(faults)


def _check_faults(faults: Faults) -> None:
    if not isinstance(faults, Faults):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"faults must be Faults(...), as Faults(cuts=2.0), not {faults!r}")
    if faults.driver_crashes:
        raise ValueError("driver_crashes would end the scenario itself")


def _run(scenario: Scenario, seed: int, cpus: int, limit_s: float, faults: Faults) -> None:
    world = World(seed, cpus)
    failure = _failure(scenario, world, limit_s, faults)
    if failure is not None:
        said, error = failure
        raise AssertionError(
            f"seed {seed}: {said}\n\nThe end of its story:\n{world.story.tell(TOLD_LINES)}\n\n"
            f"seeds=[{seed}] runs it again."
        ) from error


def _failure(
    scenario: Scenario, world: World, limit_s: float, faults: Faults
) -> tuple[str, BaseException | None] | None:
    """What went wrong, and the error of the scenario if there is one."""
    ended: list[BaseException | None] = []

    async def main() -> None:
        simulation = Simulation(world)
        simulation.inject(faults, limit_s)
        try:
            await scenario(simulation)
        except KeyboardInterrupt:
            # Ctrl-C is meant for whoever runs the seeds.
            raise
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    with world.installed():
        try:
            world.begin_node()
            world.new_driver(main)
            in_time = world.run(lambda: bool(ended), limit_s)
            waits = "" if in_time else world.what_waits()
            found = [*world.errors.found, *world.deliveries.broken]
            error = ended[0] if ended else None
        finally:
            world.close()
    if error is not None:
        return f"{type(error).__name__}: {error}", error
    if found:
        return f"an error of the runtime: {found[0]}", None
    if not in_time and world.schedule.turns > MOST_TURNS:
        return f"the loops took {MOST_TURNS:,} turns in {world.schedule.now:g} s of virtual time: {waits}", None
    if not in_time:
        return f"the scenario has not ended by {world.schedule.now:g} s of virtual time: {waits}", None
    return None
