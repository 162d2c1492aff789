"""What tasks ask for, what they get, and what they see of it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # As if this machine showed two of its GPUs to this program, under the numbers that the driver knows them by.
        patch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        with actorrt.init(num_cpus=2, num_gpus=2, resources={"disk": 1}):
            yield


class Meeting:
    """So many tasks that run at once, or the test would wait for ever."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.folder = str(folder)
        for name in (*map(str, range(size)), *(f"{index} may go" for index in range(size))):
            os.mkfifo(folder / name)

    def take_place(self) -> list[str]:
        """In the test: what each of them has told, all of them being there."""
        news = [Path(self.folder, str(index)).read_text(encoding="utf-8") for index in range(self.size)]
        for index in range(self.size):
            Path(self.folder, f"{index} may go").write_text("", encoding="utf-8")
        return news


@actorrt.remote
def attend(folder: str, index: int) -> list[int | str]:
    """Be there until all are."""
    Path(folder, str(index)).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), encoding="utf-8")
    Path(folder, f"{index} may go").read_text(encoding="utf-8")
    return actorrt.get_gpu_ids()


@actorrt.remote
def variable(name: str) -> str | None:
    return os.environ.get(name)


@pytest.mark.parametrize(
    ("options", "size"),
    [({"num_cpus": 1}, 2), ({"num_cpus": 0.5}, 4), ({"num_cpus": 0}, 6), ({"num_cpus": 0.25, "num_gpus": 0.25}, 8)],
)
def test_as_many_run_at_once_as_there_is_room_for(tmp_path: Path, options: dict[str, Any], size: int) -> None:
    meeting = Meeting(tmp_path, size)
    refs = [attend.options(**options).remote(meeting.folder, index) for index in range(size)]
    meeting.take_place()
    actorrt.get(refs)


@pytest.mark.parametrize("options", [{"resources": {"disk": 1}}, {"num_cpus": 2}, {"num_gpus": 2, "num_cpus": 0}])
def test_what_is_there_once_is_used_by_one_at_a_time(tmp_path: Path, options: dict[str, Any]) -> None:
    @actorrt.remote
    def alone(path: str) -> int:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        time.sleep(0.001)
        os.unlink(path)
        return os.getpid()

    actorrt.get([alone.options(**options).remote(str(tmp_path / "lock")) for _ in range(20)])


def test_whole_gpus_are_given_to_one_task_each_by_the_names_that_this_program_has_for_them(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path, 2)
    refs = [attend.options(num_gpus=1, num_cpus=0).remote(meeting.folder, index) for index in range(2)]
    seen = meeting.take_place()
    assert sorted(seen) == ["4", "6"]
    assert [int(name) for name in seen] == [gpu for (gpu,) in actorrt.get(refs)]


def test_shares_of_a_gpu_lie_on_one(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path, 2)
    refs = [attend.options(num_gpus=0.5, num_cpus=0).remote(meeting.folder, index) for index in range(2)]
    assert len(set(meeting.take_place())) == 1
    first, second = actorrt.get(refs)
    assert first == second


def test_who_asks_for_no_gpu_sees_none() -> None:
    @actorrt.remote
    async def shared() -> tuple[str | None, list[int]]:
        return os.environ.get("CUDA_VISIBLE_DEVICES"), actorrt.get_gpu_ids()

    assert actorrt.get(variable.remote("CUDA_VISIBLE_DEVICES")) == ""
    assert actorrt.get(shared.remote()) == ("", [])


def test_libraries_get_as_many_threads_as_the_task_has_cpus() -> None:
    threads = "OMP_NUM_THREADS"
    assert actorrt.get(variable.remote(threads)) == "1"
    assert actorrt.get(variable.options(num_cpus=2).remote(threads)) == "2"
    own = variable.options(num_cpus=2, runtime_env={"env_vars": {threads: "7"}})
    assert actorrt.get(own.remote(threads)) == "7"
    assert actorrt.get(variable.remote(threads)) == "1"


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"num_cpus": 3}, "1 more CPU"),
        ({"num_gpus": 4}, "2 more GPU"),
        ({"resources": {"tape": 0.5}}, "0.5 more tape"),
    ],
)
def test_what_nobody_can_give_is_named_at_once_for_tasks_and_actors(options: dict[str, Any], missing: str) -> None:
    @actorrt.remote
    class Unplaced:
        def ask(self) -> None: ...

    with pytest.raises(exceptions.TaskUnschedulableError, match=f"^variable asks .*{missing}"):
        actorrt.get(variable.options(**options).remote("x"))
    actor = Unplaced.options(**options).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match=missing):
        actorrt.get(actor.ask.remote())


