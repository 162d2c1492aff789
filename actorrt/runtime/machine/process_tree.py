"""How the launcher becomes the processes of a machine: it forks the zygote and the head, and turns into the node.

    driver ── launcher = node ─┬─ zygote ── workers ── what they start
                               └─ head

Who ends with whom, however it ends (`kill -9` too):
- the driver: the node and the head each hold a pidfd of it, and end;
- the node: the zygote's socket closes, and it kills all below it and ends. The head lives on, until the driver ends;
- the zygote: its workers get PDEATHSIG, the node hears of it (`ZygoteClient`) and kills what they had started;
- the head: the node hears of it (`wait_child`), nothing else ends.

The node starts another zygote or head in the place of one that has ended (respawn.py); for those the same holds.

What each process does is given as a function; nothing here knows of links, loops or configuration.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

import msgspec

from actorrt.runtime.base.descriptors import open_standard_streams
from actorrt.runtime.machine.process import (
    flush_output,
    run_and_exit,
    set_child_subreaper,
    set_process_name,
)
from actorrt.runtime.machine.zygote import WorkerStart, run_zygote


class HeadStart(msgspec.Struct, frozen=True):
    """What the head is born with. It must end when the driver does: `await watch_pidfd(start.driver_pidfd)`."""

    node: socket.socket  # a connected stream to the node, closed when either ends
    node_pid: int
    driver_pidfd: int | None


class NodeStart(msgspec.Struct, frozen=True):
    """What the node is born with. It must end when the driver does: `await watch_pidfd(start.driver_pidfd)`.

    It is a subreaper, and parent of the zygote and the head, which it reaps.
    """

    zygote: socket.socket  # for ZygoteClient
    zygote_pid: int
    head: socket.socket | None  # a connected stream to the head, closed when either ends
    head_pid: int | None
    driver_pidfd: int | None


def fork_tree(
    *,
    driver_pid: int | None,
    node_main: Callable[[NodeStart], object],
    head_main: Callable[[HeadStart], object] | None,
    worker_main: Callable[[WorkerStart], object],
    node_fds: Collection[int] = (),
    preload_modules: Sequence[str] = (),
) -> NoReturn:
    """Fork the zygote and (unless `head_main` is None) the head, and run `node_main` here; ends the process with it.

    To be called in a single-threaded process that has imported all that the others will need. `driver_pid` is the
    parent of this process, None where nobody's end is to be followed. If the driver has ended already, so does this.
    Workers are born with `preload_modules`, as soon as the zygote had time to import them.
    `node_fds` are for the node alone: copies elsewhere would keep others from seeing that it has ended.
    """
    driver_pidfd: int | None = None
    if driver_pid is not None:
        with contextlib.suppress(ProcessLookupError):
            driver_pidfd = os.pidfd_open(driver_pid)
        if driver_pidfd is None or os.getppid() != driver_pid:  # the id may be a later process's by now
            os._exit(1)
    with contextlib.suppress(PermissionError):  # it leads a group of its own already
        os.setsid()  # Ctrl-C in the driver's terminal is for the driver to act on
    open_standard_streams()
    set_child_subreaper()
    flush_output()
    # Once for all three processes: what is imported by now is left out of their collections, so its pages stay shared.
    # The little garbage among it stays too: to look for it takes 20 ms of each start, and gives no page back.
    gc.freeze()

    zygote, zygote_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote_pid = os.fork()
    if zygote_pid == 0:
        zygote.close()
        run_zygote(zygote_end, worker_main, preload_modules)
    zygote_end.close()

    node_pid = os.getpid()
    head: socket.socket | None = None
    head_pid: int | None = None
    if head_main is not None:
        head, head_end = socket.socketpair()
        head_pid = os.fork()
        if head_pid == 0:
            # A copy of the zygote's socket here would keep the zygote from seeing the end of the node.
            zygote.close()
            head.close()
            for fd in node_fds:
                os.close(fd)
            set_process_name("actorrt-head")
            run_and_exit(lambda: head_main(HeadStart(head_end, node_pid, driver_pidfd)))
        head_end.close()

    set_process_name("actorrt-node")
    run_and_exit(lambda: node_main(NodeStart(zygote, zygote_pid, head, head_pid, driver_pidfd)))
