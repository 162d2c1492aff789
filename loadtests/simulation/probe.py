"""The series of requests that a model of a real server is fitted to, by OpenAI's API. Nothing else should run there."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import aiohttp

from .engine_model import EngineModel, ModelError
from .fit import Seen, fitted

LENGTHS: Final = (32, 128, 256, 512, 1024)
STREAMS: Final = (1, 2, 4, 8, 16, 32)
_TIMES: Final = 3
_ANSWER: Final = 48
# A stream beside which a prompt is read: how long it may be, and after how many tokens it runs.
_BESIDE: Final = 1000
_BEGUN: Final = 3
_WORDS: Final = ("time", "year", "people", "way", "day", "thing", "life", "child", "world", "school", "state", "group")
_LIMIT_S: Final = 120.0
# A prompt that takes so long is the longest that is tried.
_LONG_S: Final = 3.0


@dataclass(slots=True)
class _Stream:
    began: float
    times: list[float]
    prompt: int = 0
    runs: asyncio.Event = field(default_factory=asyncio.Event)
    """It has got some tokens, or has ended."""


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
            lengths: list[int] = []
            for length in LENGTHS:
                if lengths and firsts[-1][1] > _LONG_S:
                    # Longer ones would say the same.
                    break
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
                else:
                    lengths.append(length)
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
            for length in lengths[-2:]:
                self._say(f"fitting {self.url}: a stream with {length} tokens in its cache")
                try:
                    steps.append(_step([await self._stream(session, length, _ANSWER)]))
                except ModelError:
                    break
            reads: list[tuple[int, float, float]] = []
            for length in lengths[-2:] if slots > 1 else ():
                self._say(f"fitting {self.url}: a prompt of about {length} tokens beside a stream")
                try:
                    found = await self._beside(session, length)
                except ModelError:
                    break
                reads += [] if found is None else [found]
            return Seen(firsts, steps, slots, reads)

    async def _beside(self, session: aiohttp.ClientSession, words: int) -> tuple[int, float, float] | None:
        """A prompt while a stream runs: its tokens, seconds to its first one, and those from token to token of the
        stream meanwhile. None if the stream went on too few times to tell.
        """
        other = _Stream(0.0, [])
        beside = asyncio.ensure_future(self._stream(session, 16, _BESIDE, other))
        beside.add_done_callback(lambda _: other.runs.set())
        try:
            await other.runs.wait()
            one = await self._stream(session, words, 2)
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
        during = [at for at in other.times if one.began <= at <= one.times[0]]
        gaps = sorted(later - earlier for earlier, later in pairwise(during))
        if len(gaps) < _BEGUN:
            return None
        return one.prompt, one.times[0] - one.began, gaps[len(gaps) // 2]

    async def _stream(
        self, session: aiohttp.ClientSession, words: int, most: int, found: _Stream | None = None
    ) -> _Stream:
        # Of a prompt that was read before nothing could be seen.
        prompt = " ".join(self._dice.choice(_WORDS) for _ in range(words))
        asked = {
            "model": self._model, "prompt": prompt, "max_tokens": most, "stream": True, "temperature": 1.0,
            "ignore_eos": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        found = found or _Stream(0.0, [])
        found.began, found.prompt = time.perf_counter(), words
        async with session.post(f"{self.url}/completions", json=asked) as answer:
            if answer.status != 200:
                await _json(answer)
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("choices"):
                    found.times.append(time.perf_counter())
                    if len(found.times) == _BEGUN:
                        found.runs.set()
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
