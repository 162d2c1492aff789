"""Import once what all processes need, then become them: what start.py loads.

`... again CONFIG` becomes one of them alone, for a node that has lost it (respawn.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from functools import partial

import aiohttp.web  # noqa: F401  # pyright: ignore[reportUnusedImport]  what all that listen need, loaded once
import msgspec

from actorrt.core.leases import UNIT
from actorrt.types import ProcessId

from ..machine.process import cpu_count, memory_limit, run_and_exit, set_process_name
from ..machine.process_tree import HeadStart, fork_tree
from ..machine.respawn import AGAIN, Again, HeadAgain, ZygoteAgain
from ..machine.session_folder import facts_of
from ..machine.zygote import run_zygote
from ..node.head import head_main
from ..node.node import node_main
from ..node.node_launch import MARK_FD, READY_FD
from ..node.node_machine import NodeConfig
from ..worker.worker import worker_main

# The part of the machine's memory that objects may take where nobody said otherwise.
STORE_SHARE = 0.3


class LaunchConfig(msgspec.Struct, frozen=True):
    """What the session was begun with, as it stands in its mark; ids in hexadecimal."""

    node: str
    head: str
    resources: dict[str, int]
    store_limit: int
    driver_pid: int
    preload_modules: list[str]


def complete(given: LaunchConfig, session: str) -> NodeConfig:
    """Fill in what only the machine knows."""
    return NodeConfig(
        node=ProcessId(bytes.fromhex(given.node)),
        head=ProcessId(bytes.fromhex(given.head)),
        session=session,
        resources={"CPU": cpu_count() * UNIT, "memory": memory_limit() * UNIT, **given.resources},
        store_limit=given.store_limit or int(memory_limit() * STORE_SHARE),
        driver_pid=given.driver_pid,
        ready_fd=READY_FD,
        preload_modules=given.preload_modules,
    )


def _keep_from_cleaners(session: str) -> int:
    """A descriptor with a lock on the session's folder: systemd-tmpfiles takes nothing from a folder that is locked."""
    fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # not all file systems have locks
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def become(again: Again, session: str) -> None:
    """Be a later head or zygote until its end."""
    sock = socket.socket(fileno=again.node_fd)
    match again:
        case ZygoteAgain():
            run_zygote(sock, worker_main, again.preload_modules)
        case HeadAgain():
            set_process_name("actorrt-head")
            sock.set_inheritable(False)
            if again.driver_pidfd is not None:
                os.set_inheritable(again.driver_pidfd, False)
            start = HeadStart(sock, again.node_pid, again.driver_pidfd)
            run_and_exit(partial(head_main, ProcessId(bytes.fromhex(again.head)), session, start))


def main() -> None:
    if sys.argv[1] == AGAIN:
        become(msgspec.json.decode(sys.argv[2].encode(), type=Again), sys.argv[3])
    session = sys.argv[1]
    # They are the node's alone: a copy in what it starts later would say that the session lives.
    for fd in (READY_FD, MARK_FD):
        os.set_inheritable(fd, False)
    config = complete(msgspec.json.decode(facts_of(MARK_FD), type=LaunchConfig), session)
    fork_tree(
        driver_pid=config.driver_pid or None,
        node_main=partial(node_main, config),
        head_main=partial(head_main, config.head, config.session),
        worker_main=worker_main,
        preload_modules=config.preload_modules,
        node_fds=[config.ready_fd, MARK_FD, _keep_from_cleaners(session)],
    )
