"""Start and join clusters: `init` and `shutdown`.

The node is started as the first thing, before what this process needs itself is imported: both sides load in parallel.
"""

from __future__ import annotations

import atexit
import importlib
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from actorrt.config import Settings
from actorrt.core.options import InitOptions
from actorrt.version import __version__

from ..base.descriptors import open_standard_streams
from ..links.running import running_call
from ..node.node_launch import Launched, find_session, launch
from ..owner import current
from . import program

if TYPE_CHECKING:
    from ..owner.runtime import Runtime

STOP_TIMEOUT_S: Final = 10.0

_lock = threading.RLock()
_context: Context | None = None


class Context(Mapping[str, Any]):
    """What `init` returns: facts about the cluster, and a context manager that shuts it down."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.address_info = info

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {self.address_info[name]!r}" for name in ("namespace", "version"))
        return f"<actorrt session at {self.address_info['address']}, {facts}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not _in_a_call():
            shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not at the top: whoever needs this has it loaded, and the others start faster.
        await importlib.import_module("asyncio").to_thread(shutdown)

    def disconnect(self) -> None:
        _end_unless_in_a_call()


class _Session:
    """What `shutdown` has to undo."""

    def __init__(self, runtime: Runtime, launched: Launched | None) -> None:
        self.runtime = runtime
        self.launched = launched
        self.pid = os.getpid()


_session: _Session | None = None


def is_initialized() -> bool:
    """True between `init` (or the first use) and `shutdown`."""
    return program.maybe_runtime() is not None


def init(address: str | None = None, **options: Any) -> Context:
    """Start a cluster on this machine, or join one.

    `address`: None or "local" starts a node; "auto" joins the newest one that runs here; a session's folder joins that
    one. Options: num_cpus, num_gpus, resources, object_store_memory, namespace, local_mode, log_to_driver,
    ignore_reinit_error, runtime_env, preload_modules (installed modules that workers of a new node are born with,
    so that each starts faster and their memory is shared; one that starts threads as it is imported is not for this).
    The result can be used in `with` and `async with`; leaving it shuts down.

    Code that runs in a task or an actor, and modules that it imports, belong to a session already: there it gives that
    session's context, whatever the options.

    Raises RuntimeError if there is a runtime already (unless `ignore_reinit_error`), ConnectionError if there is
    nothing to join or its node does not answer, ValueError or TypeError for a wrong option.
    """
    parsed = InitOptions.parse({"address": address, **options})
    with _lock:
        if _in_a_call():
            return _context_of(program.runtime())
        if program.maybe_runtime() is not None:
            if parsed.ignore_reinit_error and _context is not None:
                return _context
            raise RuntimeError(
                "actorrt is initialized already; call shutdown() first, or pass ignore_reinit_error=True"
            )
        if sys.platform != "linux":
            raise RuntimeError(f"actorrt runs on Linux, not on {sys.platform}")
        settings = Settings.from_environment()
        open_standard_streams()
        where = parsed.address or settings.address
        launched: Launched | None = None
        if parsed.local_mode:
            if where not in ("", "local"):
                raise ValueError(f"local_mode runs in this process alone and cannot join {where!r}")
            return _begin(
                importlib.import_module("actorrt.runtime.api.local_mode").LocalRuntime(settings, parsed), None
            )
        if where in ("", "local"):
            launched = launch(settings, parsed)
            session = launched.session
        else:
            session = find_session(settings, where)
        try:
            runtime = _connect(settings, parsed, session, launched)
        except BaseException:
            if launched is not None:
                launched.kill()
            raise
        return _begin(runtime, launched)


def _begin(runtime: Runtime, launched: Launched | None) -> Context:
    global _context, _session
    _session = _Session(runtime, launched)
    current.set_runtime(runtime)
    _context = _context_of(runtime)
    return _context


def _context_of(runtime: Runtime) -> Context:
    return Context(
        {
            "address": runtime.session,
            "session_dir": runtime.session,
            "node_id": runtime.membership.node_id.hex(),
            "namespace": runtime.membership.namespace,
            "version": __version__,
        }
    )


def _in_a_call() -> bool:
    """True in a worker, and in what local mode runs in its place: the session is another program's to begin and end."""
    runtime = program.maybe_runtime()
    return current.in_worker() or (runtime is not None and runtime.role == "local" and running_call.get() is not None)


def _connect(settings: Settings, options: InitOptions, session: str, launched: Launched | None) -> Runtime:
    """Import the rest, while the node starts, and open the link to it."""
    from .join import join

    if launched is not None:
        wait_for_node(launched, settings.start_timeout_s)
    return join(settings, options, session, launched is not None)


def wait_for_node(launched: Launched, limit_s: float) -> None:
    """Wait until the node listens; raises RuntimeError with its last words if it ends instead."""
    deadline = time.monotonic() + limit_s
    while True:
        remaining = deadline - time.monotonic()
        ready, _, _ = select.select([launched.ready], [], [], max(0.0, remaining))
        if ready and os.read(launched.ready, 1):
            return
        if ready or remaining <= 0:
            late = f"was not ready after {limit_s:g} s (ACTORRT_START_TIMEOUT_S sets how long it may take)"
            raise RuntimeError(f"the node {'ended while it started' if ready else late}: {launched.last_words()}")


def shutdown() -> None:
    """Leave the cluster; a node that this program started ends with all its processes. Safe to call at any time.

    In a task or an actor it warns and does nothing: the session is the program's that called.
    """
    _end_unless_in_a_call()


def _end_unless_in_a_call() -> None:
    if not _in_a_call():
        _end()
        return
    warnings.warn(
        "shutdown() in a task or an actor does nothing: the program that began the session ends it",
        RuntimeWarning,
        stacklevel=3,
    )


def _end() -> None:
    global _context, _session
    with _lock:
        session, _session, _context = _session, None, None
        runtime = program.maybe_runtime()
        current.set_runtime(None)
        if session is None or session.pid != os.getpid():
            return
        if runtime is not None:
            from .join import leave  # loaded by `init`

            leave(session.runtime)
            runtime.stop()
            runtime.retire()
        if session.launched is not None:
            session.launched.wait(STOP_TIMEOUT_S)


def _auto_init() -> Runtime:
    # Several threads may be the first: one begins, the others take what it began.
    with _lock:
        if program.maybe_runtime() is None:
            if current.in_worker():
                raise RuntimeError(current.ENDED)
            init()
        return program.runtime()


current.on_first_use(_auto_init)
if not current.in_worker():
    atexit.register(_end)
