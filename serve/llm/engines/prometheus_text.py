"""The numbers in an engine's /metrics that are the same for all engines, under one name each."""

from collections.abc import Mapping
from typing import Final

# By the engine's name: ours. What has several label sets (ranks) is summed; of shares the largest counts.
NAMES: Final[Mapping[str, str]] = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_share",
    "vllm:gpu_cache_usage_perc": "kv_share",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generated_tokens",
    "vllm:num_preemptions_total": "preemptions",
    "sglang:num_running_reqs": "running",
    "sglang:num_queue_reqs": "waiting",
    "sglang:token_usage": "kv_share",
    # That share has two decimals: a long answer may leave it as it is.
    "sglang:num_used_tokens": "kv_tokens_used",
    "sglang:prompt_tokens_total": "prompt_tokens",
    "sglang:generation_tokens_total": "generated_tokens",
    "llamacpp:requests_processing": "running",
    "llamacpp:requests_deferred": "waiting",
    "llamacpp:kv_cache_usage_ratio": "kv_share",
    "llamacpp:prompt_tokens_total": "prompt_tokens",
    "llamacpp:tokens_predicted_total": "generated_tokens",
}


def samples_of(text: str) -> dict[str, float]:
    """What is known in a page of Prometheus' text format; lines that are not understood are passed over."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, value = split_sample(line)
        if (ours := NAMES.get(name)) is None:
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if number == number:
            found[ours] = max(found.get(ours, 0.0), number) if ours == "kv_share" else found.get(ours, 0.0) + number
    return found


def split_sample(line: str) -> tuple[str, str, str]:
    """Name, labels as they stand, value."""
    if "{" in line:
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("}")
    else:
        name, _, value = line.partition(" ")
        labels = ""
    return name.strip(), labels, (value.split() or [""])[0]
