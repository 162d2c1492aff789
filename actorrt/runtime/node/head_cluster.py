"""The head of a cluster of several machines: it has a store, knows which nodes live, and outlives all of them.

Loaded by heads of such clusters alone (head.py): a session that a program starts for itself needs none of this.
What it answers is in the store by then. A node is heard each second, and given up as core/membership.py says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import uvloop

from actorrt import exceptions
from actorrt.core.directory import Directory, Held, Holder
from actorrt.core.durable import StoreRefusedError, VersionConflictError, key_of, key_parts
from actorrt.core.membership import (
    LOOK_S,
    Action,
    AskWitness,
    Buried,
    Cleared,
    Membership,
    State,
    Suspected,
    TellDead,
)
from actorrt.core.roll_call import Listed, Member, patience
from actorrt.core.survey import nodes_told
from actorrt.types import ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import (
    AnswerBody,
    AnyMessage,
    Done,
    Entries,
    Exit,
    Facts,
    JoinNode,
    ListEntries,
    NodeEnded,
    NodeStopping,
    Ping,
    PutEntry,
    Query,
    Question,
    Reaches,
    Scope,
    Survey,
)

from ..links.link import Link
from ..machine.process_tree import HeadStart
from . import roll
from .head import Head, serve
from .head_keeper import FENCED, REFUSED
from .head_store import HeadStore, take_store

logger = logging.getLogger("actorrt")

# Kinds of entries.
NAME: Final = "name"
# The process id of the head, which the next one has too: nodes and links know it by that.
HEAD_KEY: Final = "cluster/head"
WRITER_BYTES: Final = 8
# What a node tells of itself that the head reads, in JoinNode.info.
MACHINE: Final = "Machine"
BEFORE: Final = "Before"
CLOSE_S: Final = 1.0
_GIVEN_UP: Final = "its cluster has given this node up (%s)"


def machine_id() -> str:
    """This machine, for nodes that ask whether another one is on it; containers are machines of their own."""
    return os.uname().nodename


class ClusterHead(Head):
    """A head whose answers are in its store."""

    def __init__(self, process: ProcessId, session: str, store: HeadStore) -> None:
        super().__init__(process, session)
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._durable = store.durable
        self.directory = Directory(_names_in(store))
        self.membership = Membership(machine_id(), self._loop.time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = self._loop.create_task(self._look())
        # Another head has the store: nothing is answered any more, and this one ends.
        store.fenced.add_done_callback(lambda _: self.stopped.set())

    # ---- what nodes say

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        super().receive(link, messages)
        self._keep_names()
        self._heard(link)

    async def answer(self, link: Link, question: Question) -> AnswerBody:
        self._heard(link)
        match question:
            case Ping():
                return Done()
            case JoinNode():
                return await self._join(link, question)
            case PutEntry():
                return await self._put(question)
            case ListEntries():
                await self._store.settled()
                listed = self._durable.listed(question.prefix)
                return Entries([(key, entry.version, entry.value) for key, entry in listed])
            case Survey(scope=Scope.CLUSTER):
                return Facts({"nodes": await self._survey(link.peer, question)})
            case Query(what="nodes"):
                return Facts([self._described(node) for node in self.membership])
            case _:
                pass
        answer = await super().answer(link, question)
        if not isinstance(question, Query | Survey):
            self._keep_names()
            await self._store.settled()
        return answer

    def link_lost(self, link: Link) -> None:
        if link.role != "node":
            return
        now = self._loop.time()
        match link.closed:
            case Ending.GOODBYE:
                self._perform(self.membership.leaves(link.peer, now))
            case Ending.DIED:
                self._perform(self.membership.gone(link.peer, "its process has ended", now))
            case _:
                self._perform(self.membership.link_broke(link.peer, now))

    # ---- nodes

    async def _join(self, link: Link, question: JoinNode) -> AnswerBody:
        info = question.info
        before = ProcessId(bytes.fromhex(info.get(BEFORE, ""))) or None
        machine = info.get(MACHINE, "")
        takes, actions = self.membership.join(question.node, machine, self._loop.time(), before)
        self._perform(tuple(action for action in actions if not isinstance(action, TellDead)))
        if not takes:
            standing = self.membership.standing(question.node)
            return Exit(_GIVEN_UP % ("" if standing is None else standing.cause))
        self.directory.join(question.node, info, map(Held._make, question.names))
        self._keep_names()
        await self._store.settled()
        return Done()

    def _heard(self, link: Link) -> None:
        if link.role == "node":
            self._perform(self.membership.heard(link.peer, self._loop.time()))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._perform(self.membership.look(self._loop.time()))

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Suspected():
                    logger.warning("node %s is not heard: it is suspected", action.node.hex())
                case Cleared():
                    logger.warning("node %s is heard again", action.node.hex())
                case Buried():
                    self._bury(action)
                case TellDead():
                    self._tell_dead(action.node)
                case AskWitness():
                    self._spawn(self._ask(action))

    def _bury(self, burial: Buried) -> None:
        logger.warning("node %s is gone: %s", burial.node.hex(), burial.cause)
        self.directory.leave(burial.node)
        self._keep_names()
        for node in self.membership:
            if (link := self.peers.get(node)) is not None:
                link.send(NodeEnded(burial.node, burial.cause))

    def _tell_dead(self, node: ProcessId) -> None:
        standing, link = self.membership.standing(node), self.peers.get(node)
        if standing is not None and link is not None:
            link.send(NodeStopping(_GIVEN_UP % standing.cause))

    async def _ask(self, question: AskWitness) -> None:
        link = self.peers.get(question.witness)
        if link is None:
            return
        try:
            answer: Facts = await link.ask(Reaches(question.about))
        except exceptions.ActorrtError as error:
            logger.info("node %s does not say whether it reaches another one: %s", question.witness.hex(), error)
            return
        now = self._loop.time()
        self._perform(self.membership.answered(question.witness, question.about, bool(answer.data), now))

    async def _survey(self, asker: ProcessId, survey: Survey) -> list[dict[str, Any]]:
        """What all nodes but the asker have of a kind, which asks its own processes itself."""
        answer_s = patience(survey.timeout_s)
        question = msgspec.structs.replace(survey, scope=Scope.NODE, timeout_s=answer_s)
        nodes = [Listed(Member(node, "node", 0)) for node in self.membership if node != asker]
        return nodes_told(await roll.call(nodes, lambda one: self._ask_node(one, question), answer_s))

    async def _ask_node(self, node: Member, question: Survey) -> Facts:
        link = self.peers.get(node.process)
        if link is None:
            raise exceptions.LinkError("the head has no link to it")
        return await link.ask(question)

    def _described(self, node: ProcessId) -> dict[str, Any]:
        standing = self.membership.standing(node)
        is_heard = standing is not None and standing.state is State.JOINED
        return {**self.directory.nodes.get(node, {}), "State": "joined" if is_heard else "suspected"}

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what is kept

    def _keep_names(self) -> None:
        changes = self.directory.take_changes()
        for (space, name), holder in changes.items():
            key = key_of(NAME, space, name)
            if holder is None:
                self._durable.drop(key)
            else:
                self._durable.put(key, msgspec.msgpack.encode(holder))
        if changes:
            self._store.write_soon()

    async def _put(self, question: PutEntry) -> Entries:
        key, expected = question.key, None if question.expected < 0 else question.expected
        done = True
        try:
            if question.value is None:
                self._durable.drop(key, expected)
            else:
                self._durable.put(key, question.value, expected)
        except VersionConflictError:
            done = False
        entry = self._durable.get(key)
        found = [] if entry is None else [(key, entry.version, entry.value)]
        await self._store.settled()
        return Entries(found, done)

    async def close(self) -> None:
        self._looking.cancel()
        for task in self._tasks:
            task.cancel()
        if not self._store.fenced.done():
            await self._store.close(CLOSE_S)


def _names_in(store: HeadStore) -> dict[tuple[str, str], Holder]:
    names: dict[tuple[str, str], Holder] = {}
    for key, entry in store.durable.listed(f"{NAME}/"):
        _, space, name = key_parts(key)
        names[space, name] = msgspec.msgpack.decode(entry.value, type=Holder)
    return names


async def _serve_cluster(process: ProcessId, session: str, start: HeadStart, address: str, cluster: str) -> int:
    try:
        store = await take_store(address, cluster, os.urandom(WRITER_BYTES).hex())
    except StoreRefusedError as error:
        logger.error("%s", error)
        return REFUSED
    store.durable.put(HEAD_KEY, process)
    head = ClusterHead(process, session, store)
    try:
        await serve(head, start)
    finally:
        await head.close()
    if not store.fenced.done():
        return 0
    logger.error("another head of cluster %r has taken over the store: this one ends", cluster)
    return FENCED


def cluster_head_main(process: ProcessId, session: str, start: HeadStart, address: str, cluster: str) -> None:
    """Run the head until it is told to stop, or another one takes over its store."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(uvloop.run(_serve_cluster(process, session, start, address, cluster)))
