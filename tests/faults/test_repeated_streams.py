"""Streams whose producer dies and runs again, while the consumer takes what came before: their credits stay right."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt.core.calls import State

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    with actorrt.init(num_cpus=1, preload_modules=["pytest"]):
        yield


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def exists(path: Path) -> Callable[[], bool]:
    return path.exists


@actorrt.remote(num_returns="streaming", generator_backpressure=3, max_retries=2)
def dies_after_two(folder: Path) -> Iterator[int]:
    first = not (folder / "two").exists()
    yield 0
    yield 1
    if first:
        (folder / "two").touch()
        until(exists(folder / "die"))
        os.kill(os.getpid(), signal.SIGKILL)
    yield from range(2, 6)


@actorrt.remote(num_cpus=1)
class Occupant:
    async def here(self) -> bool:
        return True


@actorrt.remote(max_restarts=1, max_task_retries=1)
class ComesBackSlowly:
    def __init__(self, folder: Path) -> None:
        if actorrt.get_runtime_context().was_current_actor_reconstructed:
            until(exists(folder / "go"))

    def pid(self) -> int:
        return os.getpid()

    @actorrt.method(num_returns="streaming", generator_backpressure=4)
    def count(self) -> Iterator[int]:
        yield from range(12)


def under_way(generator: Any) -> bool:
    return generator._call.state is State.AWAY


def test_what_is_taken_while_no_producer_runs_counts_for_the_next_one(tmp_path: Path) -> None:
    generator = dies_after_two.remote(tmp_path)
    until(exists(tmp_path / "two"))
    # They have come: what has not left its producer dies with it.
    until(lambda: len(generator.stream.items) == 2)
    # It gets the only CPU before the task gets it again.
    occupant = Occupant.remote()
    here = occupant.here.remote()
    (tmp_path / "die").touch()
    assert actorrt.get(here)
    until(lambda: not under_way(generator))
    assert [actorrt.get(next(generator)) for _ in range(2)] == [0, 1]
    actorrt.kill(occupant)
    assert [actorrt.get(ref) for ref in generator] == [2, 3, 4, 5]


def test_what_is_taken_before_a_repeated_producer_begins_is_added_to_its_credits(tmp_path: Path) -> None:
    actor = ComesBackSlowly.remote(tmp_path)
    pid = actorrt.get(actor.pid.remote())
    generator: Any = actor.count.remote()
    until(lambda: len(generator.stream.items) == 4)
    first_link = generator._call.link
    os.kill(pid, signal.SIGKILL)
    until(lambda: generator._call.link is not first_link and under_way(generator))
    assert [actorrt.get(next(generator)) for _ in range(4)] == [0, 1, 2, 3]
    (tmp_path / "go").touch()
    assert [actorrt.get(ref) for ref in generator] == list(range(4, 12))
