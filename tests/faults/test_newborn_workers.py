"""Workers that are killed while they start: whoever needs one gets another, unless there is no end to it.

While zygote and node are stopped in turn, a worker cannot get further than its first steps before it is killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.machine.process import children_of, process_state
from actorrt.runtime.owner import current
from actorrt.wire.messages import Query

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# The number of the system call by which a zygote waits.
POLL = {"x86_64": "7", "aarch64": "73"}[os.uname().machine]


@actorrt.remote
def add(value: int) -> int:
    return value + 1


@actorrt.remote
async def add_async(value: int) -> int:
    return value + 1


@actorrt.remote
class InAProcess:
    def add(self, value: int) -> int:
        return value + 1


@actorrt.remote
class OnALoop:
    async def add(self, value: int) -> int:
        return value + 1


def fresh(**variables: str) -> dict[str, Any]:
    """An environment of its own, so that no worker is there yet."""
    return {"env_vars": {"NEW": os.urandom(4).hex(), **variables}}


def task(**variables: str) -> Any:
    return add.options(runtime_env=fresh(**variables)).remote(1)


def async_task(**variables: str) -> Any:
    return add_async.options(runtime_env=fresh(**variables)).remote(1)


def process_actor(**variables: str) -> Any:
    return InAProcess.options(runtime_env=fresh(**variables)).remote().add.remote(1)


def loop_actor(**variables: str) -> Any:
    return OnALoop.options(runtime_env=fresh(**variables)).remote().add.remote(1)


WAYS = [task, async_task, process_actor, loop_actor]


def until(holds: Callable[[], Any]) -> None:
    while not holds():
        pass


def facts(what: str) -> Any:
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.node.ask(Query(what))).data


class Process:
    def __init__(self, parent: int, name: str) -> None:
        (self.pid,) = [pid for pid in children_of(parent) if Path(f"/proc/{pid}/comm").read_text().strip() == name]

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: process_state(self.pid) == "T")

    def go_on(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def waits(self) -> bool:
        """Whether it waits in `poll` just now."""
        return Path(f"/proc/{self.pid}/syscall").read_text(encoding="utf-8").split()[0] == POLL

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The node and the zygote of this program. As a context, it stops the zygote, which then forks what is killed."""

    def __init__(self, session: str) -> None:
        # A first worker, so that everybody has its name.
        actorrt.get(add.remote(1))
        self.node = Process(os.getpid(), "actorrt-node")
        self.zygote = Process(self.node.pid, "actorrt-zygote")
        self._killed: set[str] = set()
        self._log = Path(session, "logs", "node.err")

    def __enter__(self) -> None:
        self.zygote.stop()

    def __exit__(self, *_: object) -> None:
        self.node.go_on()
        self.zygote.go_on()

    def asked(self) -> dict[str, str]:
        """The workers that the zygote has been asked for and not made: for which job each is."""
        return {
            worker["worker_id"]: worker["job"]
            for worker in facts("workers")
            # The node may not have heard yet of one that was killed.
            if not worker["pid"] and worker["worker_id"] not in self._killed
        }

    def kill_next(self, ref: Any = None, number: int = signal.SIGKILL) -> str:
        """Kill the one worker that the zygote is asked for; for which job that was; "": `ref` has its outcome.

        It has reached nobody: the node is stopped meanwhile.
        """
        until(lambda: self.asked() or (ref is not None and ref.done()))
        if not (asked := self.asked()):
            return ""
        ((worker, job),) = asked.items()
        grown = {worker["pid"] for worker in facts("workers")}
        self.node.stop()
        self.zygote.go_on()
        until(lambda: set(children_of(self.zygote.pid)) - grown)
        (newborn,) = set(children_of(self.zygote.pid)) - grown
        os.kill(newborn, number)
        # It is reaped, its end is told, and the zygote waits for what comes next.
        until(lambda: process_state(newborn) is None)
        until(self.zygote.waits)
        self.zygote.stop()
        self.node.go_on()
        self._killed.add(worker)
        return job

    def kill_four(self, ref: Any = None) -> set[str]:
        return {self.kill_next(ref) for _ in range(4)}

    def until_the_next_one_is_waited_for(self) -> None:
        until(lambda: "as did 3 before it" in self._log.read_text(encoding="utf-8"))

    def complaints(self) -> list[str]:
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if re.search(r"Traceback|never retrieved|destroyed|Error", line)]


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with actorrt.init(num_cpus=2) as context:
        made = Nursery(context["session_dir"])
        yield made
    assert not made.complaints()


