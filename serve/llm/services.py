"""What every handler of the front works with: the models, the settings, and how a model is called.

A handler is a coroutine function `(services, exchange, name)` that answers one kind of request. What it raises is told
to the client in the shape of the API that was spoken.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .catalogue import Catalogue, Chosen
from .costs import ModelCost, cost_of
from .engines.interface import ADAPTER, EngineCall, EngineFacts
from .event_stream import EventStream
from .fronts import Fronts
from .generation import Generation
from .made_from_chat import with_those_made
from .problems import Problem
from .reading import Asked, read, renamed
from .wishes import wishes_of

if TYPE_CHECKING:
    from .batches.service import Batches
    from .calling import Open
    from .config import FrontConfig
    from .exchange import Exchange
    from .metrics import Meter
    from .responses.keeping import Keeping

logger = logging.getLogger("actorrt.serve.llm")

Handler = Callable[["Services", "Exchange", str], Awaitable[None]]

# Replicas of the front that do not answer are asked no more often.
_LEARN_AGAIN_S: Final = 1.0
# An engine learns of a request's surroundings from these, and nothing of its client: no keys, no cookies.
_HANDED_ON: Final = (b"traceparent", b"tracestate", b"x-data-parallel-rank", b"x-session-id")


class Services:
    def __init__(
        self,
        config: FrontConfig,
        catalogue: Catalogue,
        meter: Meter,
        open_: Open,
        keeping: Keeping,
        batches: Batches | None,
    ) -> None:
        self.config, self.catalogue, self.meter, self.keeping, self.batches = config, catalogue, meter, keeping, batches
        self._open = open_
        self._fronts: Fronts | None = None
        # Whether the others were asked for adapters, and whether all have said what they know.
        self._has_learned = self._adapters_known = False
        # Of the loop's time: when to ask those that did not answer.
        self._learn_again_at = 0.0
        # Nobody's but the front's: who asked for it may leave meanwhile.
        self._learning: asyncio.Task[None] | None = None

    def fronts(self) -> Fronts:
        """All replicas of this front."""
        if self._fronts is None:
            self._fronts = Fronts()
        return self._fronts

    async def learn_adapters(self) -> None:
        """Ask the other replicas which adapters were loaded before this one was there, until all have said so.

        Returns once they were asked: who comes while those are asked again that did not answer does not wait for them.
        """
        if self._adapters_known or not self.config.live_adapters:
            return
        loop = asyncio.get_running_loop()
        if self._learning is None and loop.time() >= self._learn_again_at:
            self._learning = loop.create_task(self._learn(self.fronts()), context=contextvars.Context())
            self._learning.add_done_callback(self._learned)
        if self._learning is not None and not self._has_learned:
            await asyncio.shield(self._learning)

    async def _learn(self, fronts: Fronts) -> None:
        with self.catalogue.noting_unloads() as unloaded:
            known, all_said = await fronts.adapters()
        for model_id, adapters in known.items():
            for name, path in adapters.items():
                # What they said may be older.
                if (model_id, name) not in unloaded:
                    self.catalogue.know_adapter(model_id, name, path)
        self._has_learned, self._adapters_known = True, all_said
        self._learn_again_at = asyncio.get_running_loop().time() + _LEARN_AGAIN_S

    def _learned(self, learning: asyncio.Task[None]) -> None:
        self._learning = None
        if not learning.cancelled() and (error := learning.exception()) is not None:
            logger.warning("the other fronts were not asked which adapters are loaded: %r", error)

    async def read(self, exchange: Exchange) -> Asked:
        """The body of a request. Problem 400 or 413. From here on its handler is cancelled when its client leaves."""
        body = await exchange.body(self.config.max_body_bytes)
        exchange.cancel_when_gone()
        asked = read(body)
        exchange.wish(wishes_of(asked.fields, exchange.headers))
        return asked

    async def check_path(self, chosen: Chosen, path: str) -> EngineFacts:
        """What the model's engine is. Problem 501 if it does not answer this."""
        facts = await chosen.served.facts()
        if path not in facts.paths:
            offered = ", ".join(sorted(each for each in with_those_made(facts.paths) if each.startswith("/v1/")))
            raise Problem(
                501,
                f"the engine of model {chosen.served.model_id!r} ({facts.kind}) does not answer {path}; "
                f"there are {offered}",
                param="model",
                code="not_supported_by_engine",
            )
        return facts

    def call(self, exchange: Exchange, chosen: Chosen, path: str, asked: Asked) -> EngineCall:
        """The call that a request stands for, with the bytes that came, but for a name that only the front knows."""
        exchange.take(self.cost(exchange, chosen, asked.fields))
        same = asked.model == chosen.name or asked.model is None
        body = asked.body if same else renamed(asked.body, chosen.name)
        headers = self.call_headers(exchange)
        if (live := self.catalogue.live[chosen.served.model_id]) and chosen.name in live:
            headers = (*headers, (ADAPTER, f"{chosen.name}={live[chosen.name]}"))
        return EngineCall(path, body, asked.stream, "POST", headers)

    def cost(self, exchange: Exchange, chosen: Chosen, fields: Mapping[str, Any]) -> ModelCost:
        """What a request with these fields takes of the model, whatever its client had written."""
        adapter = chosen.name if chosen.name != chosen.served.model_id else ""
        wishes = exchange.wishes
        if exchange.is_of_batch:
            wishes = wishes._replace(band=chosen.served.lowest_band)
        return cost_of(fields, model=chosen.name, tenant=exchange.tenant, adapter=adapter, wishes=wishes)

    def call_headers(self, exchange: Exchange) -> tuple[tuple[str, str], ...]:
        given = exchange.headers
        on = [(name.decode(), given[name].decode("latin-1")) for name in _HANDED_ON if name in given]
        return (("x-request-id", exchange.request_id), *on)

    def generation(self, exchange: Exchange, chosen: Chosen, operation: str) -> Generation:
        """A call at the model, to be entered. `operation`: what metrics call it, "chat", "text_completion", ..."""
        generation = Generation(chosen, exchange.tenant, operation, exchange.cost, self._open, self.meter.ended)
        self.meter.began(generation)
        exchange.ask(generation)
        return generation

    def event_stream(self, exchange: Exchange) -> EventStream:
        return EventStream(exchange, self.config.ping_s)
