"""What those ask who run the application: whether it is well, how much it has to do, and its metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ..broadcast import ask_all
from ..capacity_queue.status import all_queues
from .exposition import exposition

if TYPE_CHECKING:
    from ..capacity_queue.statuses import QueueStatus
    from .catalogue import Served
    from .exchange import Exchange
    from .services import Services

# A replica that takes longer is left out.
STATISTICS_S: Final = 2.0


async def health(services: Services, exchange: Exchange, name: str) -> None:
    """The front is there. How its models are is a matter of their replicas' health checks."""
    await exchange.respond(200, [], b"")


async def metrics(services: Services, exchange: Exchange, name: str) -> None:
    totals, engines, queues = await asyncio.gather(
        services.fronts().totals(), engine_statistics(services), _queues(services)
    )
    text, content_type = exposition(totals, engines, queues)
    await exchange.respond(200, [(b"content-type", content_type)], text)


async def _queues(services: Services) -> list[QueueStatus]:
    """The capacity queues of the models here."""
    own = {tuple(each.deployment) for each in services.catalogue.models.values() if each.is_queued}
    if not own:
        return []
    return [each for each in await all_queues() if (each.application, each.deployment) in own]


async def load(services: Services, exchange: Exchange, name: str) -> None:
    """Requests that engines run, and those that wait: in engines, or for a replica."""
    engines = await engine_statistics(services)
    running = sum(int(said.get("running", 0)) for said in engines.values())
    totals = await services.fronts().totals()
    here = sum(int(count) for each in totals.values() for count in each.running.series.values())
    await exchange.respond_json(msgspec.json.encode({"running": running, "waiting": max(0, here - running)}))


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
