"""`python -m actorrt.runtime.launcher CONFIG`: import once what all processes need, then become them."""

from __future__ import annotations

import sys
from functools import partial

import aiohttp.web  # noqa: F401  # pyright: ignore[reportUnusedImport]  what all that listen need, loaded once
import msgspec

from actorrt.core.leases import UNIT

from .head import head_main
from .node import NodeConfig, node_main
from .process import cpu_count, memory_limit
from .process_tree import fork_tree
from .worker import worker_main

# The part of the machine's memory that objects may take where nobody said otherwise.
STORE_SHARE = 0.3


class LaunchConfig(msgspec.Struct, frozen=True):
    """What the driver passes on the command line; ids in hexadecimal."""

    node: str
    head: str
    session: str
    resources: dict[str, int]
    store_limit: int
    driver_pid: int
    ready_fd: int


def complete(given: LaunchConfig) -> NodeConfig:
    """Fill in what only the machine knows."""
    return NodeConfig(
        node=bytes.fromhex(given.node),
        head=bytes.fromhex(given.head),
        session=given.session,
        resources={"CPU": cpu_count() * UNIT, "memory": memory_limit() * UNIT, **given.resources},
        store_limit=given.store_limit or int(memory_limit() * STORE_SHARE),
        driver_pid=given.driver_pid,
        ready_fd=given.ready_fd,
    )


def main() -> None:
    config = complete(msgspec.json.decode(sys.argv[1].encode(), type=LaunchConfig))
    fork_tree(
        driver_pid=config.driver_pid or None,
        node_main=partial(node_main, config),
        head_main=partial(head_main, config.head, config.session),
        worker_main=worker_main,
        node_fds=[config.ready_fd],
    )


if __name__ == "__main__":
    main()