def test_a_worker_is_used_up_after_max_calls() -> None:
    @actorrt.remote(max_calls=3)
    def pid() -> int:
        return os.getpid()

    one_by_one = Counter(actorrt.get(pid.remote()) for _ in range(9))
    assert list(one_by_one.values()) == [3, 3, 3]
    at_once = Counter(actorrt.get([pid.remote() for _ in range(40)]))
    assert sum(at_once.values()) == 40
    assert max(at_once.values()) <= 3


def until_all_is_free() -> None:
    """Each question is behind all that this process has told the node; a second is enough for leases to be returned."""
    deadline = time.monotonic() + 30
    while actorrt.available_resources() != actorrt.cluster_resources():
        assert time.monotonic() < deadline, actorrt.available_resources()


def test_everything_that_was_taken_is_given_back(tmp_path: Path) -> None:
    actorrt.get([variable.options(num_cpus=cpus).remote("x") for cpus in (0.5, 1, 2)])
    with contextlib.suppress(exceptions.WorkerCrashedError):
        actorrt.get(crash.options(num_gpus=1, max_retries=0).remote())
    actorrt.cancel(attend.options(num_cpus=2).remote(Meeting(tmp_path, 1).folder, 0))
    until_all_is_free()


@actorrt.remote
def crash() -> None:
    os._exit(1)


def test_an_actor_that_waits_in_get_lends_its_cpus() -> None:
    @actorrt.remote(num_cpus=2)
    class Asks:
        def ask(self) -> str | None:
            return actorrt.get(variable.remote("OMP_NUM_THREADS"))

    @actorrt.remote(num_cpus=2)
    class AsksFromItsLoop:
        async def ask(self) -> str | None:
            return actorrt.get(variable.remote("OMP_NUM_THREADS"))

    for kind in (Asks, AsksFromItsLoop):
        actor = kind.remote()
        assert actorrt.get(actor.ask.remote()) == "1"
        actorrt.kill(actor)


def test_leases_that_nobody_uses_make_way_for_another_shape() -> None:
    # Each needs what the one before it holds: without giving way it would wait until that lies idle for long.
    for _ in range(5):
        for options in ({"num_cpus": 2}, {"num_cpus": 1.5}, {"num_cpus": 1, "resources": {"disk": 1}}):
            actorrt.get(variable.options(**options).remote("x"))


@actorrt.remote
def reads(refs: list[Any]) -> int:
    actorrt.get(refs)
    return os.getpid()


def test_a_get_of_values_that_are_there_gives_no_cpu_back_and_starts_no_worker() -> None:
    small, large = actorrt.put(1), actorrt.put(bytes(500_000))
    pids = set(actorrt.get([reads.remote([one]) for _ in range(100) for one in (small, large)]))
    assert len(pids) <= 2


@actorrt.remote
def child() -> list[str | None]:
    return [os.environ.get(name) for name in ("COLOUR", "SHAPE")]


@actorrt.remote
async def child_coroutine() -> list[str | None]:
    return [os.environ.get(name) for name in ("COLOUR", "SHAPE")]


@actorrt.remote(num_cpus=0)
class Child:
    def see(self) -> list[str | None]:
        return [os.environ.get(name) for name in ("COLOUR", "SHAPE")]

    def deeper(self) -> list[str | None]:
        return actorrt.get(child.remote())


@actorrt.remote
class ChildOfCoroutines:
    async def deeper(self) -> list[str | None]:
        return await child_coroutine.remote()


def children() -> list[Any]:
    changed = {"env_vars": {"SHAPE": "round"}}
    return [
        child.remote(),
        child_coroutine.remote(),
        Child.remote().see.remote(),
        Child.remote().deeper.remote(),
        ChildOfCoroutines.remote().deeper.remote(),
        child.options(runtime_env=changed).remote(),
        Child.options(runtime_env=changed).remote().deeper.remote(),
    ]


@actorrt.remote
def parent() -> list[Any]:
    return actorrt.get(children())


def test_what_a_task_calls_has_its_variables_unless_it_says_otherwise() -> None:
    env = {"env_vars": {"COLOUR": "red", "SHAPE": "square"}}
    seen = actorrt.get(parent.options(runtime_env=env).remote())
    assert seen == [["red", "square"]] * 5 + [["red", "round"]] * 2
    assert actorrt.get(children()) == [[None, None]] * 5 + [[None, "round"]] * 2
