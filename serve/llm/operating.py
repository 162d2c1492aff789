"""What those ask who run the application: whether it is well, how much it has to do, and its metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from actorrt.exceptions import ActorrtError

from ..capacity_queue.status import all_queues
from ..routing.broadcast import ask_all
from .exposition import exposition
from .queue_view import queue_views

if TYPE_CHECKING:
    from ..capacity_queue.statuses import QueueStatus
    from .batches.counts import Kept, ModelBatches
    from .catalogue import Served
    from .exchange import Exchange
    from .services import Services

# A replica that takes longer is left out.
STATISTICS_S: Final = 2.0


async def health(services: Services, exchange: Exchange, name: str) -> None:
    """The front is there. How its models are is a matter of their replicas' health checks."""
    await exchange.respond(200, [], b"")


async def metrics(services: Services, exchange: Exchange, name: str) -> None:
    totals, engines, queues, batches = await asyncio.gather(
        services.fronts().totals(), engine_statistics(services), _queues(services), _batches(services)
    )
    text, content_type = exposition(totals, engines, [queue for _, queue in queues], *batches)
    await exchange.respond(200, [(b"content-type", content_type)], text)


async def _batches(services: Services) -> tuple[list[Kept], list[ModelBatches]]:
    """Those that are kept, and how far their requests are; nothing where that cannot be told."""
    if services.batches is None:
        return [], []
    return await services.fronts().batches(await services.batches.counts())


async def _queues(services: Services) -> list[tuple[str, QueueStatus]]:
    """The capacity queues of the models here, with the models' names."""
    own = {each.deployment: name for name, each in services.catalogue.models.items() if each.is_queued}
    if not own:
        return []
    found = {(each.application, each.deployment): each for each in await all_queues()}
    return [(name, found[deployment]) for deployment, name in own.items() if deployment in found]


async def _queues_soon(services: Services) -> list[tuple[str, QueueStatus]]:
    """The same; nothing of them where the controller, or one of them, takes too long or is away."""
    try:
        async with asyncio.timeout(STATISTICS_S):
            return await _queues(services)
    except (TimeoutError, ActorrtError):
        return []


async def load(services: Services, exchange: Exchange, name: str) -> None:
    """Requests that engines run, and those that wait: in engines, or for a replica; and what capacity queues have.

    Where there are keys, a tenant is named to who has a key of it.
    """
    engines, queues = await asyncio.gather(engine_statistics(services), _queues_soon(services))
    running = sum(int(said.get("running", 0)) for said in engines.values())
    totals = await services.fronts().totals()
    here = sum(int(count) for each in totals.values() for count in each.running.series.values())
    said: dict[str, Any] = {"running": running, "waiting": max(0, here - running)}
    if queues:
        named = {exchange.tenant} if services.config.keys else None
        said["queues"] = queue_views(queues, named)
    await exchange.respond_json(msgspec.json.encode(said))


async def engine_statistics(services: Services) -> dict[str, dict[str, float]]:
    """What the engines of all replicas say of themselves, summed up by model; nothing of those that do not answer."""
    models = services.catalogue.models
    answers = await asyncio.gather(*(_of_model(each) for each in models.values()))
    return {name: sums for name, sums in zip(models, answers, strict=True) if sums}


async def _of_model(served: Served) -> dict[str, float]:
    said: dict[str, Any] = await ask_all(served.handle, "statistics", timeout_s=STATISTICS_S)
    sums: Counter[str] = Counter()
    for each in said.values():
        if isinstance(each, dict):
            sums.update(cast("dict[str, float]", each))
    # Of processes there is no sum.
    sums.pop("pid", None)
    return dict(sums)
