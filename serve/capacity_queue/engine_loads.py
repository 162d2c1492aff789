"""On a replica: what its engine says that it has, asked again and again, for the capacity queue."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from ..base.user_errors import is_end
from ..capacity.engine_load import EngineLoad
from .config import LOAD

ASK_EVERY_S: Final = 1.0

logger = logging.getLogger("actorrt.serve.replica")


class EngineLoads:
    def __init__(self, note: Callable[[], None]) -> None:
        """`note` is called once there is something to take."""
        self._note = note
        self._load: EngineLoad | None = None

    @property
    def has_news(self) -> bool:
        return self._load is not None

    def take(self) -> EngineLoad | None:
        load, self._load = self._load, None
        return load

    async def ask(self, engine_load: Callable[[], Awaitable[object]], every_s: float = ASK_EVERY_S) -> None:
        """Until it is cancelled. An engine that does not answer, or says what is no load, is asked again."""
        fails = False
        while True:
            try:
                said = await engine_load()
                self._load = None if said is None else checked(said)
                fails = False
            except BaseException as error:
                if is_end(error):
                    raise
                if not fails:
                    logger.warning("the engine does not say what it has, and the queue goes on without: %r", error)
                fails = True
            if self._load is not None:
                self._note()
            await asyncio.sleep(every_s)


def checked(said: object) -> EngineLoad:
    """ValueError for what is no load."""
    if isinstance(said, tuple | list) and len(cast("tuple[Any, ...]", said)) == len(EngineLoad._fields):
        numbers = cast("tuple[Any, ...]", said)
        if all(number is None or _is_count(number) for number in numbers):
            return EngineLoad(*(None if number is None else int(number) for number in numbers))
    raise ValueError(f"{LOAD}() must give tokens and requests, each zero or more or None, not {said!r:.200}")


def _is_count(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < math.inf
