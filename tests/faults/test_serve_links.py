"""Links that are given up between processes that both live: nobody is taken for dead, and requests are served."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import serve
from actorrt.runtime.owner import current
from actorrt.wire.link import Ending

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with actorrt.init(num_cpus=2, preload_modules=["pytest", "httpx", *serve.WORKER_MODULES]):
        serve.start({"port": 0})
        yield
        serve.shutdown()


@serve.deployment(num_replicas=2, max_ongoing_requests=4)
class Answers:
    def __init__(self) -> None:
        self._held = asyncio.Event()

    async def __call__(self) -> int:
        return os.getpid()

    async def hold(self) -> None:
        self._held.set()
        await asyncio.Event().wait()

    async def held(self) -> int:
        await self._held.wait()
        return os.getpid()


def give_links_up() -> None:
    """Every link of this process but the one to its node ends, as after a fault of a network that lasts too long."""
    runtime = current.runtime()

    async def give_up() -> None:
        for link in list(runtime.peers.links.values()):
            if link is not runtime.node:
                link.finish(Ending.LOST)

    runtime.thread.call_sync(give_up())


def test_a_replica_to_which_the_link_was_lost_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # The processes answer a new dial, so nobody waits for the node to say that they have ended.
    monkeypatch.setattr("actorrt.runtime.owner.exits.EXIT_CAUSE_TIMEOUT_S", 3600.0)
    handle: Any = serve.run(Answers.bind(), name="links", route_prefix=None)
    replicas: set[int] = set()
    while len(replicas) < 2:
        replicas.add(handle.remote().result(timeout_s=20))
    for _ in range(5):
        # A request is under way at each, so that the loss is noticed by what becomes of these.
        held = [handle.hold.remote() for _ in range(2)]
        while len({handle.held.remote().result(timeout_s=20) for _ in range(4)}) < 2:
            pass
        give_links_up()
        for one in held:
            with pytest.raises(serve.exceptions.ReplicaUnavailableError):
                one.result(timeout_s=20)
        # Each in turn, so that both must be there.
        seen: set[int] = set()
        while seen != replicas:
            seen.add(handle.remote().result(timeout_s=20))
