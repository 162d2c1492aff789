"""Virtual time: one queue of what is due, for the event loops of all simulated processes.

Each process has a loop of its own, so that a process that is killed is gone with all that it had due, and one that is
stopped does nothing until it goes on. Time stands still while anything is due, and jumps to whatever comes next.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from enum import Enum, auto
from typing import Any, Final, NoReturn, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")

NO_THREADS: Final = (
    "code in a thread cannot run in virtual time: a simulation has one thread. Write what is simulated with `async def`"
)
NO_IO: Final = (
    "virtual time has no sockets, pipes, signals or processes of the system: give the code stand-ins for them"
)


class Life(Enum):
    """What becomes of a process's turns."""

    RUNNING = auto()
    # SIGSTOP: what is due waits.
    STOPPED = auto()
    ENDED = auto()


class Schedule:
    """What is due, when, and on which loop."""

    def __init__(self) -> None:
        self.now = 0.0
        # How many turns were run.
        self.turns = 0
        self._soon: deque[asyncio.Handle] = deque()
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._last = 0

    def soon(self, handle: asyncio.Handle) -> None:
        self._soon.append(handle)

    def later(self, handle: asyncio.TimerHandle) -> None:
        self._last += 1
        heapq.heappush(self._later, (handle.when(), self._last, handle))

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def next(self) -> asyncio.Handle | None:
        """What is due next; time has jumped there. None: nothing will ever be due."""
        self.turns += 1
        if self._soon:
            return self._soon.popleft()
        while self._later:
            when, _, handle = heapq.heappop(self._later)
            if not handle.cancelled():
                self.now = max(self.now, when)
                return handle
        return None

    def next_at(self) -> float | None:
        """When it is due."""
        if self._soon:
            return self.now
        while self._later and self._later[0][2].cancelled():
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None


class VirtualTask(asyncio.Task[Any]):
    """A task whose place in a set is the same in each run."""

    def __init__(self, number: int, work: Coroutine[Any, Any, Any], **options: Any) -> None:
        # First: the set of all tasks asks for it.
        self.number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualFuture(asyncio.Future[Any]):
    """The same of a future."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of one simulated process."""

    def __init__(self, schedule: Schedule) -> None:
        self.life = Life.ENDED
        self._schedule = schedule
        super().__init__()
        self.life = Life.RUNNING
        # What was due while the process was stopped.
        self._parked: deque[asyncio.Handle] = deque()

    # ---- what BaseEventLoop builds on

    def time(self) -> float:
        return self._schedule.now

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        if self.is_closed():
            return super().create_task(coro, context=context)
        return VirtualTask(self._schedule.next_number(), coro, loop=self, name=name, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return VirtualFuture(self._schedule.next_number(), self)

    def is_running(self) -> bool:
        return self.life is not Life.ENDED

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = events.Handle(callback, args, self, context)
        if self.life is not Life.ENDED:
            self._schedule.soon(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._schedule.now + max(0.0, delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        if self.life is not Life.ENDED:
            self._schedule.later(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The queue drops it when its time comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # What is left of a process that has ended is nobody's error.
        if self.life is not Life.ENDED:
            super().call_exception_handler(context)

    # ---- the life of its process

    def takes(self, handle: asyncio.Handle) -> bool:
        """Whether its process runs this now; one that is stopped does so when it goes on."""
        if self.life is Life.STOPPED:
            self._parked.append(handle)
        return self.life is Life.RUNNING

    def stop_process(self) -> None:
        if self.life is Life.RUNNING:
            self.life = Life.STOPPED

    def go_on(self) -> None:
        if self.life is Life.STOPPED:
            self.life = Life.RUNNING
            while self._parked:
                self._schedule.soon(self._parked.popleft())

    def end_process(self) -> None:
        self.life = Life.ENDED
        self._parked.clear()

    # ---- what there is none of

    def run_forever(self) -> NoReturn:
        raise RuntimeError("the loops of a simulation turn together: simulate() runs them")

    def run_until_complete(self, future: Any) -> NoReturn:
        raise RuntimeError("the loops of a simulation turn together: `await` it")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        raise RuntimeError(NO_THREADS)

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def create_connection(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def create_unix_connection(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def create_server(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def create_unix_server(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def subprocess_exec(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)

    async def subprocess_shell(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(NO_IO)


Work = Coroutine[Any, Any, None]
