"""What has to be gone at the end of a history: calls, references, leases, loads and workers balance to zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from actorrt.core.workers import State
from actorrt.runtime.base.table_sizes import table_sizes
from actorrt.runtime.owner.runtime import Runtime
from actorrt.runtime.owner.shared import SharedPool

from .world import Process, World

# Tables that stay while a process lives: links, what a peer knows, what was learned, and idle workers.
_STAY: Final = frozenset(
    {"Peers.links", "VirtualPeers.links", "VirtualPeers.dead", "VirtualPeers.process", "VirtualPeers.session"}
    | {"VirtualLink.defined", "VirtualLink.peer", "VirtualLink._mine"}
    | {"VirtualLoopback.defined", "VirtualLoopback.peer"}
    # Whoever has lost a link to a process that lives asks its node for its end, as long as it lives. What else waits
    # for an answer keeps a call or a lease, which are counted.
    | {"VirtualLink._dialogue"}
    | {"Tasks._pools", "Tasks._by_options", "Tasks.max_calls"}
    | {"ProcessHost._pools", "Borrows._owners", "Supervisor._deaths"}
)
# Where a worker stays for a moment only.
_ON_THEIR_WAY: Final = tuple(
    state for state in State if state not in (State.IDLE, State.QUESTIONED, State.SHARED, State.GONE)
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
    for key, pool in runtime.tasks.statistics().pools:
        for what, count in (
            ("tasks wait", pool.waiting),
            ("tasks are under way", pool.under_way),
            ("leases are held", sum(pool.leases.values())),
            ("leases are asked for", pool.asked),
        ):
            if count:
                yield f"{process.name}: in the pool {key} {count} {what}"
    yield from _of_loads(process.name, runtime.host.shared_pools())
    runner = runtime.program.runner
    if runner is not None:
        known = runner.statistics()
        for what, count in (("actors", known.actors), ("running calls", known.running), ("waiting", known.waiting)):
            if count:
                yield f"{process.name}: its executor has {count} {what}"


def _of_loads(name: str, pools: Iterable[SharedPool]) -> Iterator[str]:
    """Of each thing that was placed on a shared worker it has to be said once that it is done."""
    for pool in pools:
        for worker, load in pool.loads.items():
            if load:
                yield f"{name}: the load of worker {worker.hex()} is {load}, and nothing is there"
        if pool.statistics().asking:
            yield f"{name}: the node is asked for shared workers, and nobody waits for one"


def _of_node(world: World) -> Iterator[str]:
    node = world.node
    if node is None or not world.node_process.lives:
        return
    known = node.workers.statistics()
    if known.free != known.total:
        yield f"node: {known.free} is free of {known.total}"
    for what, count in (
        ("leases", known.leases),
        ("blocked leases", known.blocked),
        ("requests", known.requests),
        ("requests for shared workers", known.waiting_for_shared),
        ("starts", known.starts),
        *((f"{state.name.lower()} workers", known.workers.get(state, 0)) for state in _ON_THEIR_WAY),
    ):
        if count:
            yield f"node: {count} {what} are left"
    living = sum(process.lives and process.role == "worker" for process in world.processes)
    if living != sum(known.workers.values()):
        yield f"node: {sum(known.workers.values())} workers are known, and {living} live"
    yield from _of_loads("node", node.host.shared_pools())
    for name, size in sorted(table_sizes(node.host, node.supervisor).items()):
        if size and name not in _STAY:
            yield f"node: {name} has {size} entries"
