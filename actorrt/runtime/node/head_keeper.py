"""A node's own head: watched, and started again when it ends.

So a head that is killed costs the time that the next one takes to start, and nothing else. One that is stopped is
killed by the node's stall watch, and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Final

from actorrt.core.restarts import Restarts
from actorrt.types import ProcessId
from actorrt.wire.link import Ending

from ..base.process_watch import wait_child
from ..base.socket_paths import remove_socket
from ..links.peers import Peers
from ..machine.process import describe_exit, kill_process, process_state, state_in_words
from ..machine.process_tree import NodeStart
from ..machine.respawn import Respawned, spawn_head
from ..machine.stall_watch import STOPPED
from .head_client import HeadClient, HeadParent

# With these codes a head ends that is not to be followed by another one (head_cluster.py).
FENCED: Final = 70
REFUSED: Final = 71
_FINAL: Final = {
    FENCED: "another head of this cluster has taken over the store",
    REFUSED: "it cannot use its store",
}

logger = logging.getLogger("actorrt")

# So long at most there is no head because the last ones have ended one after the other.
LONGEST_PAUSE_S: Final = 1.0


class _Life:
    """One head process, from its start to its end."""

    def __init__(self, child: Respawned) -> None:
        self.pid = child.pid
        self.ended = asyncio.Event()
        self._sock = child.sock
        self._sock.setblocking(False)
        # Done when it can be dialled (True), or has ended before.
        self.listens = asyncio.get_running_loop().create_task(self._listens())

    async def _listens(self) -> bool:
        try:
            return bool(await asyncio.get_running_loop().sock_recv(self._sock, 1))
        except OSError:
            return False

    async def end(self) -> None:
        self.listens.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([self.listens])
        self._sock.close()
        self.ended.set()


class HeadKeeper(HeadClient):
    """Keeps one head for a node, at one address. Runs on the node's loop."""

    def __init__(
        self, parent: HeadParent, peers: Peers, process: ProcessId, start: NodeStart, timeout_s: float
    ) -> None:
        """`timeout_s`: for so long an answer of the head is waited for; 0: without end."""
        super().__init__(parent, peers, process, timeout_s)
        assert start.head is not None
        assert start.head_pid is not None
        self._children = parent.children
        self._driver_pidfd = start.driver_pidfd
        self._restarts = Restarts()
        # Why there is no other head any more.
        self._final = ""
        self._life = _Life(Respawned(start.head_pid, start.head))
        # Set while a process is there, whether it can be dialled or not.
        self._there = asyncio.Event()
        self._there.set()
        parent.children.add(start.head_pid)
        self._keeping = self._loop.create_task(self._keep())

    @property
    def pid(self) -> int | None:
        """The head's process, while there is one."""
        return self._life.pid if self._there.is_set() else None

    async def end(self) -> str:
        """How the head ended, once the one that is there now has; another one takes its place."""
        life = self._life
        await life.ended.wait()
        return f"the head (pid {life.pid}) is gone"

    # ---- its lives

    async def _keep(self) -> None:
        while True:
            life = self._life
            status = await wait_child(life.pid)
            self._there.clear()
            self._children.discard(life.pid)
            link = self._peers.get(self._process)
            if link is not None:
                link.finish(Ending.DIED)
            remove_socket(self._peers.session, self._process)
            await life.end()
            if self._parent.stopping:
                return
            if status is not None and os.WIFEXITED(status) and (why := _FINAL.get(os.WEXITSTATUS(status))):
                self._final = why
                logger.error("the head (pid %d) has ended, and no other one is started: %s", life.pid, why)
                return
            how = "gone" if status is None else describe_exit(status)
            logger.warning("the head (pid %d) has ended (%s): another one is started", life.pid, how)
            child = await self._start()
            self._children.add(child.pid)
            self._life = _Life(child)
            self._there.set()
            # At once, so that it has the names before anybody asks for one.
            self._join_soon()

    async def _start(self) -> Respawned:
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE_S, self._restarts.pause(self._loop.time())))
            try:
                return spawn_head(self._process, self._peers.session, self._driver_pidfd)
            except OSError as error:
                logger.warning("a head cannot be started: %s", error)

    async def close(self, grace_s: float) -> None:
        """End it."""
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await self._stop_asking()
        if not self._there.is_set():
            return
        life = self._life
        ended = self._loop.create_task(wait_child(life.pid))
        # One that is stopped does not hear a request.
        if process_state(life.pid) != STOPPED:
            kill_process(life.pid, signal.SIGTERM)
            await asyncio.wait([ended], timeout=grace_s)
        if not ended.done():
            kill_process(life.pid, signal.SIGKILL)
            await asyncio.wait([ended], timeout=grace_s)
        ended.cancel()
        await life.end()

    # ---- which head (HeadClient)

    async def _may_dial(self) -> bool:
        await self._there.wait()
        listens = self._life.listens
        await asyncio.wait([listens])
        return not listens.cancelled() and listens.result()

    async def _changed(self) -> None:
        await self._life.ended.wait()

    def _state(self) -> str:
        if self._final:
            return self._final
        if not self._there.is_set():
            return "it has ended, and another one could not be started yet"
        return f"its process {self._life.pid} {state_in_words(self._life.pid)}"
