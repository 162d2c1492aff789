"""What a decision of the capacity queue costs, in one process: by replicas, with nothing waiting and with thousands.

Run as `python -m loadtests.capacity_decisions`; prints a table, or one line of JSON with --json. A decision is one
request that comes, one that ends, and whoever has a place then. It takes about half a minute, and all of one core.
"""

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from typing import Final

from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.prefix_index import PrefixIndex
from actorrt.serve.capacity.queue import Ask, CapacityQueue, QueueLimits

REPLICAS: Final = (8, 100, 1_000, 10_000)
WAITING: Final = 5_000
TENANTS: Final = 8
# Of about 900 tokens each: twenty to a replica.
FACTS: Final = LineFacts(kv_tokens=20_000, slots=64, prefill_rate=1e6)
_PREFIX_REPLICAS: Final = 1_000
_BLOCKS: Final = 256


@dataclass(frozen=True, slots=True)
class Figures:
    what: str
    replicas: int
    waiting: int
    per_s: float
    p50_us: float
    p99_us: float


def figures(what: str, replicas: int, waiting: int, times_ns: list[int]) -> Figures:
    ordered = sorted(times_ns)
    per_s = len(ordered) / sum(ordered) * 1e9
    p50, p99 = (ordered[int(len(ordered) * part)] / 1000 for part in (0.5, 0.99))
    return Figures(what, replicas, waiting, per_s, p50, p99)


class Load:
    """A queue under a load of requests whose lengths are as those of chats."""

    def __init__(self, replicas: int, seed: int) -> None:
        self.dice = random.Random(seed)
        self.queue = CapacityQueue(1, 0.0, most=QueueLimits(10**12, 10**9))
        for number in range(replicas):
            self.queue.set_line(LineId(str(number)), FACTS, 1)
        self.running: list[int] = []
        self.now = 0.0

    def ask(self) -> Ask:
        dice = self.dice
        prompt = min(10_000, int(dice.lognormvariate(6, 1)))
        output = min(5_000, int(dice.lognormvariate(5, 1)))
        return Ask("m", prompt, output, tenant=f"t{dice.randrange(TENANTS)}", arrived=self.now)

    def fill(self, running: int) -> None:
        """So many run, or as many as there is room for, and then `WAITING` wait."""
        while len(self.running) < running:
            lease = self.queue.submit(self.ask(), self.now, self.dice.random())
            if lease is None:
                break
            self.running.append(lease.id.number)
        self.answer(0)

    def answer(self, first: int) -> None:
        """Those that run, from this one on, have their first token."""
        for number in self.running[first:]:
            self.queue.progress(number, 1)

    def wait(self, requests: int) -> None:
        while len(self.queue.order) < requests:
            self.queue.submit(self.ask(), self.now, self.dice.random())
            began = len(self.running)
            self.take()
            self.answer(began)

    def take(self) -> None:
        for _, outcome in self.queue.next(self.now, self.dice.random):
            if isinstance(outcome, Lease):
                self.running.append(outcome.id.number)

    def decide(self, count: int) -> list[int]:
        """Nanoseconds of each of so many."""
        queue, dice, running, times = self.queue, self.dice, self.running, list[int]()
        for _ in range(count):
            ask, chance, at = self.ask(), dice.random(), dice.randrange(len(running))
            running[at], running[-1] = running[-1], running[at]
            ends, answer = running.pop(), int(dice.lognormvariate(5, 1))
            began = len(running)
            self.now += 1e-5
            begin = time.perf_counter_ns()
            queue.release(ends, answer, is_whole=True)
            lease = queue.submit(ask, self.now, chance)
            if lease is not None:
                running.append(lease.id.number)
            elif queue.order:
                self.take()
            times.append(time.perf_counter_ns() - begin)
            self.answer(began)
        return times


def decisions(replicas: int, waiting: int, count: int) -> Figures:
    load = Load(replicas, seed=7)
    # Where nothing is to wait, half of the room is left.
    load.fill(10**9 if waiting else replicas * 8)
    load.wait(waiting)
    load.decide(count // 10)
    return figures("acquire and release", replicas, waiting, load.decide(count))


def prefixes(count: int) -> list[Figures]:
    """Prompts of 256 blocks that share their beginnings, as conversations with few system prompts do."""
    dice = random.Random(7)
    index = PrefixIndex[LineId]()
    chains: list[tuple[int, ...]] = []
    for number in range(4 * _PREFIX_REPLICAS):
        shared = dice.choice((0, 8, 64, 200))
        family = dice.randrange(50)
        chains.append(
            tuple((family if depth < shared else 1000 + number, depth).__hash__() for depth in range(_BLOCKS))
        )
        index.note(LineId(str(dice.randrange(_PREFIX_REPLICAS))), chains[-1], 2_000_000)
    lookups, notes = list[int](), list[int]()
    for _ in range(count):
        chain = dice.choice(chains)
        begin = time.perf_counter_ns()
        index.hits(chain)
        lookups.append(time.perf_counter_ns() - begin)
    for _ in range(count):
        chain, line = dice.choice(chains), LineId(str(dice.randrange(_PREFIX_REPLICAS)))
        begin = time.perf_counter_ns()
        index.note(line, chain, 2_000_000)
        notes.append(time.perf_counter_ns() - begin)
    named = (("prefix look-up", lookups), ("prefix noted", notes))
    return [figures(what, _PREFIX_REPLICAS, 0, times) for what, times in named]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000, help="in each row of the table")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [decisions(replicas, waiting, arguments.decisions) for waiting in (0, WAITING) for replicas in REPLICAS]
    rows += prefixes(arguments.decisions)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| what | replicas | waiting | a second | p50 us | p99 us |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.what} | {row.replicas} | {row.waiting} | {row.per_s:,.0f} | {row.p50_us:.1f} | {row.p99_us:.1f} |"
        )


if __name__ == "__main__":
    main()
