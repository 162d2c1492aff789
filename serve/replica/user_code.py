"""The user's callable in a replica: made from its pickled form, and called the way that suits each of its methods.

Coroutine functions run on the replica's loop; plain functions in its threads, so that one that blocks stops no other.
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import gc
import inspect
import logging
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from types import CoroutineType
from typing import Any, Final, cast

from starlette.types import ASGIApp

from ..base.request_context import HookContext
from ..base.user_errors import with_frames
from ..declaration.asgi import Lifespan, asgi_app_of

logger = logging.getLogger("actorrt.serve.replica")

_Coroutine: Final[Any] = CoroutineType

MOST_THREADS = 128
# How long the end of user code may take where nothing else is said.
CLOSE_S = 5.0


class Kind(Enum):
    """How a method is called. What it gives is looked at afterwards: a plain function may return an awaitable."""

    COROUTINE = "coroutine"
    PLAIN = "plain"
    # Calling it only makes the generator.
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


class Shape(Enum):
    """What the user's callable is."""

    NONE = "NONE"  # it was not made yet, or it was closed
    FUNCTION = "FUNCTION"
    INSTANCE = "INSTANCE"  # of a class: it was constructed here, and is finalized


class UserMethod:
    __slots__ = ("function", "kind", "takes_request")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.kind = _kind_of(function)
        self.takes_request = _takes_an_argument(function)


