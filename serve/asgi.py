"""ASGI applications as deployments: `serve.ingress`, views that are methods of the class, and the lifespan protocol."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from starlette.types import ASGIApp, Message

from .declaration import Deployment
from .exceptions import ServeError
from .request_context import HookContext, current_request
from .user_errors import with_frames

logger = logging.getLogger("actorrt.serve.replica")

T = TypeVar("T")

ATTRIBUTE: Final = "__actorrt_asgi__"
# A shutdown that is cut off may clean up for so long.
CUT_OFF_S: Final = 1.0


def ingress(app: ASGIApp | Callable[[], ASGIApp]) -> Callable[[type[T]], type[T]]:
    """Have an ASGI application answer the HTTP requests of a class: `@serve.deployment @serve.ingress(app)`.

    Routes whose endpoints are methods of the class are called with the replica's instance. A function without
    parameters is called in each replica for its application.
    """
    if not callable(app):
        raise TypeError(f"ingress takes an ASGI application or a function that makes one, not {type(app).__name__}")

    def decorate(target: type[T]) -> type[T]:
        if isinstance(target, Deployment):
            raise TypeError("write @serve.ingress(app) below @serve.deployment, next to the class")
        if not inspect.isclass(target):
            raise TypeError(f"@serve.ingress(app) decorates a class, not {target!r}")
        setattr(target, ATTRIBUTE, app)
        return target

    return decorate


def asgi_app_of(instance: object) -> ASGIApp | None:
    """The application that answers for this instance, with its methods bound; None if it is no ingress."""
    app = getattr(type(instance), ATTRIBUTE, None)
    if app is None:
        return None
    if _is_builder(app):
        app = app()
    _bind_endpoints(app, instance, set())
    return cast(ASGIApp, app)


def _is_builder(app: Any) -> bool:
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return False
    required = [each for each in signature.parameters.values() if each.default is each.empty]
    return not any(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in required)


def _bind_endpoints(router: Any, instance: object, seen: set[int]) -> None:
    """Replace each route to a function of the instance's class by the same route to the bound method."""
    routes: Any = getattr(router, "routes", None)
    if not isinstance(routes, list) or id(cast(object, routes)) in seen:
        return
    seen.add(id(cast(object, routes)))
    for index, route in enumerate(cast(list[Any], routes)):
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None and _is_method(endpoint, type(instance)):
            routes[index] = _same_route(route, endpoint.__get__(instance))
        else:
            for inner in (getattr(route, "original_router", None), getattr(route, "app", None), route):
                _bind_endpoints(inner, instance, seen)


def _is_method(endpoint: Any, cls: type) -> bool:
    if not inspect.isfunction(endpoint):
        return False
    return any(value is endpoint for each in cls.__mro__ for value in vars(each).values())


def _same_route(route: Any, endpoint: Any) -> Any:
    # A route keeps what it was made from under the names of its parameters; so do those of FastAPI, which looks at the
    # endpoint's signature when a route is made.
    parameters = inspect.signature(type(route).__init__).parameters
    arguments = {name: getattr(route, name) for name in parameters if name != "self" and hasattr(route, name)}
    return type(route)(**{**arguments, "endpoint": endpoint})


class Lifespan:
    """Tell an application that it starts and ends. An application that knows no lifespan is left alone."""

    def __init__(self, app: ASGIApp, hooks: HookContext | None = None) -> None:
        """What the application calls in it belongs to `hooks`."""
        self._app = app
        self._hooks = hooks
        self._stopping = self._told_of_failure = False
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
        self._stopping = True
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._ask("lifespan.shutdown")
                if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                    self._told_of_failure = True
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
            if self._stopping and not self._told_of_failure:
                logger.error("the application's shutdown failed:\n%s", with_frames(error))

    async def _send(self, message: Message) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(message)
