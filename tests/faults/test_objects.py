"""Shared memory when it runs short, and when processes are killed: the rest is served, and all memory is given back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

import actorrt
from actorrt.exceptions import ActorError, ObjectStoreFullError, OwnerDiedError, WorkerCrashedError
from actorrt.runtime.owner import current
from actorrt.wire.messages import Query

Array = npt.NDArray[np.int64]
LIMIT: Final = 64 << 20
# Three of them fit into the limit, four do not.
NBYTES: Final = 18 << 20
DEADLINE_S: Final = 10.0
NAME: Final = "memfd:actorrt-segment"


def array(first: int = 0, nbytes: int = NBYTES) -> Array:
    return np.arange(first, first + nbytes // 8)


def store() -> dict[str, int]:
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.node.ask(Query("store"))).data


def wait_for(wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Ask the node until it is so; each question is behind all that this process has told it."""
    deadline = time.monotonic() + DEADLINE_S
    while not wanted(facts := store()):
        assert time.monotonic() < deadline, facts
    return facts


def is_empty(facts: dict[str, int]) -> bool:
    return facts["bytes"] == facts["reserved_bytes"] == facts["spilled_bytes"] == facts["waiting"] == 0


@pytest.fixture(scope="module")
def small_store() -> Iterator[str]:
    with actorrt.init(
        num_cpus=2, object_store_memory=LIMIT, log_to_driver=False, preload_modules=["pytest"]
    ) as context:
        yield context["address"]


@pytest.fixture(autouse=True)
def _all_is_given_back(small_store: str) -> Iterator[None]:
    yield
    wait_for(is_empty)


