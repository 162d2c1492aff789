"""What is measured of one run: times of requests, rates, and how the replicas were used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from actorrt.serve.capacity.fair_order import INPUT_WEIGHT, OUTPUT_WEIGHT

from .fairness import fair_shares, jain
from .fleet import Fleet
from .policies.policy import Policy
from .requests import Request

# Of the requests so many come first and are not measured: caches and learnt lengths are empty.
WARM_UP: Final = 0.1
TTFT_S: Final = 2.0
TPOT_S: Final = 0.1
_LOG_STEP: Final = math.log(1.05)
PARTS: Final = ("mean", "p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class Targets:
    """What a good answer keeps within."""

    ttft_s: float = TTFT_S
    tpot_s: float = TPOT_S


def of_times(name: str, times: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles, nan of none."""
    if not len(times):
        return {f"{name}_{part}": math.nan for part in PARTS}
    values = np.asarray(times)
    p50, p90, p99 = np.quantile(values, (0.5, 0.9, 0.99))
    return {f"{name}_mean": float(values.mean()), f"{name}_p50": float(p50), f"{name}_p90": float(p90),
            f"{name}_p99": float(p99)}  # fmt: skip


def of_histogram(name: str, counts: dict[int, int]) -> dict[str, float]:
    """The same of times by the twentieth."""
    if not counts:
        return {f"{name}_{part}": math.nan for part in PARTS}
    steps = sorted(counts)
    weights = np.array([counts[step] for step in steps], dtype=float)
    times = np.exp((np.array(steps) + 0.5) * _LOG_STEP)
    sums = np.cumsum(weights)
    found = {f"{name}_mean": float((times * weights).sum() / sums[-1])}
    for part, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        found[f"{name}_{part}"] = float(times[min(int(np.searchsorted(sums, share * sums[-1])), len(steps) - 1)])
    return found


def measure(requests: Sequence[Request], fleet: Fleet, policy: Policy, targets: Targets) -> dict[str, float]:
    """Of the requests that came after the warm-up; rates over the time in which requests came."""
    model = fleet.model
    counted = requests[int(len(requests) * WARM_UP) :]
    start, end = counted[0].arrived, counted[-1].arrived
    span = max(end - start, 1e-9)
    overhead = model.overhead_s
    answered = [request for request in counted if not request.refused and not math.isnan(request.first)]
    whole = [request for request in answered if not math.isnan(request.ended)]
    ttft = [request.first - request.arrived + overhead for request in answered]
    tpot = [(request.ended - request.first) / (request.output - 1) for request in whole if request.output > 1]
    good = [request for request in whole if _is_good(request, overhead, targets)]
    # Tokens of requests that began or ended before or after count for their part of the time.
    rate = sum(request.output * _part_within(request, start, end) for request in requests) / span
    prompts = sum(request.prompt * _is_within(request.first, start, end) for request in requests) / span
    read = sum(request.prompt for request in answered)
    kv = sorted(engine.kv_block_s / (engine.kv.blocks * max(fleet.now, 1e-9)) for engine in fleet.engines)
    times: dict[int, int] = {}
    for engine in fleet.engines:
        for step, number in engine.token_times.items():
            times[step] = times.get(step, 0) + number
    found = {
        **of_times("ttft", ttft),
        **of_times("tpot", tpot),
        **of_histogram("itl", times),
        **of_times("e2e", [request.ended - request.arrived + overhead for request in whole]),
        "requests": float(len(counted)),
        "rate": len(counted) / span,
        "output_tokens_per_s": rate,
        "tokens_per_s": rate + prompts,
        # As if they had come evenly: all of those whose first token came within its deadline, or the target.
        "in_time_tokens_per_s": sum(r.prompt + r.output for r in whole if _is_in_time(r, overhead, targets)) / span,
        "goodput": len(good) / span,
        "good_share": len(good) / len(counted),
        "refused_share": sum(bool(request.refused) for request in counted) / len(counted),
        "queued_mean": float(np.mean([request.queued_s for request in answered])) if answered else math.nan,
        "hit_ratio": sum(request.cached for request in answered) / max(1, read),
        "over_admission": float(policy.over_admitted),
        "preemptions": float(sum(engine.preemptions for engine in fleet.engines)),
        "used_p25": _quantile(kv, 0.25),
        "used_p50": _quantile(kv, 0.5),
        "used_p75": _quantile(kv, 0.75),
        "busy": sum(engine.busy_s for engine in fleet.engines) / (len(fleet.engines) * max(fleet.now, 1e-9)),
        "resumed": float(sum(request.attempts > 1 for request in counted)),
    }
    bands = {request.band for request in counted}
    if len(bands) > 1:
        for band in sorted(bands):
            part = [request.first - request.arrived + overhead for request in answered if request.band == band]
            found |= {f"band{band}_{name}": value for name, value in of_times("ttft", part).items()}
    if fleet.fairness is not None:
        found |= _of_tenants(requests, fleet)
    return found | policy.measures()


def _is_in_time(request: Request, overhead: float, targets: Targets) -> bool:
    """Whether its first token came within its deadline, or within the target where it has none."""
    allowed = targets.ttft_s if request.deadline == math.inf else request.deadline - request.arrived
    return request.first - request.arrived + overhead <= allowed


def _is_good(request: Request, overhead: float, targets: Targets) -> bool:
    if request.first - request.arrived + overhead > targets.ttft_s:
        return False
    return request.output < 2 or (request.ended - request.first) / (request.output - 1) <= targets.tpot_s


def _is_within(at: float, start: float, end: float) -> bool:
    return start <= at <= end


def _part_within(request: Request, start: float, end: float) -> float:
    """How much of its answer came within a time, were its tokens even."""
    if math.isnan(request.first) or request.refused:
        return 0.0
    last = request.ended if not math.isnan(request.ended) else end
    if last <= request.first:
        return float(_is_within(request.first, start, end))
    return max(0.0, min(last, end) - max(request.first, start)) / (last - request.first)


def _quantile(ordered: Sequence[float], part: float) -> float:
    return float(np.quantile(np.asarray(ordered), part))


def _of_tenants(requests: Sequence[Request], fleet: Fleet) -> dict[str, float]:
    fairness = fleet.fairness
    assert fairness is not None
    wanted = dict.fromkeys(fairness.tenants, 0.0)
    for request in requests:
        wanted[request.tenant] += INPUT_WEIGHT * (request.prompt - request.cached) + OUTPUT_WEIGHT * request.output
    demands = [wanted[tenant] for tenant in fairness.tenants]
    service = fairness.shares_until.tolist()
    fair = fair_shares(demands, sum(service), fairness.weights.tolist())
    shares = [min(1.0, got / share) for got, share in zip(service, fair, strict=True) if share > 0]
    kv_tokens = fleet.model.kv_tokens * len(fleet.engines)
    late = 64 * fleet.model.slots * len(fleet.engines)
    return {
        "jain": jain(shares),
        "vtc_gap": fairness.largest_gap(),
        "vtc_bound": fairness.bound(kv_tokens, late),
        "least_share": min(shares, default=1.0),
    }
