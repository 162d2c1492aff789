"""Read beside an answer what must be known of it: how many tokens it took, and why it ended. No byte is changed.

Only events that say so are looked at closer: the mark is searched for in all, and that costs next to nothing.
"""

import json
import re
from typing import Any, Final, NamedTuple, cast

_decode: Final = json.JSONDecoder().raw_decode
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"([a-z_]+)"')
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')
USAGE_MARK: Final = b'"usage"'
_FINISH_MARKS: Final = (b'"finish_reason":"', b'"finish_reason": "')
# A usage object is no longer than this.
_LONGEST: Final = 4096


class Usage(NamedTuple):
    """Tokens, as the engine counts them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    """Of the prompt: those that need not be read again."""


def usage_in(data: bytes) -> Usage | None:
    """What the last `usage` object in these bytes says."""
    end = len(data)
    while (at := data.rfind(USAGE_MARK, 0, end)) >= 0:
        found = _USAGE.match(data, at)
        if found is not None:
            return _parsed(data[found.end() : found.end() + _LONGEST])
        end = at
    return None


def finish_in(data: bytes) -> str | None:
    """Why the answer in these bytes ended, if they say it."""
    # Every event has the name, and a search for the expression in all of them is slow.
    at = data.find(_FINISH_MARKS[0])
    if at < 0 and (at := data.find(_FINISH_MARKS[1])) < 0:
        return None
    found = _FINISH.match(data, at)
    return found[1].decode() if found is not None else None


def _parsed(data: bytes) -> Usage | None:
    try:
        value: Any = _decode(data.decode("utf-8", "replace"))[0]
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    said = cast("dict[str, Any]", value)
    details: Any = said.get("prompt_tokens_details") or said.get("input_tokens_details")
    cached = cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else None
    return Usage(
        _count(said, "prompt_tokens", "input_tokens"),
        _count(said, "completion_tokens", "output_tokens"),
        cached if isinstance(cached, int) else _count(said, "cache_read_input_tokens"),
    )


def _count(said: dict[str, Any], *names: str) -> int:
    return next((value for name in names if isinstance(value := said.get(name), int)), 0)
