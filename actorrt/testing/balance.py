"""What has to be gone at the end of a history: calls, waiters, references and leases balance to zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from actorrt.runtime.base.table_sizes import table_sizes
from actorrt.runtime.owner.runtime import Runtime

from .world import Process, World

# Tables that stay while a process lives: links, what a peer knows, what was learned, and idle workers.
_STAY: Final = frozenset(
    {"Peers.links", "VirtualPeers.links", "VirtualPeers.dead", "VirtualPeers.process", "VirtualPeers.session"}
    | {"VirtualLink.defined", "VirtualLink.peer", "VirtualLink._mine"}
    # Whoever has lost a link to a process that lives asks its node for its end, as long as it lives. What else waits
    # for an answer keeps a call or a lease, which are counted.
    | {"VirtualLink._dialogue"}
    | {"Tasks._pools", "Tasks._by_options", "Tasks.max_calls"}
    | {"ProcessHost._pools", "Borrows._owners", "Supervisor._deaths"}
)


def left_over(world: World) -> list[str]:
    """What is there at the end and should not be."""
    found: list[str] = []
    for process in world.processes:
        if process.lives and process.runtime is not None:
            for name, size in sorted(table_sizes(*_parts(process.runtime)).items()):
                if size and name not in _STAY:
                    found.append(f"{process.name}: {name} has {size} entries")
            found += _of_runtime(process, process.runtime)
    found += _of_node(world)
    return found


def _parts(runtime: Runtime) -> Iterator[Any]:
    yield from runtime.peers.links.values()
    yield runtime.peers
    yield runtime.objects
    yield runtime.actors
    yield runtime.supervisor
    yield runtime.tasks
    yield runtime.shared_tasks
    executor = runtime.program.runner
    if executor is not None:
        yield executor.outcomes


def _of_runtime(process: Process, runtime: Runtime) -> Iterator[str]:
    if runtime.tasks.busy:
        yield f"{process.name}: tasks have no outcome"
    if runtime.tasks.held:
        yield f"{process.name}: leases were not given back"
    if runtime.objects.is_borrowed:
        yield f"{process.name}: others are counted as borrowers"


def _of_node(world: World) -> Iterator[str]:
    node = world.node
    if node is None or not world.node_process.lives:
        return
    known = node.workers.statistics()
    if known.free != known.total:
        yield f"node: {known.free} is free of {known.total}"
    for what, count in (("leases", known.leases), ("requests", known.requests), ("starts", known.starts)):
        if count:
            yield f"node: {count} {what} are left"
    for name, size in sorted(table_sizes(node.host, node.supervisor).items()):
        if size and name not in _STAY:
            yield f"node: {name} has {size} entries"
