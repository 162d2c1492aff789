"""Links that break between processes that both live: nobody is taken for dead, and requests are served."""

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


def break_links() -> None:
    """Every link of this process but the one to its node ends, as by a fault of a network."""
    runtime = current.runtime()

    async def abort() -> None:
        for link in list(runtime.peers.links.values()):
            if link is not runtime.node:
                link._transport.abort()

    runtime.thread.call_sync(abort())


def test_a_replica_to_which_the_link_broke_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # The processes answer a new dial, so nobody waits for the node to say that they have ended.
    monkeypatch.setattr("actorrt.runtime.owner.exits.EXIT_CAUSE_TIMEOUT_S", 3600.0)
    handle: Any = serve.run(Answers.bind(), name="links", route_prefix=None)
    replicas: set[int] = set()
    while len(replicas) < 2:
        replicas.add(handle.remote().result(timeout_s=20))
    for _ in range(5):
        # A request is under way at each, so that the break is noticed by what becomes of these.
        held = [handle.hold.remote() for _ in range(2)]
        while len({handle.held.remote().result(timeout_s=20) for _ in range(4)}) < 2:
            pass
        break_links()
        for one in held:
            with pytest.raises(serve.exceptions.ReplicaUnavailableError):
                one.result(timeout_s=20)
        # Each in turn, so that both must be there.
        seen: set[int] = set()
        while seen != replicas:
            seen.add(handle.remote().result(timeout_s=20))
