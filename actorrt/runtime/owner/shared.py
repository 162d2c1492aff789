"""The workers that this process's coroutine actors and async tasks share."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.types import Place, ProcessId
from actorrt.wire.messages import WorkerList

from ..links.link import Link
from ..links.peers import Peers

# A further shared worker is asked for when each that there is has so much to do.
CROWDED: Final = 16


class PoolHost(Protocol):
    """What a pool needs of its process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def peers(self) -> Peers: ...

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList: ...


class SharedPool:
    """Shared workers of one environment, the least loaded first."""

    def __init__(self, runtime: PoolHost, env: dict[str, str]) -> None:
        self._runtime = runtime
        self._env = env
        self._links: list[Link] = []
        self._places: dict[ProcessId, Place] = {}
        # What this process has placed on each: actors, and async tasks under way.
        self.load: dict[ProcessId, int] = {}
        # Those whose loop is blocked, as the node says: nothing new goes there.
        self._blocked: set[ProcessId] = set()
        self._limit = 1
        self._growing: asyncio.Task[None] | None = None
        # Workers that are being dialled: one that is stopped may not answer for long.
        self._dialling: dict[ProcessId, asyncio.Task[None]] = {}

    @property
    def is_empty(self) -> bool:
        """No worker is here, or on its way."""
        return not self._links and self._growing is None and not self._dialling

    def pick(self) -> Link | None:
        """The least loaded worker, counted as having one more thing to do; None if there is none yet."""
        best: Link | None = None
        least = 0
        for link in self._links:
            if self._takes_more(link):
                load = self.load[link.peer]
                if best is None or load < least:
                    best, least = link, load
        if best is None:
            return None
        self.load[best.peer] = least + 1
        if least >= CROWDED and self._taking() < self._limit and self._growing is None and not self._dialling:
            self._grow()
        return best

    def _takes_more(self, link: Link) -> bool:
        return not link.closed and link.peer not in self._blocked

    def _taking(self) -> int:
        """How many take more."""
        return sum(map(self._takes_more, self._links))

    def blocked(self, process: ProcessId, blocked: bool) -> None:
        """The node says that the loop of a worker is blocked, or goes on."""
        if blocked:
            self._blocked.add(process)
        else:
            self._blocked.discard(process)

    def place_of(self, link: Link) -> Place | None:
        """Where a worker is that `pick` gave."""
        return self._places.get(link.peer)

    def done(self, link: Link) -> None:
        """One thing less to do there."""
        if link.peer in self.load:
            self.load[link.peer] -= 1

    def _grow(self) -> asyncio.Task[None]:
        task = self._growing = self._runtime.loop.create_task(self._ask(self._taking() + 1))
        task.add_done_callback(self._grown)
        return task

    def _grown(self, task: asyncio.Task[None]) -> None:
        self._growing = None
        if not task.cancelled():
            task.exception()

    async def ready(self) -> None:
        """Wait until there is a worker. Raises what the node says."""
        while not self._taking():
            await asyncio.shield(self._growing or self._grow())

    async def _ask(self, want: int) -> None:
        runtime = self._runtime
        found: WorkerList = await runtime.ask_shared(want, self._env)
        self._limit = found.limit
        self._links = [link for link in self._links if not link.closed]
        # Those that it gives are the ones to use, blocked or not: it may be that there are no better ones.
        self._blocked.difference_update(worker.process for worker in found.workers)
        known = {link.peer for link in self._links}
        for place in found.workers:
            worker = place.process
            if worker not in known and worker not in self._dialling and worker not in runtime.peers.dead:
                task = self._dialling[worker] = runtime.loop.create_task(self._dial(place))
                task.add_done_callback(lambda _, worker=worker: self._dialling.pop(worker))
        # The first that answers will do.
        while self._dialling and not self._taking():
            await asyncio.wait(self._dialling.values(), return_when=asyncio.FIRST_COMPLETED)

    async def _dial(self, place: Place) -> None:
        with contextlib.suppress(exceptions.LinkError):
            link = await self._runtime.peers.link_to(place.process, place.address)
            if not link.closed and link not in self._links:
                self._links.append(link)
                self._places[link.peer] = place
                self.load.setdefault(link.peer, 0)

    def link_lost(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        self.load.pop(link.peer, None)
        self._places.pop(link.peer, None)
        self._blocked.discard(link.peer)
