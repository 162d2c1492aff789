"""`python -m actorrt.runtime.launcher SESSION`: import once what all processes need, then become them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from functools import partial

import aiohttp.web  # noqa: F401  # pyright: ignore[reportUnusedImport]  what all that listen need, loaded once
import msgspec

from actorrt.core.leases import UNIT

from .head import head_main
from .node import NodeConfig, node_main
from .node_launch import MARK_FD, READY_FD
from .process import cpu_count, memory_limit
from .process_tree import fork_tree
from .session_folder import facts_of
from .worker import worker_main

# The part of the machine's memory that objects may take where nobody said otherwise.
STORE_SHARE = 0.3


class LaunchConfig(msgspec.Struct, frozen=True):
    """What the session was begun with, as it stands in its mark; ids in hexadecimal."""

    node: str
    head: str
    resources: dict[str, int]
    store_limit: int
    driver_pid: int


def complete(given: LaunchConfig, session: str) -> NodeConfig:
    """Fill in what only the machine knows."""
    return NodeConfig(
        node=bytes.fromhex(given.node),
        head=bytes.fromhex(given.head),
        session=session,
        resources={"CPU": cpu_count() * UNIT, "memory": memory_limit() * UNIT, **given.resources},
        store_limit=given.store_limit or int(memory_limit() * STORE_SHARE),
        driver_pid=given.driver_pid,
        ready_fd=READY_FD,
    )


def _keep_from_cleaners(session: str) -> int:
    """A descriptor with a lock on the session's folder: systemd-tmpfiles takes nothing from a folder that is locked."""
    fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # not all file systems have locks
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def main() -> None:
    session = sys.argv[1]
    config = complete(msgspec.json.decode(facts_of(MARK_FD), type=LaunchConfig), session)
    fork_tree(
        driver_pid=config.driver_pid or None,
        node_main=partial(node_main, config),
        head_main=partial(head_main, config.head, config.session),
        worker_main=worker_main,
        node_fds=[config.ready_fd, MARK_FD, _keep_from_cleaners(session)],
    )


if __name__ == "__main__":
    main()
