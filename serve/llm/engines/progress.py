"""Ask an engine for what moves while it works, so that one that hangs is told from one that is busy."""

from __future__ import annotations

import time
from typing import Final

from .interface import EngineError
from .openai_http import OpenAIHttp
from .prometheus_text import samples_of

_MOVES: Final = ("prompt_tokens", "generated_tokens", "kv_share", "kv_tokens_used")


async def progress_of(http: OpenAIHttp, paths: frozenset[str], timeout_s: float) -> str | None:
    """See `Look.progress`. `paths`: what the engine answers."""
    try:
        # llama.cpp answers this between two steps, by what makes the steps.
        if "/slots" in paths:
            status, _ = await http.ask("GET", "/slots", timeout_s=timeout_s)
            if status == 200:
                return str(time.monotonic_ns())
        if "/metrics" in paths:
            status, page = await http.ask("GET", "/metrics", timeout_s=timeout_s)
            if status == 200:
                found = samples_of(page.decode(errors="replace"))
                moves = [(name, found[name]) for name in _MOVES if name in found]
                return str(moves) if moves else None
    except EngineError:
        return ""
    return None
