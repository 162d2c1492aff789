"""The head: a process of its own that keeps the directory. Nodes ask it; it asks nobody.

What it knows it has from them: one that takes the place of another is told all again (head_keeper.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from importlib import import_module
from typing import Any, Final

import uvloop

from actorrt import exceptions
from actorrt.core.directory import Directory, Held, Statistics
from actorrt.core.roll_call import plain
from actorrt.types import NO_ACTOR_KEY, ProcessId
from actorrt.version import __version__
from actorrt.wire.messages import (
    AnswerBody,
    AnyMessage,
    ClaimName,
    Done,
    DropName,
    Facts,
    FindName,
    JoinNode,
    ListNames,
    NameHolder,
    Names,
    OwnerEnded,
    Ping,
    Query,
    Question,
    Survey,
    Unreadable,
)

from ..base.process_watch import watch_pidfd
from ..base.table_sizes import table_sizes
from ..links.link import Link
from ..links.peers import Peers
from ..machine.process_tree import HeadStart

# What the head tells its node once it can be dialled.
LISTENS: Final = b"+"

logger = logging.getLogger("actorrt")


class Head:
    """The receiver of the head's links."""

    def __init__(self, process: ProcessId, session: str) -> None:
        self.directory = Directory()
        self.peers = Peers(self, process, "head", session, __version__)
        self.stopped = asyncio.Event()

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        for message in messages:
            if isinstance(message, DropName):
                self.directory.drop(message.namespace, message.name, message.actor)
            elif isinstance(message, OwnerEnded):
                self.directory.drop_owner(message.owner)
            else:
                logger.warning("%r sent the head %r", link, message)

    async def answer(self, link: Link, question: Question) -> AnswerBody:
        directory = self.directory
        match question:
            case ClaimName():
                space, name, actor = question.namespace, question.name, question.actor
                holder, yours = directory.claim(space, name, actor, question.info, link.peer)
                return NameHolder(holder.actor, holder.info, yours)
            case FindName():
                found = directory.find(question.namespace, question.name)
                return NameHolder(NO_ACTOR_KEY) if found is None else NameHolder(found.actor, found.info)
            case ListNames():
                return Names(directory.names(question.namespace))
            case JoinNode():
                directory.join(question.node, question.info, map(Held._make, question.names))
                return Done()
            case Query():
                if question.what == "tables":
                    return Facts({"Directory.names": len(directory), **table_sizes(self, directory, self.peers, link)})
                if question.what == "statistics":
                    return Facts({"directory": plain(self.statistics()), "peers": plain(self.peers.statistics())})
                return Facts(list(directory.nodes.values()))
            case Survey(what="stacks"):
                # Loaded once it is asked, which seldom happens.
                thread_stacks: Any = import_module("actorrt.runtime.base.thread_stacks")
                return Facts(thread_stacks.stacks_here())
            case Ping():
                return Done()
            case _:
                raise exceptions.ActorrtError(f"the head does not answer {type(question).__name__}")

    def statistics(self) -> Statistics:
        return self.directory.statistics()

    def unwanted(self, link: Link, body: AnswerBody) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None:
        logger.error("a %s for %r cannot be sent: %s", type(message).__name__, link, why)

    def unreadable(self, link: Link, message: Unreadable) -> None:
        logger.error("%r sent what cannot be read: %s", link, message.why)

    def link_lost(self, link: Link) -> None:
        """Its node tells the head all again, once it dials anew."""


async def serve(head: Head, start: HeadStart) -> None:
    """Answer nodes until the head is told to stop, or its driver ends."""
    await head.peers.listen()
    try:
        await _until_the_end(head, start)
    finally:
        # It removes the socket too: a node that has ended does not look again.
        await head.peers.close()


async def _until_the_end(head: Head, start: HeadStart) -> None:
    try:
        start.node.send(LISTENS)
    except OSError:
        # The node was gone before anybody could have reached this head.
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, head.stopped.set)
    waiting: list[asyncio.Future[Any]] = [loop.create_task(head.stopped.wait())]
    if start.driver_pidfd is not None:
        waiting.append(watch_pidfd(start.driver_pidfd))
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()


async def _serve_session(process: ProcessId, session: str, start: HeadStart) -> None:
    await serve(Head(process, session), start)


def head_main(process: ProcessId, session: str, start: HeadStart) -> None:
    """Run the head until it is told to stop, or its driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve_session(process, session, start))
