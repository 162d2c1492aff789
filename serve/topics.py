"""Values that listeners want to know as soon as they change, and who has acted on which version of them.

A listener asks with the version that it has and gets the next one, or waits for it. By asking it also says that it has
acted on that version, which is how a replica that is taken out of the routing is known to get no more requests.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

# Its value: prefix -> (application, its ingress), and why nothing is served yet, "" once something was.
ROUTES: Final = ("routes",)
NOTHING_YET: Final = "no application has been deployed yet"
NO_SUCH_DEPLOYMENT: Final = ("there is no such deployment", 1, -1, ())


class Topic:
    __slots__ = ("_acted", "_changed", "value", "version")

    def __init__(self, value: Any) -> None:
        # Above all that a controller before this one gave: a listener may still ask with one of those.
        self.version = time.time_ns()
        self.value = value
        self._changed: asyncio.Event = asyncio.Event()
        # Who listens, and the version that it has acted on.
        self._acted: dict[str, int] = {}

    def publish(self, value: Any) -> int:
        """The version of the new value."""
        self.version += 1
        self.value = value
        self._wake()
        return self.version

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def next_for(self, listener: str, version: int) -> tuple[int, Any]:
        """Wait for another version than `version`. A listener that is cancelled here has gone."""
        self._acted[listener] = version
        self._wake()
        try:
            while self.version == version:
                await self._changed.wait()
        except asyncio.CancelledError:
            if self._acted.get(listener) == version:
                del self._acted[listener]
                self._wake()
            raise
        return self.version, self.value

    def forget(self, listener: str) -> None:
        """It has gone, whatever it was told last."""
        self._acted.pop(listener, None)
        self._wake()

    async def acted_on(self, version: int, timeout_s: float) -> None:
        """Return when every listener has acted on `version`. One that does not within the time is taken for gone."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(acted < version for acted in self._acted.values()):
                    await self._changed.wait()
        except TimeoutError:
            self._acted = {listener: acted for listener, acted in self._acted.items() if acted >= version}


class Topics:
    """All topics; one that is asked for before there is such a thing says so."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, ...], Topic] = {ROUTES: Topic(({}, NOTHING_YET))}

    def __getitem__(self, name: tuple[str, ...]) -> Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = Topic(NO_SUCH_DEPLOYMENT)
        return found

    def forget(self, listener: str) -> None:
        for topic in self._topics.values():
            topic.forget(listener)
