"""The links of a simulated process: dialled, accepted and restored over connections in memory.

Whom to dial, how often, and when a process counts as ended is `Peers`' to say; what becomes of a hello is judged by
wire/link.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from actorrt.exceptions import LinkError
from actorrt.runtime.base.socket_paths import socket_path
from actorrt.runtime.links.link import Link, Receiver
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.links.transport import NoAnswerError, RefusedError
from actorrt.types import ProcessId
from actorrt.version import __version__
from actorrt.wire.greeting import hello_in, request_with
from actorrt.wire.link import DUPLICATE, UNKNOWN, End, State, Verdict, greeting, judge, why_refused
from actorrt.wire.messages import DialMe, Hello, decode_hello, encode_hello

from .link import ACKNOWLEDGE_BYTES, WINDOW_BYTES, VirtualLink
from .network import Plug
from .stage import Stage

# The pauses of who dials a broken link again, and how long nobody may listen.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
NOBODY_S: Final = 1.0
# Who was dialled waits so long for it.
PATIENCE_S: Final = 30.0
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"


class BrokenDialError(LinkError):
    """The connection broke before the hellos were exchanged."""


class Hellos:
    """Reads the hello at the beginning of a connection; what comes behind it is the link's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, plug: Plug, is_dialler: bool) -> None:
        self._data = b""
        self._is_dialler = is_dialler
        self.came: asyncio.Future[Hello | None] = loop.create_future()
        self.plug = plug
        plug.read_by(self)

    def heard(self, data: bytes) -> None:
        self._data += data
        if self.came.done():
            return
        if self._is_dialler:
            hello = hello_in(self._data)
        else:
            _, _, body = self._data.partition(b"\r\n\r\n")
            size, whole, chunk = body.partition(b"\r\n")
            hello = chunk[: int(size, 16)] if whole and len(chunk) >= int(size, 16) + 2 else None
        if hello is not None:
            self.came.set_result(decode_hello(hello))

    def broke(self) -> None:
        if not self.came.done():
            self.came.set_result(None)


