"""The programs of `make simulate`: drivers that call tasks and actors, pass refs around, cancel, kill and forget.

What ran where is noted outside of all processes (`Book`), so that each promise can be held against what has happened:
a call ends once, with the right value or an error that something explains; what ran twice was allowed to; the calls of
one caller begin in order; and in the end nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner.handles import client_of

from .balance import left_over
from .faults import Chaos, Faults, drawn
from .world import World

# A history that has not ended by then never will, in seconds.
LIMIT_S: Final = 900.0
# How long after its programs everything has been given back.
SETTLE_S: Final = 34.0
FAULTS_S: Final = 3.0
# So long sleeps what only a cancellation ends.
FOR_EVER_S: Final = 10_000.0


class Odd(Exception):
    """What code of a history raises on purpose."""


@dataclass
class Book:
    """What really happened."""

    # How often a call began.
    runs: Counter[int] = field(default_factory=Counter[int])
    # By actor, life and caller: the calls in the order in which they began.
    order: dict[tuple[str, int, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    # Of each actor, the processes of its lives.
    lives: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list[str])
    # What ran more often than it may.
    repeated: list[str] = field(default_factory=list[str])
    calls: int = 0
    ends: Counter[str] = field(default_factory=Counter[str])
    # What has ended before it began.
    unbegun: list[int] = field(default_factory=list[int])
    last: int = 0

    def breaks(self, what: str) -> None:
        """Note a promise that was not held."""
        self.broken.append(what)

    def next(self) -> int:
        self.last += 1
        return self.last


# The history that runs: code of all its processes notes here what it does.
_books: list[Book] = []


def _book() -> Book:
    return _books[-1]


# What a process that ends, or a link that does, may bring to a call.
_LOSSES: Final = (
    exceptions.ActorDiedError,
    exceptions.ActorUnavailableError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OwnerDiedError,
    exceptions.LinkError,
)


# ---- what is called


@actorrt.remote
class Account:
    """Keeps a sum, and what it is given."""

    def __init__(self, name: str) -> None:
        book = _book()
        book.lives[name].append(os.getpid())
        self._name = name
        self._life = len(book.lives[name])
        self._sum = 0
        self._kept: list[Any] = []

    async def add(self, number: int, caller: str, value: int, pause_s: float) -> int:
        book = _book()
        book.runs[number] += 1
        book.order[self._name, self._life, caller].append(number)
        if pause_s:
            await asyncio.sleep(pause_s)
        self._sum += value
        return value + 1

    async def fail(self, number: int) -> None:
        _book().runs[number] += 1
        raise Odd(number)

    async def keep(self, number: int, box: list[Any]) -> int:
        _book().runs[number] += 1
        self._kept += box
        return len(box)

    async def sleep(self, number: int) -> None:
        _book().runs[number] += 1
        await asyncio.sleep(FOR_EVER_S)

    async def given(self, number: int) -> list[Any]:
        """What it keeps, once."""
        _book().runs[number] += 1
        kept, self._kept = self._kept, []
        return kept


@actorrt.remote
async def double(number: int, value: int, pause_s: float) -> int:
    _book().runs[number] += 1
    if pause_s:
        await asyncio.sleep(pause_s)
    return 2 * value


@actorrt.remote
async def sleeps(number: int) -> None:
    """Ends only if it is cancelled."""
    _book().runs[number] += 1
    await asyncio.sleep(FOR_EVER_S)


@actorrt.remote
async def waits_for_sleepers(number: int, box: list[Any]) -> None:
    """Ends with what it has called, and only if it is cancelled."""
    book = _book()
    book.runs[number] += 1
    refs = [sleeps.remote(book.next()), *(actor.sleep.remote(book.next()) for actor in box)]
    for ref in refs:
        await ref


@actorrt.remote
async def raises(number: int) -> None:
    _book().runs[number] += 1
    raise Odd(number)


@actorrt.remote
async def sum_of(number: int, box: list[Any]) -> int:
    """The sum of refs that came in a list."""
    _book().runs[number] += 1
    total = 0
    for ref in box:
        total += await ref
    return total


@actorrt.remote
async def nested(number: int, value: int, box: list[Any]) -> int:
    """Call an actor whose handle came in a list, and a task."""
    _book().runs[number] += 1
    book = _book()
    book.calls += 1
    got: int = await double.remote(book.next(), value, 0.001)
    for actor in box:
        with contextlib.suppress(*_LOSSES):
            await actor.add.remote(book.next(), f"nested {number}", 1, 0.0)
    return got


@actorrt.remote
async def passes_on(number: int, box: list[Any], actors: list[Any]) -> int:
    """Have an actor keep refs that came in a list, and forget them."""
    book = _book()
    book.runs[number] += 1
    kept = 0
    for actor in actors:
        with contextlib.suppress(*_LOSSES):
            kept += await actor.keep.remote(book.next(), box)
    return kept


@actorrt.remote
async def visits(number: int, actors: list[Any], times: int, pause_s: float) -> int:
    """Call an actor again and again, wherever it is by then."""
    book = _book()
    book.runs[number] += 1
    for _ in range(times):
        for actor in actors:
            with contextlib.suppress(*_LOSSES):
                await actor.add.remote(book.next(), f"visitor {number}", 1, 0.0)
        await asyncio.sleep(pause_s)
    return times


@actorrt.remote
async def makes(number: int, value: int) -> list[Any]:
    """Refs to values of its own."""
    _book().runs[number] += 1
    return [actorrt.put(value), double.remote(_book().next(), value, 0.0)]


@actorrt.remote
async def counts(number: int, most: int) -> AsyncGenerator[int, None]:
    _book().runs[number] += 1
    for index in range(most):
        yield index
        if index % 3 == 0:
            await asyncio.sleep(0.001)


# ---- who calls


class Client:
    """One coroutine of a program: it makes calls and looks at what becomes of them."""

    def __init__(self, name: str, dice: Random, book: Book, faults: Faults, actors: list[Shared]) -> None:
        self._name = name
        self._dice = dice
        self._book = book
        self._faults = faults
        self._actors = actors

    async def run(self, steps: int) -> None:
        dice = self._dice
        under_way: list[asyncio.Task[None]] = []
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.add,
            self.add,
            self.add,
            self.task,
            self.task,
            self.leased_task,
            self.failing,
            self.refs,
            self.handles,
            self.lends,
            self.makes,
            self.stream,
            self.kept,
            self.sleeper,
            self.burst,
            self.passed_on,
            self.visitor,
            self.late,
            self.repeated,
        ]
        for _ in range(steps):
            under_way.append(asyncio.ensure_future(dice.choice(kinds)()))
            if dice.random() < 0.4:
                await asyncio.sleep(dice.choice((0.0, 0.001, 0.01, 0.1)))
        for task in under_way:
            await task

    # ---- one call each

    async def add(self) -> None:
        actor = self._actor()
        number, value = self._book.next(), self._dice.randrange(100)
        pause_s = self._dice.choice((0.0, 0.0, 0.001, 0.05))
        ref = actor.handle.add.remote(number, self._name, value, pause_s)
        await self._ends(number, ref, value + 1, actor.retries, actor)

    async def task(self) -> None:
        number, value = self._book.next(), self._dice.randrange(100)
        retries = self._dice.choice((0, 3))
        ref = double.options(max_retries=retries).remote(number, value, self._dice.choice((0.0, 0.001, 0.02)))
        await self._ends(number, ref, 2 * value, retries)

    async def leased_task(self) -> None:
        number, value = self._book.next(), self._dice.randrange(100)
        retries = self._dice.choice((0, 3))
        ref = double.options(max_retries=retries, num_cpus=1).remote(number, value, self._dice.choice((0.0, 0.01)))
        await self._ends(number, ref, 2 * value, retries)

    async def burst(self) -> None:
        """More leased tasks at once than there are workers for."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._dice.randrange(2, 7)):
                group.create_task(self.leased_task())

    async def passed_on(self) -> None:
        """A task hands refs to an actor, which is the only one that has them then."""
        actor, number = self._actor(), self._book.next()
        values = [self._dice.randrange(100) for _ in range(self._dice.randrange(1, 3))]
        refs: list[Any] = [actorrt.put(value) for value in values]
        ref = passes_on.options(max_retries=3, num_cpus=self._dice.choice((0, 0.1))).remote(
            number, refs, [actor.handle]
        )
        del refs
        await self._ends(number, ref, int, 3)

    async def visitor(self) -> None:
        number, times = self._book.next(), self._dice.randrange(2, 6)
        ref = visits.options(max_retries=3, num_cpus=self._dice.choice((0, 0.1))).remote(
            number, [self._actor().handle], times, self._dice.choice((0.001, 0.02, 0.2))
        )
        await self._ends(number, ref, times, 3)

    async def failing(self) -> None:
        number = self._book.next()
        if self._dice.random() < 0.5:
            await self._ends(number, raises.options(max_retries=0).remote(number), Odd, 0)
        else:
            actor = self._actor()
            await self._ends(number, actor.handle.fail.remote(number), Odd, actor.retries, actor)

    async def refs(self) -> None:
        """Lend refs in a list; the ref that the task returns is all that is waited for."""
        values = [self._dice.randrange(100) for _ in range(self._dice.randrange(1, 4))]
        box: list[Any] = [actorrt.put(value) for value in values]
        box.append(double.options(max_retries=3).remote(self._book.next(), 5, 0.001))
        number = self._book.next()
        ref = sum_of.options(max_retries=3).remote(number, box)
        del box
        await self._ends(number, ref, sum(values) + 10, 3)

    async def handles(self) -> None:
        actor = self._actor()
        number, value = self._book.next(), self._dice.randrange(100)
        ref = nested.options(max_retries=3).remote(number, value, [actor.handle])
        await self._ends(number, ref, 2 * value, 3)

    async def lends(self) -> None:
        """An actor keeps refs, and another caller may fetch them from it."""
        actor = self._actor()
        number, value = self._book.next(), self._dice.randrange(100)
        ref = actor.handle.keep.remote(number, [actorrt.put(value)])
        await self._ends(number, ref, 1, actor.retries, actor)

    async def kept(self) -> None:
        actor = self._actor()
        number = self._book.next()
        ref = actor.handle.given.remote(number)
        kept = await self._ends(number, ref, list, actor.retries, actor)
        for one in kept or ():
            await self._value(one)

    async def makes(self) -> None:
        number, value = self._book.next(), self._dice.randrange(100)
        made = await self._ends(number, makes.options(max_retries=3).remote(number, value), list, 3)
        if made:
            first, second = made
            for ref, wanted in ((first, value), (second, 2 * value)):
                got = await self._value(ref)
                if got is not None and got != wanted:
                    self._book.breaks(f"a value of call {number} is {got}, and not {wanted}")

    async def stream(self) -> None:
        number, most = self._book.next(), self._dice.randrange(12)
        self._book.calls += 1
        came: list[int] = []
        try:
            async for ref in counts.options(num_returns="streaming", max_retries=3).remote(number, most):
                came.append(await ref)  # noqa: PERF401  what came before an error is looked at, too
        except _LOSSES as error:
            self._lost(number, error)
        else:
            self._book.ends["streams"] += 1
            if came != list(range(most)):
                self._book.breaks(f"stream {number} of {most} items brought {came}")

    async def sleeper(self) -> None:
        """What is cancelled ends, wherever it is by then, and what it has called."""
        dice, number = self._dice, self._book.next()
        actor = self._actor()
        kind = dice.randrange(3)
        if kind == 0:
            ref: Any = sleeps.options(max_retries=dice.choice((0, 3)), num_cpus=dice.choice((0, 1))).remote(number)
        elif kind == 1:
            ref = actor.handle.sleep.remote(number)
        else:
            ref = waits_for_sleepers.options(max_retries=0).remote(number, [actor.handle] * dice.randrange(2))
        self._book.calls += 1
        await asyncio.sleep(dice.choice((0.0, 0.0, 0.001, 0.01, 0.1)))
        ref.cancel()
        try:
            await ref
        except exceptions.TaskCancelledError:
            self._book.ends["cancelled"] += 1
        except _LOSSES as error:
            self._lost(number, error)
        else:
            self._book.breaks(f"call {number}, which sleeps for ever, has ended")

    async def late(self) -> None:
        """What has a limit keeps to it, whoever runs it and wherever it is by then."""
        dice, number = self._dice, self._book.next()
        actor, seconds = self._actor(), dice.choice((0.001, 0.02, 0.3))
        limit = dice.choice(("timeout_s", "start_timeout_s"))
        options: dict[str, Any] = {limit: seconds}
        sleep: Any = actor.handle.sleep
        if dice.random() < 0.5:
            sleep, options = sleeps, {**options, "max_retries": dice.choice((0, 3)), "num_cpus": dice.choice((0, 1))}
        ref = sleep.options(**options).remote(number)
        self._book.calls += 1
        loop = asyncio.get_running_loop()
        called_at = loop.time()
        if limit == "start_timeout_s":
            # Once it runs, only this ends it.
            loop.call_later(dice.choice((0.01, 0.5)), ref.cancel)
        try:
            await ref
        except exceptions.CallTimeoutError as error:
            self._book.ends["late"] += 1
            if error.limit != limit or loop.time() < called_at + seconds:
                self._book.breaks(f"call {number} ended after {loop.time() - called_at} s with {error!r}")
            if not error.may_have_run and self._book.runs[number]:
                self._book.breaks(f"call {number} has run and ended with {error!r}")
            if not error.may_have_run:
                self._book.unbegun.append(number)
        except exceptions.TaskCancelledError as error:
            self._book.ends["cancelled"] += 1
            if limit == "timeout_s":
                self._book.breaks(f"call {number} ended with {error!r}, and nobody cancelled it")
        except _LOSSES as error:
            self._lost(number, error)
        else:
            self._book.breaks(f"call {number}, which sleeps for ever, has ended")
        if limit == "timeout_s" and not self._faults.total and loop.time() > called_at + seconds + 0.1:
            self._book.breaks(f"call {number} took {loop.time() - called_at} s, and {seconds} are allowed")

    async def repeated(self) -> None:
        """What raises runs as often as it may, with pauses between."""
        dice, number = self._dice, self._book.next()
        retries, policy = dice.choice((1, 2)), actorrt.RetryPolicy(pause_s=dice.choice((0.01, 0.5)))
        task: Any = raises.options(
            max_retries=retries, retry_exceptions=[Odd], retry_policy=policy, num_cpus=dice.choice((0, 1))
        )
        self._book.calls += 1
        loop = asyncio.get_running_loop()
        called_at = loop.time()
        try:
            await task.remote(number)
        except Odd:
            self._book.ends["raised"] += 1
            if self._nobody_was_killed():
                if self._book.runs[number] != 1 + retries:
                    self._book.breaks(f"call {number} ran {self._book.runs[number]} times, and not {1 + retries}")
                if loop.time() - called_at < 0.8 * policy.pause_s * retries:
                    self._book.breaks(f"call {number} has not paused: it took {loop.time() - called_at} s")
        except _LOSSES as error:
            self._lost(number, error)

    # ---- how it ends

    def _actor(self) -> Shared:
        return self._dice.choice(self._actors)

    async def _value(self, ref: Any) -> Any:
        try:
            return await ref
        except _LOSSES as error:
            self._lost(0, error)
        return None

    def _nobody_was_killed(self) -> bool:
        return not self._faults.crash_callees and not any(actor.was_killed for actor in self._actors)

    def _lost(self, number: int, error: BaseException) -> None:
        self._book.ends[type(error).__name__] += 1
        if self._nobody_was_killed():
            self._book.breaks(f"call {number} ended with {error!r}, and no process was killed")

    async def _ends(self, number: int, ref: Any, wanted: Any, retries: int, actor: Shared | None = None) -> Any:
        """Wait for a call, perhaps cancel it, and hold what came against what was promised."""
        book, dice = self._book, self._dice
        book.calls += 1
        cancelled = dice.random() < 0.15
        if cancelled:
            asyncio.get_running_loop().call_later(dice.choice((0.0, 0.001, 0.02)), ref.cancel)
        got: Any = None
        try:
            got = await ref
        except exceptions.TaskCancelledError as error:
            book.ends["cancelled"] += 1
            if not cancelled:
                book.breaks(f"call {number} ended with {error!r}, and nobody cancelled it")
        except Odd as error:
            book.ends["raised"] += 1
            if wanted is not Odd or error.args != (number,):
                book.breaks(f"call {number} raised {error!r}")
        except _LOSSES as error:
            self._lost(number, error)
        else:
            book.ends["values"] += 1
            if got != wanted and (not isinstance(wanted, type) or not isinstance(got, wanted)):
                book.breaks(f"call {number} brought {got!r}, and not {wanted!r}")
            if not book.runs[number]:
                book.breaks(f"call {number} brought a value and never ran")
        most = 1 + retries
        if book.runs[number] > most:
            book.repeated.append(f"call {number} ran {book.runs[number]} times, and {most} are allowed")
        if (
            book.runs[number] > 1
            and not self._faults.crash_callees
            and not any(actor.was_killed for actor in self._actors)
        ):
            book.breaks(f"call {number} ran {book.runs[number]} times, and no process was killed")
        return got


