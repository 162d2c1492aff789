"""Runs of a plan: each policy with each seed, in processes, and where saturation lies."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from random import Random
from typing import Final

from .engine_model import EngineModel
from .fairness import Fairness
from .fleet import Failure, Fleet
from .measures import Targets, measure
from .policies.catalogue import POLICIES, STALE_S
from .requests import Arrival, Request
from .sampling import requests, sample

# Saturation is measured on so many requests for each replica, of so many replicas at most.
_CALIBRATED: Final = 600
_MOST_REPLICAS: Final = 8

# The lowest of the capacity queue's bands.
BATCH: Final = 3

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all policies of a comparison have in common."""

    model: EngineModel
    replicas: int
    rate: float
    """Requests a second, in the mean."""
    count: int
    routers: int = 1
    stale_s: float = STALE_S
    deadline_s: float = math.inf
    failures: int = 0
    """Replicas that die, at times that are spread over the run, each for `down_s`."""
    down_s: float = 30.0
    prefill: int = 0
    """Replicas that only read prompts, where a policy has such; 0: half of them."""
    batch: int = 0
    """Requests of the lowest band that wait from the beginning, beside the others, and are not measured."""
    targets: Targets = field(default_factory=Targets)


def run(
    arrivals: Sequence[Arrival],
    plan: Plan,
    policy: str,
    seed: int,
    say: Callable[[float, int], None] | None = None,
) -> dict[str, float]:
    """The measures of one run; the same for the same arguments."""
    # Whoever decides has chance of its own, so that all policies have the same requests.
    dice = Random(seed)
    wanted = requests(
        sample(arrivals, plan.count, plan.rate, dice), dice, deadline_s=plan.deadline_s, routers=plan.routers
    )
    fleet = Fleet(plan.model, plan.replicas, plan.routers, Random(seed + 1_000_003))
    fleet.prefill = plan.prefill
    tenants = sorted({request.tenant for request in wanted})
    if len(tenants) > 1 and not plan.batch:
        fleet.fairness = Fairness(tenants)
    made = POLICIES[policy].make(fleet, plan.stale_s)
    background = _background(arrivals, plan, Random(seed + 2_000_003))
    with _without_collection():
        fleet.run(made, wanted, _failures(plan, wanted[-1].arrived, dice), background, say)
    found = measure(wanted, fleet, made, plan.targets)
    if background:
        ended = [request for request in background if not math.isnan(request.ended)]
        found["batch_tokens_per_s"] = sum(request.prompt + request.output for request in ended) / fleet.now
        found["batch_left"] = float(len(background) - len(ended))
    return found


@contextmanager
def _without_collection() -> Iterator[None]:
    """A run makes no cycles: to look for them among a million requests takes a sixth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _background(arrivals: Sequence[Arrival], plan: Plan, dice: Random) -> list[Request]:
    if not plan.batch:
        return []
    wanted = sample(arrivals, plan.batch, 1.0, dice)
    asked = [
        arrival._replace(
            at=0.0, band=BATCH, session="", tenant="batch", chain=tuple(-hash - 1 for hash in arrival.chain)
        )
        for arrival in wanted
    ]
    return [Request(-1 - number, arrival) for number, arrival in enumerate(asked)]


def _failures(plan: Plan, span: float, dice: Random) -> list[Failure]:
    return [
        Failure(span * (number + 0.5) / plan.failures, dice.randrange(plan.replicas), plan.down_s)
        for number in range(plan.failures)
    ]


def saturation(arrivals: Sequence[Arrival], model: EngineModel, replicas: int) -> float:
    """Requests a second that the replicas end while more than they take waits for them, first come first served."""
    few = min(replicas, _MOST_REPLICAS)
    dice = Random(0)
    count = _CALIBRATED * few
    wanted = requests([arrival._replace(at=0.0) for arrival in sample(arrivals, count, 1.0, dice)], dice)
    fleet = Fleet(model, few, 1, dice)
    fleet.run(POLICIES["fifo"].make(fleet, 0.0), wanted)
    ends = sorted(request.ended for request in wanted if not request.refused)
    # Not while the replicas fill, nor when nothing waits any more.
    first, last = int(len(ends) * 0.2), int(len(ends) * 0.8)
    return (last - first) / (ends[last] - ends[first]) * replicas / few


def compare(
    arrivals: Sequence[Arrival], plan: Plan, policies: Sequence[str], seeds: Sequence[int], processes: int, say: Say
) -> dict[str, list[dict[str, float]]]:
    """For each policy the measures of its runs, in the order of the seeds."""
    found: dict[str, dict[int, dict[str, float]]] = {policy: {} for policy in policies}
    total = len(policies) * len(seeds)
    for done, (policy, seed, measures) in enumerate(_all(arrivals, plan, policies, seeds, processes, say), 1):
        found[policy][seed] = measures
        say(f"{done} of {total} runs: {policy}, seed {seed}")
    return {policy: [runs[seed] for seed in seeds] for policy, runs in found.items()}


def _all(
    arrivals: Sequence[Arrival], plan: Plan, policies: Sequence[str], seeds: Sequence[int], processes: int, say: Say
) -> Iterator[tuple[str, int, dict[str, float]]]:
    if processes < 2 or len(policies) * len(seeds) < 2:
        for seed in seeds:
            for policy in policies:

                def went(now: float, done: int, policy: str = policy, seed: int = seed) -> None:
                    say(f"{policy}, seed {seed}: {done:,} of {plan.count:,} requests by {now:,.0f} s")

                yield policy, seed, run(arrivals, plan, policy, seed, went)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (arrivals, plan)) as pool:
        futures = {pool.submit(_run, policy, seed): (policy, seed) for seed in seeds for policy in policies}
        for future in as_completed(futures):
            yield *futures[future], future.result()


_given: tuple[Sequence[Arrival], Plan] | None = None


def _begin(arrivals: Sequence[Arrival], plan: Plan) -> None:
    global _given
    _given = arrivals, plan


def _run(policy: str, seed: int) -> dict[str, float]:
    assert _given is not None
    return run(*_given, policy, seed)


def at_load(plan: Plan, saturated: float, load: float) -> Plan:
    return replace(plan, rate=saturated * load)
