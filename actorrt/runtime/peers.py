"""The links of this process: one to each peer, whoever dialled.

Either side may dial. If both do at once, the link that the lower id dials is kept and the other hello is refused. A
process that does not listen (a driver) is asked through the node to dial.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from actorrt.exceptions import LinkError
from actorrt.wire.messages import DialMe, Hello

from .link import Link, Receiver
from .socket_paths import remove_socket, socket_path
from .transport import Acceptor, Dialler, make_hello

ARRIVAL_TIMEOUT_S: Final = 10.0
_DUPLICATE: Final = "duplicate link"


class Peers:
    """Opens, accepts and keeps links. Runs on the runtime loop."""

    def __init__(self, receiver: Receiver, process: bytes, role: str, session: str, version: str) -> None:
        self.process = process
        self.session = session
        self.links: dict[bytes, Link] = {}
        # Processes that are known to have ended: nobody dials them again.
        self.dead: set[bytes] = set()
        # The node, which finds those who do not listen.
        self.broker: Link | None = None
        self._dialling: dict[bytes, asyncio.Task[Link]] = {}
        # Those of them whose socket is being dialled; others are asked to dial.
        self._ringing: set[bytes] = set()
        self._arrivals: dict[bytes, asyncio.Future[Link]] = {}
        self._hello = make_hello(process, role, version)
        self._dialler = Dialler(receiver, self._hello)
        self._acceptor = Acceptor(receiver, self._hello, self._admit, self._arrived)
        self._listening = False
        self._listen_lock = asyncio.Lock()

    async def listen(self) -> None:
        """Have others able to dial; again: nothing."""
        async with self._listen_lock:
            if not self._listening:
                await self._acceptor.listen(socket_path(self.session, self.process))
                self._listening = True

    def get(self, process: bytes) -> Link | None:
        link = self.links.get(process)
        return None if link is None or link.closed else link

    async def link_to(self, process: bytes) -> Link:
        """The link to `process`, opened if there is none. Raises LinkError if it cannot be reached."""
        link = self.get(process)
        if link is not None:
            return link
        if process in self.dead:
            raise LinkError(f"process {process.hex()} has ended")
        task = self._dialling.get(process)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._open(process))
            self._dialling[process] = task
            task.add_done_callback(lambda done: self._dialled(process, done))
        return await asyncio.shield(task)

    def _dialled(self, process: bytes, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(process, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may wait any more

    async def _open(self, process: bytes) -> Link:
        link = self.get(process)
        if link is not None:
            # It dialled itself in the meantime.
            return link
        path = socket_path(self.session, process)
        if os.path.exists(path):  # noqa: ASYNC240  a look at a local socket takes a microsecond
            return await self.dial(process, path)
        if self.broker is None:
            raise LinkError(f"process {process.hex()} has no socket")
        arrival = self._arrival(process)
        try:
            # A program listens only once it has to reach another one.
            await self.listen()
            await self.broker.ask(DialMe(process))
            async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
                return await asyncio.shield(arrival)
        except TimeoutError:
            raise LinkError(f"process {process.hex()} did not answer") from None
        finally:
            self._drop_arrival(process, arrival)

    async def dial(self, process: bytes, path: str) -> Link:
        """Open a link to the process that listens at `path`; if it dials too, whichever link is kept."""
        arrival = self._arrival(process)
        self._ringing.add(process)
        try:
            try:
                link = await self._dialler.dial(path)
            except LinkError as error:
                if _DUPLICATE not in str(error):
                    raise
                if (arrived := self.get(process)) is not None:
                    return arrived
                async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
                    return await asyncio.shield(arrival)
            self.links[link.peer] = link
            return link
        except TimeoutError:
            raise LinkError(f"process {process.hex()} did not answer") from None
        finally:
            self._ringing.discard(process)
            self._drop_arrival(process, arrival)

    def _arrival(self, process: bytes) -> asyncio.Future[Link]:
        future = self._arrivals.get(process)
        if future is None:
            future = self._arrivals[process] = asyncio.get_running_loop().create_future()
        return future

    def _drop_arrival(self, process: bytes, future: asyncio.Future[Link]) -> None:
        if self._arrivals.get(process) is future:
            del self._arrivals[process]

    def _admit(self, hello: Hello) -> str:
        if self.get(hello.process) is not None:
            return _DUPLICATE
        if hello.process in self._ringing and self.process < hello.process:
            return _DUPLICATE
        return ""

    def _arrived(self, link: Link) -> None:
        self.links[link.peer] = link
        future = self._arrivals.get(link.peer)
        if future is not None and not future.done():
            future.set_result(link)

    def forget(self, link: Link) -> None:
        if self.links.get(link.peer) is link:
            del self.links[link.peer]

    def abandon(self) -> None:
        """Let go of all sockets in a fork of this process, so that its end can be seen by its peers."""
        for link in self.links.values():
            link.abandon()
        self._acceptor.abandon()

    async def close(self) -> None:
        """Close every link with a goodbye, and stop listening."""
        for task in list(self._dialling.values()):
            task.cancel()
        for link in list(self.links.values()):
            link.close()
        if self._listening:
            remove_socket(self.session, self.process)
        await self._acceptor.close()
