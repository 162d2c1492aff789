"""A worker process: the runtime in a thread of its own, user code in the main thread."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from functools import partial
from typing import Final, cast

import msgspec

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.version import __version__
from actorrt.wire.any_text import as_text
from actorrt.wire.messages import WorkerReady
from actorrt.wire.stand_in import StandIn

from ..base.worker_params import WorkerParams
from ..machine import gpus
from ..machine.process import flush_output
from ..machine.zygote import WorkerStart
from ..owner import current
from ..owner.membership import Membership
from ..owner.program import Program
from ..owner.program_paths import ProgramPaths
from ..owner.runtime import Runtime
from .actor_threads import note_actors_of_threads
from .executor import Executor
from .loop_executor import LoopExecutor, RuntimeLoopExecutor
from .retirement import LEAVE_GRACE_S, Retirement, drop_actor, wind_down
from .sync_executor import SyncExecutor
from .watchdog import watch

# What runs at the end, `__del__` and atexit, may take so long, and the calls that it has made so long.
END_GRACE_S = 10.0
LAST_CALLS_S = 5.0
# Made before the fork, once for all workers.
_read: Final = msgspec.msgpack.Decoder(WorkerParams).decode
# How often a busy main thread hands over to the runtime's thread.
SWITCH_INTERVAL_S = 0.0005

EXECUTORS: Final[dict[str, type[LoopExecutor] | type[SyncExecutor]]] = {
    "loop": LoopExecutor,
    "sync": SyncExecutor,
    "runtime": RuntimeLoopExecutor,
}


def worker_main(start: WorkerStart) -> None:
    """Run a worker to its end; called in the forked process."""
    params = _read(start.params)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    current.set_in_worker()
    _become_like_the_driver(params)
    settings = Settings.from_environment()
    make_program = partial(_program, params)
    runtime = Runtime(params.process, "worker", as_text(params.session), __version__, settings, make_program)
    executor = cast("Executor", runtime.program.runner)
    current.set_runtime(runtime)
    if params.mode == "loop":
        note_actors_of_threads()
    runtime.start()
    # Before anybody can send work.
    watch(runtime, executor)
    runtime.thread.call_sync(_join(runtime, params))
    sys.meta_path.append(ProgramPaths(runtime))
    executor.run()
    _end(runtime, executor)


def _program(params: WorkerParams, runtime: Runtime) -> Program:
    executor = EXECUTORS[params.mode](runtime)
    return Program(
        executor,
        executor.user_side,
        partial(_leave, runtime, executor),
        Retirement(runtime, executor.drop_actor).begin,
        env=params.env,
        # Those of the variable: the call may have set it itself.
        gpus=(gpus.named() or params.gpus) if params.gpus else [],
    )


def _become_like_the_driver(params: WorkerParams) -> None:
    sys.path[:] = map(as_text, params.sys_path)
    sys.argv[:] = map(as_text, params.argv)
    main = StandIn("__main__")
    if params.main_file:
        main.__file__ = as_text(params.main_file)
    # Code of the driver's own script travels by value; it finds the names that it expects here.
    sys.modules["__main__"] = main


async def _join(runtime: Runtime, params: WorkerParams) -> None:
    listening = asyncio.ensure_future(runtime.peers.listen())
    if runtime.settings.host:
        # Its hello says under which address other machines reach it.
        await listening
    node = await runtime.peers.dial_node(params.node)
    runtime.join(Membership(node, params.node_id, params.cpus, params.store_limit, params.employer, params.namespace))
    await listening
    node.send(WorkerReady(os.getpid()))


def _leave(runtime: Runtime, executor: Executor) -> None:
    """Cancel what runs, give it a moment, and end the process; from any thread."""
    if runtime.thread.closing:
        return
    runtime.thread.begin_closing()
    runtime.thread.spawn(_wind_down(runtime, executor))


async def _wind_down(runtime: Runtime, executor: Executor) -> None:
    links = list(runtime.peers.links.values())
    await wind_down(executor, links, runtime.thread.run_soon)
    for link in links:
        link.flush()
    executor.stop()
    # A main thread that does not come back must not keep the process.
    threading.Thread(target=_force, args=(runtime,), daemon=True).start()


def _force(runtime: Runtime) -> None:
    if runtime.tenancy.ending.wait(LEAVE_GRACE_S):
        threading.Event().wait(END_GRACE_S)
    os._exit(runtime.tenancy.exit_code)


def _end(runtime: Runtime, executor: Executor) -> None:
    runtime.tenancy.ending.set()
    drop_actor(runtime)
    with contextlib.suppress(exceptions.ActorrtError, RuntimeError):
        executor.finalize(END_GRACE_S / 2)
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  what `os._exit` leaves out
    with contextlib.suppress(exceptions.ActorrtError, RuntimeError):
        # They would be cancelled with this process, before they began.
        runtime.thread.call_sync(runtime.until_done(list(runtime.tenancy.last_calls), LAST_CALLS_S))
    # Before the links: the node reads what was printed until it hears that this process has ended.
    flush_output()
    runtime.stop(timeout=2.0)
    flush_output()
    os._exit(runtime.tenancy.exit_code)
