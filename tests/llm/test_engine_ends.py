"""Whatever happens to a replica, no process of its engine outlives it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import LLMConfig, ServerEngine
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.llm.replica import Model

ENGINE = Path(__file__).parent / "programs" / "odd_engine.py"
COMMAND = [sys.executable, str(ENGINE), "{port}", "forks", "stubborn"]
CALL = EngineCall("/v1/completions", b"{}")

PROGRAM = """
import asyncio, sys
from actorrt.serve.llm import LLMConfig, ServerEngine
from actorrt.serve.llm.engines.factory import make_engine

async def main():
    engine = make_engine(LLMConfig(model_id="odd", engine=ServerEngine(command=sys.argv[1:], context=100)))
    await engine.start()
    print(engine.keeper.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def family_of(pid: int) -> list[psutil.Process]:
    """The engine, its child and grandchild, and the guardian above them."""
    engine = psutil.Process(pid)
    guardian = engine.parent()
    assert guardian is not None
    while len(found := engine.children(recursive=True)) < 2:
        pass
    return [guardian, engine, *found]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_leaves_nothing_of_its_engine(how: signal.Signals) -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, *COMMAND], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    with program.stdout:
        family = family_of(int(program.stdout.readline()))
    program.send_signal(how)
    program.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def deploy(name: str) -> Any:
    config = LLMConfig(model_id="odd", engine=ServerEngine(command=COMMAND, context=100, stop_timeout_s=0.2))
    options = DeploymentOptions(name="model", health_check_period_s=0.5)
    return serve.run(Deployment[Model](Model, options).bind(config), name=name, route_prefix=f"/{name}")


def pid_of(handle: Any) -> int:
    return int(handle.statistics.remote().result(timeout_s=30)["pid"])


def answer_of(handle: Any) -> int:
    # Tuples, as they come over a link.
    _, *deltas = handle.generate.options(stream=True).remote(CALL)
    return int(b"".join(data for data, _ in deltas))


def test_a_replica_that_is_killed_or_deleted_leaves_nothing_of_its_engine(serve_url: str) -> None:
    handle = deploy("ends")
    family = family_of(pid_of(handle))
    assert answer_of(handle) == family[1].pid
    replica = family[0].parent()
    assert replica is not None
    os.kill(replica.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []

    # Its successor has an engine of its own.
    successor = 0
    while not successor:
        with contextlib.suppress(Exception):
            successor = answer_of(handle)
    family = family_of(successor)
    serve.delete("ends")
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
