"""One history: its processes, their turns in virtual time, and what is done to them.

While a history runs, the clock, the dice and the process ids that code asks the system for are its own, so that a seed
gives the same history each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import subprocess
import threading
import time
import warnings
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from enum import Enum
from functools import partial
from random import Random
from types import FrameType, SimpleNamespace
from typing import Any, Final, NoReturn, cast
from uuid import UUID

import cloudpickle.cloudpickle as cloudpickle

from actorrt import runtime as _runtime_package
from actorrt.core.actor_calls import ActorCalls
from actorrt.core.calls import CallLife
from actorrt.core.instance import InstanceLife
from actorrt.core.lease_life import LeaseLife
from actorrt.core.leases import UNIT
from actorrt.core.lifecycle import Lifecycle
from actorrt.core.workers import Worker
from actorrt.exceptions import LinkError
from actorrt.runtime.api import driver
from actorrt.runtime.base.socket_paths import socket_path
from actorrt.runtime.base.worker_params import WorkerParams
from actorrt.runtime.node import workers
from actorrt.runtime.node.node_machine import NodeConfig
from actorrt.runtime.owner import current, token
from actorrt.runtime.owner.actor_client import ActorClient
from actorrt.runtime.owner.calls import Call
from actorrt.runtime.owner.handles import client_of
from actorrt.runtime.owner.runtime import MakeProgram, plain_program
from actorrt.types import PROCESS_ID_SIZE, ProcessId
from actorrt.wire import context_variables, rebuilding
from actorrt.wire.link import End

from .clocks import stand_ins
from .deliveries import Deliveries
from .network import Network
from .node import VirtualHead, VirtualNode
from .processes import VirtualRuntime, join_as_driver, join_as_worker, program_of_a_worker, settings_of_a_simulation
from .schedule import NO_IO, NO_THREADS, Life, Schedule, VirtualLoop
from .stage import Stage
from .story import Storyteller

# Beyond what a system has, so that nothing real is ever found by one of these.
FIRST_PID: Final = 10_000_000
# What a process that was killed ends with, and how soon its parent knows.
KILLED: Final = 9
REAP_S: Final = (0.0002, 0.01)
# Who gives a class or a context variable a key, under which this process has it from then on: histories share these
# tables, and if two of them drew the same key from the same seed, one would find the class of the other.
GIVE_KEYS: Final = (cloudpickle, rebuilding, context_variables)
_KEYS: Final = Random("keys")
# Whose frames say less than those around them.
_NOT_THE_PROGRAMS: Final = (os.path.dirname(asyncio.__file__), os.path.dirname(_runtime_package.__file__))
NO_SHUTDOWN: Final = (
    "a simulation's cluster ends with its scenario, which has no session of its own: return in place of shutdown()"
)
# What takes more than this goes round in circles.
MOST_TURNS: Final = 1_000_000


class Ended(BaseException):
    """Raised in the code of a process that has ended this moment."""


class Process:
    """One simulated process."""

    def __init__(self, process: ProcessId, pid: int, name: str, role: str, loop: VirtualLoop) -> None:
        self.process = process
        self.pid = pid
        self.name = name
        self.role = role
        self.loop = loop
        self.runtime: VirtualRuntime | None = None
        self.context = Context()
        # What its parent waits for: the status, as `waitpid` gives it.
        self.ended: list[tuple[VirtualLoop, asyncio.Future[int]]] = []
        # Kept to the end of the history: what is garbage runs its `finally` blocks.
        self.tasks: set[asyncio.Task[Any]] = set()
        self.status: int | None = None

    @property
    def lives(self) -> bool:
        return self.status is None

    def __repr__(self) -> str:
        return self.name


class Errors(logging.Handler):
    """What the runtime calls an error of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


