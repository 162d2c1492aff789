"""The `wordllama` engine: embeddings, ranks and scores by a small model, on one thread beside the loop."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from ..config import WordLlamaEngine
from . import similarity_requests as similarity
from .interface import Capacity, Delta, EngineCall, EngineError, EngineFacts, Head
from .request_fields import Refused, text_field, tokens_field
from .word_vectors import DIMENSIONS, WordVectors

_T = TypeVar("_T")

_JSON: Final = (("content-type", "application/json"),)
# The model has no limit of its own; this bounds what one text may cost.
_LONGEST: Final = 131_072
_NO_ADAPTERS: Final = "the wordllama engine has no model that a LoRA adapter could change"
_NO_SLEEP: Final = "the wordllama engine holds too little to give any of it back"


class WordLlama:
    """See `Engine`."""

    def __init__(self, config: WordLlamaEngine) -> None:
        self._dimensions: Final = config.dimensions
        self._thread = _thread()
        self._model: WordVectors
        self._running = 0
        self._stopped = False
        self._answers: Final[dict[str, Callable[[bytes], dict[str, Any]]]] = {
            "/v1/embeddings": self._embeddings,
            "/v1/rerank": self._ranks,
            "/v1/score": self._scores,
            "/tokenize": self._tokens,
            "/detokenize": self._text,
        }

    async def start(self) -> EngineFacts:
        if self._stopped:
            self._stopped, self._thread = False, _thread()
        if self._dimensions > DIMENSIONS:
            raise EngineError(f"wordllama's embeddings have {DIMENSIONS} dimensions, not {self._dimensions}")
        try:
            self._model = await self._beside(WordVectors)
        except ModuleNotFoundError as error:
            missing = error.name or "wordllama"
            raise EngineError(
                f"the wordllama engine needs the package {missing}, which is not there: pip install wordllama"
            ) from error
        except OSError as error:
            raise EngineError(f"the package wordllama lacks its model: {error}") from error
        capacity = Capacity(kv_tokens=_LONGEST, slots=1, context=_LONGEST)
        return EngineFacts(kind="wordllama", paths=frozenset(self._answers), capacity=capacity)

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        status = 200
        try:
            if (answer := self._answers.get(call.path)) is None:
                message = f"the wordllama engine does not answer {call.path}"
                raise Refused(message, kind="not_found_error", status=404)
            body = await self._beside(lambda: msgspec.json.encode(answer(call.body)))
        except Refused as refusal:
            status, body = refusal.status, refusal.body()
        yield Head(status, _JSON)
        yield Delta(body)

    async def load_adapter(self, name: str, path: str) -> None:
        raise EngineError(_NO_ADAPTERS)

    async def unload_adapter(self, name: str) -> None:
        raise EngineError(_NO_ADAPTERS)

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return await self._beside(lambda: self._model.tokens([text])[0])

    async def detokenize(self, tokens: list[int]) -> str:
        return await self._beside(lambda: self._model.text(tokens))

    async def sleep(self) -> None:
        raise EngineError(_NO_SLEEP)

    async def wake(self) -> None:
        raise EngineError(_NO_SLEEP)

    async def check(self) -> None:
        if self._stopped:
            raise EngineError("the wordllama engine was stopped")

    async def statistics(self) -> dict[str, float]:
        return {"running": min(self._running, 1), "waiting": max(self._running - 1, 0)}

    async def stop(self) -> None:
        """What is being computed ends by itself, in milliseconds; what waits is not begun."""
        self._stopped = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _beside(self, compute: Callable[[], _T]) -> _T:
        """On the thread. A caller who leaves while others are before him is not computed for."""
        await self.check()
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, compute)
        except asyncio.CancelledError:
            # Not the caller, but what he waits for.
            task = asyncio.current_task()
            if self._stopped and task is not None and not task.cancelling():
                raise EngineError("the wordllama engine was stopped") from None
            raise
        finally:
            self._running -= 1

    def _counted(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """The texts in tokens, and how many those are."""
        tokens = self._model.tokens(texts)
        for each in tokens:
            if len(each) > _LONGEST:
                raise Refused.too_long(len(each), _LONGEST)
        return tokens, sum(map(len, tokens))

    def _embeddings(self, body: bytes) -> dict[str, Any]:
        wanted = similarity.embeddings(body, self._dimensions)
        tokens, count = self._counted(wanted.texts)
        return similarity.embeddings_answer(wanted, self._model.embed(tokens, wanted.dimensions).tolist(), count)

    def _ranks(self, body: bytes) -> dict[str, Any]:
        wanted = similarity.ranks(body)
        tokens, count = self._counted([wanted.query, *wanted.documents])
        query, *documents = self._model.embed(tokens, self._dimensions)
        scores = [float(query @ document) for document in documents]
        return similarity.ranks_answer(wanted, scores, count, f"rerank-{secrets.token_hex(16)}")

    def _scores(self, body: bytes) -> dict[str, Any]:
        wanted = similarity.scores(body)
        first, first_count = self._counted([pair[0] for pair in wanted.pairs])
        second, second_count = self._counted([pair[1] for pair in wanted.pairs])
        pairs = zip(
            self._model.embed(first, self._dimensions), self._model.embed(second, self._dimensions), strict=True
        )
        scores = [float(one @ other) for one, other in pairs]
        count = first_count + second_count
        return similarity.scores_answer(wanted, scores, count, f"score-{secrets.token_hex(16)}", int(time.time()))

    def _tokens(self, body: bytes) -> dict[str, Any]:
        return {"tokens": self._model.tokens([text_field(body, "content")])[0]}

    def _text(self, body: bytes) -> dict[str, Any]:
        try:
            return {"content": self._model.text(tokens_field(body, "tokens"))}
        except Refused:
            raise
        except ValueError as error:
            raise Refused(str(error), "tokens") from None


def _thread() -> ThreadPoolExecutor:
    """Of an engine that is up."""
    return ThreadPoolExecutor(1, "wordllama")
