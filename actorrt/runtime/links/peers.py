"""The links of this process: one to each peer, whoever dialled.

Either side may dial. If both do at once, the link that the lower id dials is kept and the other hello is refused. A
process that does not listen (a driver) is asked through the node to dial.

Only the node knows that a process has ended. One that does not answer may be stopped, swapped out, or in C code that
keeps the GIL: it is dialled again until it answers, or the node says that it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

from actorrt.core.recent import RecentSet
from actorrt.exceptions import LinkError
from actorrt.types import Address, ProcessId
from actorrt.wire.addresses import unix_address
from actorrt.wire.messages import DialMe, Hello, Question

from ..base.socket_paths import path_of, remove_socket, socket_path
from .link import Link, Receiver
from .transport import HELLO_TIMEOUT_S, Acceptor, Dialler, NoAnswerError, RefusedError, make_hello

logger = logging.getLogger("actorrt")

# A dial that takes longer than this has the node asked whether the process has ended.
DOUBT_S: Final = 0.2
# The pause before it is dialled again, at first and at most.
PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
# Of one that ended before those, the node says so when it is dialled.
DEAD_REMEMBERED: Final = 4096
_DUPLICATE: Final = "duplicate link"
_NO_ANSWER: Final = (
    "process %s has not answered for %.0f s, and its node says that it lives: it is stopped, swapped out, or runs code "
    "that keeps the GIL; it is dialled again"
)
_NODE_DOES_NOT_ANSWER: Final = (
    "the node (process %s) has not answered for %.0f s: it is stopped, or the machine is too busy; it is dialled again"
)


class Peers:
    """Opens, accepts and keeps links. Runs on the runtime loop."""

    def __init__(
        self,
        receiver: Receiver,
        process: ProcessId,
        role: str,
        session: str,
        version: str,
        dial_timeout_s: float = HELLO_TIMEOUT_S,
    ) -> None:
        self.process = process
        self.session = session
        self.links: dict[ProcessId, Link] = {}
        # Processes that are known to have ended: nobody dials them again.
        self.dead: RecentSet[ProcessId] = RecentSet(DEAD_REMEMBERED)
        # The node, which finds those who do not listen.
        self.broker: Link | None = None
        # Waits until a process has ended, as the node knows it; says why. Without it, one failed dial is the end.
        self.end_of: Callable[[ProcessId], Coroutine[Any, Any, str]] | None = None
        self._dial_timeout_s = dial_timeout_s
        self._dialling: dict[ProcessId, asyncio.Task[Link]] = {}
        # Those of them whose socket is being dialled; others are asked to dial.
        self._ringing: set[ProcessId] = set()
        self._arrivals: dict[ProcessId, asyncio.Future[Link]] = {}
        self._hello = make_hello(process, role, version)
        self._dialler = Dialler(receiver, self._hello, dial_timeout_s)
        self._acceptor = Acceptor(receiver, self._hello, self._admit, self._arrived)
        self._listening = False
        self._listen_lock = asyncio.Lock()

    async def listen(self) -> None:
        """Have others able to dial; again: nothing."""
        async with self._listen_lock:
            if not self._listening:
                await self._acceptor.listen(socket_path(self.session, self.process))
                self._listening = True

    def get(self, process: ProcessId) -> Link | None:
        link = self.links.get(process)
        return None if link is None or link.closed else link

    async def link_to(self, process: ProcessId, address: Address | None = None) -> Link:
        """The link to `process`, opened if there is none. Raises LinkError once its node says that it has ended.

        Until then it waits, however long the process takes to answer. Without an address it is looked for on the node
        of this process.
        """
        link = self.get(process)
        if link is not None:
            return link
        if process in self.dead:
            raise LinkError(f"process {process.hex()} has ended")
        task = self._dialling.get(process)
        if task is None:
            try:
                path = path_of(self.session, address or unix_address(process))
            except ValueError as error:
                raise LinkError(f"process {process.hex()} cannot be reached: {error}") from None
            task = asyncio.get_running_loop().create_task(self._open(process, path))
            self._dialling[process] = task
            task.add_done_callback(lambda done: self._dialled(process, done))
        return await asyncio.shield(task)

    async def ask(self, process: ProcessId, question: Question) -> Any:
        """The answer of `process`, asked again over a new link if one ends. LinkError: it has ended.

        For questions that may be asked twice. Raises what it is refused with.
        """
        while True:
            link = await self.link_to(process)
            try:
                return await link.ask(question)
            except LinkError:
                if not link.closed:
                    # A refusal.
                    raise

    def _dialled(self, process: ProcessId, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(process, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may wait any more

    async def _open(self, process: ProcessId, path: str) -> Link:
        """Dial until the process answers, or its node says that it has ended."""
        if self.end_of is None:
            return await self._reach(process, path)
        loop = asyncio.get_running_loop()
        began = told = loop.time()
        pause_s = PAUSE_S
        doubt = asyncio.Event()
        end = loop.create_task(_end_in_doubt(self.end_of, process, doubt))
        try:
            while True:
                if (link := await self._try(process, path, end)) is not None:
                    return link
                doubt.set()
                await asyncio.wait((end,), timeout=pause_s)
                if end.done():
                    raise LinkError(f"process {process.hex()} has ended: {end.result()}")
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                if loop.time() - told >= self._dial_timeout_s:
                    told = loop.time()
                    logger.warning(_NO_ANSWER, process.hex(), told - began)
        finally:
            end.cancel()

    async def dial_node(self, node: ProcessId) -> Link:
        """Open a link to the node; a node that listens lives, however long it is stopped or swapped out.

        Raises LinkError if it does not listen.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                return await self.dial(node, socket_path(self.session, node))
            except NoAnswerError:
                logger.warning(_NODE_DOES_NOT_ANSWER, node.hex(), loop.time() - began)

    async def _try(self, process: ProcessId, path: str, end: asyncio.Task[str]) -> Link | None:
        """One attempt, until `end`; None if it fails. Raises RefusedError."""
        attempt = asyncio.get_running_loop().create_task(self._reach(process, path))
        try:
            await asyncio.wait((attempt, end), return_when=asyncio.FIRST_COMPLETED)
            return attempt.result() if attempt.done() else None
        except RefusedError:
            raise
        except LinkError:
            return None
        finally:
            attempt.cancel()

    async def _reach(self, process: ProcessId, path: str) -> Link:
        """One attempt. Raises LinkError if it fails."""
        link = self.get(process)
        if link is not None:
            # It dialled itself in the meantime.
            return link
        if os.path.exists(path):  # noqa: ASYNC240  a look at a local socket takes a microsecond
            return await self.dial(process, path)
        if self.broker is None:
            raise LinkError(f"process {process.hex()} has no socket")
        arrival = self._arrival(process)
        try:
            # A program listens only once it has to reach another one.
            await self.listen()
            await self.broker.ask(DialMe(process))
            async with asyncio.timeout(self._dial_timeout_s):
                return await asyncio.shield(arrival)
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, as it was asked to") from None
        finally:
            self._drop_arrival(process, arrival)

    async def dial(self, process: ProcessId, path: str) -> Link:
        """Open a link to the process that listens at `path`; if it dials too, whichever link is kept.

        One attempt. Raises LinkError if it fails: NoAnswerError, RefusedError, or that nobody listens.
        """
        arrival = self._arrival(process)
        self._ringing.add(process)
        try:
            try:
                link = await self._dialler.dial(path)
            except RefusedError as error:
                if _DUPLICATE not in str(error):
                    raise
                if (arrived := self.get(process)) is not None:
                    return arrived
                async with asyncio.timeout(LONGEST_PAUSE_S):
                    return await asyncio.shield(arrival)
            self.links[link.peer] = link
            return link
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, though it said so") from None
        finally:
            self._ringing.discard(process)
            self._drop_arrival(process, arrival)

    def _arrival(self, process: ProcessId) -> asyncio.Future[Link]:
        future = self._arrivals.get(process)
        if future is None:
            future = self._arrivals[process] = asyncio.get_running_loop().create_future()
        return future

    def _drop_arrival(self, process: ProcessId, future: asyncio.Future[Link]) -> None:
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


async def _end_in_doubt(
    end_of: Callable[[ProcessId], Coroutine[Any, Any, str]], process: ProcessId, doubt: asyncio.Event
) -> str:
    """Ask for the end of a process only where there is a reason: a dial has failed, or takes long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DOUBT_S):
            await doubt.wait()
    return await end_of(process)
