"""A user loop that is blocked is reported: who blocks it, where, and once for each stretch."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
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


def of_its_own(number: int) -> dict[str, Any]:
    """Options for a shared worker that no other test uses: nothing has been imported or blocked there."""
    return {"runtime_env": {"env_vars": {"WORKER_OF_ITS_OWN": str(number)}}}


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


def test_whom_a_blocked_loop_holds_up_is_named(printed: Printed, pipe: str) -> None:
    @actorrt.remote
    class Neighbour:
        async def here(self) -> None: ...

    options = of_its_own(0)
    blocks = Blocks.options(**options).remote()
    neighbours = [Neighbour.options(name=name, **options).remote() for name in ("one", "two")]
    actorrt.get([blocks.behave.remote(0), *(one.here.remote() for one in neighbours)])
    ref = blocks.read.remote(pipe)
    printed.wait_for("open(pipe")
    release(pipe)
    actorrt.get(ref)
    (line,) = [line for line in printed.lines if "by Blocks.read" in line]
    held_up = line.partition("holds up ")[2].split(", ")
    assert {"Neighbour(one)", "Neighbour(two)"} <= set(held_up)


def test_a_task_that_an_actor_has_made_is_named_with_its_actor(printed: Printed, pipe: str) -> None:
    @actorrt.remote
    class Begins:
        async def begin(self, pipe: str) -> None:
            self.task = asyncio.create_task(self.in_the_background(pipe))

        async def in_the_background(self, pipe: str) -> None:
            block_until_released(pipe)

        async def end(self) -> None:
            await self.task

    actor = Begins.remote()
    actorrt.get(actor.begin.remote(pipe))
    printed.wait_for("open(pipe")
    release(pipe)
    actorrt.get(actor.end.remote())
    assert [line for line in printed.lines if "by Begins, in its task" in line and "in_the_background" in line]


MODULE = """
import time
time.sleep(0.3)
def f():
    return 1
"""


@pytest.fixture
def slow_module(tmp_path: Path) -> str:
    (tmp_path / "slow_to_import.py").write_text(MODULE, encoding="ascii")
    return str(tmp_path)


class FindsModules:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_modules_in, (self.folder,)


def _find_modules_in(folder: str) -> None:
    sys.path.insert(0, folder)


class IsImported:
    """Is pickled as what lies in a module is: to be found there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("slow_to_import",)


def test_an_import_that_the_runtime_does_is_not_reported(printed: Printed, slow_module: str) -> None:
    @actorrt.remote
    class Imports:
        def __init__(self, _: Any = None) -> None: ...

        async def behave(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def say(self, text: str) -> None:
            print(text, file=sys.stderr)

    class Loaded:
        while_it_is_loaded = (FindsModules(slow_module), IsImported())

        async def behave(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def say(self, text: str) -> None:
            print(text, file=sys.stderr)

    # In workers of their own, where nothing is imported yet.
    for actor in (
        actorrt.remote(Loaded).options(**of_its_own(1)).remote(),
        Imports.options(**of_its_own(2)).remote([FindsModules(slow_module), IsImported()]),
    ):
        printed.wait_for_the_rest(actor)
        printed.lines.remove(next(line for line in printed.lines if "that is all" in line))
    assert [line for line in printed.lines if "blocked" in line] == []


def test_an_import_in_a_method_is_one_line_with_actor_method_and_place(printed: Printed, slow_module: str) -> None:
    @actorrt.remote
    class Imports:
        async def load(self, folder: str) -> None:
            sys.path.insert(0, folder)
            import slow_to_import  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

            assert slow_to_import.f() == 1  # pyright: ignore[reportUnknownMemberType]

        async def behave(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def say(self, text: str) -> None:
            print(text, file=sys.stderr)

    actor = Imports.options(**of_its_own(3)).remote()
    actorrt.get(actor.load.remote(slow_module))
    printed.wait_for_the_rest(actor)
    (line,) = [line for line in printed.lines if "that is all" not in line]
    assert "by Imports.load" in line
    assert "import at" in line
    assert "test_blocked_loops.py" in line


def test_the_runtimes_own_work_is_not_reported(printed: Printed) -> None:
    """A frame that lies in nobody's code: what unpickles large values, or what asyncio does between two steps."""

    @actorrt.remote
    class Takes:
        async def behave(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def say(self, text: str) -> None:
            print(text, file=sys.stderr)

        async def take(self, value: Any) -> int:
            return len(value)

    actor = Takes.options(**of_its_own(4)).remote()
    numbers = [str(n) for n in range(1_500_000)]
    assert actorrt.get(actor.take.remote(numbers)) == len(numbers)
    printed.wait_for_the_rest(actor)
    assert [line for line in printed.lines if "blocked" in line] == []


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

    @actorrt.method(may_block=True)
    async def start_in_a_task(self) -> None:
        await asyncio.create_task(TakesLongToStart.start(self))

    async def behave(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def say(self, text: str) -> None:
        print(text, file=sys.stderr)


@pytest.mark.parametrize(
    "how", ["while it is loaded", "in the constructor", "in a method that may", "in a task of a method that may"]
)
def test_what_an_actor_does_before_it_can_be_of_use_to_anybody_is_not_reported(how: str, printed: Printed) -> None:
    actor = TakesLongToStart.options(isolated=True).remote(how)
    if how == "in a method that may":
        actorrt.get(actor.start.remote())
    if how == "in a task of a method that may":
        actorrt.get(actor.start_in_a_task.remote())
    printed.wait_for_the_rest(actor)
    assert [line for line in printed.lines if "blocked" in line] == []
