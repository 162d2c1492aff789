"""Open a driver's link to its node. Importing this imports the whole runtime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import warnings

from actorrt.config import Settings
from actorrt.core.options import InitOptions
from actorrt.types import PROCESS_ID_SIZE, Employer, JobKey, ProcessId
from actorrt.version import __version__
from actorrt.wire.any_text import as_bytes
from actorrt.wire.messages import FlushOutput, JoinDriver, Joined

from ..machine.session_folder import node_of
from ..owner.membership import Membership
from ..owner.program import Program
from ..owner.runtime import Runtime
from .log_printer import LogPrinter

FLUSH_TIMEOUT_S = 5.0


def join(settings: Settings, options: InitOptions, session: str, started_it: bool) -> Runtime:
    """The runtime of this driver, connected.

    Raises LinkError, what the node refuses it for, or ConnectionError if the node does not answer in `start_timeout_s`.
    """
    place = _Place()
    program = Program(print_lines=LogPrinter(settings.log_deduplicate), paths=place.sys_path)
    runtime = Runtime(
        ProcessId(os.urandom(PROCESS_ID_SIZE)), "driver", session, __version__, settings, lambda _: program
    )
    runtime.start()
    try:
        runtime.thread.call_sync(_join_in_time(runtime, place, options, started_it))
    except BaseException:
        runtime.stop()
        raise
    return runtime


def leave(runtime: Runtime) -> None:
    """Before this driver goes: print what its workers have printed so far."""
    with contextlib.suppress(Exception):  # the node may be gone, or answer no more
        if not runtime.node.closed:
            runtime.thread.call_sync(runtime.node.ask(FlushOutput()), FLUSH_TIMEOUT_S)
    printer = runtime.program.print_lines
    if isinstance(printer, LogPrinter):
        printer.close()


class _Place:
    """Where this program runs, as its workers are to find it."""

    def __init__(self) -> None:
        try:
            self.folder = os.getcwd()
        except OSError as error:
            self.folder = ""
            warnings.warn(
                f"workers run in /: the folder of this program is not there any more ({error.strerror})",
                RuntimeWarning,
                stacklevel=2,
            )
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        self.main_file = os.path.normpath(os.path.join(self.folder, file)) if file else ""

    def sys_path(self) -> list[bytes]:
        """Where this program finds its modules; what is relative to a folder that is gone finds nothing here either."""
        whole = (os.path.normpath(os.path.join(self.folder, path)) for path in sys.path)
        return [as_bytes(path) for path in whole if os.path.isabs(path)]


async def _join_in_time(runtime: Runtime, place: _Place, options: InitOptions, started_it: bool) -> None:
    limit_s = runtime.settings.start_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            await _join(runtime, place, options, started_it)
    except TimeoutError:
        raise ConnectionError(
            f"the node of {runtime.session} has not answered for {limit_s:g} s: it is stopped, or the machine is too "
            "busy; ACTORRT_START_TIMEOUT_S is how long it is waited for"
        ) from None


async def _join(runtime: Runtime, place: _Place, options: InitOptions, started_it: bool) -> None:
    settings = runtime.settings
    namespace = options.namespace or settings.namespace or f"anonymous-{runtime.process.hex()}"
    node = await runtime.peers.dial_node(node_of(runtime.session))
    log_to_driver = settings.log_to_driver if options.log_to_driver is None else options.log_to_driver
    joined: Joined = await node.ask(
        JoinDriver(
            os.getpid(),
            namespace,
            place.sys_path(),
            as_bytes(place.folder or "/"),
            as_bytes(place.main_file),
            [as_bytes(argument) for argument in sys.argv],
            dict(options.env_vars),
            log_to_driver,
            started_it,
        )
    )
    employer = Employer(JobKey(runtime.process))
    runtime.join(Membership(node, joined.node.process, joined.cpus, joined.store_limit, employer, namespace))
