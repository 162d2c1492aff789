"""How user code is called in a replica, in this process."""

import asyncio
import pickle
from collections.abc import AsyncGenerator
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
