"""A node's head: watched, started again when it ends, and asked again when it ends under a question.

The node knows the names that its own processes hold, and tells them to each head that it meets. So a head that is
killed costs the time that the next one takes to start, and nothing else. One that does not answer is waited for as long
as `head_timeout_s`; one that is stopped is killed by the node's stall watch, and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.directory import Directory
from actorrt.core.restarts import Restarts
from actorrt.types import ActorKey, ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import (
    ClaimName,
    DropName,
    FindName,
    JoinNode,
    ListNames,
    NameHolder,
    OwnerEnded,
    Query,
    Survey,
)

from ..base.process_watch import wait_child
from ..base.socket_paths import remove_socket
from ..links.link import Link
from ..links.peers import Peers
from ..machine.process import describe_exit, kill_process, process_state, state_in_words
from ..machine.process_tree import NodeStart
from ..machine.respawn import Respawned, spawn_head
from ..machine.stall_watch import STOPPED

logger = logging.getLogger("actorrt")

# So long at most there is no head because the last ones have ended one after the other.
LONGEST_PAUSE_S: Final = 1.0
# How soon a head that lives and could not be reached is dialled again.
DIAL_AGAIN_S: Final = 0.2


HeadQuestion = ClaimName | FindName | ListNames | Query | Survey


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


class HeadParent(Protocol):
    """The node that has the head. `children` are the pids that it watches."""

    children: set[int]

    @property
    def stopping(self) -> bool: ...
    def description(self) -> dict[str, Any]:
        """What the head is to know of it."""
        ...


class HeadKeeper:
    """Keeps one head for a node, at one address, and is the only one to talk to it. Runs on the node's loop."""

    def __init__(
        self, parent: HeadParent, peers: Peers, process: ProcessId, start: NodeStart, timeout_s: float
    ) -> None:
        """`timeout_s`: for so long an answer of the head is waited for; 0: without end."""
        assert start.head is not None
        assert start.head_pid is not None
        self._parent = parent
        self._children = parent.children
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._timeout_s = timeout_s
        self._driver_pidfd = start.driver_pidfd
        # What the processes of this node hold, as far as a head has granted it.
        self.names = Directory()
        self._restarts = Restarts()
        self._life = _Life(Respawned(start.head_pid, start.head))
        # Set while a process is there, whether it can be dialled or not.
        self._there = asyncio.Event()
        self._there.set()
        self._joining: asyncio.Task[Link] | None = None
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
        if self._joining is not None:
            self._joining.cancel()
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

    # ---- the way to it

    async def _link(self) -> Link:
        """The link to the head, once there is one that has been told what this node holds."""
        link = self._peers.get(self._process)
        if link is not None and self._joining is None:
            return link
        return await asyncio.shield(self._join_soon())

    def _join_soon(self) -> asyncio.Task[Link]:
        task = self._joining
        if task is None:
            task = self._joining = self._loop.create_task(self._join())
            task.add_done_callback(self._joined)
        return task

    def _joined(self, task: asyncio.Task[Link]) -> None:
        self._joining = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the head could not be joined", exc_info=error)

    async def _join(self) -> Link:
        while True:
            await self._there.wait()
            life = self._life
            await asyncio.wait([life.listens])
            if not life.listens.cancelled() and life.listens.result():
                try:
                    link = await self._peers.link_to(self._process)
                    names: list[tuple[str, str, bytes, bytes]] = list(self.names.held())
                    await link.ask(JoinNode(self._peers.process, self._parent.description(), names))
                except exceptions.LinkError as error:
                    logger.info("the head (pid %d) could not be reached: %s", life.pid, error)
                else:
                    return link
            # It has ended, which is seen in a moment; or it lives and does not answer yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DIAL_AGAIN_S):
                    await life.ended.wait()

    def _tell(self, message: DropName | OwnerEnded) -> None:
        joining = self._joining
        if joining is not None:
            # What it is being told of may be this very name.
            joining.add_done_callback(lambda _: self._tell(message))
            return
        link = self._peers.get(self._process)
        if link is not None:
            link.send(message)
        # Otherwise there is nothing to correct: whichever head is joined next is told what is held then.

    # ---- questions

    async def ask(self, question: HeadQuestion) -> Any:
        """The answer of the head, or of the next one if it ends first. Raises HeadUnavailableError."""
        limit = self._timeout_s
        try:
            async with asyncio.timeout(limit or None):
                while True:
                    link = await self._link()
                    try:
                        return await link.ask(question)
                    except exceptions.LinkError:
                        if not link.closed:
                            raise
        except TimeoutError:
            raise exceptions.HeadUnavailableError(_in_words(question), limit, self._state()) from None

    def _state(self) -> str:
        if not self._there.is_set():
            return "it has ended, and another one could not be started yet"
        return f"its process {self._life.pid} {state_in_words(self._life.pid)}"

    # ---- names

    async def claim(self, claim: ClaimName) -> NameHolder:
        """Have the head give a name to an actor. Raises HeadUnavailableError; whoever is cancelled holds no name."""
        task = self._loop.create_task(self._claim(claim))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # It goes on, since the head may have granted the claim already; then the name is given back.
            task.add_done_callback(lambda done: self._give_back(claim, done))
            raise

    async def _claim(self, claim: ClaimName) -> NameHolder:
        try:
            holder: NameHolder = await self.ask(claim)
        except BaseException:
            self.drop(claim.name, claim.namespace, claim.actor)
            raise
        if holder.yours:
            self.names.claim(claim.namespace, claim.name, claim.actor, claim.info)
        return holder

    def _give_back(self, claim: ClaimName, done: asyncio.Task[NameHolder]) -> None:
        if not done.cancelled() and done.exception() is None and done.result().yours:
            self.drop(claim.name, claim.namespace, claim.actor)

    def drop(self, name: str, namespace: str, actor: ActorKey) -> None:
        """Free a name, if it is still that actor's."""
        self.names.drop(namespace, name, actor)
        self._tell(DropName(name, namespace, actor))

    def drop_owner(self, owner: ProcessId) -> None:
        """A process of this node has ended: the names of the actors that it owned are free."""
        self.names.drop_owner(owner)
        self._tell(OwnerEnded(owner))


def _in_words(question: HeadQuestion) -> str:
    match question:
        case ClaimName():
            return f"whether an actor may be named {question.name!r}"
        case FindName():
            return f"who is named {question.name!r}"
        case ListNames():
            return "which names there are"
        case Query():
            return f"about its {question.what}"
        case Survey():
            return f"about its {question.what}"
