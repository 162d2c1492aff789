"""The simulated processes: what a driver and a worker are made of, on a loop in virtual time.

Their runtimes, executors and supervisors are those of real processes; only what is a thread, a socket or a file of the
system is another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from actorrt.config import Settings
from actorrt.runtime.base.loop_thread import LoopThread
from actorrt.runtime.base.worker_params import WorkerParams
from actorrt.runtime.links.link import Link
from actorrt.runtime.owner.membership import Membership
from actorrt.runtime.owner.program import Program
from actorrt.runtime.owner.runtime import MakeProgram, Runtime, plain_program
from actorrt.runtime.worker.intake import Work
from actorrt.runtime.worker.loop_executor import LoopExecutor, RuntimeLoopExecutor
from actorrt.runtime.worker.retirement import Retirement, wind_down
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.version import __version__
from actorrt.wire.messages import JoinDriver, Joined, WorkerReady

from .peers import VirtualPeers
from .schedule import NO_THREADS, VirtualLoop
from .stage import Stage

if TYPE_CHECKING:
    from actorrt.core.options import ActorOptions, TaskOptions
    from actorrt.runtime.base.definitions import ActorClassDef, RemoteFunctionDef
    from actorrt.runtime.owner.actor_client import ActorClient
    from actorrt.runtime.owner.entries import Entry, Gate

NAMESPACE: Final = "simulation"
BLOCKS: Final = (
    "this would block its thread, and a simulation has one: `await` the ref, kill an actor by "
    "`await simulation.kill(...)`, and hand on its handle in place of a name"
)
# What no value is larger than: there is no shared memory.
_NO_LIMIT: Final = 2**62


class VirtualThread(LoopThread):
    """A loop in virtual time in place of a thread's: all code of a process runs there."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__("actorrt-simulated", loop)
        self.thread = threading.current_thread()

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def on_own_thread(self) -> bool:
        return True

    def call_sync(self, work: Coroutine[Any, Any, Any], timeout: float | None = None) -> NoReturn:
        work.close()
        raise RuntimeError(BLOCKS)


class VirtualRuntime(Runtime):
    """The runtime of a simulated driver or worker."""

    def __init__(
        self,
        process: ProcessId,
        role: str,
        loop: VirtualLoop,
        stage: Stage,
        make_program: MakeProgram = plain_program,
    ) -> None:
        super().__init__(process, role, "", __version__, stage.settings, make_program, VirtualThread(loop))
        self.peers = VirtualPeers(self.dispatch, process, role, stage, self.dispatch.take_here)
        self.peers.end_of = self._cause_of_end
        self._queue_task, self.submit_task = self.submit_task, self._submit_task
        self._begin_actor, self.create_actor = self.create_actor, self._create_actor

    def _submit_task(
        self, function: RemoteFunctionDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        if not function.is_async:
            raise TypeError(f"{function.name} is a plain function: {NO_THREADS}")
        return self._queue_task(function, args, kwargs, options)

    def _create_actor(
        self, cls: ActorClassDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ActorClient:
        if not cls.has_async:
            raise TypeError(f"{cls.name} has no `async def` method: {NO_THREADS}")
        return self._begin_actor(cls, args, kwargs, options)

    def wait_blocked(self, gate: Gate, timeout: float | None, what: str, entries: Sequence[Entry] = ()) -> None:
        raise RuntimeError(BLOCKS)


class VirtualExecutor(RuntimeLoopExecutor):
    """Runs a worker's coroutines. As in a process with two threads, work is handed over from one to the other."""

    def __init__(self, runtime: Runtime, mode: str) -> None:
        super().__init__(runtime)
        self._hands_over = mode != "runtime"

    def enqueue(self, link: Link, work: list[Work]) -> None:
        if self._hands_over:
            LoopExecutor.enqueue(self, link, work)
        else:
            super().enqueue(link, work)


async def join_as_driver(runtime: Runtime, node: ProcessId, pid: int) -> None:
    """Make the process a driver of the node's session."""
    link = await runtime.peers.dial_node(node)
    joined: Joined = await link.ask(JoinDriver(pid, NAMESPACE, [], b"/", b"", [], {}, False, False))
    employer = Employer(JobKey(runtime.process))
    runtime.join(Membership(link, joined.node.process, joined.cpus, joined.store_limit, employer, NAMESPACE))


def program_of_a_worker(params: WorkerParams, end: Callable[[int], None], runtime: Runtime) -> Program:
    """What runs calls in a simulated worker. `end` ends its process with an exit code."""
    executor = VirtualExecutor(runtime, params.mode)
    leave = partial(_leave, runtime, executor, end)
    return Program(executor, executor.user_side, leave, Retirement(runtime, executor.drop_actor).begin, env=params.env)


async def join_as_worker(runtime: Runtime, params: WorkerParams, pid: int) -> None:
    """Make the process a worker of the node that forked it."""
    await runtime.peers.listen()
    node = await runtime.peers.dial_node(params.node)
    runtime.join(Membership(node, params.node_id, params.cpus, 0, params.employer, params.namespace))
    node.send(WorkerReady(pid))


def _leave(runtime: Runtime, executor: LoopExecutor, end: Callable[[int], None]) -> None:
    if not runtime.thread.closing:
        runtime.thread.begin_closing()
        runtime.thread.spawn(_wind_down(runtime, executor, end))


async def _wind_down(runtime: Runtime, executor: LoopExecutor, end: Callable[[int], None]) -> None:
    """Cancel what runs, give it a moment, and end the process, as a worker does."""
    await wind_down(executor, list(runtime.peers.links.values()), runtime.thread.run_soon)
    await runtime.peers.close()
    end(runtime.tenancy.exit_code)


def settings_of_a_simulation() -> Settings:
    """As in a real cluster, but that every value travels inside its message."""
    return Settings(inline_limit=_NO_LIMIT, worker_stall_timeout_s=0.0)