@actorrt.remote(isolated=True)
class Process:
    """An actor in a process of its own."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def pid(self) -> int:
        return os.getpid()

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return int(value[0])

    def look(self, number: int) -> int:
        return int(self.kept[number].sum())

    def make(self, first: int) -> Array:
        return array(first)

    def put(self, first: int) -> list[Any]:
        return [actorrt.put(array(first))]

    def put_for_ever(self) -> None:
        while True:
            actorrt.put(array())

    def drop(self) -> None:
        self.kept.clear()


@pytest.fixture
def process() -> Iterator[Any]:
    actor = Process.remote()
    yield actor
    actorrt.kill(actor)


@actorrt.remote
def make(first: int, nbytes: int = NBYTES) -> Array:
    return array(first, nbytes)


@actorrt.remote
def total(value: Array) -> int:
    return int(value.sum())


def kill(actor: Any) -> None:
    """Kill its process as the kernel does when memory runs out."""
    os.kill(actorrt.get(actor.pid.remote()), signal.SIGKILL)


# ---- a full store


def refusal_of(value: Any) -> ObjectStoreFullError:
    """The error of a put, without the frames that it went through."""
    try:
        actorrt.put(value)
    except ObjectStoreFullError as error:
        return error.with_traceback(None)
    raise AssertionError


def test_what_is_over_the_limit_is_spilled_and_read_back() -> None:
    refs = [actorrt.put(array(number)) for number in range(6)]
    facts = store()
    assert facts["spilled_bytes"] >= 3 * NBYTES
    assert facts["bytes"] + facts["pooled_bytes"] + facts["reserved_bytes"] <= LIMIT
    for number, ref in enumerate(refs):
        assert np.array_equal(actorrt.get(ref), array(number))
    assert actorrt.get([total.remote(ref) for ref in refs]) == [array(number).sum() for number in range(6)]


def test_a_view_of_a_spilled_object_outlives_its_ref() -> None:
    refs = [actorrt.put(array(number)) for number in range(6)]
    view = actorrt.get(refs[0])
    del refs
    wait_for(lambda facts: facts["bytes"] == 0)
    assert np.array_equal(view, array(0))


def test_results_of_tasks_are_spilled_too() -> None:
    refs = [make.remote(number) for number in range(6)]
    actorrt.wait(refs, num_returns=6)
    assert store()["spilled_bytes"] > 0
    assert [actorrt.get(ref)[-1] - NBYTES // 8 + 1 for ref in refs] == list(range(6))


def test_a_full_store_refuses_and_serves_again() -> None:
    held = [actorrt.get(actorrt.put(array(number))) for number in range(3)]
    before = store()
    refusal = refusal_of(array(3))
    assert (refusal.limit, refusal.size >= NBYTES, "being read" in refusal.cause) == (LIMIT, True, True)
    # The descriptor is gone with the refused segment, and so is the room.
    assert store() == before
    assert [one[0] for one in held] == [0, 1, 2]
    held.pop()
    assert actorrt.get(actorrt.put(array(3)))[0] == 3


def test_an_object_larger_than_the_whole_store_is_refused_at_once() -> None:
    ref = actorrt.put(array(1))
    with pytest.raises(ObjectStoreFullError, match="larger than all of it"):
        actorrt.put(array(0, LIMIT + (1 << 20)))
    assert store()["spilled_bytes"] == 0
    assert actorrt.get(ref)[0] == 1


def test_a_result_that_does_not_fit_is_the_error_of_its_call() -> None:
    with pytest.raises(ObjectStoreFullError):
        actorrt.get(make.remote(0, LIMIT + (1 << 20)))
    assert actorrt.get(make.remote(2))[0] == 2


def test_an_argument_that_does_not_fit_is_refused_where_it_is_passed() -> None:
    with pytest.raises(ObjectStoreFullError):
        total.remote(array(0, LIMIT + (1 << 20)))
    assert actorrt.get(total.remote(array(1))) == array(1).sum()


def test_refs_that_were_looked_at_hold_no_memory() -> None:
    refs: list[Any] = []
    for number in range(6):
        refs.append(actorrt.put(array(number)))
        assert actorrt.get(refs[-1])[0] == number
    assert [actorrt.get(ref)[0] for ref in refs] == list(range(6))


def test_memory_in_the_pool_of_one_process_is_given_to_another(process: Any) -> None:
    refs = [actorrt.put(array(number)) for number in range(3)]
    del refs
    wait_for(lambda facts: facts["bytes"] == 0)
    made = actorrt.get([process.make.remote(number) for number in range(3)])
    assert [one[0] for one in made] == [0, 1, 2]


# ---- kill -9


def test_a_killed_reader_gives_its_memory_back() -> None:
    reader = Process.remote()
    ref = actorrt.put(array(1))
    assert actorrt.get(reader.keep.remote(ref)) == 1
    del ref
    assert actorrt.get(reader.look.remote(0)) == array(1).sum()
    assert store()["bytes"] >= NBYTES
    kill(reader)
    wait_for(is_empty)


def test_what_a_killed_process_wrote_lives_on_with_its_owner() -> None:
    writer = Process.remote()
    ref = writer.make.remote(5)
    actorrt.wait([ref])
    kill(writer)
    with pytest.raises(ActorError):
        actorrt.get(writer.pid.remote())
    assert np.array_equal(actorrt.get(ref), array(5))
    pooled = store()["pooled_bytes"]
    del ref
    # Nobody is left to fill it again.
    wait_for(lambda facts: is_empty(facts) and facts["pooled_bytes"] <= pooled)


def test_what_a_killed_process_owned_is_gone_and_its_memory_given_back() -> None:
    owner = Process.remote()
    (ref,) = actorrt.get(owner.put.remote(5))
    (other,) = actorrt.get(owner.put.remote(6))
    view = actorrt.get(other)
    kill(owner)
    with pytest.raises(OwnerDiedError):
        actorrt.get(ref)
    wait_for(lambda facts: facts["bytes"] < 2 * NBYTES)
    # What is mapped can be read on.
    assert np.array_equal(view, array(6))


@pytest.mark.parametrize("_", range(3))
def test_a_writer_that_is_killed_in_the_middle_leaves_nothing(_: int) -> None:
    pooled = store()["pooled_bytes"]
    writer = Process.remote()
    pid = actorrt.get(writer.pid.remote())
    endless = writer.put_for_ever.remote()
    wait_for(lambda facts: facts["bytes"] > 0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorError):
        actorrt.get(endless)
    wait_for(lambda facts: is_empty(facts) and facts["pooled_bytes"] <= pooled)


@actorrt.remote(max_retries=0)
def killed_before_it_answers() -> Array:
    from actorrt.runtime.owner.segments_client import SegmentsClient

    write = SegmentsClient.write

    def write_and_die(self: SegmentsClient, owner: bytes, seq: int, serialized: Any) -> int:
        write(self, owner, seq, serialized)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    SegmentsClient.write = write_and_die
    return array()


def test_a_result_whose_writer_is_killed_before_it_answers_is_given_back() -> None:
    with pytest.raises(WorkerCrashedError):
        actorrt.get(killed_before_it_answers.remote())
    wait_for(is_empty)


@actorrt.remote(max_retries=1)
def killed_once(marks: str) -> Array:
    if not os.path.exists(marks):
        Path(marks).touch()
        from actorrt.runtime.owner.segments_client import SegmentsClient

        write = SegmentsClient.write

        def write_and_die(self: SegmentsClient, owner: bytes, seq: int, serialized: Any) -> int:
            write(self, owner, seq, serialized)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        SegmentsClient.write = write_and_die
        return array(1)
    return array(2)


def test_a_repeated_task_takes_the_place_of_what_the_first_one_wrote(tmp_path: Path) -> None:
    ref = killed_once.remote(str(tmp_path / "mark"))
    assert np.array_equal(actorrt.get(ref), array(2))
    assert NBYTES <= store()["bytes"] < 2 * NBYTES


# ---- other programs


PROGRAM: Final = """
import sys
import numpy as np
import actorrt

