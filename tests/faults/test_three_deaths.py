"""What kills its worker again and again: it is named and given up after the third death in a row."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt import exceptions


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with actorrt.init(num_cpus=2, log_to_driver=False):
        yield


def die(path: str, how: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("x")
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV if how == "fault" else signal.SIGKILL)


@actorrt.remote(max_retries=-1)
def killer(path: str, how: str) -> None:
    die(path, how)


@actorrt.remote(max_retries=-1)
async def async_killer(path: str, how: str) -> None:
    die(path, how)


@actorrt.remote
def quick(value: int) -> int:
    return value


@actorrt.remote(max_restarts=-1, max_task_retries=-1)
class Victim:
    def die(self, path: str, how: str) -> None:
        die(path, how)

    def pong(self) -> str:
        return "pong"


CAUSES = {"exit": "exit code 3", "fault": r"killed by signal 11 \(SIGSEGV\)", "kill": r"killed by signal 9 \(SIGKILL\)"}


@pytest.mark.parametrize("how", CAUSES)
@pytest.mark.parametrize("kind", ["task", "task on a shared worker"])
def test_a_task_that_kills_three_workers_in_a_row_fails_with_the_cause(kind: str, how: str, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    task: Any = killer if kind == "task" else async_killer
    with pytest.raises(exceptions.WorkerCrashedError, match=rf"killer died: {CAUSES[how]}; 3 workers in a row"):
        actorrt.get(task.remote(path, how))
    assert Path(path).read_text(encoding="utf-8") == "xxx"


def test_tasks_that_wait_behind_it_are_not_charged(tmp_path: Path) -> None:
    actorrt.get([quick.remote(number) for number in range(300)])
    path = str(tmp_path / "runs")
    bad = [killer.remote(path, "exit") for _ in range(3)]
    good = [quick.options(max_retries=0).remote(number) for number in range(300)]
    assert actorrt.get(good) == list(range(300))
    for ref in bad:
        with pytest.raises(exceptions.WorkerCrashedError):
            actorrt.get(ref)
    assert Path(path).read_text(encoding="utf-8") == 9 * "x"


def test_a_call_that_kills_its_actor_three_times_fails_and_the_actor_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    actor = Victim.remote()
    assert actorrt.get(actor.pong.remote()) == "pong"
    bad = actor.die.remote(path, "exit")
    behind = [actor.pong.remote() for _ in range(20)]
    with pytest.raises(exceptions.ActorUnavailableError, match="exit code 3"):
        actorrt.get(bad)
    assert actorrt.get(behind) == ["pong"] * 20
    assert Path(path).read_text(encoding="utf-8") == "xxx"
