"""What chat/completions answered as a message of Anthropic's. No I/O."""

import json
from collections.abc import Collection
from typing import Any, Final, cast

from ..chat_answers import Piece, Usage

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# What a message may say of what there is not here: containers, reasons of a refusal, edits of the context.
NOTHING_MORE: Final[dict[str, None]] = {"container": None, "stop_details": None, "context_management": None}


def message(piece: Piece, *, id: str, model: str, stop_sequences: Collection[str], prefill: str) -> dict[str, Any]:
    """The whole message. Engines of one kind repeat the prefill before what follows it, which this takes off."""
    content: list[dict[str, Any]] = []
    if piece.reasoning:
        content.append({"type": "thinking", "thinking": piece.reasoning, "signature": ""})
    if text := (piece.text or piece.refusal).removeprefix(prefill):
        content.append({"type": "text", "text": text})
    content += [
        {"type": "tool_use", "id": call.id or call_id(id, at), "name": call.name, "input": tool_input(call.arguments)}
        for at, call in enumerate(piece.tool_calls)
    ]
    reason, sequence = stop_of(piece.finish, piece.stop, stop_sequences, calls=bool(piece.tool_calls))
    return {
        **envelope(id, model),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_of(piece.usage or Usage()),
    }


def envelope(id: str, model: str, usage: Usage | None = None) -> dict[str, Any]:
    """A message of which nothing has been said."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        **NOTHING_MORE,
        "usage": usage_of(usage or Usage()),
    }


def call_id(message_id: str, number: int) -> str:
    """The id of a call to which the engine gave none: the tool's result must name it."""
    return f"toolu_{message_id.removeprefix('msg_')}_{number}"


def stop_of(
    finish: str | None, stop: str | None, stop_sequences: Collection[str], *, calls: bool = False
) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`. Where the engine does not say which string ended it, its turn has ended.

    `calls`: whether tools were called. A chat that was told which tool to call ends by "stop" all the same.
    """
    if finish in (None, "stop") and stop is not None and stop in stop_sequences:
        return "stop_sequence", stop
    if finish in (None, "stop") and calls:
        return "tool_use", None
    return _REASONS.get(finish or "stop", "end_turn"), None


def usage_of(usage: Usage) -> dict[str, Any]:
    """Anthropic counts what was read from the cache beside `input_tokens` and not in it."""
    return {
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
        "server_tool_use": None,
        "service_tier": "standard",
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }


def tool_input(arguments: str) -> dict[str, Any]:
    """The arguments as an object. What a model wrote that is none is kept under the name that Anthropic gives it."""
    try:
        value: Any = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"INVALID_JSON": arguments}