class World:
    """The processes of one history and their turns."""

    def __init__(self, seed: int, cpus: int) -> None:
        self.seed = seed
        self.dice = Random(seed)
        # Of its own, so that what a process draws does not change what becomes of others.
        self._ids = Random(f"ids {seed}")
        self.schedule = Schedule()
        self.story = Storyteller()
        self.network = Network(self.dice)
        self.deliveries = Deliveries()
        self.stage = Stage(self.network, self.story, self.deliveries, settings_of_a_simulation(), self._ids)
        self.errors = Errors()
        self.processes: list[Process] = []
        self._by_pid: dict[int, Process] = {}
        self._by_loop: dict[asyncio.AbstractEventLoop, Process] = {}
        self._counts: dict[str, int] = {}
        self.current: Process | None = None
        # Who does things to the processes is none of them.
        self.outside_process = self._new("outside")
        self.node_process = self._new("node")
        self._head_id = ProcessId(self._ids.randbytes(8))
        self.story.name(self._head_id, "head")
        self.node: VirtualNode | None = None
        self.head: VirtualHead | None = None
        self._cpus = cpus
        self.drivers: list[Process] = []

    @property
    def outside(self) -> VirtualLoop:
        return self.outside_process.loop

    # ---- processes

    def _new(self, role: str, process: ProcessId | None = None) -> Process:
        number = self._counts[role] = self._counts.get(role, 0) + 1
        name = role if role in ("node", "head", "outside") else f"{role} {number}"
        process = process or ProcessId(self._ids.randbytes(8))
        made = Process(process, FIRST_PID + len(self.processes), name, role, VirtualLoop(self.schedule))
        self.story.name(process, name)
        self.network.loops[process] = made.loop
        self.processes.append(made)
        self._by_pid[made.pid] = made
        self._by_loop[made.loop] = made
        return made

    def _runtime(self, process: Process, role: str, make_program: MakeProgram = plain_program) -> VirtualRuntime:
        return VirtualRuntime(process.process, role, process.loop, self.stage, make_program)

    def spawn(self, process: Process, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run a coroutine as a process's own."""

        def begin() -> None:
            task = process.loop.create_task(work())
            process.tasks.add(task)
            task.add_done_callback(process.tasks.discard)
            task.add_done_callback(self._failed)

        process.loop.call_soon(begin, context=process.context)

    def _failed(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.found.append(f"a process failed: {type(error).__name__}: {error}")

    def begin_node(self) -> None:
        async def begin() -> None:
            config = NodeConfig(self.node_process.process, self._head_id, "", {"CPU": self._cpus * UNIT}, 0, 0, -1, [])
            self.node = VirtualNode(config, self.stage, self, self.dice)
            await self.node.peers.listen()

        self.spawn(self.node_process, begin)

    def new_driver(self, main: Callable[[], Awaitable[Any]]) -> Process:
        """A program that runs `main`."""
        process = self._new("driver")
        self.drivers.append(process)

        async def begin() -> None:
            runtime = process.runtime = self._runtime(process, "driver")
            current.set_runtime(runtime)
            await self.network.listening(socket_path("", self.node_process.process))
            try:
                await join_as_driver(runtime, self.node_process.process, process.pid)
            except LinkError:
                # A program whose node is gone before it has begun ends with that.
                self.exit(process, 1 << 8)
            else:
                await main()

        self.spawn(process, begin)
        return process

    # ---- what a node asks of its machine

    def start_worker(self, params: WorkerParams) -> int:
        process = self._new("worker", params.process)

        async def begin() -> None:
            make_program = partial(program_of_a_worker, params, lambda code: self.exit(process, code << 8))
            runtime = process.runtime = self._runtime(process, "worker", make_program)
            current.set_runtime(runtime)
            try:
                await join_as_worker(runtime, params, process.pid)
            except LinkError:
                # Its node is gone.
                self.exit(process, 1 << 8)

        self.spawn(process, begin)
        return process.pid

    def start_head(self, process: ProcessId, listens: Callable[[], object]) -> int:
        head = self._new("head", process)

        async def begin() -> None:
            self.head = VirtualHead(process, self.stage)
            await self.head.peers.listen()
            listens()

        self.spawn(head, begin)
        return head.pid

    def has_process(self, pid: int) -> bool:
        """Whether one lives."""
        process = self._by_pid.get(pid)
        return process is not None and process.lives

    def kill(self, pid: int) -> None:
        """Its node, or its own code, ends a process."""
        process = self._by_pid.get(pid)
        if process is not None and process.lives:
            self.story.row(process.name, "is killed")
            self.exit(process, KILLED)

    def crash(self, pid: int) -> None:
        """A process ends, and nobody in the session has asked for that."""
        process = self._by_pid.get(pid)
        if process is not None and process.lives:
            self.story.event("crashes", process.name, "crashes")
            self.exit(process, KILLED)

    def ended(self, pid: int) -> asyncio.Future[int]:
        """Done when a process has ended and its parent, the caller, knows of it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        process = self._by_pid[pid]
        assert isinstance(loop, VirtualLoop)
        if process.status is None:
            process.ended.append((loop, future))
        else:
            self._reap(loop, future, process.status)
        return future

    def exit(self, process: Process, status: int) -> None:
        """A process ends: nothing of it runs any more."""
        if not process.lives:
            return
        process.status = status
        self.story.row(process.name, f"has ended with status {status}")
        _end_quietly(process)
        _forget_what_never_began()
        self.network.end(process.process)
        for loop, future in process.ended:
            self._reap(loop, future, status)

    def _reap(self, loop: VirtualLoop, future: asyncio.Future[int], status: int) -> None:
        def reap() -> None:
            if not future.done():
                future.set_result(status)

        loop.call_later(self.dice.uniform(*REAP_S), reap)

    # ---- what a program does

    async def kill_actor(self, handle: Any, no_restart: bool = True) -> None:
        """`actorrt.kill`, for code that cannot block; called in a driver or worker."""
        process = self.current
        assert process is not None
        assert process.runtime is not None
        await process.runtime._kill_actor(client_of(handle), no_restart)

    def what_waits(self) -> str:
        """The coroutines of programs that have not ended."""
        waiting: list[str] = []
        for process in self.drivers:
            if process.lives:
                frames = [_where_it_waits(task.get_coro()) for task in asyncio.all_tasks(process.loop)]
                waiting += [
                    f"{process.name} in {frame.f_code.co_qualname}, line {frame.f_lineno}"
                    for frame in frames
                    if frame is not None
                ]
        return "; ".join(sorted(waiting)) or "nothing waits"

    def close(self) -> None:
        """All processes end, without a turn more."""
        for process in self.processes:
            if process.lives:
                _end_quietly(process)
        # Here and in order. An error of the scenario keeps their frames, so that the collector of garbage would run
        # their `finally` blocks in the middle of whatever code comes later, with the system's own clock.
        _forget_what_never_began()
        for process in self.processes:
            self._enter(process)
            for task in sorted(process.tasks, key=hash):
                with contextlib.suppress(Exception, Ended):
                    task.get_coro().close()  # pyright: ignore[reportOptionalMemberAccess]
        self._enter(None)
        for process in self.processes:
            process.loop.close()
            process.tasks.clear()
            process.runtime = None
        self.node = self.head = None
        gc.collect()

    # ---- turns

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Turn the loops until `until()`; False after `limit_s` of virtual time, MOST_TURNS, or an error of ours."""
        schedule, story, errors = self.schedule, self.story, self.errors.found
        while not until():
            if errors:
                return False
            due = schedule.next_at()
            if due is None or due > limit_s or schedule.turns > MOST_TURNS:
                return False
            handle = schedule.next()
            if handle is None:
                return False
            loop: VirtualLoop = handle._loop  # pyright: ignore[reportAttributeAccessIssue]
            if handle.cancelled() or not loop.takes(handle):
                continue
            story.now = schedule.now
            process = self._by_loop[loop]
            if process is not self.current:
                self._enter(process)
            with contextlib.suppress(Ended):
                handle._run()
        return True

    def _enter(self, process: Process | None) -> None:
        self.current = process
        events._set_running_loop(None if process is None else process.loop)
        current.set_runtime(None if process is None else process.runtime)

    # ---- a system of its own

    @contextlib.contextmanager
    def installed(self) -> Generator[None]:
        """While this holds, the system's clock, dice and process ids are the history's."""
        schedule, ids = self.schedule, self._ids
        # Not those of the ids, so that what code draws changes no id.
        dice = Random(f"system {self.seed}")
        state, loop = random.getstate(), events._get_running_loop()
        collects = gc.isenabled()
        world = self

        def monotonic() -> float:
            return schedule.now

        def pid() -> int:
            return FIRST_PID if world.current is None else world.current.pid

        def kill(target: int, number: int) -> None:
            world.kill(target)
            if world.current is not None and not world.current.lives:
                raise Ended

        def new_process() -> ProcessId:
            return ProcessId(ids.randbytes(PROCESS_ID_SIZE))

        def released(one: token.Token) -> None:
            world._release(one)

        replaced: list[tuple[Any, str, Any]] = [
            *stand_ins(monotonic, dice),
            (time, "sleep", _no_sleep),
            *((giver, "uuid", SimpleNamespace(uuid4=_new_key)) for giver in GIVE_KEYS),
            (workers, "_new_process", new_process),
            (os, "getpid", pid),
            (os, "kill", kill),
            (threading.Thread, "start", _no_thread),
            (threading.Condition, "wait", _no_wait),
            (subprocess.Popen, "__init__", _no_subprocess),
            (driver, "_end_unless_in_a_call", _no_shutdown),
            (token.Token, "__del__", released),
            (Call, "__hash__", _number_of_call),
            (ActorClient, "__hash__", _number_of_actor),
            *((cls, name, self._told(getattr(cls, name), what)) for cls, name, what in _TABLES),
        ]
        kept = [(where, name, getattr(where, name)) for where, name, _ in replaced]
        logger = logging.getLogger("actorrt")
        level, propagate = logger.level, logger.propagate
        try:
            random.seed(ids.random())
            gc.disable()
            # What is older than the history is not looked at each time.
            gc.freeze()
            logger.addHandler(self.errors)
            logger.setLevel(logging.ERROR)
            logger.propagate = False
            for where, name, value in replaced:
                setattr(where, name, value)
            with current.put_back(), warnings.catch_warnings():
                yield
        finally:
            for where, name, value in kept:
                setattr(where, name, value)
            logger.removeHandler(self.errors)
            logger.setLevel(level)
            logger.propagate = propagate
            random.setstate(state)
            self.current = None
            events._set_running_loop(loop)
            gc.unfreeze()
            if collects:
                gc.enable()

    def _release(self, one: Any) -> None:
        """A token is garbage: what it stands for is told on the loop of its own process, whichever runs just now."""
        thread = one._session.thread
        if thread.loop.life is not Life.ENDED:
            thread.release(one._release)

    def _told(self, apply: Callable[..., Any], what: Callable[[Any], str]) -> Callable[..., Any]:
        """The same, and each row that is taken is a line of the story."""

        def on(life: Any, event: Any, *more: Any, **named: Any) -> Any:
            before = life.state
            actions = apply(life, event, *more, **named)
            who = "outside" if self.current is None else self.current.name
            self.story.row(who, f"{what(life)}: {before.name} --{event.name}--> {life.state.name}{_in_words(actions)}")
            return actions

        return on


def _no_shutdown() -> NoReturn:
    raise RuntimeError(NO_SHUTDOWN)


def _in_words(actions: Any) -> str:
    """What a row of a table says is to be done."""
    if isinstance(actions, Enum):
        actions = (actions,)
    if not isinstance(actions, tuple):
        return ""
    told = [getattr(action, "name", "") for action in cast("tuple[Any, ...]", actions)]
    return f", {', '.join(told)}" if any(told) else ""


# Whose rows are told, and how each is called.
_TABLES: Final[tuple[tuple[type[Any], str, Callable[[Any], str]], ...]] = (
    (CallLife, "on", lambda call: f"call {call.message.seq} ({call.name})" if isinstance(call, Call) else "a call"),
    (Lifecycle, "on", lambda _: "supervised actor"),
    (ActorCalls, "on", lambda calls: f"calls to {calls.title}"),
    (InstanceLife, "on", lambda life: f"actor {life.title}"),
    (LeaseLife, "on", lambda lease: f"held lease {lease.number}"),
    (Worker, "on", lambda _: "leased worker"),
    (End, "apply", lambda _: "link"),
)


def _end_quietly(process: Process) -> None:
    process.loop.end_process()
    for task in asyncio.all_tasks(process.loop):
        process.tasks.add(task)
        # Who looks for tasks that were forgotten is not to find these.
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]


def _forget_what_never_began() -> None:
    """Coroutines of a process that has ended before their first step are no mistake."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _new_key() -> UUID:
    return UUID(bytes=_KEYS.randbytes(16), version=4)


def _number_of_call(call: Call) -> int:
    return call.message.seq


def _number_of_actor(client: ActorClient) -> int:
    return int.from_bytes(client.actor, "big")


def _where_it_waits(work: Any) -> FrameType | None:
    """The innermost frame of a coroutine that is neither asyncio's nor the runtime's."""
    found: FrameType | None = None
    while (frame := getattr(work, "cr_frame", None)) is not None:
        if found is None or not frame.f_code.co_filename.startswith(_NOT_THE_PROGRAMS):
            found = frame
        work = work.cr_await
    return found


def _no_thread(thread: threading.Thread) -> NoReturn:
    raise RuntimeError(NO_THREADS)


def _no_wait(condition: threading.Condition, timeout: float | None = None) -> NoReturn:
    raise RuntimeError(
        "this waits for another thread, and a simulation has one: await an asyncio.Event or a queue instead"
    )


def _no_subprocess(*args: Any, **options: Any) -> NoReturn:
    raise RuntimeError(NO_IO)


def _no_sleep(seconds: float) -> NoReturn:
    raise RuntimeError("time.sleep stops its thread, and a simulation has one: `await asyncio.sleep(...)` instead")