@pytest.mark.parametrize("way", WAYS)
def test_four_workers_in_a_row_that_are_killed_while_they_start_cost_nobody_the_result(
    nursery: Nursery, way: Callable[..., Any]
) -> None:
    with nursery:
        ref = way()
        nursery.kill_four(ref)
    assert actorrt.get(ref) == 2


def test_sigterm_from_outside_says_as_little_about_the_next_worker(nursery: Nursery) -> None:
    with nursery:
        ref = task()
        for number in (signal.SIGTERM, signal.SIGKILL) * 2:
            nursery.kill_next(ref, number)
    assert actorrt.get(ref) == 2


@pytest.mark.parametrize("way", WAYS)
def test_workers_that_end_by_themselves_while_they_start_are_given_up_after_three(
    nursery: Nursery, way: Callable[..., Any]
) -> None:
    with pytest.raises(exceptions.ActorrtError, match=r"as did 2 before it in \d+\.\d\d s: exit code 1"):
        actorrt.get(way(ACTORRT_INLINE_LIMIT="many"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Nursery:
    monkeypatch.setenv("ACTORRT_WORKER_START_TIMEOUT_S", "5")
    made: Nursery = request.getfixturevalue("nursery")
    return made


@pytest.mark.parametrize("way", [task, loop_actor])
def test_who_waits_for_workers_that_are_all_killed_is_told_how_many_and_for_how_long(
    impatient: Nursery, way: Callable[..., Any]
) -> None:
    with impatient:
        ref = way()
        killed = 0
        while impatient.kill_next(ref):
            killed += 1
        story = rf"as did {killed - 1} before it in \d+\.\d\d s: killed by signal 9 \(SIGKILL\)"
        with pytest.raises(exceptions.ActorrtError, match=story):
            actorrt.get(ref)
    assert killed > 3
    assert actorrt.get(way()) == 2


@pytest.mark.parametrize("way", [task, loop_actor])
def test_a_session_ends_while_its_next_worker_waits_to_be_forked(nursery: Nursery, way: Callable[..., Any]) -> None:
    with nursery:
        ref = way()
        nursery.kill_four()
        nursery.until_the_next_one_is_waited_for()
    assert not ref.done()


def test_what_was_cancelled_meanwhile_leaves_its_worker_to_the_next(nursery: Nursery) -> None:
    environment = fresh()
    with nursery:
        ref = add.options(runtime_env=environment).remote(1)
        nursery.kill_four(ref)
        nursery.until_the_next_one_is_waited_for()
        actorrt.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            actorrt.get(ref)
    assert actorrt.get(add.options(runtime_env=environment).remote(2)) == 3


def test_the_zygote_may_die_meanwhile(nursery: Nursery) -> None:
    with nursery:
        ref = task()
        nursery.kill_four(ref)
        nursery.zygote.kill()
        assert actorrt.get(ref) == 2


@contextmanager
def killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


PROGRAM = """
import sys
import actorrt

@actorrt.remote
def add(value):
    return value + 1

@actorrt.remote
class OnALoop:
    async def add(self, value):
        return value + 1

@actorrt.remote
class InAProcess:
    def add(self, value):
        return value + 1

actorrt.init("auto", log_to_driver=False)
print("ready", flush=True)
sys.stdin.readline()
ref = {way}
actorrt.get(ref)
"""


@pytest.mark.parametrize(
    "way", ["add.remote(1)", "OnALoop.remote().add.remote(1)", "InAProcess.remote().add.remote(1)"]
)
def test_no_worker_is_forked_for_a_program_that_has_ended_meanwhile(nursery: Nursery, way: str) -> None:
    source = PROGRAM.format(way=way)
    program = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with program, nursery, killed_at_the_end(program):
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline()
        program.stdin.write(b"go on\n")
        program.stdin.flush()
        theirs = nursery.kill_four()
        nursery.until_the_next_one_is_waited_for()
        program.kill()
        program.wait()
        # Four pauses together are longer than the one that the program has left.
        ref = task()
        ours = nursery.kill_four(ref)
    assert actorrt.get(ref) == 2
    assert (len(theirs), len(ours), theirs & ours) == (1, 1, set())
