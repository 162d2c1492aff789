"""How user code is called in a replica, in this process."""

import asyncio
import pickle
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actorrt.serve.user_code import UserCode


@asynccontextmanager
async def made(target: Any, *args: Any, threads: int = 1) -> AsyncGenerator[UserCode]:
    code = UserCode(threads)
    await code.construct(pickle.dumps((target, args, {})), lambda: None)
    try:
        async with asyncio.timeout(20):
            yield code
    finally:
        await code.close()


class Stops:
    def __call__(self) -> Any:
        return next(iter([]))

    def check_health(self) -> None:
        raise StopIteration

    def reconfigure(self, config: Any) -> None:
        raise StopIteration


async def test_plain_code_that_raises_stop_iteration_fails_and_does_not_hang() -> None:
    async with made(Stops) as code:
        for call in (code.call(code.method("__call__"), (), {}), code.check_health(), code.reconfigure(1)):
            with pytest.raises(RuntimeError, match="raised StopIteration"):
                await call


class Blocks:
    """Its requests run until they may end."""

    may_end = threading.Event()
    running = threading.Semaphore(0)

    def __init__(self) -> None:
        self.configs: list[Any] = []

    def __call__(self) -> None:
        self.running.release()
        assert self.may_end.wait(20)

    def check_health(self) -> None: ...

    def reconfigure(self, config: Any) -> None:
        self.configs.append(config)


async def until_running(count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(Blocks.running.acquire, timeout=20)


@pytest.fixture
def blocking() -> Iterator[None]:
    Blocks.may_end.clear()
    yield
    Blocks.may_end.set()


@pytest.mark.usefixtures("blocking")
async def test_health_is_checked_and_a_configuration_taken_while_every_thread_is_busy() -> None:
    async with made(Blocks) as code:
        request = asyncio.ensure_future(code.call(code.method("__call__"), (), {}))
        await until_running(1)
        await code.check_health()
        await code.reconfigure(1)
        assert code.instance.configs == [1]
        assert not request.done()
        Blocks.may_end.set()
        await request


async def test_reconfigure_is_not_called_without_a_configuration_before_there_was_one() -> None:
    async with made(Blocks) as code:
        for config in (None, None, 1, None, None, 2):
            await code.reconfigure(config)
        assert code.instance.configs == [1, None, 2]
