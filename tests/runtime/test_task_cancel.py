"""Cancelling tasks: queued, dispatched, running, with children; and never the wrong one."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("node")


class Trail:
    """What tasks tell their test, as events: each is a pipe that its reader waits at."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def expect(self, *names: str) -> None:
        for name in names:
            os.mkfifo(os.path.join(self.folder, name))

    def wait_for(self, *names: str) -> None:
        for name in names:
            assert Path(self.folder, name).read_text(encoding="utf-8") == name


def tell(folder: str, name: str) -> None:
    """In a task: waits until the test looks."""
    Path(folder, name).write_text(name, encoding="utf-8")


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


@actorrt.remote
def quick(value: Any = None) -> Any:
    return value


@actorrt.remote
def run_long(folder: str, name: str) -> None:
    try:
        tell(folder, f"{name} runs")
        while True:
            time.sleep(0.001)
    finally:
        tell(folder, f"{name} ends")


@actorrt.remote
async def run_long_async(folder: str, name: str) -> None:
    try:
        await asyncio.to_thread(tell, folder, f"{name} runs")
        await asyncio.Event().wait()
    finally:
        await asyncio.shield(asyncio.to_thread(tell, folder, f"{name} ends"))


def is_cancelled(ref: Any) -> bool:
    try:
        actorrt.get(ref)
    except exceptions.TaskCancelledError:
        return True
    return False


@pytest.mark.parametrize("kind", [run_long, run_long_async])
def test_a_running_task_ends_and_its_finally_runs(trail: Trail, kind: Any) -> None:
    trail.expect("a runs", "a ends")
    ref = kind.remote(trail.folder, "a")
    trail.wait_for("a runs")
    actorrt.cancel(ref)
    trail.wait_for("a ends")
    assert is_cancelled(ref)
    assert actorrt.get(quick.remote(1)) == 1


def test_one_that_waits_for_a_cpu_never_runs_and_is_over_at_once(trail: Trail) -> None:
    trail.expect("a runs", "b runs", "a ends", "b ends")
    held = [run_long.remote(trail.folder, name) for name in "ab"]
    trail.wait_for("a runs", "b runs")
    queued = [run_long.remote(trail.folder, "never") for _ in range(50)]
    for ref in queued:
        actorrt.cancel(ref)
    assert all(map(is_cancelled, queued))
    for ref in held:
        actorrt.cancel(ref)
    trail.wait_for("a ends", "b ends")
    assert all(map(is_cancelled, held))
    assert actorrt.get(quick.remote(2)) == 2


def test_one_whose_arguments_are_not_there_yet_never_runs(trail: Trail) -> None:
    trail.expect("a runs", "a ends")
    pending = run_long.remote(trail.folder, "a")
    ref = quick.remote(pending)
    trail.wait_for("a runs")
    actorrt.cancel(ref)
    assert is_cancelled(ref)
    actorrt.cancel(pending)
    trail.wait_for("a ends")


def test_one_that_lies_in_front_of_a_busy_worker_never_runs(trail: Trail) -> None:
    trail.expect("a runs", "a ends")
    # Short tasks are sent many at once. Each takes all CPUs, so that there is one worker, and what follows is behind.
    actorrt.get([quick.options(num_cpus=2).remote() for _ in range(500)])
    long = run_long.options(num_cpus=2)
    refs = [long.remote(trail.folder, "a")] + [long.remote(trail.folder, "never") for _ in range(20)]
    trail.wait_for("a runs")
    for ref in refs[1:]:
        actorrt.cancel(ref)
    assert all(map(is_cancelled, refs[1:]))
    actorrt.cancel(refs[0])
    trail.wait_for("a ends")
    assert is_cancelled(refs[0])
    assert not Path(trail.folder, "never runs").exists()


def test_cancelling_what_is_done_changes_nothing() -> None:
    ref = quick.remote(3)
    assert actorrt.get(ref) == 3
    actorrt.cancel(ref)
    actorrt.cancel(ref, force=True)
    assert actorrt.get([ref, quick.remote(4)]) == [3, 4]


# ---- children


@actorrt.remote
def parent(folder: str, name: str, kinds: list[Any]) -> Any:
    """Runs children, and waits for them in `get`."""
    # All of it: an interrupt may come as soon as the children run.
    try:
        return actorrt.get([kind.remote(folder, f"{name}{index}") for index, kind in enumerate(kinds)])
    finally:
        tell(folder, f"{name} ends")


@actorrt.remote
async def parent_async(folder: str, name: str, kinds: list[Any]) -> Any:
    refs = [kind.remote(folder, f"{name}{index}") for index, kind in enumerate(kinds)]
    try:
        return await asyncio.gather(*refs)
    finally:
        await asyncio.shield(asyncio.to_thread(tell, folder, f"{name} ends"))


@pytest.mark.parametrize("kind", [parent, parent_async])
def test_children_are_cancelled_too_wherever_they_run(trail: Trail, kind: Any) -> None:
    trail.expect("a ends", "a0 runs", "a0 ends", "a1 runs", "a1 ends")
    ref = kind.remote(trail.folder, "a", [run_long, run_long_async])
    trail.wait_for("a0 runs", "a1 runs")
    actorrt.cancel(ref)
    for name in ("a ends", "a0 ends", "a1 ends"):
        trail.wait_for(name)
    assert is_cancelled(ref)


