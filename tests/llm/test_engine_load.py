"""What a language model's replica tells its capacity queue that its engine has, by what that says of itself."""

from __future__ import annotations

import pytest

from actorrt.serve.llm.engines.interface import Capacity, EngineFacts
from actorrt.serve.llm.engines.prometheus_text import samples_of
from actorrt.serve.llm.replica import load_of

VLLM = (
    'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_waiting{engine="0"} 2\nvllm:kv_cache_usage_perc 0.25\n'
)
SGLANG = "sglang:num_running_reqs 3\nsglang:num_queue_reqs 2\nsglang:token_usage 0.2\nsglang:num_used_tokens 250\n"
LLAMACPP = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 2\nllamacpp:kv_cache_usage_ratio 0.9\n"


@pytest.mark.parametrize(
    ("page", "paths", "load"),
    [
        (VLLM, ["/metrics"], (250, 5)),
        (SGLANG, ["/metrics"], (250, 5)),
        # Most of it may be what idle slots keep.
        (LLAMACPP, ["/metrics", "/slots"], (None, 5)),
        ("", [], (None, 1)),
    ],
    ids=["vllm", "sglang", "llamacpp", "silent"],
)
def test_a_replica_says_what_its_engine_has(page: str, paths: list[str], load: tuple[int | None, int]) -> None:
    facts = EngineFacts("server", frozenset(paths), Capacity(1000, 8, 1000))
    assert load_of({"running": 1, "waiting": 0, **samples_of(page)}, facts) == load