@dataclass
class Shared:
    """An actor that the clients of a program call."""

    name: str
    handle: Any
    restarts: int
    retries: int
    was_killed: bool = False


class Program:
    """One driver."""

    def __init__(self, world: World, name: str, dice: Random, book: Book, faults: Faults) -> None:
        self._world = world
        self._name = name
        self._dice = dice
        self._book = book
        self._faults = faults
        self.done = False

    async def main(self) -> None:
        dice = self._dice
        actors: list[Shared] = []
        for index in range(dice.randrange(1, 4)):
            name = f"{self._name}.{index}"
            restarts, retries = dice.choice((0, 2, -1)), dice.choice((0, 0, 3))
            options: dict[str, Any] = {"max_restarts": restarts, "max_task_retries": retries}
            if dice.random() < 0.4:
                options["num_cpus"] = 0.1
            actors.append(Shared(name, Account.options(**options).remote(name), restarts, retries))
        clients = [
            Client(f"{self._name}/{index}", dice, self._book, self._faults, actors)
            for index in range(dice.randrange(1, 4))
        ]
        runs = [client.run(dice.randrange(3, 12)) for client in clients]
        if dice.random() < 0.4:
            runs.append(self._kills(dice.choice(actors)))
        await asyncio.gather(*runs)
        for actor in actors:
            self._hold_against_its_restarts(actor)
        self.done = True

    def _hold_against_its_restarts(self, actor: Shared) -> None:
        """Each life but the first has taken a restart, and nothing has that did not end a life."""
        lives, breaks = self._book.lives[actor.name], self._book.breaks
        name = f"actor {actor.name}"
        if actor.restarts >= 0:
            record = client_of(actor.handle).record
            assert record is not None
            used = actor.restarts - record.life.restarts_left
            if used < len(lives) - 1:
                breaks(f"{name} has had {len(lives)} lives, and {used} restarts are counted")
            if used and not self._faults.crash_callees and not actor.was_killed:
                breaks(f"{name} has taken {used} restarts, and nobody has killed it")
        # A life ends with its process, or by a kill.
        replaced = sum(self._world.has_process(pid) for pid in lives[:-1])
        if replaced > actor.was_killed:
            breaks(f"{name} was made again {replaced} times while its process lived, and killed {actor.was_killed:d}")

    async def _kills(self, actor: Shared) -> None:
        await asyncio.sleep(self._dice.choice((0.0, 0.01, 0.1, 0.3)))
        actor.was_killed = True
        await self._world.kill_actor(actor.handle, self._dice.random() < 0.3)


