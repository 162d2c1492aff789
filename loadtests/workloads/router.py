# pyright: basic, reportMissingImports=false
"""Requests through a parent to a child, all places taken: Ray's own comparison of request routers.

Service times are exponential with a mean of a second and ten seconds at the most, the same ones for each side. A child
has two places and a parent five; there are half as many parents as children, so 2.5 requests for 2 places, and a client
for each place of a parent, which asks again as soon as it has its answer.
"""

import asyncio
import importlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadtests.peers.parent_child import PARENT_PLACES, deployments
from loadtests.workloads.protocol import Effort, give, parse_arguments

MEAN_S: Final = 1.0
MOST_S: Final = 10.0
WARM_S: Final = 4.0
LASTS_S: Final = 20.0


async def load(handle: Any, clients: int, warm_s: float, lasts_s: float) -> tuple[float, list[tuple[float, float]]]:
    """When measuring began, by the monotonic clock, and of each request then, when it ended and how long it took."""
    dice = random.Random(7)
    began = time.monotonic() + warm_s
    until = began + lasts_s
    ended: list[tuple[float, float]] = []

    async def ask() -> None:
        while (asked := time.monotonic()) < until:
            await handle.remote(min(MOST_S, dice.expovariate(1 / MEAN_S)))
            now = time.monotonic()
            if began <= now < until:
                ended.append((now, now - asked))

    await asyncio.gather(*(ask() for _ in range(clients)))
    return began, ended


def figures(
    children: int, began: float, lasts_s: float, ended: list[tuple[float, float]], folder: Path
) -> Mapping[str, float]:
    seconds = [0] * int(lasts_s)
    for at, _ in ended:
        seconds[min(len(seconds) - 1, int(at - began))] += 1
    latency = statistics.quantiles([each for _, each in ended], n=100)
    busy: list[float] = []
    refusals = 0
    for path in folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        busy += [each["busy"] for each in lines if began + 1 <= each["at"] <= began + lasts_s]
        first = [each["refusals"] for each in lines if each["at"] <= began]
        last = [each["refusals"] for each in lines if each["at"] <= began + lasts_s]
        refusals += last[-1] - (first[-1] if first else 0) if last else 0
    quarters = statistics.quantiles(busy, n=4)
    return {
        f"router__throughput_{children}": statistics.median(seconds),
        f"router__latency_p50_{children}": latency[49],
        f"router__latency_p99_{children}": latency[98],
        f"router__busy_p25_{children}": 100 * quarters[0],
        f"router__busy_p50_{children}": 100 * quarters[1],
        f"router__busy_p75_{children}": 100 * quarters[2],
        f"router__refusals_{children}": 1000 * refusals / len(ended),
    }


def measure(side: str, children: int, effort: Effort) -> Mapping[str, float]:
    name = "ray" if side.startswith("ray") else "actorrt"
    serve = importlib.import_module(f"{name}.serve")
    parents = children // 2
    warm_s, lasts_s = (2.0, 5.0) if effort.quick else (WARM_S, LASTS_S)
    with tempfile.TemporaryDirectory(prefix="router-") as folder:
        app = deployments(side, children, parents, folder)
        handle = serve.run(app, name=f"of_{children}", route_prefix=None)
        began, ended = asyncio.run(load(handle, PARENT_PLACES * parents, warm_s, lasts_s))
        found = figures(children, began, lasts_s, ended, Path(folder))
        serve.delete(f"of_{children}")
    return found


def main(children: int) -> None:
    effort = parse_arguments(__doc__)
    side = effort.side
    api = importlib.import_module("ray" if side.startswith("ray") else "actorrt")
    api.init(num_cpus=2, **({"log_to_driver": False} if side.startswith("ray") else {}))
    found = measure(side, children, effort)
    importlib.import_module(f"{api.__name__}.serve").shutdown()
    api.shutdown()
    give(**found)
