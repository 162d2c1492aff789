"""A node's zygote: watched, and started again when it ends.

Its workers end with it, and are reported like any that were killed: their actors restart and their tasks are repeated
as their options say. One that is stopped is killed by the node's stall watch, and replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from actorrt.core.restarts import Restarts

from .process import process_state, state_in_words
from .process_tree import NodeStart
from .respawn import Respawned, spawn_zygote
from .stall_watch import STOPPED
from .zygote_client import ForkError, ZygoteClient

logger = logging.getLogger("actorrt")

# So long at most nobody can be forked because the last zygotes have ended one after the other.
LONGEST_PAUSE_S: Final = 1.0


class Parent(Protocol):
    """The process that has the zygote. `children` are the pids that it watches."""

    children: set[int]

    @property
    def stopping(self) -> bool:
        """It is ending: no other zygote is started."""
        ...


class ZygoteKeeper:
    """Keeps one zygote for a node. Runs on its loop.

    `on_exit(pid, status, lost)` is called once for each pid that `fork` has returned; `lost` says that its zygote has
    ended, and how, if it was lost with that.
    """

    def __init__(
        self,
        parent: Parent,
        start: NodeStart,
        session: str,
        preload_modules: list[str],
        silence_s: float,
        on_exit: Callable[[int, int, str], None],
    ) -> None:
        """A zygote of which nothing is heard for `silence_s` is reported to who has a worker forked."""
        self._parent = parent
        self._children = parent.children
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._preload_modules = preload_modules
        self._silence_s = silence_s
        self._on_exit = on_exit
        self._restarts = Restarts()
        self._client = self._take(Respawned(start.zygote_pid, start.zygote))
        self._changed = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The zygote's process, while there is one."""
        return None if self._client.lost else self._client.zygote_pid

    def _take(self, child: Respawned) -> ZygoteClient:
        children = self._children
        children.add(child.pid)

        def exited(pid: int, status: int) -> None:
            self._on_exit(pid, status, client.lost)

        client = ZygoteClient(child.sock, child.pid, on_exit=exited, on_lost=self._lost, others=children)
        return client

    # ---- its lives

    def _lost(self, reason: str) -> None:
        self._children.discard(self._client.zygote_pid)
        if not self._parent.stopping:
            logger.warning("%s: its workers are gone, and another one is started", reason)
            self._starting = self._loop.create_task(self._start_again())

    async def _start_again(self) -> None:
        while True:
            pause = min(LONGEST_PAUSE_S, self._restarts.pause(self._loop.time()))
            await asyncio.sleep(pause)
            try:
                child = spawn_zygote(self._session, self._preload_modules)
            except OSError as error:
                logger.warning("a zygote cannot be started: %s", error)
            else:
                self._client = self._take(child)
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
                return

    async def close(self, deadline_s: float) -> None:
        """End the zygote and all its workers; no other is started."""
        if self._starting is not None:
            self._starting.cancel()
        # One that is stopped does not hear a request.
        stopped = process_state(self._client.zygote_pid) == STOPPED
        await self._client.close(0.0 if stopped else deadline_s)

    # ---- workers

    async def fork(
        self, params: bytes, *, stdout_fd: int, stderr_fd: int, env: Mapping[str, str], cwd: str | None
    ) -> int:
        """Have a worker forked, by the next zygote if there is none.

        Raises ForkError, also when nothing has been heard of a zygote for `silence_s`; ZygoteLostError if it ends
        first: what it may have forked, and what others have heard of that, is gone. So the next one is asked for a
        process of another id.
        """
        limit = self._silence_s
        loop = self._loop
        began = loop.time()
        try:
            async with asyncio.timeout(None) as waiting:

                def look() -> None:
                    nonlocal timer
                    # Others may be many: it is its silence that counts.
                    silent = loop.time() - max(began, self._client.heard)
                    if silent >= limit:
                        waiting.reschedule(loop.time())
                    else:
                        timer = loop.call_later(limit - silent, look)

                timer = loop.call_later(limit, look)
                try:
                    return await self._fork(params, stdout_fd, stderr_fd, env, cwd)
                finally:
                    timer.cancel()
        except TimeoutError:
            raise ForkError(
                f"the zygote, which forks workers, has not answered for {limit:g} s: {self._state()}"
            ) from None

    async def _fork(self, params: bytes, stdout: int, stderr: int, env: Mapping[str, str], cwd: str | None) -> int:
        while self._client.lost and not self._parent.stopping:
            await self._changed.wait()
        return await self._client.fork(params, stdout_fd=stdout, stderr_fd=stderr, env=env, cwd=cwd)

    def _state(self) -> str:
        if self._client.lost:
            return f"{self._client.lost}, and another one could not be started yet"
        return f"its process {self._client.zygote_pid} {state_in_words(self._client.zygote_pid)}"

    def kill(self, pid: int) -> None:
        """Kill a worker and all that it has started."""
        self._client.kill(pid)
