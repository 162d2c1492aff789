"""Values that listeners want to know as soon as they change, and who has acted on which version of them.

A listener asks with the version that it has and gets the next one, or waits for it. By asking it also says that it has
acted on that version, which is how a replica that is taken out of the routing is known to get no more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from .news import NO_SUCH_DEPLOYMENT, NOTHING_YET
from .versions import Holds, Versions

# Its value: prefix -> (application, its ingress), and why nothing is served yet, "" once something was.
ROUTES: Final = ("routes",)


class Topic:
    __slots__ = ("_changed", "_versions")

    def __init__(self, value: Any) -> None:
        # Above all that a controller before this one gave: a listener may still ask with one of those.
        self._versions = Versions(value, time.time_ns())
        self._changed: asyncio.Event = asyncio.Event()

    @property
    def version(self) -> int:
        return self._versions.version

    @property
    def value(self) -> Any:
        return self._versions.value

    @property
    def versions(self) -> Versions:
        return self._versions

    def publish(self, value: Any) -> int:
        """The version of the new value."""
        version = self._versions.publish(value)
        self._wake()
        return version

    def offer(self, value: Any) -> None:
        """Publish it if it is news."""
        if self._versions.is_news(value):
            self.publish(value)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def next_for(self, listener: str, version: int) -> tuple[int, Any]:
        """Wait for another version than `version`. A listener that is cancelled here has gone."""
        versions = self._versions
        versions.asks(listener, version)
        self._wake()
        try:
            while not versions.has_next(version):
                await self._changed.wait()
        except asyncio.CancelledError:
            if versions.stops_asking(listener, version):
                self._wake()
            raise
        return versions.version, versions.value

    def forget(self, listener: str) -> None:
        """It has gone, whatever it was told last."""
        self._versions.forget(listener)
        self._wake()

    async def acted_on(self, version: int, timeout_s: float) -> None:
        """Return when every listener has acted on `version`. One that does not within the time is taken for gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._versions.is_acted_on(version):
                    await self._changed.wait()
        # Nobody is left to be given up where all have acted.
        self._versions.give_up(version)


class Topics:
    """The topics that the controller publishes or that have listeners; one without either is dropped."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, ...], Topic] = {ROUTES: Topic(({}, NOTHING_YET))}
        self._holds = Holds(ROUTES)

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
        self._holds.hold(name)
        return self[name]

    def release(self, name: tuple[str, ...]) -> None:
        """Nothing is published any more: the topic goes with its last listener."""
        self._holds.release(name)
        self.drop_unused(name)

    def drop_unused(self, name: tuple[str, ...]) -> None:
        topic = self._topics.get(name)
        if topic is not None and self._holds.may_drop(name, topic.versions):
            del self._topics[name]

    def leave(self, listener: str, name: tuple[str, ...]) -> None:
        """The listener has acted on what it was told last and asks no more."""
        self[name].forget(listener)
        self.drop_unused(name)

    def forget(self, listener: str) -> None:
        """The listener has gone, with all that it listened to."""
        for name in list(self._topics):
            self.leave(listener, name)
