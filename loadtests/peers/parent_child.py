# pyright: basic, reportMissingImports=false
"""A deployment that calls another, for routers at full load: the same source for Ray Serve and actorrt.

The child sleeps as long as it is told, and writes down how busy it was: a line for each second, which is the time that
its places were taken as a share of all they had, and how many requests it has refused by then.
"""

import asyncio
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from loadtests.serve_modules import serve_module

CHILD_PLACES: Final = 2
PARENT_PLACES: Final = 5
QUEUE: Final = "loadtests_queue"


def _count_refusals(name: str) -> Callable[[], int]:
    """How often this process's replica has said that it is full: what it is asked is counted, and answered as ever."""
    count = 0
    if name == "ray":
        replica: Any = importlib.import_module("ray.serve._private.replica").Replica
        asked, is_full = "_can_accept_request", lambda said: not said
    else:
        replica = serve_module("replica.replica").Replica
        asked, is_full = "_refusal", bool
    before = getattr(replica, asked)

    def counted(self: Any, *args: Any) -> Any:
        nonlocal count
        said = before(self, *args)
        count += is_full(said)
        return said

    setattr(replica, asked, counted)
    return lambda: count


class Child:
    def __init__(self, name: str, folder: str, places: int) -> None:
        self._refusals = _count_refusals(name)
        self._path = Path(folder, f"{os.getpid()}.jsonl")
        self._places = places
        self._running = 0
        self._busy = 0.0
        self._since = time.monotonic()
        self._noting: Any = None

    def _account(self) -> None:
        now = time.monotonic()
        self._busy += self._running * (now - self._since)
        self._since = now

    async def _note(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(1.0 - time.monotonic() % 1.0)
            self._account()
            lasted = self._since - began
            line = {"at": self._since, "busy": self._busy / lasted / self._places, "refusals": self._refusals()}
            began, self._busy = self._since, 0.0
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    async def __call__(self, seconds: float) -> None:
        if self._noting is None:
            self._noting = asyncio.ensure_future(self._note())
        self._account()
        self._running += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._account()
            self._running -= 1


class Parent:
    def __init__(self, child: Any) -> None:
        self._child = child

    async def __call__(self, seconds: float) -> None:
        await self._child.remote(seconds)


def deployments(side: str, children: int, parents: int, folder: str) -> Any:
    """What `serve.run` takes."""
    name = "ray" if side.startswith("ray") else "actorrt"
    serve = importlib.import_module(f"{name}.serve")
    options = _router(side, serve)
    child = serve.deployment(
        name="child", num_replicas=children, max_ongoing_requests=CHILD_PLACES,
        ray_actor_options={"num_cpus": 0}, **options,
    )(Child).bind(name, folder, CHILD_PLACES)  # fmt: skip
    return serve.deployment(
        name="parent", num_replicas=parents, max_ongoing_requests=PARENT_PLACES,
        ray_actor_options={"num_cpus": 0}, **options,
    )(Parent).bind(child)  # fmt: skip


def _router(side: str, serve: Any) -> dict[str, Any]:
    match side:
        case "ray_serve":
            return {}  # power of two choices
        case "ray_serve_queue":
            # As its own documentation has it.
            config = importlib.import_module("ray.serve.config")
            queue = config.DeploymentActorConfig(
                name=QUEUE,
                actor_class="ray.serve.experimental.capacity_queue:CapacityQueue",
                init_kwargs={"acquire_timeout_s": 30.0, "token_ttl_s": 120.0},
                actor_options={"num_cpus": 0},
            )
            router = config.RequestRouterConfig(
                request_router_class="ray.serve.experimental.capacity_queue_router:CapacityQueueRouter",
                request_router_kwargs={"capacity_queue_actor_name": QUEUE},
            )
            return {"deployment_actors": [queue], "request_router_config": router}
        case "power_of_two":
            return {}
        case _:
            return {"request_router": "capacity_queue"}
