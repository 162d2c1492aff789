"""The links of this process: one to each peer, whoever dialled, and what becomes of those whose connection breaks.

Either side may dial. If both do at once, the link that the lower id dials is kept and the other hello is refused. A
process that does not listen (a driver) is asked through the node to dial.

A link whose connection breaks is dialled again by who dialled it, until it has another connection, the kernel says that
the peer's process has ended, or the peer says that it does not know the link. Who was dialled waits for that.

Otherwise only the node knows that a process has ended. One that does not answer may be stopped, swapped out, or in C
code that keeps the GIL: it is dialled again until it answers, or the node says that it is gone.

The kernel knows nothing of a process on another machine: a link to it is dialled again until the peer says something,
or this process is told that the other's node is dead (`bury`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import structs

from actorrt.core.recent import RecentSet
from actorrt.exceptions import LinkError
from actorrt.types import NO_PROCESS, Address, ProcessId
from actorrt.wire.addresses import Ways, endpoint_of, open_address, unix_address, ways_of
from actorrt.wire.dialling import LONGEST_PAUSE_S, Aim, Dialling, Way, way_to
from actorrt.wire.link import (
    DUPLICATE,
    UNKNOWN,
    End,
    Ending,
    LinkStateError,
    Parting,
    State,
    Verdict,
    greeting,
    judge,
    takes_dialled,
)
from actorrt.wire.messages import DialMe, Hello, Question

from ..base.descriptors import allow_more_after
from ..base.process_watch import is_ending, watch_pid
from ..base.socket_paths import path_by, remove_socket, socket_path
from .access import UNIX_ONLY, Access
from .connection import Connection
from .link import Link, Receiver
from .loopback import Loopback, TakeHere
from .network import HELLO_TIMEOUT_S
from .transport import (
    Acceptor,
    Dialler,
    DuplicateError,
    NoAnswerError,
    NobodyListensError,
    Serves,
    attempt_of,
    make_hello,
)

logger = logging.getLogger("actorrt")

# A dial that takes longer than this has the node asked whether the process has ended.
DOUBT_S: Final = 0.2
# Of one that ended before those, the node says so when it is dialled.
DEAD_REMEMBERED: Final = 4096
# Who was dialled waits so long for a link to go on, while the process of the dialler lives.
RESTORE_S: Final = 5.0
# The same for a dialler on another machine, which is dead only once this process is told so.
RESTORE_REMOTE_S: Final = 30.0
# Links that end while their connections are down are waited for so long, until their peers know.
PART_S: Final = 1.0
LINK_ID_BYTES: Final = 8
# Of links whose dialler was not heard before their connection broke, so many are kept: it may dial again.
MOST_GIVEN_UP: Final = 64
_NO_ANSWER: Final = (
    "process %s has not answered for %.0f s, and its node says that it lives: it is stopped, swapped out, or runs code "
    "that keeps the GIL; it is dialled again"
)
_NO_LINK: Final = "%r has had no connection for %.0f s, and its process lives; it is dialled again: %s"
_NODE_DOES_NOT_ANSWER: Final = (
    "the node (process %s) has not answered for %.0f s: it is stopped, or the machine is too busy; it is dialled again"
)


class Opened(Protocol):
    """A connection over which both hellos were said."""

    @property
    def hello(self) -> Hello: ...
    @property
    def connection(self) -> Connection: ...

    def read_for(self, link: Link) -> None: ...


P = TypeVar("P", bound=asyncio.BaseProtocol)


class Dials(Protocol):
    """Who opens connections; see Dialler."""

    async def dial(self, path: str, hello: Hello) -> Opened: ...


class PeersStatistics(msgspec.Struct, frozen=True):
    """How many links there are at one moment."""

    links: int
    # Of those, without a connection.
    down: int
    # Bytes that were written to them and that the peers have not acknowledged.
    unacknowledged: int
    # Accepted, and not counted yet: their dialler has not been heard.
    opening: int
    dialling: int
    processes_ended: int


class Peers:
    """Opens, accepts and keeps links. Runs on the runtime loop. wire/dialling.py and wire/link.py decide."""

    def __init__(
        self,
        receiver: Receiver,
        process: ProcessId,
        role: str,
        session: str,
        version: str,
        dial_timeout_s: float = HELLO_TIMEOUT_S,
        restore_s: float = RESTORE_S,
        end_of: Callable[[ProcessId], Coroutine[Any, Any, str]] | None = None,
        take_here: TakeHere | None = None,
        access: Access = UNIX_ONLY,
        port: int = 0,
    ) -> None:
        """`access`: whether and how this process talks to other machines. `port`: where it listens for those; 0: at any
        that is allowed.

        `restore_s`: how long a link that the peer has dialled may be without a connection while the peer lives.

        `end_of` waits until a process has ended, as the node knows it, and says why; LinkError: the node does not know
        it. Without it, one failed dial is the end. `take_here`: what threads of this process take of what it sends to
        itself; without it, all that comes on the runtime loop.
        """
        self.process = process
        self.session = session
        self.links: dict[ProcessId, Link] = {}
        # Processes that are known to have ended: nobody dials them again.
        self.dead: RecentSet[ProcessId] = RecentSet(DEAD_REMEMBERED)
        # The node, which finds those who do not listen.
        self.broker: Link | None = None
        self.end_of = end_of
        self._dial_timeout_s = dial_timeout_s
        self._restore_s = restore_s
        self._dialling: dict[ProcessId, asyncio.Task[Link]] = {}
        # Those of them whose socket is being dialled; others are asked to dial.
        self._ringing: set[ProcessId] = set()
        self._arrivals: dict[ProcessId, asyncio.Future[Link]] = {}
        # Links that were accepted and whose dialler has not been heard, by their ids.
        self._opening: dict[bytes, Link] = {}
        # Links whose connection broke: the work of restoring them.
        self._restoring: dict[Link, asyncio.Task[None]] = {}
        # Connections over which links say goodbye that had none.
        self._partings: set[asyncio.Task[None]] = set()
        self._receiver = receiver
        self._take_here = take_here or _take_nothing
        self._hello = make_hello(process, role, version)
        self._access = access
        self._port = port
        self._connector = Dialler(dial_timeout_s, access)
        self._dialler: Dials = self._connector
        self._acceptor = Acceptor(self._hello, self._welcome, access)
        # Those of which it is told that they have ended, while they are dialled.
        self._graves: dict[ProcessId, asyncio.Future[str]] = {}
        # The path of its socket, once others can dial it.
        self._listens_at: str | None = None
        self._listen_lock = asyncio.Lock()

    def statistics(self) -> PeersStatistics:
        links = [link.statistics() for link in self.links.values()]
        down = sum(link.state is State.DOWN for link in links)
        kept = sum(link.kept for link in links)
        return PeersStatistics(len(links), down, kept, len(self._opening), len(self._dialling), len(self.dead))

    @property
    def address(self) -> Address:
        """Where this process listens; NOWHERE before it does."""
        return self._hello.address

    async def listen(self) -> None:
        """Have others able to dial, those of other machines too if `access` says so; again: nothing.

        Raises LinkError where it cannot listen for those.
        """
        async with self._listen_lock:
            if self._listens_at is None:
                path = socket_path(self.session, self.process)
                await self._acceptor.listen(path)
                self._listens_at = path
                address = unix_address(self.process)
                if self._access.host:
                    address = open_address(self.process, await self._acceptor.open(self._port))
                self._hello = self._acceptor.hello = structs.replace(self._hello, address=address)

    def serve(self, serves: Serves) -> None:
        """Have requests over HTTP answered that are for no link, at the same sockets."""
        self._acceptor.serves = serves

    async def connect(
        self, factory: Callable[[], P], process: ProcessId, address: Address | None = None
    ) -> tuple[asyncio.Transport, P]:
        """A bare connection to where `process` listens, for requests that it `serve`s. Raises OSError and LinkError."""
        if address is None and (link := self.get(process)) is not None:
            address = link.address or None
        return await self._connector.connect(self._path_by(self._ways_to(process, address)), factory)

    def all_links(self) -> list[Link]:
        """Those of this moment, the closed ones too; from any thread."""
        return list(self.links.values())

    def mark_dead(self, process: ProcessId) -> None:
        """It has ended, or was given up: nobody dials it again."""
        self.dead.add(process)

    def bury(self, process: ProcessId, why: str) -> None:
        """It is on a node that counts as dead, or that says that it has ended: its link ends, and nobody dials it."""
        self.mark_dead(process)
        if (grave := self._graves.get(process)) is not None and not grave.done():
            grave.set_result(why)
        for link in (self.links.get(process), *self._opening_of(process)):
            if link is not None:
                link.finish(Ending.DIED)

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
        if process == self.process:
            link = self.links[process] = self._loopback()
            return link
        if process in self.dead:
            raise LinkError(f"process {process.hex()} has ended")
        task = self._dialling.get(process)
        if task is None:
            ways = self._ways_to(process, address)
            task = asyncio.get_running_loop().create_task(self._open(process, ways))
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

    def _ways_to(self, process: ProcessId, address: Address | None) -> Ways:
        try:
            return ways_of(address or unix_address(process))
        except ValueError as error:
            raise LinkError(f"process {process.hex()} cannot be reached: {error}") from None

    def _path_by(self, ways: Ways) -> str:
        return path_by(self.session, ways, self._is_socket)

    def _dialled(self, process: ProcessId, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(process, None)
        _look_at(task)

    async def _open(self, process: ProcessId, ways: Ways) -> Link:
        """Dial until the process answers, or its node says that it has ended."""
        if self.end_of is None:
            return await self._reach(process, ways)
        loop = asyncio.get_running_loop()
        dialling = Dialling(Aim.PEER, loop.time(), self._dial_timeout_s)
        doubt = asyncio.Event()
        end = loop.create_task(_end_in_doubt(self.end_of, process, doubt))
        grave = self._graves[process] = loop.create_future()
        try:
            while True:
                attempt = loop.create_task(self._reach(process, ways))
                try:
                    await asyncio.wait((attempt, end, grave), return_when=asyncio.FIRST_COMPLETED)
                    if attempt.done():
                        return attempt.result()
                except LinkError as error:
                    following = dialling.failed(attempt_of(error), loop.time())
                    if following.gives_up:
                        raise
                    if following.lasts_s is not None:
                        logger.warning(_NO_ANSWER, process.hex(), following.lasts_s)
                    doubt.set()
                    await asyncio.wait((end, grave), timeout=following.pause_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    attempt.cancel()
                if grave.done() or end.done():
                    raise LinkError(f"process {process.hex()} has ended: {(grave if grave.done() else end).result()}")
        finally:
            del self._graves[process]
            end.cancel()
            end.add_done_callback(_look_at)

    async def dial_node(self, node: ProcessId) -> Link:
        """Open a link to the node; a node that listens lives, however long it is stopped or swapped out.

        Raises LinkError if it does not listen.
        """
        loop = asyncio.get_running_loop()
        dialling = Dialling(Aim.NODE, loop.time(), self._dial_timeout_s)
        while True:
            try:
                return await self.dial(node, socket_path(self.session, node))
            except LinkError as error:
                following = dialling.failed(attempt_of(error), loop.time())
                if following.gives_up:
                    raise
                logger.info("the node is dialled again: %s", error)
                if following.lasts_s is not None:
                    logger.warning(_NODE_DOES_NOT_ANSWER, node.hex(), following.lasts_s)
            await asyncio.sleep(following.pause_s)

    async def _reach(self, process: ProcessId, ways: Ways) -> Link:
        """One attempt. Raises LinkError if it fails."""
        waited = False
        path = self._path_by(ways)
        while True:
            link = self.get(process)
            if link is not None:
                # It dialled itself in the meantime.
                return link
            has_dialled = bool(self._opening_of(process))
            match way_to(has_dialled, waited, self._listens(path), self.broker is not None):
                case Way.AWAIT:
                    waited = True
                    with contextlib.suppress(TimeoutError):
                        return await self._arrival_of(process)
                case Way.DIAL:
                    return await self.dial(process, path)
                case Way.ASK if self.broker is not None:
                    return await self._ask_to_dial(process, self.broker)
                case _:
                    raise LinkError(f"process {process.hex()} has no socket")

    async def _ask_to_dial(self, process: ProcessId, broker: Link) -> Link:
        arrival = self._arrival(process)
        try:
            # A program listens only once it has to reach another one.
            await self.listen()
            await broker.ask(DialMe(process, self.address))
            async with asyncio.timeout(self._dial_timeout_s):
                return await asyncio.shield(arrival)
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, as it was asked to") from None
        finally:
            self._drop_arrival(process, arrival)

    async def dial_at(self, address: Address) -> Link:
        """Open a link to whichever process listens at `address`, or take the one that there is with it.

        One attempt. Raises LinkError if it fails, as `dial` does.
        """
        try:
            ways = ways_of(address)
        except ValueError as error:
            raise LinkError(str(error)) from None
        return await self.dial(NO_PROCESS, self._path_by(ways))

    async def dial(self, process: ProcessId, path: str) -> Link:
        """Open a link to the process that listens at `path`; if it dials too, whichever link is kept.

        One attempt. Raises LinkError if it fails: NoAnswerError, RefusedError, or that nobody listens. NO_PROCESS:
        whichever process that is.
        """
        hello = greeting(self._hello, self._new_id())
        arrival = self._arrival(process)
        before = set(self._opening.values())
        self._ringing.add(process)
        try:
            dialled = await self._dialler.dial(path, hello)
        except DuplicateError as error:
            return await self._other_link(process or error.process)
        finally:
            self._ringing.discard(process)
            self._drop_arrival(process, arrival)
        connection, peer = dialled.connection, dialled.hello.process
        if peer == self.process or peer != (process or peer):
            # Of a socket the name is the process's own; a port may be another's by now.
            connection.close()
            raise NobodyListensError(f"another process listens at {path} by now, or this one itself: {peer.hex()}")
        crossed = any(link not in before for link in self._opening_of(peer))
        if not takes_dialled(self.process, peer, self.get(peer) is not None, crossed):
            # The peer's link comes first, whatever it knows of this one.
            connection.close()
            return await self._other_link(peer)
        for link in before.intersection(self._opening_of(peer)):
            # The peer has ended those that it had dialled before, else it had refused this one.
            link.finish(Ending.LOST)
        link = self._link(dialled.hello, hello.link, State.OPEN, connection, path)
        dialled.read_for(link)
        link.greet()
        self.links[link.peer] = link
        return link

    async def _other_link(self, process: ProcessId) -> Link:
        """The link that a process has dialled, or is about to."""
        try:
            return self.get(process) or await self._arrival_of(process)
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, though it said so") from None

    async def _arrival_of(self, process: ProcessId) -> Link:
        """The link that this process has dialled, once it is heard. Raises TimeoutError if that takes too long."""
        arrival = self._arrival(process)
        try:
            async with asyncio.timeout(LONGEST_PAUSE_S):
                return await asyncio.shield(arrival)
        finally:
            self._drop_arrival(process, arrival)

    def _arrival(self, process: ProcessId) -> asyncio.Future[Link]:
        future = self._arrivals.get(process)
        if future is None:
            future = self._arrivals[process] = asyncio.get_running_loop().create_future()
        return future

    def _opening_of(self, process: ProcessId) -> list[Link]:
        """Links that this process has dialled, and over which it was not heard."""
        return [link for link in self._opening.values() if link.peer == process]

    def _drop_arrival(self, process: ProcessId, future: asyncio.Future[Link]) -> None:
        if self._arrivals.get(process) is future:
            del self._arrivals[process]

    # What a simulation has of its own.

    def _link(self, theirs: Hello, link: bytes, state: State, connection: Connection, path: str = "") -> Link:
        loop = asyncio.get_running_loop()
        return Link(loop, self._receiver, self, theirs, End(link, state), connection, path)

    def _loopback(self) -> Loopback:
        return Loopback(asyncio.get_running_loop(), self._receiver, self, self._hello, self._new_id(), self._take_here)

    def _is_socket(self, path: str) -> bool:
        return os.path.exists(path)

    def _listens(self, path: str) -> bool:
        """Whether somebody may listen there."""
        return endpoint_of(path) is not None or self._is_socket(path)

    def _new_id(self) -> bytes:
        return os.urandom(LINK_ID_BYTES)

    def _end_of(self, link: Link) -> asyncio.Future[None]:
        """Done once the process behind a link has ended, where the kernel can be asked."""
        if link.is_remote:
            return asyncio.get_running_loop().create_future()
        try:
            return watch_pid(link.pid)
        except OSError as error:
            if allow_more_after(error):
                with contextlib.suppress(OSError):
                    return watch_pid(link.pid)
            logger.warning("the end of process %d cannot be seen: %s", link.pid, error)
            return asyncio.get_running_loop().create_future()

    def is_ending(self, link: Link) -> bool:
        """Whether the process behind a link runs no more, as the kernel has it."""
        return not link.is_remote and is_ending(link.pid)

    # ---- who dials here

    def _welcome(self, hello: Hello, connection: Connection) -> tuple[Hello, Link | None]:
        """What becomes of a hello: the answer to it, and the link that goes on over its connection, if one does."""
        known = self._opening.get(hello.link) or self.links.get(hello.process)
        verdict = judge(hello, self.process, known and known.end, hello.process in self._ringing)
        match verdict:
            case Verdict.RESUME if known is not None:
                return self._take_up(known, hello, connection)
            case Verdict.ACCEPT | Verdict.REPLACE:
                # It counts, and ends what is known, from the first frame on: a dialler that has given this dial up
                # never sends one, and may have another link by now.
                link = self._link(hello, hello.link, State.OPENING, connection)
                self._opening[hello.link] = link
                return greeting(self._hello, hello.link, 0), link
            case Verdict.REFUSE_DUPLICATE:
                return greeting(self._hello, hello.link, refused=DUPLICATE), None
            case _:
                return greeting(self._hello, hello.link, refused=UNKNOWN), None

    def _take_up(self, link: Link, hello: Hello, connection: Connection) -> tuple[Hello, Link | None]:
        try:
            link.rejoin(connection, hello.received)
        except LinkStateError as error:
            logger.error("%r cannot go on: %s", link, error)
            link.finish(Ending.LOST)
            return greeting(self._hello, hello.link, refused=UNKNOWN), None
        self._stop_restoring(link)
        return greeting(self._hello, hello.link, link.end.received), link

    # ---- what a link tells

    def opened(self, link: Link) -> None:
        """The dialler of a link has been heard."""
        del self._opening[link.end.link]
        other = self.links.get(link.peer)
        if other is not None:
            # One of the two processes has no other link than this one, else it would not have dialled.
            other.finish(Ending.LOST)
        self.links[link.peer] = link
        future = self._arrivals.get(link.peer)
        if future is not None and not future.done():
            future.set_result(link)

    def restore(self, link: Link) -> None:
        """The connection of a link has broken."""
        self._stop_restoring(link)
        self._restoring[link] = asyncio.get_running_loop().create_task(self._restore(link))
        given_up = [one for one in self._opening.values() if one in self._restoring]
        if len(given_up) > MOST_GIVEN_UP:
            given_up[0].finish(Ending.LOST)

    def part(self, link: Link, parting: Parting) -> None:
        """A link of this process's dial ends, and its goodbye could not be written."""
        self._spawn_parting(self._part(link.path, parting))

    def _spawn_parting(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)

    async def _part(self, path: str, parting: Parting) -> None:
        with contextlib.suppress(LinkError, LinkStateError, OSError):
            dialled = await self._dialler.dial(path, parting.hello(self._hello))
            try:
                await dialled.connection.write_all(parting.words(dialled.hello.received))
            finally:
                dialled.connection.close()

    async def _part_from(self, broker: Link) -> None:
        """Say goodbye to the node, which has lost its link to this process and keeps what it has."""
        with contextlib.suppress(LinkError):
            (await self.dial(broker.peer, broker.path)).close()

    def closed(self, link: Link) -> None:
        """A link has ended."""
        self._stop_restoring(link)
        if self._opening.get(link.end.link) is link:
            del self._opening[link.end.link]
        if self.links.get(link.peer) is link:
            del self.links[link.peer]

    def _stop_restoring(self, link: Link) -> None:
        task = self._restoring.pop(link, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _restore(self, link: Link) -> None:
        """Have a link go on, or end."""
        # Now, since its process may be gone: nobody else has its number yet.
        ended = self._end_of(link)
        # Who was dialled waits for the dialler: once it comes, this is cancelled.
        longest_s = RESTORE_REMOTE_S if link.is_remote else self._restore_s
        work = self._dial_again(link) if link.path else asyncio.sleep(longest_s, False)
        attempt = asyncio.get_running_loop().create_task(work)
        try:
            await asyncio.wait((attempt, ended), return_when=asyncio.FIRST_COMPLETED)
            try:
                if attempt.done() and attempt.result():
                    return
            except Exception:
                # A bug of ours: the link must not wait for ever.
                logger.exception("%r could not be dialled again", link)
            link.finish(Ending.DIED if ended.done() else Ending.LOST)
        finally:
            ended.cancel()
            attempt.cancel()

    async def _dial_again(self, link: Link) -> bool:
        """Dial until the link goes on (True), or nobody is there who knows it."""
        loop = asyncio.get_running_loop()
        dialling = Dialling(Aim.AGAIN, loop.time(), self._dial_timeout_s)
        while True:
            hello = greeting(self._hello, link.end.link, link.end.received)
            try:
                return self._resume(link, await self._dialler.dial(link.path, hello))
            except LinkError as error:
                following = dialling.failed(attempt_of(error), loop.time())
                if following.gives_up:
                    logger.info("%r cannot go on: %s", link, error)
                    return False
                if following.lasts_s is not None:
                    logger.warning(_NO_LINK, link, following.lasts_s, error)
            await asyncio.sleep(following.pause_s)

    def _resume(self, link: Link, dialled: Opened) -> bool:
        # It is done here: the next break begins anew.
        self._restoring.pop(link, None)
        try:
            link.resume(dialled.connection, dialled.hello.received)
        except LinkStateError as error:
            logger.error("%r cannot go on: %s", link, error)
            dialled.connection.close()
            return False
        dialled.read_for(link)
        return True

    def abandon(self) -> None:
        """Let go of all sockets in a fork of this process, so that its end can be seen by its peers."""
        for link in (*self.links.values(), *self._opening.values()):
            link.abandon()
        self._acceptor.abandon()

    async def close(self) -> None:
        """Close every link with a goodbye, and stop listening."""
        for task in (*self._dialling.values(), *self._restoring.values()):
            task.cancel()
        for link in (*self.links.values(), *self._opening.values()):
            link.close()
        if self.broker is not None and self.broker.closed is Ending.LOST:
            self._spawn_parting(self._part_from(self.broker))
        if self._partings:
            _, late = await asyncio.wait(self._partings, timeout=PART_S)
            for task in late:
                task.cancel()
        if self._listens_at is not None:
            remove_socket(self.session, self.process)
        await self._acceptor.close()


def _take_nothing(_: Link, __: object) -> None: ...


def _look_at(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more: an error of it is none."""
    if not task.cancelled():
        task.exception()


async def _end_in_doubt(
    end_of: Callable[[ProcessId], Coroutine[Any, Any, str]], process: ProcessId, doubt: asyncio.Event
) -> str:
    """Ask for the end of a process only where there is a reason: a dial has failed, or takes long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DOUBT_S):
            await doubt.wait()
    return await end_of(process)
