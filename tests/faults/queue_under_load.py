"""A deployment behind a capacity queue, to be loaded while something is killed, and what has to hold afterwards."""

import asyncio
import os
import signal
from typing import Any

from starlette.requests import Request

import actorrt
from actorrt import serve

from ..gates import Gate, Held
from ..serve.queues import statistics_of, until_running

LIMIT = 4


class Working(Held):
    """Each request by HTTP takes a moment."""

    async def __call__(self, request: Request) -> int:
        await asyncio.sleep(0.005)
        return os.getpid()


Works = serve.deployment(name="works", num_replicas=2, max_ongoing_requests=LIMIT, request_router="capacity_queue")(
    Working
)


async def kill(actor: Any) -> None:
    os.kill(await actor.__ray_call__.remote(lambda _: os.getpid()), signal.SIGKILL)


async def all_is_given_again(queue: Any, *, app: str = "default", replicas: int = 2, slots: int = LIMIT) -> None:
    """Nothing runs, and nothing is taken. Then each slot is given once, and none twice."""
    found = await until_running(queue, 0, replicas=replicas, slots=slots)
    assert [(line["used"], line["backlog"]) for line in found["lines"]] == [(0, 0)] * replicas
    handle = await asyncio.to_thread(serve.get_app_handle, app)
    gate: Any = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(replicas * slots + 1)]
    await gate.until.remote(replicas * slots)
    while True:
        found = await statistics_of(queue)
        lines = [(line["running"], line["begun"], line["used"]) for line in found["lines"]]
        if lines == [(slots, slots, slots)] * replicas and found["tenants"].get("", {}).get("waiting") == 1:
            break
        await asyncio.sleep(0)
    assert await gate.open.remote() == replicas * slots
    assert len(set(await asyncio.gather(*held))) == replicas
    await until_running(queue, 0, replicas=replicas, slots=slots)
