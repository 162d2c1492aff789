"""Whatever is killed, the processes that depend on it end, and those that do not live on.

Real processes; every wait is for an event: a pidfd, a line, an end of file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.runtime.base.process_watch import watch_pid
from actorrt.runtime.machine.process import describe_exit, kill_process, process_state

PROGRAM = Path(__file__).parent / "programs" / "tree.py"
DEADLINE_S = 30


class Tree:
    """A driver with its tree, as seen from outside. Pidfds are taken while all live, so that no id can be mistaken."""

    def __init__(self, driver: asyncio.subprocess.Process) -> None:
        self.driver_process = driver
        self.driver = driver.pid
        self.ends: dict[int, asyncio.Future[None]] = {}
        self.events: list[dict[str, Any]] = []

    async def start(self) -> None:
        up = await self.event("up")
        self.node, self.zygote, self.head = up["node"], up["zygote"], up["head"]
        self.workers: list[dict[str, int]] = up["workers"]
        self.below_zygote = [pid for worker in self.workers for pid in worker.values()]
        for pid in (self.driver, self.node, self.zygote, self.head, *self.below_zygote):
            self.ends[pid] = watch_pid(pid)

    async def event(self, name: str, **facts: Any) -> dict[str, Any]:
        """The first such event, whether it has come already or is still to come."""
        wanted = {"event": name, **facts}.items()
        assert self.driver_process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while not (found := [event for event in self.events if wanted <= event.items()]):
                line = await self.driver_process.stdout.readline()
                assert line, f"the output ended before {name!r}"
                self.events.append(json.loads(line))
        return found[0]

    async def gone(self, *pids: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(self.ends[pid] for pid in pids))

    def alive(self, *pids: int) -> bool:
        return all(process_state(pid) not in (None, "Z") for pid in pids)

    def kill(self, pid: int) -> None:
        assert kill_process(pid, signal.SIGKILL)


@pytest.fixture
async def tree() -> AsyncIterator[Tree]:
    driver = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), "driver", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    made = Tree(driver)
    await made.start()
    yield made
    if driver.returncode is None:
        driver.kill()
    await driver.wait()
    await made.gone(*made.ends)


async def test_everything_ends_with_a_driver_that_is_killed(tree: Tree) -> None:
    tree.kill(tree.driver)
    await tree.gone(*tree.ends)


async def test_everything_ends_with_a_driver_that_returns(tree: Tree) -> None:
    assert tree.driver_process.stdin is not None
    tree.driver_process.stdin.close()
    await tree.gone(*tree.ends)


async def test_everything_below_the_node_ends_with_it_and_the_head_with_the_driver(tree: Tree) -> None:
    tree.kill(tree.node)
    await tree.gone(tree.node, tree.zygote, *tree.below_zygote)
    assert tree.alive(tree.head, tree.driver)
    tree.kill(tree.driver)
    await tree.gone(tree.head)


async def test_the_workers_end_with_the_zygote_and_the_node_is_told(tree: Tree) -> None:
    tree.kill(tree.zygote)
    for worker in tree.workers:
        end = await tree.event("exit", pid=worker["pid"])
        assert describe_exit(end["status"]) == "killed by signal 9 (SIGKILL)"
    lost = await tree.event("lost")
    assert lost["reason"] == f"the zygote (pid {tree.zygote}) has ended: killed by signal 9 (SIGKILL)"
    await tree.gone(tree.zygote, *tree.below_zygote)
    assert tree.alive(tree.head, tree.node, tree.driver)


async def test_nothing_ends_with_the_head_and_the_node_is_told(tree: Tree) -> None:
    tree.kill(tree.head)
    await tree.event("head ended", status=int(signal.SIGKILL))
    assert tree.alive(tree.driver, tree.node, tree.zygote, *tree.below_zygote)


async def test_what_a_worker_started_ends_with_it_and_its_neighbour_lives_on(tree: Tree) -> None:
    first, second = tree.workers
    tree.kill(first["pid"])
    await tree.event("exit", pid=first["pid"], status=int(signal.SIGKILL))
    await tree.gone(first["pid"], first["child"])
    assert tree.alive(tree.driver, tree.node, tree.zygote, tree.head, *second.values())


async def test_a_stopped_worker_ends_with_the_node_too(tree: Tree) -> None:
    os.killpg(tree.workers[0]["pid"], signal.SIGSTOP)
    tree.kill(tree.node)
    await tree.gone(tree.node, tree.zygote, *tree.below_zygote)


async def test_a_launcher_whose_driver_is_gone_already_ends_at_once() -> None:
    driver = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), "driver", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    # The output's end means that no process of the tree is left which could write to it.
    assert driver.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        lines = (await driver.stdout.read()).decode().splitlines()
    assert json.loads(lines[0])["event"] == "driver"
    await driver.wait()
