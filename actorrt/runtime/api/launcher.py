"""Import once what all processes need, then become them: what start.py loads.

`... again CONFIG` becomes one of them alone, for a node that has lost it (respawn.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import aiohttp.web  # noqa: F401  # pyright: ignore[reportUnusedImport]  what all that listen need, loaded once
import msgspec

from actorrt.core.leases import UNIT
from actorrt.types import ProcessId

from ..machine.process import cpu_count, memory_limit, run_and_exit, set_process_name
from ..machine.process_tree import HeadStart, fork_tree
from ..machine.respawn import AGAIN, Again, HeadAgain, ZygoteAgain
from ..machine.session_folder import INFO, facts_of, opened
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
    # Of a cluster that outlives programs: its name; its head's store, where this node keeps the head, or where the head
    # is (node_machine.NEAR, or an address).
    cluster: str = ""
    store: str = ""
    head_address: str = ""
    before: str = ""


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
        cluster=given.cluster,
        head_address=given.head_address,
        before=given.before,
    )


def head_of(given: LaunchConfig, session: str) -> Callable[[HeadStart], object]:
    """What the head of this session runs."""
    head = ProcessId(bytes.fromhex(given.head))
    if not given.store:
        return partial(head_main, head, session)
    # It needs what no other process does: its store.
    cluster: Any = import_module("actorrt.runtime.node.head_cluster")
    return partial(cluster.cluster_head_main, head, session, address=given.store, cluster=given.cluster)


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
            run_and_exit(lambda: head_of(given_in(session), session)(start))


def given_in(session: str) -> LaunchConfig:
    """What stands in the mark of a session."""
    with opened(session) as folder:
        mark = os.open(INFO, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            return msgspec.json.decode(facts_of(mark), type=LaunchConfig)
        finally:
            os.close(mark)


def main() -> None:
    if sys.argv[1] == AGAIN:
        become(msgspec.json.decode(sys.argv[2].encode(), type=Again), sys.argv[3])
    session = sys.argv[1]
    # They are the node's alone: a copy in what it starts later would say that the session lives.
    for fd in (READY_FD, MARK_FD):
        os.set_inheritable(fd, False)
    given = msgspec.json.decode(facts_of(MARK_FD), type=LaunchConfig)
    config = complete(given, session)

    def be_head(start: HeadStart) -> None:
        # In its own process, which may have more to load than the others.
        head_of(given, session)(start)

    held = [MARK_FD, _keep_from_cleaners(session)]
    fork_tree(
        driver_pid=config.driver_pid or None,
        node_main=partial(node_main, config),
        head_main=None if given.head_address else be_head,
        worker_main=worker_main,
        preload_modules=config.preload_modules,
        # The head of a cluster may outlive its node, and the session with it.
        node_fds=[config.ready_fd, *([] if given.store else held)],
    )
