"""What a task changes of its process is not noticed by the next one in it; what is an actor's stays with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLOUR", "blue")
        # One CPU: all tasks run in the same worker, one after the other.
        with actorrt.init(num_cpus=1):
            yield


def surroundings() -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    return {
        "handlers": {number: repr(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)},
        "int": signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.default_int_handler),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": mask,
    }


@actorrt.remote
def look() -> tuple[int, dict[str, Any]]:
    return os.getpid(), surroundings()


@actorrt.remote
def change(how: Callable[[], object]) -> int:
    how()
    return os.getpid()


@actorrt.remote
def note_changes_of_the_umask() -> None:
    """What each is changed to in this thread from now on; other threads may make files just then."""
    sys.umasks = []  # type: ignore[attr-defined]

    def look(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == "umask":
            sys.umasks.append(called)  # type: ignore[attr-defined]

    sys.setprofile(look)


@actorrt.remote
def noted_changes_of_the_umask() -> int:
    sys.setprofile(None)
    return len(sys.umasks)  # type: ignore[attr-defined]


@actorrt.remote
def is_new_to_its_worker() -> int:
    return 1


def test_a_new_task_changes_nothing_for_the_files_of_other_threads() -> None:
    actorrt.get(note_changes_of_the_umask.remote())
    assert actorrt.get(is_new_to_its_worker.remote()) == 1
    assert actorrt.get(noted_changes_of_the_umask.remote()) == 0


def ignore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def other_handlers() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})


def timer() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(600)


def environment() -> None:
    os.environ["COLOUR"] = "red"
    os.environ["NEW"] = "1"
    del os.environ["PATH"]


def cleared() -> None:
    os.environ.clear()


def another_environment() -> None:
    os.environ = {"COLOUR": "red"}  # type: ignore[assignment]  # noqa: B003


def folder() -> None:
    os.chdir("/")


def folder_that_goes() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


def mask() -> None:
    os.umask(0o777)


def fails() -> None:
    environment()
    folder()
    raise ValueError("on the way")


CHANGES = [
    ignore_sigint,
    default_sigint,
    other_handlers,
    blocked,
    timer,
    environment,
    cleared,
    another_environment,
    folder,
    folder_that_goes,
    mask,
    fails,
]


@pytest.mark.parametrize("how", CHANGES)
def test_the_next_task_does_not_notice_what_a_task_has_changed(how: Callable[[], object]) -> None:
    pid, before = actorrt.get(look.remote())
    try:
        assert actorrt.get(change.remote(how)) == pid
    except ValueError:
        assert how is fails
    assert actorrt.get(look.remote()) == (pid, before)


@pytest.mark.parametrize("how", [ignore_sigint, default_sigint, blocked])
def test_a_task_is_cancelled_whatever_an_earlier_one_left_behind(how: Callable[[], object], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    @actorrt.remote
    def slow() -> None:
        fifo.write_text("runs")
        signal.pause()

    actorrt.get(change.remote(how))
    ref = slow.remote()
    fifo.read_text()
    actorrt.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(ref, timeout=30)


def test_context_variables_of_a_task_are_its_own_and_an_actors_stay(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    (tmp_path / "lib.py").write_text(
        """
import asyncio
from contextvars import ContextVar
import actorrt

variable = ContextVar("variable", default="unset")

def change(value):
    before = variable.get()
    variable.set(value)
    return before

@actorrt.remote
def task(value):
    return change(value)

@actorrt.remote
async def coroutine(value):
    before = change(value)
    await asyncio.sleep(0)
    assert variable.get() == value
    return before

@actorrt.remote
def stream(value):
    yield change(value)
    yield variable.get()

@actorrt.remote(num_cpus=0)
class Actor:
    def change(self, value):
        return change(value)
"""
    )
    ended = run_program(
        """
import actorrt, lib
actorrt.init(num_cpus=1)
print([actorrt.get(lib.task.remote(value)) for value in "abc"])
print(actorrt.get([lib.coroutine.remote(value) for value in "abc"]))
print([actorrt.get(list(lib.stream.remote(value))) for value in "ab"])
actor = lib.Actor.remote()
print(actorrt.get([actor.change.remote(value) for value in "abc"]))
"""
    )
    assert ended.stdout.splitlines() == [
        "['unset', 'unset', 'unset']",
        "['unset', 'unset', 'unset']",
        "[['unset', 'a'], ['unset', 'b']]",
        "['unset', 'a', 'b']",
    ], ended.stderr


def test_a_process_actor_keeps_what_it_changes() -> None:
    @actorrt.remote(num_cpus=0)
    class Keeps:
        def __init__(self) -> None:
            environment()
            folder()

        def set(self) -> None:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

        def look(self) -> list[Any]:
            return [
                os.environ["COLOUR"],
                os.getcwd(),
                signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
            ]

    keeps: Any = Keeps.remote()
    actorrt.get(keeps.set.remote())
    assert actorrt.get(keeps.look.remote()) == ["red", "/", True]


def test_what_the_import_of_its_module_sets_stays(tmp_path: Path, run_program: Callable[..., Any]) -> None:
    (tmp_path / "sets_at_import.py").write_text(
        """
import os
import actorrt
os.environ["SET_AT_IMPORT"] = "yes"
@actorrt.remote
def look():
    return os.environ.get("SET_AT_IMPORT")
"""
    )
    ended = run_program(
        """
import os
import actorrt
actorrt.init(num_cpus=1)
import sets_at_import
print(actorrt.get([sets_at_import.look.remote() for _ in range(2)]))
"""
    )
    assert ended.stdout == "['yes', 'yes']\n", ended.stderr


def test_modules_of_folders_that_the_program_adds_later_are_found(
    tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    for name in ("early", "late", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of_{name}.py").write_text(
            """
import actorrt
class Thing:
    pass
@actorrt.remote
def task(value):
    return type(value).__module__
@actorrt.remote
async def coroutine(value):
    return type(value).__module__
"""
        )
    ended = run_program(
        """
import sys
import actorrt

@actorrt.remote
def imports(name):
    try:
        return __import__(name).__name__
    except ModuleNotFoundError as error:
        return str(error)

@actorrt.remote
def nested(value):
    return actorrt.get(imports.remote("of_inner"))

actorrt.init(num_cpus=1)
sys.path.insert(0, "early")
import of_early
# The workers that there are have not heard of what comes now.
print(actorrt.get([of_early.task.remote(1), of_early.coroutine.remote(1)]))
print(actorrt.get(imports.remote("of_late")))
sys.path.insert(0, "late")
sys.path.append("inner")
import of_late
thing = of_late.Thing()
print(actorrt.get([of_late.task.remote(thing), of_late.coroutine.remote(thing), of_early.task.remote(thing)]))
print(actorrt.get([imports.remote("of_late"), nested.remote(thing)]))
print(actorrt.get(imports.remote("of_nothing")))
"""
    )
    assert ended.stdout.splitlines() == [
        "['builtins', 'builtins']",
        "No module named 'of_late'",
        "['of_late', 'of_late', 'of_late']",
        "['of_late', 'of_inner']",
        "No module named 'of_nothing'",
    ], ended.stderr
