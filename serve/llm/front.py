"""The front: an ASGI application that speaks OpenAI's and Anthropic's protocols and hands requests on to models."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..declaration.applications import BareApplication
from . import access_log, adapters, listing, operating, page, tokenizing
from .batches import files, requests
from .batches.runner import Runner
from .batches.service import Batches
from .calling import open_call
from .catalogue import Catalogue, Claim, Served
from .cors import Cors
from .exchange import ClientGone, Exchange
from .failures import problem_of
from .keys import Keys
from .messages import service as messages
from .metrics import Meter, Totals
from .pass_through import pass_through
from .responses import service as responses
from .responses.keeping import Keeping
from .resume.streams import resuming
from .routes import Kind, Route, allowed, check_method, find, no_such_path
from .services import Handler, Services

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ..routing.handle import DeploymentHandle
    from .config import FrontConfig, LLMConfig

logger = logging.getLogger("actorrt.serve.llm")

HANDLERS: Final[Mapping[Kind, Handler]] = {
    Kind.CHAT: pass_through(Kind.CHAT),
    Kind.COMPLETION: pass_through(Kind.COMPLETION),
    Kind.EMBEDDINGS: pass_through(Kind.EMBEDDINGS),
    Kind.RERANK: pass_through(Kind.RERANK),
    Kind.SCORE: pass_through(Kind.SCORE),
    Kind.TOKENIZE: tokenizing.tokenize,
    Kind.DETOKENIZE: tokenizing.detokenize,
    Kind.LOAD_ADAPTER: adapters.load,
    Kind.UNLOAD_ADAPTER: adapters.unload,
    Kind.MODELS: listing.models,
    Kind.MODEL: listing.model,
    Kind.HEALTH: operating.health,
    Kind.METRICS: operating.metrics,
    Kind.LOAD: operating.load,
    Kind.PAGE: page.show,
    Kind.FILES: files.files,
    Kind.FILE: files.file,
    Kind.FILE_CONTENT: files.content,
    Kind.BATCHES: requests.batches,
    Kind.BATCH: requests.batch,
    Kind.BATCH_CANCEL: requests.cancel,
    Kind.MESSAGES: messages.create,
    Kind.COUNT_TOKENS: messages.count_tokens,
    Kind.RESPONSES: responses.create,
    Kind.RESPONSE: responses.one,
    Kind.RESPONSE_CANCEL: responses.cancel,
    Kind.RESPONSE_INPUT: responses.input_items,
    Kind.RESPONSE_TOKENS: responses.input_tokens,
}


# What both APIs have at the same path.
_OF_BOTH: Final = frozenset({Kind.MODELS, Kind.MODEL})


class Front(BareApplication):
    """A replica of the front. Its methods are asked by the other replicas of it."""

    def __init__(
        self,
        config: FrontConfig,
        models: list[tuple[LLMConfig, DeploymentHandle[Any]]],
        store: DeploymentHandle[Any] | None = None,
    ) -> None:
        """`store`: of responses (`bind_store`); without one none are kept."""
        catalogue = Catalogue([Served(each, handle) for each, handle in models], int(time.time()))
        batches = None if config.batches is None else Batches(config.batches)
        self._catalogue, self._meter, self._batches = catalogue, Meter(), batches
        services = Services(config, catalogue, self._meter, resuming(open_call), Keeping(store), batches)
        super().__init__(FrontApplication(services))

    async def totals(self) -> Totals:
        return self._meter.totals

    async def batch_counts(self, kept: bool = True) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
        """The batches that are `kept`, if they are asked for, and what is in hand here of them: plain, for
        `batches.counts.together`.
        """
        if (batches := self._batches) is None:
            return [], {}
        return [tuple(each) for each in (await batches.counts() if kept else ())], dict(batches.running)

    async def live_adapters(self) -> dict[str, dict[str, str]]:
        return self._catalogue.live

    async def know_adapter(self, model_id: str, name: str, path: str) -> None:
        self._catalogue.know_adapter(model_id, name, path)

    async def claim_adapter(self, model_id: str, name: str, by: Claim, alive: frozenset[str], loads: bool) -> str:
        return self._catalogue.claim(model_id, name, by, alive, loads=loads)

    async def release_adapter(self, model_id: str, name: str, by: Claim) -> None:
        self._catalogue.release(model_id, name, by)

    async def forget_adapter(self, model_id: str, name: str) -> None:
        self._catalogue.forget_adapter(model_id, name)


class FrontApplication:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys = Keys(services.config.keys)
        self._cors = Cors(services.config.cors_origins)
        self._logs_access = services.config.access_log
        self._meter = services.meter
        if self._logs_access:
            access_log.show()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "nothing here speaks by websockets"})
            return
        if scope["type"] == "lifespan" and self._services.batches is not None:
            await self._work_on_batches(self._services.batches, receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"the front has no {scope['type']}")
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.gone or task is None:
                raise
            task.uncancel()
        finally:
            exchange.close()
            if self._logs_access:
                access_log.log(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        origin = exchange.headers.get(b"origin")
        try:
            found = find(exchange.path)
            if exchange.method == "OPTIONS" and found is not None:
                asked = exchange.headers.get(b"access-control-request-headers")
                private = exchange.headers.get(b"access-control-request-private-network") == b"true"
                answer = self._cors.preflight(origin, allowed(found[0]), asked, private=private)
                await exchange.respond(204, answer, b"")
                return
            exchange.add_always(self._cors.headers(origin))
            if found is None:
                listing.speak_as_asked(exchange)
                raise no_such_path(exchange.path)
            route, name = found
            exchange.speak(route.api)
            if route.kind in _OF_BOTH:
                listing.speak_as_asked(exchange)
            check_method(route, exchange.method, exchange.path or "/")
            find_tenant = self._keys.tenant_if_known if route.open else self._keys.tenant_of
            exchange.belong_to(find_tenant(exchange.headers.get(b"authorization"), exchange.headers.get(b"x-api-key")))
            await self._handle(route, exchange, name)
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:
            await self._fail(exchange, error)

    async def _handle(self, route: Route, exchange: Exchange, name: str) -> None:
        await self._services.learn_adapters()
        if (handler := HANDLERS.get(route.kind)) is None:
            raise no_such_path(exchange.path)
        await handler(self._services, exchange, name)

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        problem = problem_of(error, exchange)
        if exchange.generation is None:
            self._meter.refused(problem.status)
        await exchange.fail(problem)

    async def _work_on_batches(self, batches: Batches, receive: Receive, send: Send) -> None:
        """As long as the application is there."""
        runner = Runner(self._services, batches, self._answer_of_batch)
        while True:
            match (await receive())["type"]:
                case "lifespan.startup":
                    runner.start()
                    await send({"type": "lifespan.startup.complete"})
                case _:
                    await runner.stop()
                    await send({"type": "lifespan.shutdown.complete"})
                    return

    async def _answer_of_batch(self, exchange: Exchange) -> None:
        """Answer a request of a batch, whose tenant is known."""
        try:
            if (found := find(exchange.path)) is None:
                raise no_such_path(exchange.path)
            await self._handle(found[0], exchange, found[1])
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._fail(exchange, error)
        finally:
            exchange.close()
            if self._logs_access:
                access_log.log(exchange)
