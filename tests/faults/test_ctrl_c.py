"""Ctrl-C in a program that goes on: what it had called before is answered, and so is what it calls next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PROGRAM = """
import os, random, signal, sys, threading
import actorrt

@actorrt.remote
def echo(value):
    return value

@actorrt.remote
class Actor:
    async def echo(self, value):
        return value

kind, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
hit = 0
with actorrt.init(num_cpus=2):
    actor = Actor.options(max_pending_calls=100_000).remote()
    call = echo.remote if kind == "task" else actor.echo.remote
    actorrt.get([echo.remote(0), actor.echo.remote(0)])
    for _ in range(60):
        refs = []
        interrupt = threading.Timer(chance.random() * 0.006, os.kill, (os.getpid(), signal.SIGINT))
        try:
            interrupt.start()
            while True:
                burst = chance.choice((1, 1, 70, 400))
                for i in range(burst):
                    refs.append((i, call(i)))
                actorrt.get([ref for _, ref in refs[-burst:]])
        except KeyboardInterrupt:
            hit += 1
        interrupt.join()
        # Those that it has refs to are all answered.
        assert actorrt.get([ref for _, ref in refs], timeout=30) == [i for i, _ in refs]
        assert actorrt.get([echo.remote(1), actor.echo.remote(2)], timeout=30) == [1, 2]
    # No lease is left behind that would never be used again.
    while actorrt.available_resources()["CPU"] != 2:
        threading.Event().wait(0.01)
print("interrupted", hit)
"""


@pytest.mark.parametrize("kind", ["task", "call"])
def test_an_interrupted_program_loses_no_call_and_goes_on(kind: str, run_program: Callable[..., Any]) -> None:
    done = run_program(PROGRAM, kind, "7")
    assert done.stdout == "interrupted 60\n", done.stderr
