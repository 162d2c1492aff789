"""The head of a cluster that this node has joined: another node keeps it, and here it is dialled until it answers."""

from __future__ import annotations

import asyncio

from actorrt.types import Address, ProcessId

from ..base.socket_paths import remove_socket
from ..links.peers import Peers
from .head_client import HeadClient, HeadParent


class FarHead(HeadClient):
    """Asks the head at `address`. Runs on the node's loop."""

    # The pid of no process of this node.
    pid = None

    def __init__(
        self, parent: HeadParent, peers: Peers, process: ProcessId, address: Address | None, timeout_s: float
    ) -> None:
        super().__init__(parent, peers, process, timeout_s)
        self.address = address

    async def _may_dial(self) -> bool:
        return True

    async def _changed(self) -> None:
        await asyncio.Event().wait()

    def _state(self) -> str:
        if self._peers.get(self._process) is None:
            return "it cannot be reached, and is dialled again"
        return "it does not answer, or its store does not"

    async def end(self) -> str:
        """Nobody here hears of its end: it may be started again at any time, and is waited for."""
        await asyncio.Event().wait()
        return ""

    async def close(self, grace_s: float) -> None:
        """Leave it."""
        await self._stop_asking()
        remove_socket(self._peers.session, self._process)
