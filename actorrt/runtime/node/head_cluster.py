"""The head of a cluster of several machines: it has a store, knows which nodes live, and outlives all of them.

Loaded by heads of such clusters alone (head.py): a session that a program starts for itself needs none of this.
What it answers is in the store by then. A node is heard each second, and given up as core/membership.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from actorrt.core.kept_actors import KeptActors, Placed
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
from actorrt.types import ActorKey, ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import (
    AdoptActor,
    AnswerBody,
    AnyMessage,
    ClaimName,
    Done,
    Entries,
    Exit,
    Facts,
    FindName,
    JoinNode,
    KeepActor,
    KeptActor,
    KillActor,
    ListEntries,
    NameHolder,
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

from ..base.socket_paths import reachable, socket_path
from ..links.link import Link
from ..machine.process_tree import HeadStart
from . import roll
from .head import Head, serve
from .head_keeper import FENCED, REFUSED
from .head_store import HeadStore, take_store

logger = logging.getLogger("actorrt")

# Kinds of entries.
NAME: Final = "name"
NODE: Final = "node"
ACTOR: Final = "actor"
# The process id of the head, which the next one has too: nodes and links know it by that.
HEAD_KEY: Final = "cluster/head"
WRITER_BYTES: Final = 8
# What a node tells of itself that the head reads, in JoinNode.info.
MACHINE: Final = "Machine"
BEFORE: Final = "Before"
ADOPTED: Final = "Adopted"
SESSION: Final = "Session"
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
        nodes = _nodes_in(store)
        for node, info in nodes.items():
            # Until it joins anew it is one that was heard last: it is dead as any other, by silence or its machine.
            self.directory.nodes[node] = info
            self.membership.join(node, info.get(MACHINE, ""), self._loop.time())
            if info.get(MACHINE) == machine_id():
                self._spawn(self._look_for(node, info.get(SESSION, "")))
        self._actors = _actors_in(store)
        self.kept = KeptActors({actor: kept.restarts for actor, kept in self._actors.items()}, nodes)
        self.directory.keep_only(nodes, self.kept)
        # Who waits for an actor that is made again.
        self._moves: dict[ActorKey, asyncio.Event] = {}
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
            case KeepActor():
                self._keep_actor(question.actor, question.kept)
                await self._store.settled()
                return Done()
            case FindName() | ClaimName():
                await self._until_it_has_moved(question.namespace, question.name)
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
        if link.role != "node" or self.stopped.is_set():
            # It is this head that ends, and says goodbye.
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
        self.kept.joined(question.node)
        for before, now in info.pop(ADOPTED, ()):
            self._moved(ActorKey(bytes.fromhex(before)), ActorKey(bytes.fromhex(now)), link)
        self.directory.join(question.node, info, map(Held._make, question.names))
        self._keep_names()
        self._durable.put(key_of(NODE, question.node.hex()), msgspec.msgpack.encode(info))
        await self._store.settled()
        self._place()
        return Done()

    async def _look_for(self, node: ProcessId, session: str) -> None:
        """Whether a node of this machine that the head before knew has ended meanwhile: nobody listens there."""
        try:
            with reachable(socket_path(session, node)) as path:
                _, writer = await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            self._perform(self.membership.gone(node, "nobody listens at its socket any more", self._loop.time()))
        except OSError as error:
            logger.info("it cannot be seen whether node %s is there: %s", node.hex(), error)
        else:
            writer.close()

    def _heard(self, link: Link) -> None:
        if link.role == "node":
            self._perform(self.membership.heard(link.peer, self._loop.time()))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._perform(self.membership.look(self._loop.time()))
            self._place()

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
        standing = self.membership.standing(burial.node)
        died = standing is not None and standing.state is State.DEAD
        for actor in self.kept.node_gone(burial.node, died=died):
            self._keep_actor(actor, None)
        self.directory.leave(burial.node, self.kept)
        self._keep_names()
        self._durable.drop(key_of(NODE, burial.node.hex()))
        self._store.write_soon()
        for node in self.membership:
            if (link := self.peers.get(node)) is not None:
                link.send(NodeEnded(burial.node, burial.cause))
        self._place()

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

    # ---- detached actors

    def _keep_actor(self, actor: ActorKey, kept: KeptActor | None) -> None:
        key = key_of(ACTOR, actor.hex())
        if kept is None:
            self._actors.pop(actor, None)
            self.kept.ended(actor)
            self._durable.drop(key)
            self._let_go_on(actor)
        else:
            if actor not in self.kept:
                self.kept.made(actor, kept.restarts)
            self._actors[actor] = kept
            self._durable.put(key, msgspec.msgpack.encode(kept))

    def _place(self) -> None:
        for placed in self.kept.place([node for node in self.membership if self.membership.takes_work(node)]):
            self._spawn(self._have_made(placed))

    async def _have_made(self, placed: Placed) -> None:
        """Have a node make an actor again that has lost its own."""
        before, node = placed
        link, kept = self.peers.get(node), self._actors.get(before)
        if link is None or kept is None:
            self.kept.not_moved(before, node)
            return
        request = msgspec.structs.replace(kept.request, max_restarts=self.kept.restarts(before))
        try:
            answer: NameHolder = await link.ask(AdoptActor(before, request, kept.driver))
        except exceptions.ActorrtError as error:
            logger.warning("node %s does not make an actor again, which is tried anew: %s", node.hex(), error)
            self.kept.not_moved(before, node)
            return
        self._moved(before, answer.actor, link)

    def _moved(self, before: ActorKey, actor: ActorKey, link: Link) -> None:
        """A node has made an actor again. It is written at once: whichever head comes next knows of one."""
        if actor in self.kept:
            return
        kept = self._actors.get(before)
        if kept is None or not self.kept.moved(before, actor):
            # It was killed meanwhile, or another node has made it too.
            self._spawn(self._end(actor, link))
            return
        logger.warning("detached actor %s was made again on node %s", before.hex(), link.peer.hex())
        start = msgspec.structs.replace(kept.request.start, actor=actor)
        request = msgspec.structs.replace(kept.request, start=start)
        self._keep_actor(actor, KeptActor(request, kept.driver, self.kept.restarts(actor)))
        self._keep_actor(before, None)
        self.directory.move(before, actor, link.peer)
        self._keep_names()

    async def _end(self, actor: ActorKey, link: Link) -> None:
        with contextlib.suppress(exceptions.ActorrtError):
            await link.ask(KillActor(actor))

    async def _until_it_has_moved(self, namespace: str, name: str) -> None:
        """Who looks for an actor that is being made again waits for it."""
        while (holder := self.directory.find(namespace, name)) is not None and self.kept.is_homeless(holder.actor):
            await self._moves.setdefault(holder.actor, asyncio.Event()).wait()

    def _let_go_on(self, before: ActorKey) -> None:
        if (moves := self._moves.pop(before, None)) is not None:
            # In the next turn: its name is moved in this one.
            self._loop.call_soon(moves.set)

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


def _nodes_in(store: HeadStore) -> dict[ProcessId, dict[str, Any]]:
    return {
        ProcessId(bytes.fromhex(key_parts(key)[1])): msgspec.msgpack.decode(entry.value)
        for key, entry in store.durable.listed(f"{NODE}/")
    }


def _actors_in(store: HeadStore) -> dict[ActorKey, KeptActor]:
    return {
        ActorKey(bytes.fromhex(key_parts(key)[1])): msgspec.msgpack.decode(entry.value, type=KeptActor)
        for key, entry in store.durable.listed(f"{ACTOR}/")
    }


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
