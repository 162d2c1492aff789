"""The series of requests that a model of a real server is fitted to, by OpenAI's API. Nothing else should run there."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from .engine_model import EngineModel, ModelError
from .fit import Seen, fitted

LENGTHS: Final = (32, 128, 256, 512, 1024)
STREAMS: Final = (1, 2, 4, 8, 16, 32)
_TIMES: Final = 3
_ANSWER: Final = 48
_WORDS: Final = ("time", "year", "people", "way", "day", "thing", "life", "child", "world", "school", "state", "group")
_LIMIT_S: Final = 120.0


@dataclass(slots=True)
class _Stream:
    began: float
    times: list[float]
    prompt: int = 0


class Probe:
    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        base = url.rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self._say = say
        self._dice = random.Random(1)
        self._model = ""

    async def measure(self) -> Seen:
        timeout = aiohttp.ClientTimeout(total=_LIMIT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.get(f"{self.url}/models") as answer:
                listed = await _json(answer)
                self._model = listed["data"][0]["id"]
            # The first one may load something.
            await self._stream(session, 16, 4)
            firsts: list[tuple[int, float]] = []
            for length in LENGTHS:
                for _ in range(_TIMES):
                    self._say(f"fitting {self.url}: prompts of about {length} tokens")
                    try:
                        one = await self._stream(session, length, 2)
                    except ModelError:
                        # It holds less than that.
                        if len(firsts) < 2 * _TIMES:
                            raise
                        break
                    firsts.append((one.prompt, one.times[0] - one.began))
            steps: list[tuple[int, int, float]] = []
            slots = 1
            for count in STREAMS:
                self._say(f"fitting {self.url}: {count} streams at once")
                found = await asyncio.gather(*(self._stream(session, 16, _ANSWER) for _ in range(count)))
                first_end = min(each.times[-1] for each in found)
                together = sum(each.times[0] < first_end for each in found)
                slots = max(slots, together)
                if together < count:
                    break
                steps.append(_step(found))
            for length in LENGTHS[-2:]:
                self._say(f"fitting {self.url}: a stream with {length} tokens in its cache")
                try:
                    steps.append(_step([await self._stream(session, length, _ANSWER)]))
                except ModelError:
                    break
            return Seen(firsts, steps, slots)

    async def _stream(self, session: aiohttp.ClientSession, words: int, most: int) -> _Stream:
        # Of a prompt that was read before nothing could be seen.
        prompt = " ".join(self._dice.choice(_WORDS) for _ in range(words))
        asked = {
            "model": self._model, "prompt": prompt, "max_tokens": most, "stream": True, "temperature": 1.0,
            "ignore_eos": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        found = _Stream(time.perf_counter(), [], words)
        async with session.post(f"{self.url}/completions", json=asked) as answer:
            if answer.status != 200:
                await _json(answer)
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("choices"):
                    found.times.append(time.perf_counter())
                if usage := event.get("usage"):
                    found.prompt = usage["prompt_tokens"]
        if not found.times:
            raise ModelError(f"{self.url} streamed no tokens")
        return found


def _step(found: list[_Stream]) -> tuple[int, int, float]:
    gaps = sorted(
        later - earlier for each in found for earlier, later in zip(each.times[1:], each.times[2:], strict=False)
    )
    if not gaps:
        raise ModelError("its answers are too short to see a step")
    return len(found), sum(each.prompt + len(each.times) // 2 for each in found), gaps[len(gaps) // 2]


async def _json(answer: aiohttp.ClientResponse) -> Any:
    text = await answer.text()
    if answer.status != 200:
        raise ModelError(f"{answer.url} answered with status {answer.status}: {text[:200]}")
    try:
        return json.loads(text)
    except ValueError:
        raise ModelError(f"{answer.url} answered with what is no JSON: {text[:80]!r}") from None


def fit(url: str, base: EngineModel, say: Callable[[str], None]) -> EngineModel:
    """ModelError in a sentence where the server cannot be measured."""
    try:
        seen = asyncio.run(Probe(url, say).measure())
    except (aiohttp.ClientError, TimeoutError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"{url} cannot be measured: {type(error).__name__}: {error}") from None
    return fitted(seen, base)
