"""Values that listeners want to know as soon as they change, and who has acted on which version of them.

A listener asks with the version that it has and gets the next one, or waits for it. By asking it also says that it has
acted on that version, which is how a replica that is taken out of the routing is known to get no more requests.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from .news import NO_SUCH_DEPLOYMENT, NOTHING_YET

# Its value: prefix -> (application, its ingress), and why nothing is served yet, "" once something was.
ROUTES: Final = ("routes",)


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

    @property
    def has_listeners(self) -> bool:
        return bool(self._acted)

    async def acted_on(self, version: int, timeout_s: float) -> None:
        """Return when every listener has acted on `version`. One that does not within the time is taken for gone."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(acted < version for acted in self._acted.values()):
                    await self._changed.wait()
        except TimeoutError:
            self._acted = {listener: acted for listener, acted in self._acted.items() if acted >= version}


class Topics:
    """The topics that the controller publishes or that have listeners; one without either is dropped."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, ...], Topic] = {ROUTES: Topic(({}, NOTHING_YET))}
        # Those that the controller publishes.
        self._held: set[tuple[str, ...]] = {ROUTES}

    def __len__(self) -> int:
        return len(self._topics)

    def __getitem__(self, name: tuple[str, ...]) -> Topic:
        """One that is asked for before there is such a thing says so."""
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = Topic(NO_SUCH_DEPLOYMENT)
        return found

    def hold(self, name: tuple[str, ...]) -> Topic:
        """The topic, kept until its release."""
        self._held.add(name)
        return self[name]

    def release(self, name: tuple[str, ...]) -> None:
        """Nothing is published any more: the topic goes with its last listener."""
        self._held.discard(name)
        self.drop_unused(name)

    def drop_unused(self, name: tuple[str, ...]) -> None:
        topic = self._topics.get(name)
        if topic is not None and name not in self._held and not topic.has_listeners:
            del self._topics[name]

    def leave(self, listener: str, name: tuple[str, ...]) -> None:
        """The listener has acted on what it was told last and asks no more."""
        self[name].forget(listener)
        self.drop_unused(name)

    def forget(self, listener: str) -> None:
        """The listener has gone, with all that it listened to."""
        for name in list(self._topics):
            self.leave(listener, name)
