"""The way of a node to its head: joined, asked again when it ends under a question, and told what the node holds.

The node knows the names that its own processes hold, and tells them to each head that it meets. So a head that ends
costs the time until the next one is there, and nothing else. One that does not answer is waited for as long as
`head_timeout_s`. Which head that is, and when there is one, is for head_keeper.py (it is this node's to keep) or
far_head.py (it is another's) to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.directory import Directory
from actorrt.types import ActorKey, Address, ProcessId
from actorrt.wire.messages import (
    ClaimName,
    DropName,
    Exit,
    FindName,
    JoinNode,
    KeepActor,
    ListEntries,
    ListNames,
    NameHolder,
    OwnerEnded,
    Ping,
    PutEntry,
    Query,
    Survey,
)

from ..links.link import Link
from ..links.peers import Peers

logger = logging.getLogger("actorrt")

# How soon a head that lives and could not be reached is dialled again.
DIAL_AGAIN_S: Final = 0.2

# How often the head of a cluster hears its nodes.
BEAT_S: Final = 1.0

HeadQuestion = ClaimName | FindName | ListNames | Query | Survey | KeepActor | PutEntry | ListEntries


class HeadParent(Protocol):
    """The node that has the head. `children` are the pids that it watches."""

    children: set[int]

    @property
    def stopping(self) -> bool: ...
    def description(self) -> dict[str, Any]:
        """What the head is to know of it."""
        ...

    def given_up(self, cause: str) -> None:
        """Its cluster holds it for dead."""
        ...


class HeadClient:
    """Asks the head of a node, and is the only one of the node to talk to it. Runs on the node's loop."""

    # Where the head is, if not on this machine; what it is in words, for who has asked in vain.
    address: Address | None = None

    def __init__(self, parent: HeadParent, peers: Peers, process: ProcessId, timeout_s: float) -> None:
        """`timeout_s`: for so long an answer of the head is waited for; 0: without end."""
        self._parent = parent
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._timeout_s = timeout_s
        # What the processes of this node hold, as far as a head has granted it.
        self.names = Directory()
        self._joining: asyncio.Task[Link] | None = None
        self._beating: asyncio.Task[None] | None = None

    # ---- which head

    async def _may_dial(self) -> bool:
        """Wait until there is a head; False: it has ended meanwhile, or is about to."""
        raise NotImplementedError

    async def _changed(self) -> None:
        """Wait for the end of the head that there is."""
        raise NotImplementedError

    def _state(self) -> str:
        """How the head stands, in words."""
        raise NotImplementedError

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
            if await self._may_dial():
                try:
                    link = await self._peers.link_to(self._process, self.address)
                    names: list[tuple[str, str, bytes, bytes]] = list(self.names.held())
                    answer = await link.ask(JoinNode(self._peers.process, self._parent.description(), names))
                except exceptions.LinkError as error:
                    logger.info("the head could not be reached: %s", error)
                else:
                    if isinstance(answer, Exit):
                        self._parent.given_up(answer.cause)
                    return link
            # It has ended, which is seen in a moment; or it lives and does not answer yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DIAL_AGAIN_S):
                    await self._changed()

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

    def beat(self) -> None:
        """Be heard by the head each second, from now on: it keeps a list of the nodes that live."""
        self._beating = self._loop.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(exceptions.ActorrtError):
                link = await self._link()
                await link.ask(Ping())
            await asyncio.sleep(BEAT_S)

    async def _stop_asking(self) -> None:
        for task in (self._joining, self._beating):
            if task is not None:
                task.cancel()

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

    def hold(self, name: str, namespace: str, actor: ActorKey, info: bytes) -> None:
        """An actor of this node has a name, which the head knows."""
        self.names.claim(namespace, name, actor, info)

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
        case Query() | Survey():
            return f"about its {question.what}"
        case KeepActor():
            return "to keep a detached actor"
        case PutEntry():
            return f"to keep {question.key!r}"
        case ListEntries():
            return f"what it keeps of {question.prefix!r}"
