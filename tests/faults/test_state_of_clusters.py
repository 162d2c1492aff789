"""What there is in a cluster of several nodes, asked of one of them, also while another one is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import actorrt
from actorrt.util import state

# Joins a node, makes an actor of its own there, and waits for the end of its input.
PROGRAM = """
import sys
import actorrt

@actorrt.remote
class There:
    async def here(self):
        return 1

actorrt.init(sys.argv[1])
there = There.options(name="there").remote()
assert actorrt.get(there.here.remote()) == 1
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[tuple[str, str]]:
    first = actorrt.start_head(store=str(tmp_path / "head.db"), num_cpus=1)
    second = actorrt.start_node(first, num_cpus=3)
    yield first, second
    actorrt.shutdown()
    actorrt.stop_nodes(5)


def test_each_node_tells_of_its_processes_and_one_that_is_stopped_is_named(two_nodes: tuple[str, str]) -> None:
    first, second = two_nodes
    command = [sys.executable, "-c", PROGRAM, second]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "made\n"
        actorrt.init(first, namespace="elsewhere")
        here = next(each for each in state.list_nodes() if each.resources_total["CPU"] == 1)
        there = next(each for each in state.list_nodes() if each.resources_total["CPU"] == 3)
        workers = state.list_workers()
        assert workers.missing == []
        assert {each.pid: each.node_id for each in workers}[program.pid] == there.node_id
        assert {each.pid: each.node_id for each in workers}[os.getpid()] == here.node_id
        assert [each.worker_type for each in workers].count("HEAD") == 1
        assert workers.total == len(workers)
        (actor,) = state.list_actors(filters=[("name", "=", "there")])
        assert (actor.state, actor.node_id) == ("ALIVE", there.node_id)
        assert state.find(actor.actor_id) == actor
        assert {each.pid for each in state.list_stacks(actor.worker_id)} == {actor.pid}
        node = next(each.pid for each in state.list_stacks() if each.process_id == there.node_id)
        os.kill(node, signal.SIGSTOP)
        try:
            actors = state.list_actors(timeout=10.0)
        finally:
            os.kill(node, signal.SIGCONT)
        (missing,) = actors.missing
        assert (missing.node_id, missing.role) == (there.node_id, "node")
        assert missing.trouble.startswith("it has not answered for 0.7 s: it is stopped, or cannot be reached")
        program.stdin.close()
        assert program.wait(30) == 0
