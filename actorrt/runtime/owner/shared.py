"""The workers that this process's coroutine actors and async tasks share. core/shared_pool.py chooses among them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

from actorrt import exceptions
from actorrt.core.shared_pool import Event, LeastLoaded, SharedPoolStatistics
from actorrt.types import Place, ProcessId
from actorrt.wire.messages import WorkerList

from ..links.link import Link
from ..links.peers import Peers


class PoolHost(Protocol):
    """What a pool needs of its process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def peers(self) -> Peers: ...

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList: ...


class SharedPool:
    """Shared workers of one environment, the least loaded first."""

    def __init__(self, host: PoolHost, env: dict[str, str]) -> None:
        self._host = host
        self._loop = host.loop
        self._peers = host.peers
        self._env = env
        self._workers = LeastLoaded()
        self._links: dict[ProcessId, Link] = {}
        self._places: dict[ProcessId, Place] = {}
        self._growing: asyncio.Task[None] | None = None
        # Workers that are being dialled: one that is stopped may not answer for long.
        self._dialling: set[asyncio.Task[None]] = set()

    @property
    def is_empty(self) -> bool:
        """No worker is here, or on its way."""
        return self._workers.is_empty

    @property
    def loads(self) -> Mapping[ProcessId, int]:
        """What this process has placed on each worker."""
        return self._workers.loads

    def statistics(self) -> SharedPoolStatistics:
        return self._workers.statistics()

    def pick(self) -> Link | None:
        """The least loaded worker, counted as having one more thing to do; None if there is none yet."""
        while (worker := self._workers.pick()) is not None:
            link = self._links[worker]
            if not link.closed:
                if self._workers.is_crowded(worker):
                    self._grow()
                return link
            self.link_lost(link)
        return None

    def blocked(self, process: ProcessId, blocked: bool) -> None:
        """The node says that the loop of a worker is blocked, or goes on."""
        self._workers.on(process, Event.BLOCKED if blocked else Event.GOES_ON)

    def place_of(self, link: Link) -> Place | None:
        """Where a worker is that `pick` gave."""
        return self._places.get(link.peer)

    def done(self, link: Link) -> None:
        """One thing less to do there. What was sent over a link that has ended counts no more."""
        if self._links.get(link.peer) is link:
            self._workers.done(link.peer)

    def _grow(self) -> asyncio.Task[None]:
        task = self._growing = self._loop.create_task(self._ask(self._workers.asks()))
        task.add_done_callback(self._grown)
        return task

    def _grown(self, task: asyncio.Task[None]) -> None:
        self._workers.asked()
        self._growing = None
        if not task.cancelled():
            task.exception()

    async def ready(self) -> None:
        """Wait until there is a worker. Raises what the node says."""
        while not self._takes():
            await asyncio.shield(self._growing or self._grow())

    def _takes(self) -> bool:
        for link in [link for link in self._links.values() if link.closed]:
            self.link_lost(link)
        return self._workers.takes

    async def _ask(self, want: int) -> None:
        found = await self._host.ask_shared(want, self._env)
        # Links that are closed are none to use.
        self._takes()
        places = {place.process: place for place in found.workers}
        for worker in self._workers.named(places, found.limit, self._peers.dead):
            task = self._loop.create_task(self._dial(places[worker]))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)
        # The first that answers will do.
        while self._dialling and not self._takes():
            await asyncio.wait(self._dialling, return_when=asyncio.FIRST_COMPLETED)

    async def _dial(self, place: Place) -> None:
        worker, event = place.process, Event.UNREACHABLE
        try:
            with contextlib.suppress(exceptions.LinkError):
                link = await self._peers.link_to(worker, place.address)
                if not link.closed:
                    self._links[worker], self._places[worker], event = link, place, Event.REACHED
        finally:
            self._workers.on(worker, event)

    def link_lost(self, link: Link) -> None:
        """A link has ended, or its end is known here; it may be one of these."""
        if self._links.get(link.peer) is link:
            del self._links[link.peer], self._places[link.peer]
            self._workers.on(link.peer, Event.LOST)
