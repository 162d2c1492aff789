"""The wordllama engine: real vectors from the wheel, in the shapes of those who defined the requests."""

import asyncio
import base64
import json
import math
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from actorrt.serve.llm import WordLlamaEngine
from actorrt.serve.llm.engines.interface import EngineCall, EngineError, Head
from actorrt.serve.llm.engines.word_vectors import WordVectors
from actorrt.serve.llm.engines.wordllama import WordLlama

# In a process of its own: the package sets up logging when it is imported.
THEIRS = """
import json, sys
from importlib.util import find_spec
from wordllama import WordLlama
(folder,) = find_spec("wordllama").submodule_search_locations
model = WordLlama.load(cache_dir=folder, disable_download=True)
json.dump(model.embed(json.load(sys.stdin), norm=True).tolist(), sys.stdout)
"""


@pytest.fixture
async def engine() -> AsyncGenerator[WordLlama, None]:
    engine = WordLlama(WordLlamaEngine())
    await engine.start()
    yield engine
    await engine.stop()


async def ask(engine: WordLlama, path: str, **body: Any) -> tuple[int, Any]:
    head, delta = [item async for item in engine.generate(EngineCall(path, json.dumps(body).encode()))]
    assert isinstance(head, Head)
    assert not isinstance(delta, Head)
    return head.status, json.loads(delta.data)


async def asked(engine: WordLlama, path: str, **body: Any) -> Any:
    status, answer = await ask(engine, path, **body)
    assert status == 200, answer
    return answer


async def test_the_vectors_are_those_of_the_package_with_length_one(engine: WordLlama) -> None:
    texts = ["The cat sat on the mat.", "Grüße 🎉", "x" * 5000, "many words " * 3000]
    answer = await asked(engine, "/v1/embeddings", input=texts, model="words")
    command = [sys.executable, "-c", THEIRS]
    run = await asyncio.to_thread(subprocess.run, command, input=json.dumps(texts), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    theirs: list[list[float]] = json.loads(run.stdout)
    assert (answer["object"], answer["model"]) == ("list", "words")
    for index, (item, expected) in enumerate(zip(answer["data"], theirs, strict=True)):
        assert (item["object"], item["index"]) == ("embedding", index)
        assert item["embedding"] == pytest.approx(expected, abs=2e-5)
    tokens = [len(await engine.tokenize(text)) for text in texts]
    assert answer["usage"] == {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}


async def test_base64_is_the_same_numbers_in_four_bytes_each(engine: WordLlama) -> None:
    plain = await asked(engine, "/v1/embeddings", input="a text")
    encoded = await asked(engine, "/v1/embeddings", input="a text", encoding_format="base64")
    numbers = struct.unpack("<256f", base64.b64decode(encoded["data"][0]["embedding"]))
    assert list(numbers) == plain["data"][0]["embedding"]


async def test_fewer_dimensions_are_the_first_ones_with_length_one(engine: WordLlama) -> None:
    whole = (await asked(engine, "/v1/embeddings", input="a text"))["data"][0]["embedding"]
    part = (await asked(engine, "/v1/embeddings", input="a text", dimensions=64))["data"][0]["embedding"]
    length = math.hypot(*whole[:64])
    assert part == pytest.approx([number / length for number in whole[:64]], abs=1e-6)
    assert math.hypot(*part) == pytest.approx(1, abs=1e-5)


async def test_documents_come_back_ranked_by_their_nearness_to_the_query(engine: WordLlama) -> None:
    documents: list[Any] = ["stock markets fell", {"text": "a kitten and a cat"}, "my dog barks"]
    answer = await asked(engine, "/v1/rerank", query="cat", documents=documents, model="words")
    order = [result["index"] for result in answer["results"]]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert order[0] == 1
    assert sorted(order) == [0, 1, 2]
    assert scores == sorted(scores, reverse=True)
    assert all("document" not in result for result in answer["results"])
    top = await asked(engine, "/v1/rerank", query="cat", documents=documents, top_n=1, return_documents=True)
    assert top["results"] == [answer["results"][0] | {"document": {"text": "a kitten and a cat"}}]
    pair = await asked(engine, "/v1/score", text_1="cat", text_2=[documents[0], "a kitten and a cat", documents[2]])
    assert [item["score"] for item in pair["data"]] == pytest.approx([scores[order.index(index)] for index in range(3)])


async def test_scores_are_of_one_with_many_or_of_pairs(engine: WordLlama) -> None:
    same = await asked(engine, "/v1/score", text_1=["a cat", "a dog"], text_2=["a cat", "a cat"])
    assert [(item["index"], item["object"]) for item in same["data"]] == [(0, "score"), (1, "score")]
    assert same["data"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert same["data"][1]["score"] < 0.99


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("/v1/embeddings", {}, "input", "is required"),
        ("/v1/embeddings", {"input": ""}, "input", "not empty"),
        ("/v1/embeddings", {"input": []}, "input", "1 to 2048"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input", "2049"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input[1]", "not empty"),
        ("/v1/embeddings", {"input": [1, 2]}, "input", "no token numbers"),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, "input", "no token numbers"),
        ("/v1/embeddings", {"input": "a", "dimensions": 257}, "dimensions", "1 to 256"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", "1 to 256"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ("/v1/rerank", {"documents": ["a"]}, "query", "string"),
        ("/v1/rerank", {"query": "a"}, "documents", "is required"),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "b"}]}, "documents[0]", "string"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", "at least 1"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1", "as many"),
        ("/detokenize", {"tokens": [32000]}, "tokens", "no token"),
    ],
)
async def test_a_mistake_is_refused_by_the_name_of_its_field(
    engine: WordLlama, path: str, body: dict[str, Any], param: str, says: str
) -> None:
    status, answer = await ask(engine, path, **body)
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param)
    assert says in answer["error"]["message"]


