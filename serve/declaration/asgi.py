"""ASGI applications as deployments: `serve.ingress`, views that are methods of the class, and the lifespan protocol."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, TypeVar, cast

from starlette.types import ASGIApp, Message

from ..base.request_context import HookContext, current_request
from ..base.user_errors import with_frames
from ..exceptions import ServeError
from . import views
from .applications import BareApplication, check_application, is_builder
from .declaration import Deployment
from .shipping import ASGI_ATTRIBUTE

logger = logging.getLogger("actorrt.serve.replica")

T = TypeVar("T")

# A shutdown that is cut off may clean up for so long.
CUT_OFF_S: Final = 1.0


def ingress(
    app: ASGIApp | Callable[[], ASGIApp] | Callable[[], Awaitable[ASGIApp]],
) -> Callable[[type[T]], type[T]]:
    """Have an ASGI application answer the HTTP requests of a class: `@serve.deployment @serve.ingress(app)`.

    Routes whose endpoints are methods of the class are called with the replica's instance; routes to methods of another
    class that has the same application are that one's. A function without parameters is called in each replica for its
    application. TypeError if this is no application, or a route to a method could not be served as it is.
    """
    check_application(app)

    def decorate(target: type[T]) -> type[T]:
        if isinstance(target, Deployment):
            raise TypeError("write @serve.ingress(app) below @serve.deployment, next to the class")
        if not inspect.isclass(target):
            raise TypeError(f"@serve.ingress(app) decorates a class, not {target!r}")
        if not is_builder(app):
            views.claim(app, target)
        setattr(target, ASGI_ATTRIBUTE, app)
        return target

    return decorate


async def asgi_app_of(instance: object) -> ASGIApp | None:
    """The application that answers for this instance, with its methods bound; None if it is no ingress.

    TypeError if a function that should make it gives something else."""
    app: Any = instance.app if isinstance(instance, BareApplication) else getattr(type(instance), ASGI_ATTRIBUTE, None)
    if app is None:
        return None
    if is_builder(app):
        made = app()
        app = await made if inspect.isawaitable(made) else made
        check_application(app)
    views.bind(app, instance)
    return cast(ASGIApp, _whole(app))


def _whole(app: Any) -> Any:
    """An APIRouter as part of an application: its routes need what only FastAPI gives them."""
    if not any((base.__module__, base.__qualname__) == ("fastapi.routing", "APIRouter") for base in type(app).__mro__):
        return app
    from fastapi import FastAPI

    around = FastAPI()
    around.include_router(app)
    return around


class _Phase(Enum):
    RUNS = "RUNS"
    STOPPING = "STOPPING"
    FAILED = "FAILED"  # as it stopped, in its own words


class Lifespan:
    """Tell an application that it starts and ends. An application that knows no lifespan is left alone."""

    def __init__(self, app: ASGIApp, hooks: HookContext | None = None) -> None:
        """What the application calls in it belongs to `hooks`."""
        self._app = app
        self._hooks = hooks
        self._phase = _Phase.RUNS
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Future[Message] | None = None
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def start(self) -> None:
        """ServeError with the application's own words if it cannot start."""
        context = contextvars.Context()
        context.run(current_request.set, self._hooks)
        self._task = asyncio.get_running_loop().create_task(self._run(), context=context)
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise ServeError(f"the application's startup failed: {answer.get('message', '')}")

    async def stop(self, limit_s: float) -> None:
        """Have the application end. After `limit_s` it is cut off, which is logged, as is an error of its own."""
        task = self._task
        if task is None or task.done():
            return
        self._phase = _Phase.STOPPING
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._ask("lifespan.shutdown")
                if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                    self._phase = _Phase.FAILED
                    logger.error("the application's shutdown failed: %s", answer.get("message", ""))
                await asyncio.wait([task])
        except TimeoutError:
            logger.warning("the application's shutdown did not end within %.3g s and is cut off", limit_s)
        task.cancel()
        await asyncio.wait([task], timeout=CUT_OFF_S)

    async def _ask(self, what: str) -> Message | None:
        assert self._task is not None
        self._told = asyncio.get_running_loop().create_future()
        self._to_app.put_nowait({"type": what})
        await asyncio.wait([self._told, self._task], return_when=asyncio.FIRST_COMPLETED)
        return self._told.result() if self._told.done() else None

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._to_app.get, self._send)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            # As it starts: it knows no lifespan, or has told that it failed.
            if self._phase is _Phase.STOPPING:
                logger.error("the application's shutdown failed:\n%s", with_frames(error))

    async def _send(self, message: Message) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(message)