def test_children_are_left_alone_where_that_was_asked_for(trail: Trail) -> None:
    trail.expect("kept", "a ends", "a0 runs", "a0 ends")

    @actorrt.remote
    def passes_on(folder: str) -> None:
        # The ref travels to the test before the parent waits.
        child = run_long_async.remote(folder, "a0")
        actorrt.get(keeper.keep.remote([child]))
        try:
            tell(folder, "kept")
            actorrt.get(child)
        finally:
            tell(folder, "a ends")

    @actorrt.remote
    class Keeper:
        def __init__(self) -> None:
            self.kept: Any = None

        async def keep(self, refs: list[Any]) -> None:
            self.kept = refs

        async def give(self) -> Any:
            return self.kept

    keeper = Keeper.remote()
    ref = passes_on.remote(trail.folder)
    trail.wait_for("kept", "a0 runs")
    (child,) = actorrt.get(keeper.give.remote())
    actorrt.cancel(ref, recursive=False)
    trail.wait_for("a ends")
    assert is_cancelled(ref)
    with pytest.raises(exceptions.GetTimeoutError):
        actorrt.get(child, timeout=0)
    actorrt.cancel(child)
    trail.wait_for("a0 ends")
    assert is_cancelled(child)


# ---- force


def test_force_ends_the_process_and_the_error_says_so(trail: Trail) -> None:
    trail.expect("pid")

    @actorrt.remote
    def stubborn(folder: str) -> None:
        while True:
            try:
                # Twice only if the interrupt comes before this returns: then it waits here for a second reader.
                tell(folder, "pid")
                time.sleep(1000)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote(trail.folder)
    trail.wait_for("pid")
    actorrt.cancel(ref)
    actorrt.cancel(ref, force=True)
    with pytest.raises(exceptions.WorkerCrashedError, match="cancelled with force"):
        actorrt.get(ref)
    assert actorrt.get(quick.remote(5)) == 5


# ---- precision


@actorrt.remote(max_retries=0)
def spin(index: int, turns: int) -> int:
    total = 0
    for turn in range(turns):
        total += turn
    return index


@actorrt.remote
def submit_until_interrupted() -> None:
    """Spends nearly all of its time in the runtime's own code."""
    while True:
        quick.remote(1)


def test_an_interrupt_never_hits_another_task() -> None:
    chance = random.Random(7)
    for round_number in range(12):
        refs = [spin.options(max_retries=round_number % 2).remote(i, 3000) for i in range(150)]
        chosen = set(chance.sample(range(150), 50))
        for index in sorted(chosen, key=lambda _: chance.random()):
            actorrt.cancel(refs[index])
        for index, ref in enumerate(refs):
            try:
                assert actorrt.get(ref) == index
            except exceptions.TaskCancelledError:
                assert index in chosen
    # No worker was lost, and none is left with a wake-up that it never sends.
    assert actorrt.get([quick.remote(i) for i in range(300)]) == list(range(300))


def test_a_worker_that_was_interrupted_in_the_midst_of_submitting_goes_on_submitting() -> None:
    chance = random.Random(11)
    for _ in range(8):
        refs = [submit_until_interrupted.remote() for _ in range(2)]
        actorrt.get(quick.options(num_cpus=0).remote())
        threading.Event().wait(chance.random() * 0.03)
        for ref in refs:
            actorrt.cancel(ref)
        assert all(map(is_cancelled, refs))
        # Both workers still hand over what is submitted there.
        assert actorrt.get([nested.remote(i) for i in range(4)]) == list(range(4))


@actorrt.remote
def nested(i: int) -> int:
    return actorrt.get(quick.remote(i))


def test_a_cancellation_is_never_lost_whenever_it_comes() -> None:
    def attempt(delay: Callable[[], object]) -> None:
        ref = forever.remote()
        delay()
        actorrt.cancel(ref)
        assert is_cancelled(ref)

    @actorrt.remote
    def forever() -> None:
        while True:
            time.sleep(0.0001)

    chance = random.Random(3)
    for _ in range(150):
        attempt(lambda: threading.Event().wait(chance.random() * 0.002))


def test_bursts_of_many_threads_have_one_outcome_each_though_some_are_cancelled() -> None:
    def burst(number: int) -> None:
        chance = random.Random(number)
        for _ in range(6):
            # Some bursts are handed over by their own thread, some by the runtime's; some tasks have a worker alone.
            refs = [
                (i, quick.options(max_retries=0).remote(i) if i % 50 == 49 else quick.remote(i))
                for i in range(chance.choice((1, 3, 64, 65, 300)))
            ]
            chosen = {i for i, _ in refs if chance.random() < 0.2}
            for i, ref in refs:
                if i in chosen:
                    actorrt.cancel(ref)
            for i, ref in refs:
                try:
                    assert actorrt.get(ref) == i
                except exceptions.TaskCancelledError:
                    assert i in chosen

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(burst, range(8)))
    deadline = time.monotonic() + 30
    while actorrt.available_resources()["CPU"] != 2:
        assert time.monotonic() < deadline, "a lease was not given back"
        threading.Event().wait(0.01)