async def test_what_it_does_not_do_is_not_found(engine: WordLlama) -> None:
    status, answer = await ask(engine, "/v1/chat/completions", messages=[])
    assert (status, answer["error"]["type"]) == (404, "not_found_error")


async def test_a_text_that_is_too_long_is_refused_with_its_tokens(engine: WordLlama) -> None:
    status, answer = await ask(engine, "/v1/embeddings", input="a " * 140_000)
    assert (status, answer["error"]["type"]) == (400, "exceed_context_size_error")
    assert answer["error"]["n_prompt_tokens"] > answer["error"]["n_ctx"]


async def test_text_becomes_tokens_and_text_again(engine: WordLlama) -> None:
    tokens = await engine.tokenize("hello world")
    assert await engine.detokenize(tokens) == "hello world"
    assert await asked(engine, "/tokenize", content="hello world") == {"tokens": tokens}
    assert await asked(engine, "/detokenize", tokens=tokens) == {"content": "hello world"}


async def test_the_loop_is_free_meanwhile_and_who_waits_when_it_stops_is_told(
    engine: WordLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop, tokens = asyncio.get_running_loop(), WordVectors.tokens

    def slowly(self: WordVectors, texts: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return tokens(self, texts)

    monkeypatch.setattr(WordVectors, "tokens", slowly)
    computed = asyncio.ensure_future(asked(engine, "/v1/embeddings", input="first"))
    await begun.wait()
    waiting = [asyncio.ensure_future(asked(engine, "/v1/embeddings", input="second")) for _ in range(2)]
    await asyncio.sleep(0)
    assert await engine.statistics() == {"running": 1, "waiting": 2}
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    await engine.stop()
    with pytest.raises(EngineError, match="stopped"):
        await waiting[0]
    go_on.set()
    assert (await computed)["data"]
    with pytest.raises(EngineError, match="stopped"):
        await asked(engine, "/v1/embeddings", input="third")


async def test_a_missing_package_and_too_many_dimensions_are_told_by_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EngineError, match="256 dimensions, not 512"):
        await WordLlama(WordLlamaEngine(dimensions=512)).start()
    monkeypatch.setattr("actorrt.serve.llm.engines.word_vectors.find_spec", lambda name: None)
    engine = WordLlama(WordLlamaEngine())
    with pytest.raises(EngineError, match="pip install wordllama"):
        await engine.start()
    await engine.stop()
