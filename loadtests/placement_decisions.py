"""What it costs to find a node for a request, in one process: by how many nodes there are, with room and with none.

Run as `python -m loadtests.placement_decisions`; prints a table, or one line of JSON with --json. A decision is one
request that is placed, or told where it had better wait, and what the node has then. Some seconds, one core.
"""

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from typing import Final

from actorrt.core.leases import UNIT
from actorrt.core.placement import LARGE, Cluster, Demand, Go
from actorrt.types import ANYWHERE, LabelRule, ProcessId, Strategy

NODES: Final = (10, 100, 1_000, 10_000)
DECISIONS: Final = 20_000
SHAPES: Final = (
    {"CPU": UNIT},
    {"CPU": 4 * UNIT},
    {"CPU": UNIT // 2, "memory": UNIT},
    {"GPU": UNIT},
    {"GPU": UNIT // 4, "CPU": UNIT},
)
STRATEGIES: Final = (ANYWHERE, Strategy(spread=True), Strategy(labels=(LabelRule("zone", ("a", "b")),)))


@dataclass(frozen=True, slots=True)
class Figures:
    what: str
    nodes: int
    p50_us: float
    p99_us: float
    most_us: float


def cluster_of(nodes: int) -> Cluster:
    cluster = Cluster()
    for number in range(nodes):
        total = {"CPU": 32 * UNIT, "memory": 64 * UNIT, **({} if number % 4 else {"GPU": 8 * UNIT})}
        cluster.join(_node(number), total, labels={"zone": "abc"[number % 3]})
    return cluster


def measure(what: str, nodes: int, fill: float, seed: int, decisions: int = DECISIONS) -> Figures:
    """`fill`: the part of all CPUs that is taken while it is measured."""
    dice = random.Random(seed)
    cluster = cluster_of(nodes)
    held: list[tuple[ProcessId, dict[str, int], list[int]]] = []
    used, most = 0, int(fill * nodes * 32 * UNIT)
    times_ns: list[int] = []
    begun = 0
    while len(times_ns) < decisions:
        shape = dice.choice(SHAPES)
        bytes_at = {_node(dice.randrange(nodes)): LARGE} if dice.random() < 0.2 else {}
        demand = Demand(shape, dice.choice(STRATEGIES), _node(dice.randrange(nodes)), bytes_at)
        start = time.perf_counter_ns()
        choice = cluster.choose(demand)
        if isinstance(choice, Go):
            held.append((choice.node, shape, cluster.take(choice.node, shape)))
        spent = time.perf_counter_ns() - start
        used += shape.get("CPU", 0) if isinstance(choice, Go) else 0
        full = used > most or not isinstance(choice, Go)
        begun = begun or full
        if begun:
            times_ns.append(spent)
        while used > most or (full and held):
            full = False
            node, shape, gpus = held.pop(dice.randrange(len(held)))
            cluster.give(node, shape, gpus)
            used -= shape.get("CPU", 0)
    ordered = sorted(times_ns)
    p50, p99 = (ordered[int(len(ordered) * part)] / 1000 for part in (0.5, 0.99))
    return Figures(what, nodes, p50, p99, ordered[-1] / 1000)


def _node(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8, "big"))


def main() -> None:
    parser = argparse.ArgumentParser(description="what it costs to find a node for a request")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rows = [
        measure(what, nodes, fill, arguments.seed)
        for what, fill in (("a third is taken", 0.33), ("nearly all is taken", 0.98))
        for nodes in NODES
    ]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{'':<22}{'nodes':>8}{'p50 us':>10}{'p99 us':>10}{'most us':>10}")
    for row in rows:
        print(f"{row.what:<22}{row.nodes:>8}{row.p50_us:>10.1f}{row.p99_us:>10.1f}{row.most_us:>10.0f}")


if __name__ == "__main__":
    main()