class VirtualPeers(Peers):
    """What `Peers` asks of the network, over connections in memory."""

    def __init__(
        self,
        receiver: Receiver,
        process: ProcessId,
        role: str,
        stage: Stage,
    ) -> None:
        super().__init__(receiver, process, role, "", __version__, stage.settings.dial_timeout_s)
        self._receiver = receiver
        self._stage = stage
        self._network = stage.network
        self._story = stage.story
        # Links that were accepted and whose dialler has not been heard, by their ids.
        self._opening: dict[bytes, VirtualLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loops[self.process]

    # ---- listening

    async def listen(self) -> None:
        self._network.listen(self.process, socket_path("", self.process), self._accept)

    def _accept(self, plug: Plug) -> None:
        self._spawn(self._greeted(plug))

    async def _greeted(self, plug: Plug) -> None:
        hellos = Hellos(self._loop, plug, is_dialler=False)
        theirs = await hellos.came
        if theirs is None:
            return
        opening = self._opening.get(theirs.link)
        known = opening or self._known(theirs.process)
        end = None if known is None else known.end
        dials = theirs.process in self._ringing and end is None
        verdict = judge(theirs, self.process, end, dials)
        refused = why_refused(self._hello, theirs)
        if verdict is Verdict.REFUSE_DUPLICATE:
            refused = refused or DUPLICATE
        elif verdict is Verdict.REFUSE_UNKNOWN or verdict is Verdict.REFUSE_LATE:
            refused = refused or UNKNOWN
        if refused:
            self._answer(plug, greeting(self._hello, theirs.link, refused=refused))
            return
        if verdict is Verdict.RESUME and known is not None:
            self._story.event("resumes", self._me, f"a link with {self._story.named(theirs.process)} goes on")
            # First the hello, and behind it, once the dialler is heard, what it misses.
            self._answer(plug, greeting(self._hello, theirs.link, known.end.received))
            known.rejoin(plug, theirs.received)
            return
        if verdict is Verdict.REPLACE and known is not None:
            known.give_up()
        fresh = End(theirs.link, State.OPENING, ACKNOWLEDGE_BYTES, WINDOW_BYTES)
        link = self._link(theirs, fresh)
        link.hold(self._opened)
        self._opening[theirs.link] = link
        self._answer(plug, greeting(self._hello, theirs.link, 0))
        link.plug_in(plug)

    def _opened(self, link: Link) -> None:
        assert isinstance(link, VirtualLink)
        self._opening.pop(link.end.link, None)
        other = self._known(link.peer)
        if other is not None and other is not link and link.peer != self.process:
            other.give_up()
        self._arrived(link)

    @staticmethod
    def _answer(plug: Plug, hello: Hello) -> None:
        data = encode_hello(hello)
        plug.write(_ANSWER % (len(data), data))

    def _link(self, theirs: Hello, end: End) -> VirtualLink:
        return VirtualLink(self._loop, self._receiver, theirs, end, self._stage, self._restore, self.process)

    def _known(self, process: ProcessId) -> VirtualLink | None:
        link = self.links.get(process)
        return link if isinstance(link, VirtualLink) and not link.closed else None

    @property
    def _me(self) -> str:
        return self._story.named(self.process)

    # ---- dialling

    async def _reach(self, process: ProcessId, path: str) -> Link:
        link = self.get(process)
        if link is not None:
            return link
        if self._network.listens(path):
            return await self.dial(process, path)
        if self.broker is None or not self._network.lives(process):
            raise LinkError(f"process {process.hex()} does not listen")
        arrival = self._arrival(process)
        try:
            await self.listen()
            await self.broker.ask(DialMe(process))
            async with asyncio.timeout(self._dial_timeout_s):
                return await asyncio.shield(arrival)
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, as it was asked to") from None
        finally:
            self._drop_arrival(process, arrival)

    async def dial_node(self, node: ProcessId) -> Link:
        while True:
            try:
                return await self.dial(node, socket_path("", node))
            except (NoAnswerError, BrokenDialError):
                await asyncio.sleep(FIRST_PAUSE_S)

    async def dial(self, process: ProcessId, path: str) -> Link:
        arrival = self._arrival(process)
        self._ringing.add(process)
        try:
            try:
                async with asyncio.timeout(self._dial_timeout_s):
                    return await self._dial_new(process, path)
            except TimeoutError:
                raise NoAnswerError(f"process {process.hex()} has not answered") from None
            except RefusedError as error:
                if DUPLICATE not in str(error):
                    raise
                if (arrived := self.get(process)) is not None:
                    return arrived
                async with asyncio.timeout(LONGEST_PAUSE_S):
                    return await asyncio.shield(arrival)
        except TimeoutError:
            raise NoAnswerError(f"process {process.hex()} did not dial, though it said so") from None
        finally:
            self._ringing.discard(process)
            self._drop_arrival(process, arrival)

    async def _dial_new(self, process: ProcessId, path: str) -> Link:
        link_id = self._stage.ids.randbytes(8)
        plug, theirs = await self._exchange(path, greeting(self._hello, link_id))
        if (arrived := self.get(process)) is not None:
            # The peer's link came first.
            plug.wire.cut()
            return arrived
        link = self._link(theirs, End(link_id, State.OPEN, ACKNOWLEDGE_BYTES, WINDOW_BYTES))
        self.links[link.peer] = link
        link.plug_in(plug)
        return link

    async def _exchange(self, path: str, mine: Hello) -> tuple[Plug, Hello]:
        """A connection whose hellos have been exchanged. Raises RefusedError, BrokenDialError."""
        plug = self._network.dial(self.process, path)
        if plug is None:
            raise BrokenDialError(f"nobody listens at {path}")
        try:
            hellos = Hellos(self._loop, plug, is_dialler=True)
            plug.write(request_with(encode_hello(mine)))
            theirs = await hellos.came
        except BaseException:
            plug.wire.cut()
            raise
        if theirs is None:
            raise BrokenDialError(f"the connection to {path} broke")
        if theirs.refused:
            plug.wire.cut()
            raise RefusedError(theirs.refused)
        return plug, theirs

    # ---- links that broke

    def _restore(self, link: VirtualLink) -> None:
        self._story.event("breaks", self._me, f"the connection to {self._story.named(link.peer)} has broken")
        if link.dialled:
            self._spawn(self._dial_again(link))
        else:
            self._spawn(self._wait_for_dialler(link))

    async def _wait_for_dialler(self, link: VirtualLink) -> None:
        loop = self._loop
        until = loop.time() + PATIENCE_S
        while loop.time() < until and not link.closed and link.end.state in (State.DOWN, State.OPENING):
            if not self._network.lives(link.peer):
                break
            await asyncio.sleep(FIRST_PAUSE_S)
        if not link.closed and link.end.state in (State.DOWN, State.OPENING):
            self._opening.pop(link.end.link, None)
            link.give_up()

    async def _dial_again(self, link: VirtualLink) -> None:
        pause_s = 0.0
        unheard_since = self._loop.time()
        path = socket_path("", link.peer)
        while link.end.state is State.DOWN:
            if not self._network.lives(link.peer):
                link.give_up()
                return
            if self._network.listens(path):
                unheard_since = self._loop.time()
            elif self._loop.time() - unheard_since > NOBODY_S:
                link.give_up()
                return
            try:
                await self._go_on(link, path)
            except RefusedError:
                link.give_up()
            except (BrokenDialError, TimeoutError):
                await asyncio.sleep(pause_s)
                pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)

    async def _go_on(self, link: VirtualLink, path: str) -> None:
        async with asyncio.timeout(self._dial_timeout_s):
            plug, theirs = await self._exchange(path, greeting(self._hello, link.end.link, link.end.received))
        if link.end.state is State.DOWN:
            link.rejoin(plug, theirs.received)
        else:
            plug.wire.cut()

    # ---- the end

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a link could not be kept", "exception": error})

    def abandon(self) -> None:
        raise RuntimeError("a simulated process cannot fork")

    async def close(self) -> None:
        for task in list(self._dialling.values()):
            task.cancel()
        for link in list(self.links.values()):
            link.close()
