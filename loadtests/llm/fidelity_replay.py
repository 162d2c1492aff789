"""The simulator's part of fidelity.py: a model of the engine, recorded requests replayed, and how far they are off."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final

from loadtests.simulation.engine_model import EngineModel
from loadtests.simulation.fleet import Fleet
from loadtests.simulation.policies.catalogue import POLICIES
from loadtests.simulation.requests import Arrival, Request

MEASURES: Final = {"ttft": "time to first token", "tpot": "time a token", "lasted": "end to end"}
# Where the fit begins: what llama.cpp has by its settings, and times of about the right size.
BEFORE: Final = EngineModel(
    prefill_tokens_per_s=500.0, decode_step_s=0.012, decode_step_per_request_s=0.003, read_step_s=0.005,
    decode_step_per_context_token_s=0.0, overhead_s=0.02, slower_beside=0.2, chunk_tokens=8, batch_tokens=8, slots=4,
    kv_tokens=8192,
)  # fmt: skip
_FITTED: Final = (
    "prefill_tokens_per_s", "decode_step_s", "decode_step_per_request_s", "read_step_s", "overhead_s", "slower_beside",
)  # fmt: skip
Noted = Mapping[str, Any]


def _read(noted: Noted) -> int:
    """Tokens of its prompt that its replica had to read."""
    return noted["prompt_tokens"] - noted["cached_tokens"]


def fitted(groups: Sequence[Sequence[Noted]], replicas: int, model: EngineModel) -> EngineModel:
    """With the times by which the simulator comes closest to these crowds, each of which came at once.

    From those of `model` on each is tried a little higher and lower, in ever smaller steps.
    """
    best, least = model, _distance(groups, replicas, model)
    step = 0.5
    while step > 0.02:
        is_better = False
        for name in _FITTED:
            for factor in (1 + step, 1 / (1 + step)):
                tried = replace(best, **{name: getattr(best, name) * factor})
                distance = _distance(groups, replicas, tried)
                if distance < least:
                    best, least, is_better = tried, distance, True
        if not is_better:
            step /= 2
    return best


def _distance(groups: Sequence[Sequence[Noted]], replicas: int, model: EngineModel) -> float:
    """Of the medians, as sums of squares of logarithms."""
    distance = 0.0
    for noted in groups:
        simulated = replayed(noted, "ours", model, replicas)
        for name in MEASURES:
            real = statistics.median(each[name] for each in noted)
            distance += math.log(statistics.median(each[name] for each in simulated) / real) ** 2
    return distance


def replayed(noted: Sequence[Noted], policy: str, model: EngineModel, replicas: int) -> list[dict[str, float]]:
    """The same requests, in the same order, as the simulator has them."""
    dice = Random(1)
    arrivals = [Arrival(each["asked_at"], _read(each), each["tokens"]) for each in noted]
    requests = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
    for request, each in zip(requests, noted, strict=True):
        request.max_tokens = each["tokens"]
    fleet = Fleet(model, replicas, 1, dice)
    fleet.run(POLICIES[policy].make(fleet, 0.0), requests)
    return [
        {
            "ttft": each.first - each.arrived + model.overhead_s,
            "tpot": (each.ended - each.first) / max(1, each.output - 1),
            "lasted": each.ended - each.arrived + model.overhead_s,
        }
        for each in requests
    ]


def compared(found: Mapping[str, Any], loads: Sequence[str], model: EngineModel, replicas: int) -> str:
    """A table: of each load the medians of both, and the median of the errors of single requests."""
    lines = ["| load | requests | measure | real, p50 | simulated, p50 | error of p50 | error of a request, p50 |"]
    lines.append("|---|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {name: [] for name in MEASURES}
    for load in loads:
        (noted,) = found[load]["requests"]
        simulated = replayed(noted, found[load]["policy"], model, replicas)
        for name, title in MEASURES.items():
            real = statistics.median(each[name] for each in noted)
            other = statistics.median(each[name] for each in simulated)
            single = [abs(b[name] / a[name] - 1) for a, b in zip(noted, simulated, strict=True) if a[name]]
            errors[name].append(abs(other / real - 1))
            lines.append(
                f"| {load} | {len(noted)} | {title} | {1000 * real:.0f} ms | {1000 * other:.0f} ms "
                f"| {other / real - 1:+.0%} | {statistics.median(single):.0%} |"
            )
    told = ", ".join(f"{title} {statistics.median(errors[name]):.0%}" for name, title in MEASURES.items())
    return "\n".join([*lines, "", f"Median error over the loads: {told}.", "", f"The engine: {model}."])


def in_order(found: Mapping[str, Any], policies: Sequence[str], model: EngineModel, replicas: int) -> str:
    """A table of the policies under one load."""
    means: list[tuple[str, float, float]] = []
    for policy in policies:
        run = found["mixed" if policy == "ours" else f"mixed {policy}"]
        (noted,) = run["requests"]
        simulated = replayed(noted, policy, model, replicas)
        means.append((policy, *(statistics.mean(each["ttft"] for each in group) for group in (noted, simulated))))
    lines = ["| policy | TTFT, mean, real | simulated |", "|---|---|---|"]
    lines += [f"| {policy} | {real:.2f} s | {other:.2f} s |" for policy, real, other in means]
    orders = [" < ".join(each[0] for each in sorted(means, key=lambda each: each[at])) for at in (1, 2)]
    return "\n".join([*lines, "", f"Real: {orders[0]}; simulated: {orders[1]}."])
