"""The values of a generator whose call has a fixed number of returns: it is run to its end, and each value counts.

Where it fails behind some of its values, those are the first returns of the call, and the others are the error.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from actorrt.wire import codec
from actorrt.wire.codec import Serialized

from ..base.explain import explain_value
from .snapshots import take_snapshot

logger = logging.getLogger("actorrt")

GENERATORS: Final = (GeneratorType, AsyncGeneratorType)


class BehindValues(Exception):
    """The error that ended a generator behind the values in `pickled`."""

    def __init__(self, error: Exception, pickled: list[Serialized]) -> None:
        super().__init__(error, pickled)
        self.error, self.pickled = error, pickled


class Yielded:
    """What one generator has given so far, each value as it was when it was yielded."""

    def __init__(self, what: str, returns: int) -> None:
        self._what = what
        self._returns = returns
        self._pickled: list[Serialized] = []
        self._too_many = False

    def take_all(self, generator: Generator[Any, Any, Any]) -> list[Serialized]:
        """The values. Raises BehindValues, or what the generator raises before it has given one."""
        error: Exception | None = None
        try:
            for value in generator:
                self._add(value)
        except Exception as raised:
            error = raised
        finally:
            generator.close()
        return self._all(error)

    async def take_all_async(self, generator: AsyncGenerator[Any, Any]) -> list[Serialized]:
        error: Exception | None = None
        try:
            async for value in generator:
                self._add(value)
        except Exception as raised:
            error = raised
        finally:
            await generator.aclose()
        return self._all(error)

    def _add(self, value: Any) -> None:
        if self._returns == 0:
            return
        if len(self._pickled) == self._returns:
            self._too_many = True
            raise ValueError(
                f"{self._what} has num_returns={self._returns} and yielded more values; num_returns='streaming' takes "
                "any number"
            )
        try:
            serialized = codec.serialize(value)
        except Exception as error:
            raise explain_value(f"the result of {self._what}", value, error) from error
        take_snapshot(serialized)
        self._pickled.append(serialized)

    def _all(self, error: Exception | None) -> list[Serialized]:
        pickled = self._pickled
        if error is None and len(pickled) < self._returns:
            error = ValueError(f"{self._what} has num_returns={self._returns} and yielded {len(pickled)} values")
        if error is None:
            return pickled or [codec.serialize(None)]
        if not pickled or self._too_many:
            raise error
        if len(pickled) == self._returns:
            logger.error("%s has given all its values and failed then", self._what, exc_info=error)
        raise BehindValues(error, pickled)
