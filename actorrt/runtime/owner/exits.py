"""Why a process ended, as its node knows it, for those who have lost their link to it."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.types import ProcessId
from actorrt.wire.messages import Exit, ExitOf

from ..links.link import Link
from ..links.peers import Peers
from .membership import Membership

EXIT_CAUSE_TIMEOUT_S: Final = 5.0
# A process that ends closes its links a little before its node knows.
ENDING_S: Final = 0.1

_LINK_GONE: Final = "its link is gone"


class Surroundings(Protocol):
    """What is asked of the process that wants to know."""

    @property
    def node(self) -> Link: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def peers(self) -> Peers: ...


class Exits:
    """Asks the node about processes that ended; runs on the runtime loop."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        # Why the node ended, if it said so.
        self.node_end = ""

    @property
    def _node(self) -> Link | None:
        """The link to the node that has taken this process in; None before."""
        try:
            return self._process.node
        except exceptions.LinkError:
            return None

    @property
    def node_is_gone(self) -> bool:
        """Whether this process had a node and has it no more."""
        node = self._node
        return node is not None and bool(node.closed)

    async def cause(self, process: ProcessId) -> tuple[str, bool]:
        """Why a process ended, as its node knows it; and whether memory ran out."""
        known = await self.exit_of(process)
        return known.cause, known.oom

    async def exit_of(self, process: ProcessId) -> Exit:
        """The same, with the last task that it had begun. Its link is gone: the node is not waited for long, and not
        at all once the process answers a new dial.
        """
        loop = asyncio.get_running_loop()
        ways = [loop.create_task(self.end_of(process)), loop.create_task(self._answer_of(process))]
        try:
            async with asyncio.timeout(EXIT_CAUSE_TIMEOUT_S):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            return next(way.result() for way in ways if way.done())
        except TimeoutError:
            return Exit(_LINK_GONE, known=False)
        finally:
            for way in ways:
                way.cancel()

    async def _answer_of(self, process: ProcessId) -> Exit:
        """What to say of a process whose link is gone, when it answers a dial; of one that ends, what its node says."""
        await asyncio.sleep(ENDING_S)
        try:
            await self._process.peers.link_to(process)
        except exceptions.LinkError:
            return await self.end_of(process)
        return Exit(_LINK_GONE, known=False)

    async def end_of(self, process: ProcessId) -> Exit:
        """Wait until a process has ended, as its node knows it; one that it does not know is not waited for."""
        node = self._node
        if node is None:
            return Exit("this process has not joined its session", known=False)
        if process == node.peer or node.closed:
            return Exit(self.node_end or "the node ended")
        try:
            known: Exit = await node.ask(ExitOf(process))
        except exceptions.LinkError:
            return Exit(self.node_end or "the node ended")
        if known.known:
            self._process.peers.dead.add(process)
        return known

    def node_ends(self, reason: str) -> None:
        """The node says why it is about to end."""
        self.node_end = reason

    def node_died(self) -> exceptions.NodeDiedError:
        """What to raise where the node is needed and gone."""
        return exceptions.NodeDiedError(self._process.membership.node_id.hex(), self.node_end or "its process is gone")
