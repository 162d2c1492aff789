"""A user loop that is blocked is reported: who blocks it, where, and once for each stretch."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Else equal reports of several workers would be told once.
        patch.setenv("ACTORRT_LOG_DEDUPLICATE", "false")
        with actorrt.init(num_cpus=2):
            yield


def block_until_released(pipe: str) -> str:
    with open(pipe, encoding="ascii") as file:
        return file.read()


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    return path


def release(pipe: str) -> None:
    Path(pipe).write_text("go", encoding="ascii")


@actorrt.remote
class Blocks:
    async def read(self, pipe: str) -> str:
        return block_until_released(pipe)

    async def keep_the_gil(self, seconds: float) -> None:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    async def behave(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def say(self, text: str) -> None:
        print(text, file=sys.stderr)


class Printed:
    """What workers print, as it comes."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.lines: list[str] = []

    def wait_for(self, text: str, times: int = 1) -> None:
        while self.count(text) < times:
            self.lines += self._capfd.readouterr().err.splitlines()
            threading.Event().wait(0.01)

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    def wait_for_the_rest(self, actor: Any) -> None:
        """Everything that the actor's process had to say by now."""
        actorrt.get(actor.behave.remote(0.1))
        actorrt.get(actor.say.remote("that is all"))
        self.wait_for("that is all")


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Printed:
    return Printed(capfd)


def test_a_loop_that_is_blocked_is_reported_once_with_actor_method_and_line(printed: Printed, pipe: str) -> None:
    actor = Blocks.options(isolated=True).remote()
    refs = [actor.behave.remote(0.2), actor.read.remote(pipe)]
    printed.wait_for("open(pipe")
    # Long enough to be told again.
    threading.Event().wait(0.3)
    release(pipe)
    actorrt.get(refs)
    printed.wait_for_the_rest(actor)
    (told,) = [index for index, line in enumerate(printed.lines) if "blocked for" in line and "Blocks.read" in line]
    assert "test_blocked_loops.py" in printed.lines[told + 1]
    assert "block_until_released(pipe)" in printed.lines[told + 2]


def test_each_stretch_is_reported(printed: Printed, pipe: str) -> None:
    actor = Blocks.remote()
    for times in (1, 2):
        ref = actor.read.remote(pipe)
        printed.wait_for("by Blocks.read", times)
        release(pipe)
        actorrt.get(ref)
        # Long enough that a machine with much to do looks at it in between.
        actorrt.get(actor.behave.remote(0.5))
    printed.wait_for_the_rest(actor)
    assert printed.count("by Blocks.read") == 2


def test_a_constructor_and_a_task_are_named_too(printed: Printed, pipe: str) -> None:
    @actorrt.remote
    class Slow:
        def __init__(self, pipe: str) -> None:
            block_until_released(pipe)

        async def value(self) -> int:
            return 1

    @actorrt.remote
    async def slow_task(pipe: str) -> None:
        block_until_released(pipe)

    ref = Slow.remote(pipe).value.remote()
    printed.wait_for("by Slow.__init__")
    release(pipe)
    actorrt.get(ref)
    task = slow_task.remote(pipe)
    printed.wait_for("by slow_task")
    release(pipe)
    actorrt.get(task)


def test_code_that_keeps_the_gil_is_reported_when_it_gives_it_back(printed: Printed) -> None:
    actor = Blocks.options(isolated=True).remote()
    actorrt.get(actor.keep_the_gil.remote(0.4))
    printed.wait_for("has been blocked")
    printed.wait_for_the_rest(actor)
    assert printed.count("has been blocked") == 1


def test_code_that_does_not_give_it_back_is_shown_by_its_stack(printed: Printed) -> None:
    actor = Blocks.options(isolated=True).remote()
    actor.keep_the_gil.remote(60)
    printed.wait_for("in keep_the_gil")
    actorrt.kill(actor)


def _keep_the_gil(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


class _KeepsTheGilWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return _keep_the_gil, (0.2,)


@actorrt.remote
class TakesLongToStart:
    while_it_is_loaded = _KeepsTheGilWhenUnpickled()

    def __init__(self, how: str) -> None:
        if how == "in the constructor":
            _keep_the_gil(0.2)

    @actorrt.method(may_block=True)
    async def start(self) -> None:
        _keep_the_gil(0.2)

    async def behave(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def say(self, text: str) -> None:
        print(text, file=sys.stderr)


@pytest.mark.parametrize("how", ["while it is loaded", "in the constructor", "in a method that may"])
def test_what_an_actor_does_before_it_can_be_of_use_to_anybody_is_not_reported(how: str, printed: Printed) -> None:
    actor = TakesLongToStart.options(isolated=True).remote(how)
    if how == "in a method that may":
        actorrt.get(actor.start.remote())
    printed.wait_for_the_rest(actor)
    assert [line for line in printed.lines if "blocked" in line] == []
