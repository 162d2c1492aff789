"""What tests ask a capacity queue, beside its routers and replicas."""

import asyncio
from typing import Any

from actorrt import get_actor
from actorrt.exceptions import ActorUnavailableError
from actorrt.serve.base.connection import NAMESPACE
from actorrt.util import list_named_actors


async def queue_of(app: str, name: str) -> Any:
    """The actor; it is the same one after it was killed."""
    listed = await asyncio.to_thread(list_named_actors, all_namespaces=True)
    (found,) = [each["name"] for each in listed if each["name"].startswith(f"{app}#{name}#queue-")]
    return await asyncio.to_thread(get_actor, found, NAMESPACE)


async def statistics_of(queue: Any) -> dict[str, Any]:
    """Of the queue that is there, maybe the next one."""
    while True:
        try:
            return await queue.statistics.remote()  # type: ignore[no-any-return]
        except ActorUnavailableError:
            await asyncio.sleep(0)


async def statistics(app: str, name: str) -> dict[str, Any]:
    return await statistics_of(await queue_of(app, name))


async def until_idle(app: str, name: str) -> bool:
    """Until its ledger has nothing, as befits when nothing runs."""
    queue = await queue_of(app, name)
    while True:
        found = await statistics_of(queue)
        lines = found["lines"]
        if not found["tenants"] and not any(line["running"] or line["used"] or line["backlog"] for line in lines):
            return True
        await asyncio.sleep(0)


async def until_running(queue: Any, running: int, *, replicas: int, slots: int) -> dict[str, Any]:
    """Until all replicas have said what they run, and the ledger has so many leases that run, and no others."""
    while True:
        found = await statistics_of(queue)
        lines = found["lines"]
        whole = [line for line in lines if line["slots"] == slots and line["is_open"]]
        ran = sum(line["running"] for line in lines), sum(line["begun"] for line in lines)
        if len(whole) == len(lines) == replicas and ran == (running, running) and not found["tenants"]:
            return found
        await asyncio.sleep(0)