@dataclass(frozen=True)
class Outcome:
    """What came of one history."""

    seed: int
    broken: list[str]
    counts: Counter[str]
    story: Callable[..., str]
    turns: int
    virtual_s: float


def history(seed: int) -> Outcome:
    """Run one history and hold it against what is promised."""
    world = World(seed, cpus=Random(seed).choice((3, 4, 6)))
    book = Book()
    dice = Random(f"programs {seed}")
    faults = drawn(dice)
    chaos = Chaos(world)
    programs = [
        Program(world, f"program {index}", Random(f"program {index} of {seed}"), book, faults)
        for index in range(dice.choice((1, 1, 2, 3)))
    ]
    _books.append(book)
    broken: list[str] = []
    try:
        with world.installed(), _noting_failed_tasks(world):
            world.begin_node()
            drivers = [world.new_driver(program.main) for program in programs]
            world.spawn(world.outside_process, partial(chaos.run, faults, FAULTS_S))

            def over() -> bool:
                return bool(book.broken or world.deliveries.broken) or all(
                    program.done or not driver.lives for program, driver in zip(programs, drivers, strict=True)
                )

            # What is stopped, slow or apart is so for a while only: it has to end all the same.
            if not world.run(over, LIMIT_S):
                broken.append("a program has not ended: " + world.what_waits())
            broken += book.broken + world.deliveries.broken + world.errors.found
            if not broken:
                chaos.calm()
                _settle(world, SETTLE_S)
                broken += book.broken + world.deliveries.broken + world.errors.found
            if not broken:
                broken += left_over(world)
                broken += _out_of_order(book) + book.repeated
                broken += [f"call {number} began after its end" for number in book.unbegun if book.runs[number]]
            world.close()
    finally:
        _books.pop()
    counts = world.story.counts + book.ends
    counts["calls"] = book.calls
    return Outcome(seed, broken, counts, world.story.tell, world.schedule.turns, world.schedule.now)


@contextlib.contextmanager
def _noting_failed_tasks(world: World) -> Generator[None]:
    """A task that fails, and that nobody asks how it ended, is an error: what it had left to do is not done."""
    logger = logging.getLogger("asyncio")
    logger.addHandler(world.errors)
    try:
        yield
    finally:
        logger.removeHandler(world.errors)


def _settle(world: World, seconds: float) -> None:
    """Let what is on its way arrive, and what nobody holds go."""
    for _ in range(2):
        gc.collect()
        world.run(lambda: False, world.schedule.now + seconds / 2)


def _out_of_order(book: Book) -> list[str]:
    return [
        f"calls of {caller} to {name} began in the order {numbers}"
        for (name, _, caller), numbers in book.order.items()
        if numbers != sorted(numbers)
    ]