if __name__ == "__main__":
    if sys.argv[1]:
        actorrt.init(address=sys.argv[1])
    else:
        actorrt.init(num_cpus=1)
    refs = [actorrt.put(np.arange(first, first + 1_000_000)) for first in range(3)]
    views = actorrt.get(refs)
    actorrt.put(views[0])

    @actorrt.remote
    def make():
        return np.arange(1_000_000)

    made = make.remote()
    assert actorrt.get(made).sum() == views[0].sum()
    print("ready", flush=True)
    sys.stdin.read()
    refs.clear()
    address = actorrt.init(ignore_reinit_error=True)["address"]
    actorrt.shutdown()
    # What is mapped can be read after the end.
    assert views[2][-1] == 1_000_001
    views.clear()
    assert "actorrt-segment" not in open("/proc/self/maps").read()
"""


@contextlib.contextmanager
def program(tmp_path: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(path), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running


def segments_open_anywhere() -> set[int]:
    """The inodes of all segments that a process of this machine has open or mapped."""
    found: set[int] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it is gone, or another user's
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if NAME in os.readlink(f"/proc/{pid}/fd/{fd}"):
                        found.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
            maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
            found |= {int(line.split()[4]) for line in maps.splitlines() if NAME in line}
    return found


def segments_of(pid: int) -> set[int]:
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    return {int(line.split()[4]) for line in maps.splitlines() if NAME in line}


def wait_until_gone(inodes: set[int]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while inodes & segments_open_anywhere():
        assert time.monotonic() < deadline


def test_a_killed_driver_gives_its_memory_back_to_a_node_that_goes_on(tmp_path: Path, small_store: str) -> None:
    mine = actorrt.put(array(1))
    held = store()["bytes"]
    with program(tmp_path, small_store) as driver:
        assert store()["bytes"] > held
        driver.kill()
    wait_for(lambda facts: facts["bytes"] == held and facts["reserved_bytes"] == 0)
    assert actorrt.get(mine)[0] == 1


def test_a_killed_driver_takes_all_memory_of_its_own_node_with_it(tmp_path: Path) -> None:
    with program(tmp_path, "") as driver:
        inodes = segments_of(driver.pid)
        assert len(inodes) >= 4
        driver.kill()
    wait_until_gone(inodes)


def test_a_driver_that_leaves_gives_all_memory_back(tmp_path: Path) -> None:
    with program(tmp_path, "") as driver:
        inodes = segments_of(driver.pid)
        assert driver.stdin is not None
        driver.stdin.close()
        assert driver.wait() == 0
    wait_until_gone(inodes)
