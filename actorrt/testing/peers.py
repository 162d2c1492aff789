"""The links of a simulated process: dialled and accepted over connections in memory.

Whom to dial, how often, what becomes of a hello or of a link that breaks, and when a process counts as ended is
`Peers`' to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from actorrt.runtime.base.socket_paths import socket_path
from actorrt.runtime.links.connection import Connection
from actorrt.runtime.links.link import Link, Receiver
from actorrt.runtime.links.loopback import Loopback, TakeHere
from actorrt.runtime.links.peers import LINK_ID_BYTES, Peers
from actorrt.runtime.links.transport import DialBrokeError, NoAnswerError, NobodyListensError, refusal
from actorrt.types import ProcessId
from actorrt.version import __version__
from actorrt.wire.greeting import hello_in, request_with
from actorrt.wire.link import State, greeting, why_refused
from actorrt.wire.messages import Hello, decode_hello, encode_hello

from .link import VirtualConnection, VirtualEnd, VirtualLink, VirtualLoopback
from .network import Network, Plug
from .stage import Stage

# Faults follow each other more closely than on a machine, and a process that only cannot be reached is not given up.
RESTORE_S: Final = 30.0
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"


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


class VirtualDialled:
    """A connection over which both hellos were said."""

    def __init__(self, hello: Hello, plug: Plug) -> None:
        self.hello = hello
        self.connection = VirtualConnection(plug)

    def read_for(self, link: Link) -> None:
        self.connection.read_for(link)


class VirtualDialler:
    """Opens connections in memory."""

    def __init__(self, process: ProcessId, network: Network, timeout_s: float) -> None:
        self._process = process
        self._network = network
        self._timeout_s = timeout_s

    async def dial(self, path: str, hello: Hello) -> VirtualDialled:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._open(path, hello)
        except TimeoutError:
            raise NoAnswerError(f"no answer came from {path} for {self._timeout_s:g} s") from None

    async def _open(self, path: str, hello: Hello) -> VirtualDialled:
        if not self._network.listens(path):
            raise NobodyListensError(f"nobody listens at {path}")
        plug = self._network.dial(self._process, path)
        if plug is None:
            raise DialBrokeError(f"{path} cannot be reached")
        try:
            hellos = Hellos(asyncio.get_running_loop(), plug, is_dialler=True)
            plug.write(request_with(encode_hello(hello)))
            theirs = await hellos.came
            if theirs is None:
                raise DialBrokeError(f"the connection to {path} broke")
            if theirs.refused:
                raise refusal(theirs)
        except BaseException:
            plug.wire.cut()
            raise
        return VirtualDialled(theirs, plug)


class VirtualPeers(Peers):
    """What `Peers` asks of the network, over connections in memory."""

    def __init__(
        self,
        receiver: Receiver,
        process: ProcessId,
        role: str,
        stage: Stage,
        take_here: TakeHere | None = None,
    ) -> None:
        super().__init__(
            receiver, process, role, "", __version__, stage.settings.dial_timeout_s, RESTORE_S, take_here=take_here
        )
        self._stage = stage
        self._network = stage.network
        self._story = stage.story
        self._dialler = VirtualDialler(process, stage.network, stage.settings.dial_timeout_s)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loops[self.process]

    @property
    def _me(self) -> str:
        return self._story.named(self.process)

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
        if refused := why_refused(self._hello, theirs):
            self._answer(plug, greeting(self._hello, theirs.link, refused=refused))
            return
        connection = VirtualConnection(plug)
        answer, link = self._welcome(theirs, connection)
        self._answer(plug, answer)
        if link is not None:
            connection.read_for(link)

    @staticmethod
    def _answer(plug: Plug, hello: Hello) -> None:
        data = encode_hello(hello)
        plug.write(_ANSWER % (len(data), data))

    # ---- what is told in the story

    def restore(self, link: Link) -> None:
        self._story.event("breaks", self._me, f"the connection to {self._story.named(link.peer)} has broken")
        super().restore(link)

    def _take_up(self, link: Link, hello: Hello, connection: Connection) -> tuple[Hello, Link | None]:
        self._story.event("resumes", self._me, f"a link with {self._story.named(link.peer)} goes on")
        return super()._take_up(link, hello, connection)

    # ---- what `Peers` has of the system

    def _link(self, theirs: Hello, link: bytes, state: State, connection: Connection, path: str = "") -> Link:
        end = VirtualEnd(link, state, self._stage.deliveries)
        return VirtualLink(self._loop, self._receiver, self, theirs, end, connection, path, self._stage, self.process)

    def _loopback(self) -> Loopback:
        return VirtualLoopback(
            self._loop, self._receiver, self, self._hello, self._new_id(), self._take_here, self._stage
        )

    def _is_socket(self, path: str) -> bool:
        return self._network.listens(path)

    def _new_id(self) -> bytes:
        return self._stage.ids.randbytes(LINK_ID_BYTES)

    def _end_of(self, link: Link) -> asyncio.Future[None]:
        return self._network.end_of(link.peer)

    def is_ending(self, link: Link) -> bool:
        return not self._network.lives(link.peer)

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
