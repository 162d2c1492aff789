"""What tests ask a capacity queue, beside its routers and replicas."""

import asyncio
from typing import Any

from actorrt import get_actor
from actorrt.serve.connection import NAMESPACE
from actorrt.util import list_named_actors


async def queue_of(app: str, name: str) -> Any:
    """The actor."""
    listed = await asyncio.to_thread(list_named_actors, all_namespaces=True)
    found = [each["name"] for each in listed if each["name"].startswith(f"{app}#{name}#queue-")]
    return await asyncio.to_thread(get_actor, found[0], NAMESPACE)


async def statistics(app: str, name: str) -> dict[str, Any]:
    queue = await queue_of(app, name)
    return await queue.statistics.remote()  # type: ignore[no-any-return]


async def until_idle(app: str, name: str) -> bool:
    """Until its ledger has nothing, as befits when nothing runs."""
    queue = await queue_of(app, name)
    while True:
        found = await queue.statistics.remote()
        if not found["tenants"] and not any(line["running"] or line["used"] for line in found["lines"]):
            return True
        await asyncio.sleep(0)
