"""Workers that are killed, stopped, or die by themselves: each task has one outcome, and only the culprit is blamed."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current
from actorrt.wire.messages import Query

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORRT_WORKER_STALL_TIMEOUT_S", "0.4")
        patch.setenv("ACTORRT_IDLE_WORKER_S", "0.5")
        with actorrt.init(num_cpus=2, preload_modules=["pytest"]):
            yield


@actorrt.remote
def note(path: str, index: int) -> int:
    """Note in a file that this task has begun."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % index)
    os.close(fd)
    return index


@actorrt.remote
def note_and_die(path: str, index: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\n" % index)
    os._exit(3)


@actorrt.remote
def tell_pid(path: str) -> int:
    """Tell the process id, then run until it is ended; the second time return at once."""
    if os.path.exists(path + ".second"):
        return 2
    Path(path + ".second").touch()
    Path(path).write_text(str(os.getpid()), encoding="utf-8")
    while True:
        time.sleep(0.001)


def runs(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text(encoding="utf-8").split()))


def workers() -> dict[int, Any]:
    runtime = current.runtime()
    found: list[dict[str, Any]] = runtime.thread.call_sync(runtime.node.ask(Query("workers"))).data
    return {facts["pid"]: facts for facts in found if facts["pid"]}


def kill(pid: int) -> None:
    """If it has not ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def wait_for_end(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([fd], [], [])
    finally:
        os.close(fd)


def test_workers_are_killed_under_load_and_every_task_has_one_outcome(tmp_path: Path) -> None:
    chance = random.Random(5)
    path = tmp_path / "runs"
    count = 3000
    refs = [note.remote(str(path), index) for index in range(count)]
    for at_least in range(100, count, 300):
        actorrt.wait(refs, num_returns=at_least)
        busy = [pid for pid, facts in workers().items() if facts["kind"] == "sync" and not facts["idle"]]
        if busy:
            kill(chance.choice(busy))
    assert actorrt.get(refs) == list(range(count))
    assert set(runs(path)) == set(range(count))


@pytest.mark.parametrize("retries", [0, 1])
def test_only_the_task_that_kills_its_worker_is_charged(tmp_path: Path, retries: int) -> None:
    path = tmp_path / "runs"
    actorrt.get([note.remote(str(tmp_path / "warm"), 0) for _ in range(300)])
    killers = {50, 51, 120, 250}
    refs = [
        (note_and_die.options(max_retries=2) if index in killers else note.options(max_retries=retries)).remote(
            str(path), index
        )
        for index in range(300)
    ]
    for index, ref in enumerate(refs):
        if index in killers:
            with pytest.raises(exceptions.WorkerCrashedError, match="exit code 3"):
                actorrt.get(ref)
        else:
            assert actorrt.get(ref) == index
    seen = runs(path)
    assert {index: seen[index] for index in killers} == dict.fromkeys(killers, 3)
    if retries == 0:
        assert all(seen[index] == 1 for index in range(300) if index not in killers)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"killed by signal 9 \(SIGKILL\)"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), r"killed by signal 11 \(SIGSEGV\)"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_the_error_names_task_and_cause(how: Any, cause: str, is_async: bool) -> None:
    @actorrt.remote(max_retries=0, name="doomed")
    def dies() -> None:
        how()

    @actorrt.remote(max_retries=0, name="doomed")
    async def dies_async() -> None:
        how()

    with pytest.raises(exceptions.WorkerCrashedError, match=f"doomed died: {cause}"):
        actorrt.get(dies_async.remote() if is_async else dies.remote())


def test_a_task_is_retried_on_another_worker(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    ref = tell_pid.remote(str(path))
    os.kill(int(path.read_text(encoding="utf-8")), signal.SIGKILL)
    assert actorrt.get(ref) == 2


def test_a_worker_that_is_stopped_for_too_long_is_given_up(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    ref = tell_pid.options(max_retries=0).remote(str(path))
    pid = int(path.read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(exceptions.WorkerCrashedError, match="it was stopped"):
        actorrt.get(ref)
    wait_for_end(pid)


def test_a_worker_that_goes_on_in_time_is_left_alone(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    ref = tell_pid.options(max_retries=0).remote(str(path))
    pid = int(path.read_text(encoding="utf-8"))
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
    actorrt.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(ref)
    assert pid in workers()


def test_workers_that_are_killed_while_they_start_are_replaced(tmp_path: Path) -> None:
    known = set(workers())
    killed: list[int] = []
    done = threading.Event()

    def kill_newborns() -> None:
        while len(killed) < 2 and not done.is_set():
            for pid in set(workers()) - known:
                kill(pid)
                killed.append(pid)
                known.add(pid)

    killer = threading.Thread(target=kill_newborns)
    killer.start()
    # A worker of its own kind, so that none is there yet.
    ref = note.options(runtime_env={"env_vars": {"X": "1"}}).remote(str(tmp_path / "runs"), 1)
    assert actorrt.get(ref) == 1
    done.set()
    killer.join()
    assert killed


def test_what_runs_for_a_process_that_was_killed_is_cancelled(tmp_path: Path) -> None:
    path, end = fifo(tmp_path), tmp_path / "end"
    os.mkfifo(end)

    @actorrt.remote
    def child(path: str, end: str) -> None:
        try:
            Path(path).write_text(str(os.getppid()), encoding="utf-8")
            while True:
                time.sleep(0.001)
        finally:
            Path(end).write_text("finally", encoding="utf-8")

    @actorrt.remote(max_retries=0)
    def parent(path: str, end: str, pid: str) -> None:
        ref = child.remote(path, end)
        Path(pid).write_text(str(os.getpid()), encoding="utf-8")
        actorrt.get(ref)

    pid = tmp_path / "pid"
    os.mkfifo(pid)
    ref = parent.remote(str(path), str(end), str(pid))
    parent_pid = int(pid.read_text(encoding="utf-8"))
    path.read_text(encoding="utf-8")
    os.kill(parent_pid, signal.SIGKILL)
    assert end.read_text(encoding="utf-8") == "finally"
    with pytest.raises(exceptions.WorkerCrashedError, match="signal 9"):
        actorrt.get(ref)


def test_an_idle_worker_ends_unless_others_need_what_it_owns(tmp_path: Path) -> None:
    path = fifo(tmp_path)

    @actorrt.remote
    def wait_at(path: str) -> str:
        return Path(path).read_text(encoding="utf-8")

    @actorrt.remote(runtime_env={"env_vars": {"X": "owner"}})
    def own(path: str) -> Any:
        return os.getpid(), [wait_at.remote(path)]

    @actorrt.remote(runtime_env={"env_vars": {"X": "other"}})
    def pid() -> int:
        return os.getpid()

    owner, (ref,) = actorrt.get(own.remote(str(path)))
    other = actorrt.get(pid.remote())
    # They came to lie idle in this order.
    wait_for_end(other)
    assert owner in workers()
    path.write_text("done", encoding="utf-8")
    assert actorrt.get(ref) == "done"
    del ref
    wait_for_end(owner)
