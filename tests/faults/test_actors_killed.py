"""Processes with actors in them are killed under load: every call has exactly one outcome, and who may come back does.

Real processes; the kills come when so many calls have been answered, not after so many seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.base.process_watch import watch_pid

pytestmark = pytest.mark.usefixtures("node")

LOST = (exceptions.ActorDiedError, exceptions.ActorUnavailableError)


@actorrt.remote
class Coroutine:
    def __init__(self) -> None:
        self.count = 0

    async def pid(self) -> int:
        return os.getpid()

    async def add(self, value: int) -> int:
        self.count += 1
        await asyncio.sleep(0)
        return value

    async def reborn(self) -> bool:
        return actorrt.get_runtime_context().was_current_actor_reconstructed


@actorrt.remote
class Process:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def pid(self) -> int:
        return os.getpid()

    def add(self, value: int) -> int:
        self.seen.append(value)
        return value

    def all(self) -> list[int]:
        return self.seen

    def reborn(self) -> bool:
        return actorrt.get_runtime_context().was_current_actor_reconstructed


class Load:
    """Callers that call one actor after the other, and what became of each call."""

    def __init__(self, actors: list[Any]) -> None:
        self.actors = actors
        self.outcomes: Counter[str] = Counter()
        self.calls = 0
        self.settled: Counter[int] = Counter()
        self._stop = False
        self._answered = asyncio.Event()
        self._wanted = 0

    async def _call(self, caller: int) -> None:
        value = 0
        while not self._stop:
            value += 1
            actor = self.actors[(caller + value) % len(self.actors)]
            ref = actor.add.remote(value)
            self.calls += 1
            number = self.calls
            ref.add_done_callback(lambda _, number=number: self.settled.update([number]))
            try:
                assert await ref == value
                self.outcomes["value"] += 1
            except LOST as error:
                self.outcomes[type(error).__name__] += 1
            if self.outcomes.total() >= self._wanted:
                self._answered.set()

    async def answered(self, more: int) -> None:
        """Until so many more calls have an outcome."""
        self._wanted = self.outcomes.total() + more
        self._answered.clear()
        await self._answered.wait()

    async def run(self, callers: int, *kills: Any, between: int = 500) -> None:
        """Load, with each of `kills` in the middle of it."""
        async with asyncio.TaskGroup() as group:
            for caller in range(callers):
                group.create_task(self._call(caller))
            await self.answered(between)
            for kill in kills:
                await kill()
                await self.answered(between)
            self._stop = True
        # Callbacks come with the next turn.
        await asyncio.sleep(0)
        assert self.outcomes.total() == self.calls
        assert len(self.settled) == self.calls
        assert set(self.settled.values()) == {1}


async def killed(pid: int) -> None:
    end = watch_pid(pid)
    os.kill(pid, signal.SIGKILL)
    await end


async def test_a_shared_worker_is_killed_under_load() -> None:
    mortal = [Coroutine.remote() for _ in range(60)]
    immortal = [Coroutine.options(max_restarts=-1).remote() for _ in range(60)]
    actors = mortal + immortal
    places = dict(zip(actors, await asyncio.gather(*(actor.pid.remote() for actor in actors)), strict=True))
    victim = places[immortal[0]]
    load = Load(actors)
    await load.run(40, lambda: killed(victim))
    assert load.outcomes["value"] > 500
    # Those on another worker have noticed nothing; those without restarts are dead and say why; the others are back.
    for actor in actors:
        if places[actor] != victim:
            assert await actor.pid.remote() == places[actor]
        elif actor in immortal:
            assert await actor.reborn.remote()
            assert await actor.pid.remote() != victim
        else:
            with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
                await actor.pid.remote()


async def test_calls_that_may_be_repeated_all_succeed_through_three_kills() -> None:
    actors = [Coroutine.options(max_restarts=-1, max_task_retries=-1).remote() for _ in range(50)]
    load = Load(actors)

    async def kill_one() -> None:
        await killed(await actors[0].pid.remote())

    await load.run(40, kill_one, kill_one, kill_one)
    assert set(load.outcomes) == {"value"}
    assert all(await asyncio.gather(*(actor.add.remote(1) for actor in actors)))


async def test_a_process_actor_is_killed_under_load_as_often_as_it_may_come_back() -> None:
    actor = Process.options(max_restarts=2).remote()
    load = Load([actor])

    async def kill() -> None:
        # The call may itself be lost to the kill before.
        while True:
            try:
                pid = await actor.pid.remote()
            except exceptions.ActorUnavailableError:
                continue
            await killed(pid)
            return

    await load.run(20, kill, kill)
    assert set(load.outcomes) <= {"value", "ActorUnavailableError"}
    assert await actor.reborn.remote()
    await killed(await actor.pid.remote())
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        await actor.pid.remote()


async def test_repeated_calls_of_a_sync_actor_keep_their_order() -> None:
    actor = Process.options(max_restarts=1, max_task_retries=1).remote()
    pid = await actor.pid.remote()
    refs = [actor.add.remote(i) for i in range(1000)]
    await refs[10]
    # However fast it was, these are for its second life.
    os.kill(pid, signal.SIGSTOP)
    refs += [actor.add.remote(i) for i in range(1000, 3000)]
    await killed(pid)
    assert await asyncio.gather(*refs) == list(range(3000))
    # Its second life has seen a run of them without a gap, to the last.
    seen = await actor.all.remote()
    assert seen == list(range(seen[0], 3000))


async def test_calls_through_a_handle_that_the_actor_gave_of_itself_are_repeated_too() -> None:
    @actorrt.remote
    class User:
        def __init__(self) -> None:
            self.began = asyncio.Event()

        async def take(self, handles: list[Any]) -> None:
            self.handle = handles[0]

        async def call(self, users: list[Any]) -> str:
            return await self.handle.stay.remote(users)

        async def begin(self) -> None:
            self.began.set()

        async def begun(self) -> None:
            await self.began.wait()

    @actorrt.remote(max_restarts=1, max_task_retries=1)
    class Giving:
        def give_to(self, users: list[Any]) -> int:
            actorrt.get(users[0].take.remote([actorrt.get_runtime_context().current_actor]))
            return os.getpid()

        def stay(self, users: list[Any]) -> str:
            if not actorrt.get_runtime_context().was_current_actor_reconstructed:
                actorrt.get(users[0].begin.remote())
                threading.Event().wait()
            return "in its second life"

    giving, user = Giving.remote(), User.remote()
    pid = await giving.give_to.remote([user])
    answer = user.call.remote([user])
    await user.begun.remote()
    await killed(pid)
    assert await answer == "in its second life"


async def test_what_was_not_sent_when_the_actor_died_did_not_run() -> None:
    actor = Process.remote()
    pid = await actor.pid.remote()
    refs = [actor.add.remote(i) for i in range(100)]
    await refs[10]
    # From here on it answers nothing, however fast it was: more calls than may lie at it wait at their caller.
    os.kill(pid, signal.SIGSTOP)
    refs += [actor.add.remote(i) for i in range(100, 5000)]
    await killed(pid)
    results = await asyncio.gather(*refs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, exceptions.ActorDiedError)]
    assert len(errors) + sum(isinstance(result, int) for result in results) == 5000
    # In order: answered, sent and perhaps run, never sent.
    kinds = ["value" if isinstance(r, int) else "maybe" if r.may_have_run else "never" for r in results]
    assert kinds == sorted(kinds, key=["value", "maybe", "never"].index)
    assert (kinds[10], kinds[-1]) == ("value", "never")


async def test_a_call_that_ends_its_process_at_once_runs_once(tmp_path: Path) -> None:
    @actorrt.remote(max_restarts=3)
    class Coroutine:
        async def end(self, path: str) -> None:
            end_here(path)

    @actorrt.remote(max_restarts=3)
    class Sync:
        def end(self, path: str) -> None:
            end_here(path)

    def end_here(path: str) -> None:
        with open(path, "a") as file:
            file.write("ran\n")
        os._exit(3)

    for number, cls in enumerate([Coroutine, Sync, Coroutine.options(isolated=True)] * 3):
        path = tmp_path / str(number)
        # The call goes right behind the order to make the actor.
        with pytest.raises(exceptions.ActorUnavailableError, match="exit code 3"):
            await cls.remote().end.remote(str(path))
        assert path.read_text() == "ran\n"


async def test_actors_end_with_their_owner_and_callers_are_told() -> None:
    @actorrt.remote
    class Note:
        def __init__(self) -> None:
            self.told: set[str] = set()
            self.changed = asyncio.Event()

        async def tell(self, what: str) -> None:
            self.told.add(what)
            self.changed.set()

        async def wait_for(self, wanted: set[str]) -> None:
            while not wanted <= self.told:
                self.changed.clear()
                await self.changed.wait()

    @actorrt.remote
    class Child:
        async def pid(self) -> int:
            return os.getpid()

        async def wait(self, note: Any, name: str) -> None:
            try:
                await note.tell.remote(f"{name} started")
                await asyncio.Event().wait()
            finally:
                await note.tell.remote(f"{name} closed")

    @actorrt.remote
    class Owner:
        def start(self) -> list[Any]:
            self.children = [Child.remote(), Child.options(isolated=True, max_restarts=5).remote()]
            return self.children

        def pid(self) -> int:
            return os.getpid()

    note, owner = Note.remote(), Owner.remote()
    shared, isolated = await owner.start.remote()
    waiting = [shared.wait.remote(note, "shared"), isolated.wait.remote(note, "isolated")]
    await note.wait_for.remote({"shared started", "isolated started"})
    own_process = watch_pid(await isolated.pid.remote())
    await killed(await owner.pid.remote())
    for ref in waiting:
        with pytest.raises(exceptions.ActorDiedError):
            await ref
    # What ran was cancelled, not cut off, where its process lives on.
    await note.wait_for.remote({"shared closed"})
    await own_process
    for child in (shared, isolated):
        with pytest.raises(exceptions.ActorDiedError, match="its owner ended"):
            await child.pid.remote()


async def test_an_actor_that_dies_in_its_constructor_is_tried_as_often_as_it_may() -> None:
    @actorrt.remote
    class Fragile:
        def __init__(self, counter: Any, survive_at: int) -> None:
            if actorrt.get(counter.add.remote(1)) and actorrt.get(counter.total.remote()) < survive_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def pid(self) -> int:
            return os.getpid()

    @actorrt.remote
    class Counts:
        def __init__(self) -> None:
            self.count = 0

        async def add(self, n: int) -> int:
            self.count += n
            return self.count

        async def total(self) -> int:
            return self.count

    counter = Counts.remote()
    assert await Fragile.options(max_restarts=3).remote(counter, 3).pid.remote()
    assert await counter.total.remote() == 3
    hopeless = Fragile.options(max_restarts=1).remote(counter, 100)
    with pytest.raises(exceptions.ActorDiedError, match="died while starting: killed by signal 9"):
        await hopeless.pid.remote()
    assert await counter.total.remote() == 5


@actorrt.remote(max_restarts=-1, max_task_retries=3)
class Dies:
    def first(self, path: str, deaths: int) -> int:
        """Its process dies so many times."""
        with open(path, "a+") as tries:
            tries.write("x")
            tries.seek(0)
            count = len(tries.read())
        if count <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def second(self, one: int) -> int:
        return one + 1

    def inside(self, refs: list[Any]) -> int:
        return actorrt.get(refs[0]) + 1


def test_calls_that_wait_for_one_that_is_repeated_after_a_death_are_behind_it(tmp_path: Path) -> None:
    actor = Dies.remote()
    first = actor.first.remote(str(tmp_path / "a"), 1)
    others = [actor.second.remote(i) for i in range(3)]
    chain = actor.second.remote(actor.second.remote(first))
    inside = actor.inside.remote([first])
    again = actor.first.options(max_task_retries=1).remote(str(tmp_path / "b"), 1)
    last = actor.inside.remote([again])
    assert actorrt.get([first, *others, chain, inside, again, last], timeout=60) == [2, 1, 2, 3, 4, 3, 2, 3]
