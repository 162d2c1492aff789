"""What all engines share that are HTTP servers in processes of their own: requests, questions, the end."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, cast

from .interface import Delta, EngineCall, EngineError, EngineFacts, Head
from .keeper import EngineKeeper
from .llamacpp_errors import is_mistake
from .openai_http import NotListeningError, OpenAIHttp
from .progress import progress_of
from .prometheus_text import samples_of


class ServedEngine(ABC):
    """Of each kind: how it is started (a keeper), what is known of it, and how it loads adapters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running = 0
        self._keeper: EngineKeeper

    @property
    def keeper(self) -> EngineKeeper:
        return self._keeper

    @abstractmethod
    def facts(self) -> EngineFacts: ...

    async def start(self) -> EngineFacts:
        await self._keeper.start()
        return self.facts()

    async def stop(self) -> None:
        await self._keeper.stop()

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        self._running += 1
        try:
            while True:
                http = await self._keeper.http()
                answer = http.generate(call)
                try:
                    async for item in answer:
                        yield item
                    return
                except NotListeningError:
                    # Ended a moment ago: the next one takes it, since nothing of it was begun.
                    if not await self._keeper.lost(http):
                        raise
                except EngineError as error:
                    raise await self._keeper.explain(error) from error
                finally:
                    await answer.aclose()
        finally:
            self._running -= 1

    async def _progress(self, http: OpenAIHttp, timeout_s: float) -> str | None:
        return await progress_of(http, self.facts().paths, timeout_s)

    async def check(self) -> None:
        await self._keeper.check(idle=not self._running)

    async def statistics(self) -> dict[str, float]:
        """`running` and `waiting` as the engine counts them, where it does; else all that are here count as running."""
        found: dict[str, float] = {
            "running": self._running,
            "waiting": 0,
            "restarts": self._keeper.restarts,
            "pid": self._keeper.pid,
        }
        if self._keeper.pid and "/metrics" in self.facts().paths:
            with contextlib.suppress(EngineError):
                status, body = await (await self._keeper.http()).ask("GET", "/metrics", timeout_s=2)
                if status == 200:
                    found |= samples_of(body.decode(errors="replace"))
        return found

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        # In the words of vLLM and SGLang, and in those of llama.cpp: each passes over the other's.
        asked = {"model": self._name, "prompt": text, "add_special_tokens": add_special}
        answer = await self._ask("/tokenize", {**asked, "content": text, "add_special": add_special})
        return [int(each) for each in answer["tokens"]]

    async def detokenize(self, tokens: list[int]) -> str:
        wrong = "'tokens' holds a number that is no token of this model"
        answer = await self._ask("/detokenize", {"tokens": tokens, "model": self._name}, wrong=wrong)
        return str(answer.get("prompt", answer.get("content", answer.get("text", ""))))

    async def _ask(
        self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = 60.0, wrong: str = ""
    ) -> dict[str, Any]:
        """POST, and the object that it answers. EngineError if it refuses, with its reason.

        ValueError with `wrong`, if that is said, where what it was asked was wrong.
        """
        http = await self._keeper.http()
        sent = b"" if body is None else json.dumps(body).encode()
        status, answer = await http.ask("POST", path, sent, timeout_s=timeout_s)
        if status >= 400:
            reason = reason_in(answer)
            if wrong and is_mistake(status, reason):
                raise ValueError(wrong)
            raise EngineError(f"the engine of {self._name} answers {status} to {path}: {reason}")
        return object_in(answer)


def object_in(answer: bytes) -> dict[str, Any]:
    """The JSON object that an engine answered; empty if it is none."""
    with contextlib.suppress(ValueError):
        found = json.loads(answer)
        if isinstance(found, dict):
            return cast(dict[str, Any], found)
    return {}


def reason_in(answer: bytes) -> str:
    """The sentence of an error in any of the shapes that engines use."""
    found = object_in(answer)
    error = found.get("error", found.get("detail", found.get("message")))
    if isinstance(error, dict):
        error = cast(dict[str, Any], error).get("message", cast(object, error))
    return str(error) if error else answer[:300].decode(errors="replace")


async def fetch(http: OpenAIHttp, path: str) -> dict[str, Any] | None:
    """The object behind a path; None where there is none."""
    with contextlib.suppress(EngineError):
        status, answer = await http.ask("GET", path, timeout_s=10)
        if status == 200:
            return object_in(answer)
    return None
