"""What a process had said before a cut may be lost with it: whoever heard nothing knows nothing."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

import actorrt
from actorrt import exceptions
from actorrt.testing import Simulation, simulate

runs: Final[list[int]] = []


@actorrt.remote(max_restarts=-1, max_task_retries=0, num_cpus=0.1)
class Runs:
    async def run(self) -> None:
        runs.append(1)
        await asyncio.Event().wait()


@actorrt.remote(max_restarts=-1, max_task_retries=0, num_cpus=0.1)
class Counts:
    async def run(self) -> int:
        runs.append(1)
        return len(runs)


async def until_it_runs() -> None:
    while not runs:  # noqa: ASYNC110  it runs in another process
        await asyncio.sleep(0.00001)


def test_a_call_is_not_repeated_though_a_cut_has_lost_the_word_that_its_actor_was_made() -> None:
    async def scenario(simulation: Simulation) -> None:
        runs.clear()
        call = Runs.remote().run.remote()
        await until_it_runs()
        # Its word that it was made is on its way.
        worker = simulation.workers()[-1]
        simulation.part("driver 1", worker, 60.0)
        simulation.cut(worker)
        await asyncio.sleep(1.0)
        simulation.crash(worker)
        with pytest.raises(exceptions.ActorUnavailableError) as lost:
            await call
        assert lost.value.may_have_run
        assert len(runs) == 1

    simulate(scenario, seeds=range(20))


def test_a_call_is_repeated_where_its_actor_s_process_ends_before_it_was_made() -> None:
    async def scenario(simulation: Simulation) -> None:
        runs.clear()
        actor = Counts.remote()
        call = actor.run.remote()
        while simulation.worker_of(actor) is None:  # noqa: ASYNC110  it is placed by itself
            await asyncio.sleep(0.00001)
        simulation.crash(actor)
        assert await call == 1

    simulate(scenario, seeds=range(20))
