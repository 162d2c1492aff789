"""The simulator's part of fidelity.py: a model of the engine, recorded requests replayed, and how far they are off."""

import statistics
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from loadtests.simulation.engine_model import EngineModel
from loadtests.simulation.fleet import Fleet
from loadtests.simulation.policies.catalogue import POLICIES
from loadtests.simulation.requests import Arrival, Request

MEASURES: Final = {"ttft": "time to first token", "tpot": "time a token", "lasted": "end to end"}
Noted = Mapping[str, Any]


def _read(noted: Noted) -> int:
    """Tokens of its prompt that its replica had to read."""
    return noted["prompt_tokens"] - noted["cached_tokens"]


def fitted(groups: Sequence[Sequence[Noted]], replicas: int, slots: int = 4) -> EngineModel:
    """From requests that ran alone, of two lengths, and from such of which so many ran at once."""
    short, long, *crowds = groups
    reads = [
        (statistics.mean(map(_read, group)), statistics.median(each["ttft"] for each in group))
        for group in (short, long)
    ]
    rate = (reads[1][0] - reads[0][0]) / (reads[1][1] - reads[0][1])
    # Groups are of two rounds each; what ran at once is spread over the replicas.
    batch = [len(group) / 2 / replicas for group in crowds]
    steps = [statistics.median(each["tpot"] for each in group) for group in crowds]
    slope, first = statistics.linear_regression([each - 1 for each in batch], steps)
    overhead = reads[0][1] - reads[0][0] / rate - first
    return EngineModel(
        prefill_tokens_per_s=rate, decode_step_s=max(first, 1e-4), decode_step_per_request_s=max(slope, 0.0),
        decode_step_per_context_token_s=0.0, chunk_tokens=512, slots=slots, kv_tokens=8192,
        overhead_s=max(0.0, overhead),
    )  # fmt: skip


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
            "ttft": each.first - each.arrived,
            "tpot": (each.ended - each.first) / max(1, each.output - 1),
            "lasted": each.ended - each.arrived,
        }
        for each in requests
    ]


def _model(found: Mapping[str, Any], model: EngineModel | None, replicas: int) -> EngineModel:
    return model or fitted(found["calibrate"]["requests"], replicas)


def compared(found: Mapping[str, Any], loads: Sequence[str], model: EngineModel | None, replicas: int) -> str:
    """A table: of each load the medians of both, and the median of the errors of single requests."""
    model = _model(found, model, replicas)
    lines = ["| load | requests | measure | real, p50 | simulated, p50 | error of p50 | error of a request, p50 |"]
    lines.append("|---|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {name: [] for name in MEASURES}
    for load in loads:
        (noted,) = found[load]["requests"]
        simulated = replayed(noted, found[load]["policy"], model, replicas)
        for name, title in MEASURES.items():
            real = statistics.median(each[name] for each in noted)
            other = statistics.median(each[name] for each in simulated)
            single = [abs(b[name] / a[name] - 1) for a, b in zip(noted, simulated, strict=True)]
            errors[name].append(abs(other / real - 1))
            lines.append(
                f"| {load} | {len(noted)} | {title} | {1000 * real:.0f} ms | {1000 * other:.0f} ms "
                f"| {other / real - 1:+.0%} | {statistics.median(single):.0%} |"
            )
    told = ", ".join(f"{title} {statistics.median(errors[name]):.0%}" for name, title in MEASURES.items())
    return "\n".join([*lines, "", f"Median error over the loads: {told}.", "", f"The engine: {model}."])


def in_order(found: Mapping[str, Any], policies: Sequence[str], model: EngineModel | None, replicas: int) -> str:
    """A table of the policies under one load."""
    model = _model(found, model, replicas)
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
