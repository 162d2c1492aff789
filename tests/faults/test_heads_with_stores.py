"""A cluster that outlives programs: its head has a store, and is started, killed, stopped and followed by another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt.runtime.machine.session_folder import facts_of
from actorrt.util import list_named_actors

ACTORRT = [sys.executable, "-m", "actorrt"]


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*ACTORRT, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
    )


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "head.db")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    actorrt.shutdown()
    actorrt.stop_nodes(5)


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def head_pid(session: str) -> int:
    """The process that listens as the head of a session; 0 if there is none."""
    mark = os.open(Path(session) / "session.json", os.O_RDONLY)
    try:
        facts = json.loads(facts_of(mark))
    finally:
        os.close(mark)
    for line in Path("/proc/net/unix").read_text().splitlines():
        if line.endswith(f"/{facts['head']}.sock"):
            found = [each for each in pids_of(session) if "actorrt-head" in comm(each) and state(each) != "Z"]
            return found[0] if found else 0
    return 0


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def pids_of(session: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if session.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@actorrt.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    async def add(self) -> int:
        self.count += 1
        return self.count


def named(name: str) -> Any:
    return Counter.options(name=name, lifetime="detached", get_if_exists=True).remote()


def test_a_cluster_outlives_the_command_and_the_programs_that_use_it(store: str) -> None:
    started = command("start", "--head", "--store", store, "--num-cpus", "2")
    assert started.returncode == 0, started.stderr
    address = started.stdout.splitlines()[0].rpartition(" ")[2]
    for count in (1, 2):
        with actorrt.init(address, namespace="n"):
            assert actorrt.get(named("counter").add.remote()) == count
    stopped = command("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped 1 node\n")
    assert pids_of(address) == []
    again = command("stop")
    assert (again.returncode, again.stderr) == (
        1,
        "actorrt: no node that `actorrt start` has started runs on this machine\n",
    )


def test_a_killed_head_is_back_with_all_names_while_calls_go_on(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    with actorrt.init(address, namespace="n"):
        counters = [named(f"counter {number}") for number in range(20)]
        assert actorrt.get([each.add.remote() for each in counters]) == [1] * 20
        before = head_pid(address)
        os.kill(before, signal.SIGKILL)
        done = 0
        since = time.monotonic()
        while head_pid(address) in (0, before):
            assert actorrt.get(counters[done % 20].add.remote()) > 0
            done += 1
        assert time.monotonic() - since < 5
        assert done > 0
        assert sorted(list_named_actors()) == sorted(f"counter {number}" for number in range(20))
        assert actorrt.get_actor("counter 7") is not None


def test_a_frozen_head_makes_names_wait_and_nothing_else(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    with actorrt.init(address, namespace="n"):
        counter = named("counter")
        assert actorrt.get(counter.add.remote()) == 1
        head = head_pid(address)
        os.kill(head, signal.SIGSTOP)
        try:
            assert actorrt.get([counter.add.remote() for _ in range(100)])[-1] == 101
        finally:
            os.kill(head, signal.SIGCONT)
        assert actorrt.get(actorrt.get_actor("counter").add.remote()) == 102


def test_a_node_joins_and_leaves_and_is_known_by_all(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    joined = actorrt.start_node(address, num_cpus=3, resources={"x": 1})
    with actorrt.init(address):
        wait_for(lambda: len(actorrt.nodes()) == 2)
        assert sorted(node["Resources"]["CPU"] for node in actorrt.nodes()) == [2.0, 3.0]
        assert {node["State"] for node in actorrt.nodes()} == {"joined"}
        # It is gone at once: its machine says so.
        node = next(pid for pid in pids_of(joined) if comm(pid).startswith("actorrt-node"))
        os.kill(node, signal.SIGKILL)
        wait_for(lambda: len(actorrt.nodes()) == 1, 2)
    # Its zygote hears of it too; then what it has left behind can be cleared away.
    wait_for(lambda: not pids_of(joined))


def test_a_node_that_was_frozen_for_long_is_given_up_and_comes_back_as_another(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    joined = actorrt.start_node(address, num_cpus=3)
    with actorrt.init(address):
        wait_for(lambda: len(actorrt.nodes()) == 2)
        before = {node["NodeID"] for node in actorrt.nodes()}
        node = next(pid for pid in pids_of(joined) if comm(pid).startswith("actorrt-node"))
        os.kill(node, signal.SIGSTOP)
        wait_for(lambda: "suspected" in {each["State"] for each in actorrt.nodes()}, 10)
        wait_for(lambda: len(actorrt.nodes()) == 1, 20)
        os.kill(node, signal.SIGCONT)
        wait_for(lambda: len(actorrt.nodes()) == 2, 10)
        after = {node["NodeID"] for node in actorrt.nodes()}
        assert len(before & after) == 1
        wait_for(lambda: state(node) == "Z", 10)


def test_names_and_detached_actors_survive_the_end_of_a_whole_cluster(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    with actorrt.init(address, namespace="n"):
        for name in ("one", "two", "killed"):
            assert actorrt.get([named(name).add.remote() for _ in range(3)]) == [1, 2, 3]
        mine = Counter.options(name="of this program").remote()
        assert actorrt.get(mine.add.remote()) == 1
        actorrt.kill(actorrt.get_actor("killed"))
        wait_for(lambda: "killed" not in list_named_actors())
    actorrt.stop_nodes()
    address = actorrt.start_head(store=store, num_cpus=2)
    with actorrt.init(address, namespace="n"):
        # They are made again: their names are there, and what was in their memory is not.
        assert actorrt.get([actorrt.get_actor(name).add.remote() for name in ("one", "two")]) == [1, 1]
        assert sorted(list_named_actors()) == ["one", "two"]


def test_actors_are_the_same_after_a_head_that_was_killed(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    with actorrt.init(address, namespace="n"):
        assert actorrt.get(named("counter").add.remote()) == 1
        before = head_pid(address)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: head_pid(address) not in (0, before))
        assert actorrt.get(actorrt.get_actor("counter").add.remote()) == 2
        assert actorrt.get(named("counter").add.remote()) == 3


def test_what_may_restart_is_made_again_where_its_node_has_died(store: str) -> None:
    address = actorrt.start_head(store=store, num_cpus=2)
    joined = actorrt.start_node(address, num_cpus=2)
    with actorrt.init(joined, namespace="n"):
        for name, restarts in (("gone", 0), ("back", 1)):
            made = Counter.options(name=name, lifetime="detached", max_restarts=restarts).remote()
            assert actorrt.get(made.add.remote()) == 1
        for pid in [each for each in pids_of(joined) if comm(each).startswith("actorrt-node")]:
            os.kill(pid, signal.SIGKILL)
    with actorrt.init(address, namespace="n"):
        wait_for(lambda: list_named_actors() == ["back"])
        assert actorrt.get(actorrt.get_actor("back").add.remote()) == 1
    wait_for(lambda: not pids_of(joined))


def test_a_head_is_fenced_by_the_one_that_takes_its_store_and_says_so(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORRT_HEAD_TIMEOUT_S", "1")
    address = actorrt.start_head(store=store, num_cpus=1)
    head = head_pid(address)
    # As another machine would.
    elsewhere = {"ACTORRT_TEMP_DIR": str(tmp_path / "elsewhere")}
    try:
        other = command("start", "--head", "--store", store, "--num-cpus", "1", **elsewhere)
        assert other.returncode == 0, other.stderr
        with actorrt.init(address):
            # The next that it is asked shows it.
            with pytest.raises(
                actorrt.exceptions.HeadUnavailableError, match="another head of this cluster has taken over the store"
            ):
                actorrt.get_actor("any")
            wait_for(lambda: state(head) == "Z")
    finally:
        command("stop", **elsewhere)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["start"], 2, "give --head to start a cluster, or --address to join one"),
        (["start", "--head", "--address", "auto"], 2, "give --head to start a cluster, or --address to join one"),
        (["start", "--address", "auto", "--store", "x"], 2, "--store is for the head"),
        (["start", "--address", "auto"], 1, "no cluster has its head on this machine: `actorrt start --head`"),
        (["start", "--address", "/nowhere"], 1, "no cluster has its head at '/nowhere'"),
        (["start", "--head", "--name", "a b"], 2, "a cluster cannot be named 'a b'"),
        (["start", "--head", "--store", "etcd://h"], 1, "etcd:// is no kind of store"),
        (["start", "--head", "--store", "redis://127.0.0.1:1/0"], 1, "the store redis://127.0.0.1:1/0 cannot be used"),
        (["start", "--head", "--resources", "{"], 2, "--resources {: this is no JSON"),
        (["start", "--head", "--object-store-memory", "-1"], 2, "object_store_memory"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    arguments: list[str], code: int, sentence: str, tmp_path: Path
) -> None:
    done = command(*arguments, ACTORRT_STATE_DIR=str(tmp_path))
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_cluster_is_refused(store: str) -> None:
    actorrt.start_head(name="blue", store=store, num_cpus=1)
    actorrt.stop_nodes()
    done = command("start", "--head", "--name", "green", "--store", store)
    assert done.returncode == 1
    assert "is the store of cluster 'blue', not of 'green': give `--name blue`" in done.stderr


def test_the_help_says_how_to_go_on() -> None:
    text = command("start", "--help").stdout
    for line in ("actorrt start --head", "actorrt start --address ADDRESS", 'actorrt.init("ADDRESS")', "actorrt stop"):
        assert line in text


def test_a_session_of_a_program_loads_neither_stores_nor_membership() -> None:
    code = "import sys, actorrt.runtime.api.launcher; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "actorrt.runtime.node.head" in loaded
    assert not [name for name in loaded if name.startswith("actorrt.store")]
    assert not loaded & {"sqlite3", "actorrt.core.membership", "actorrt.core.durable", "actorrt.runtime.node.far_head"}