def _kind_of(function: Callable[..., Any]) -> Kind:
    plain = inspect.unwrap(function)
    for candidate in (function, plain, getattr(function, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate):
            return Kind.COROUTINE
        if inspect.isasyncgenfunction(candidate):
            return Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(candidate):
            return Kind.GENERATOR
    return Kind.PLAIN


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    bound = inspect.ismethod(function)
    inner: Any = getattr(function, "__func__", function)
    while True:
        try:
            parameters = list(inspect.signature(inner, follow_wrapped=False).parameters.values())
        except (TypeError, ValueError):
            return True
        takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        if not takes_any or not hasattr(inner, "__wrapped__"):
            break
        # A decorator hands on what it is given: what is below it says how much that is.
        inner = inner.__wrapped__
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return takes_any or len(positional) > bound


class UserCode:
    """One function, or one instance of a class. `close` ends what it started."""

    def __init__(self, threads: int, on_left: Callable[[int], None] = lambda _: None) -> None:
        """`on_left` is told 1 when a request was cancelled whose thread goes on, and -1 when that has ended."""
        self._on_left = on_left
        self.threads = _pool(threads)
        self._thread_count: int = threads
        self._own_threads: ThreadPoolExecutor | None = None
        self.asgi: ASGIApp | None = None
        self._lifespan: Lifespan | None = None
        self._target: Any = None
        self._shape = Shape.NONE
        # What it was given last; None: it has none, or has taken that back.
        self._config: Any = None
        self._methods: dict[str, UserMethod] = {}
        # Tasks that wait for coroutines of the user's.
        self._waiting: set[asyncio.Task[Any] | None] = set()

    def have_threads(self, threads: int) -> None:
        """So many requests of plain code may run at once from now on."""
        if threads != self._thread_count:
            # Not shut down: a generator that was made before may come to its first item only now. The old threads end
            # when nobody has their pool any more, after what it was given.
            self.threads = _pool(threads)
            self._thread_count = threads

    @property
    def instance(self) -> Any:
        return self._target if self._shape is Shape.INSTANCE else None

    @property
    def state(self) -> dict[str, Any]:
        """What the application's lifespan left for its requests."""
        return self._lifespan.state if self._lifespan is not None else {}

    async def construct(self, code: bytes, before: Callable[[], None], hooks: HookContext | None = None) -> None:
        """Load it and call its constructor; `before` runs between the two. Raises what it raises."""
        target, args, kwargs = pickle.loads(code)
        before()
        if inspect.isclass(target):
            self._target, self._shape = await _instance_of(target, args, kwargs), Shape.INSTANCE
            self.asgi = await asgi_app_of(self._target)
        else:
            self._target, self._shape = target, Shape.FUNCTION
        if self.asgi is not None:
            self._lifespan = Lifespan(self.asgi, hooks)
            await self._lifespan.start()

    async def reconfigure(self, config: Any) -> None:
        """ValueError if there is a configuration and nobody to take it. None is for who had one before."""
        if config is None and self._config is None:
            return
        if hasattr(self._target, "reconfigure"):
            if config is not None:
                self._config = config
            await self._call_apart("reconfigure", config)
            self._config = config
        else:
            raise ValueError("user_config was given, but there is no method reconfigure(config) that could take it")

    async def check_health(self) -> None:
        if self._shape is Shape.INSTANCE and hasattr(self._target, "check_health"):
            await self._call_apart("check_health")

    async def _call_apart(self, name: str, *args: Any) -> None:
        """With threads of its own: those for requests may all be busy, and that is no illness."""
        if self._own_threads is None:
            self._own_threads = ThreadPoolExecutor(2, thread_name_prefix="actorrt-replica-own")
        await self.call(self.method(name), args, {}, self._own_threads)

    def method(self, name: str) -> UserMethod:
        """AttributeError names the nearest method there is."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = UserMethod(self._find(name))
        return found

    def _find(self, name: str) -> Callable[..., Any]:
        if self._shape is not Shape.INSTANCE:
            if name == "__call__":
                return self._target
            raise AttributeError(f"{_name_of(self._target)} is a function and has no method {name!r}")
        function = _method_of(self._target, name)
        if callable(function):
            return function
        offered = [
            each for each in dir(self._target) if not each.startswith("_") and callable(getattr(self._target, each))
        ]
        if name == "__call__":
            raise AttributeError(f"{_name_of(type(self._target))} has no method __call__; it has {', '.join(offered)}")
        near = difflib.get_close_matches(name, offered, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"{_name_of(type(self._target))} has no method {name!r}{hint}")

    async def call(
        self,
        method: UserMethod,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        threads: ThreadPoolExecutor | None = None,
    ) -> Any:
        """What the method gives; of a generator method the generator itself."""
        result: Any
        if method.kind is Kind.PLAIN:
            context = contextvars.copy_context()
            future = (threads or self.threads).submit(context.run, _in_thread, method.function, args, kwargs)
            try:
                result = await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if threads is None and not future.cancel():
                    self.left(future)
                raise
        else:
            result = method.function(*args, **kwargs)
        if type(result) is _Coroutine or inspect.isawaitable(result):
            task = asyncio.current_task()
            self._waiting.add(task)
            try:
                result = await result
            finally:
                self._waiting.discard(task)
        return result

    def left(self, future: Future[Any]) -> None:
        """Nobody waits any more for what a thread for requests does."""
        loop = asyncio.get_running_loop()

        def ended(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop may be closed
                loop.call_soon_threadsafe(self._on_left, -1)

        self._on_left(1)
        future.add_done_callback(ended)

    def cancel_all(self) -> list[asyncio.Task[Any]]:
        """Cancel the calls whose coroutines run; gives what ends when those have."""
        waiting = [task for task in self._waiting if task is not None]
        for task in waiting:
            task.cancel()
        return waiting

    async def close(self, limit_s: float = CLOSE_S) -> None:
        """The constructor's opposite: the application's shutdown, then `__del__` in its turn."""
        loop = asyncio.get_running_loop()
        end_by = loop.time() + limit_s
        if self._lifespan is not None:
            await self._lifespan.stop(limit_s)
        self._methods.clear()
        self.asgi = self._lifespan = None
        target, self._target, self._config = self._target, None, None
        if self._shape is Shape.INSTANCE:
            await _finalize(target, max(0.0, end_by - loop.time()))
        self._shape = Shape.NONE
        del target
        # What it held may want to end too.
        gc.collect()
        for threads in (self.threads, self._own_threads):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)


async def _finalize(target: Any, limit_s: float) -> None:
    """Call `__del__`, which may be a coroutine function. Python itself calls it only once nobody has the instance any
    more, and frameworks keep the views that they have seen, of which it has made methods.
    """
    cls = cast(Any, type(target))
    if not hasattr(cls, "__del__"):
        return
    try:
        async with asyncio.timeout(limit_s):
            result = target.__del__()
            if inspect.isawaitable(result):
                await result
    except TimeoutError:
        logger.warning("%s.__del__ did not end within %.3g s and is cut off", _name_of(cls), limit_s)
    except Exception as error:
        logger.error("%s.__del__ failed:\n%s", _name_of(cls), with_frames(error))
    with suppress(TypeError, AttributeError):
        cls.__del__ = _nothing  # once is enough


def _nothing(_: object) -> None: ...


def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, min(threads, MOST_THREADS)), thread_name_prefix="actorrt-replica")


async def _instance_of(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `cls(...)`, where `__init__` may be a coroutine function."""
    if type(cls).__call__ is not type.__call__:
        return cls(*args, **kwargs)  # the metaclass knows how
    made = cls.__new__(cls, *args, **kwargs)
    if isinstance(made, cls):
        try:
            started: Any = cast(Any, type(made)).__init__(made, *args, **kwargs)
            if inspect.isawaitable(started):
                await started
            elif started is not None:
                raise TypeError(f"__init__() should return None, not {type(started).__name__!r}")
        except BaseException:
            # Python calls it of what was half made too, but awaits nothing.
            if inspect.iscoroutinefunction(getattr(made, "__del__", None)):
                await asyncio.shield(_finalize(made, CLOSE_S))
            raise
    return made


def _method_of(target: Any, name: str) -> Any:
    """The method of the class, also where an attribute of the instance has its name."""
    if name in getattr(target, "__dict__", ()):
        cls = cast("type[Any]", type(target))
        found: Any = inspect.getattr_static(cls, name, None)
        if callable(found) or isinstance(found, classmethod):
            return cast(Any, found).__get__(target, cls)
    return getattr(target, name, None)


def _in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # No future takes this one: whoever awaits it would wait for ever.
        raise RuntimeError(f"{_name_of(function)} raised StopIteration") from error


def _name_of(target: Any) -> str:
    return getattr(target, "__qualname__", None) or type(target).__qualname__
