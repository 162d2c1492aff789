"""Response objects, made from what was asked and what chat/completions answered. No I/O."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..chat_answers import Json, Piece, Usage
from .items import Item, NewId
from .request import ResponsesRequest
from .tools import is_function

# Said back as they were given; where they were not, as what they then are.
_SAID_BACK: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def envelope(request: ResponsesRequest, *, id: str, model: str, created_at: int) -> dict[str, Any]:
    """A response of which nothing has been said."""
    given = request.fields
    said_back = {name: given[name] if given.get(name) is not None else value for name, value in _SAID_BACK.items()}
    said_back["text"] = {"format": {"type": "text"}, **said_back["text"]}
    # Those that were offered to the model.
    said_back["tools"] = [
        {"strict": None, "parameters": None, **tool} for tool in said_back["tools"] if is_function(tool["type"])
    ]
    return {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": request.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        **said_back,
        "store": request.store,
        "usage": None,
    }


def output_of(piece: Piece, new_id: NewId, status: str) -> list[Item]:
    """The items of a whole answer: what was thought, said, and asked of tools."""
    items: list[Item] = []
    if piece.reasoning:
        items.append(reasoning_item(new_id("rs"), piece.reasoning))
    if piece.text or not (piece.refusal or piece.reasoning or piece.tool_calls):
        items.append(message_item(new_id("msg"), text_part(piece.text, logprobs_of(piece.logprobs))))
    if piece.refusal:
        items.append(message_item(new_id("msg"), {"type": "refusal", "refusal": piece.refusal}))
    items += [
        call_item(new_id("fc"), call.id or new_id("call"), call.name, call.arguments) for call in piece.tool_calls
    ]
    items[-1]["status"] = status
    return items


def reasoning_item(id: str, text: str) -> Item:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": id, "status": "completed", "summary": [], "content": content}


def message_item(id: str, part: Item) -> Item:
    return {"type": "message", "id": id, "status": "completed", "role": "assistant", "content": [part]}


def text_part(text: str, logprobs: list[Item]) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def call_item(id: str, call_id: str, name: str, arguments: str) -> Item:
    return {
        "type": "function_call",
        "id": id,
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def status_of(finish: str | None) -> str:
    """Of the response and of its last item."""
    return "incomplete" if finish in _INCOMPLETE else "completed"


def ended(
    response: dict[str, Any], output: Iterable[Item], finish: str | None, usage: Usage | None, at: int
) -> dict[str, Any]:
    """The response as it is at its end."""
    status = status_of(finish)
    reason = _INCOMPLETE.get(finish or "")
    return {
        **response,
        "status": status,
        "completed_at": at if status == "completed" else None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": list(output),
        "usage": None if usage is None else usage_of(usage),
    }


def whole(response: dict[str, Any], piece: Piece, new_id: NewId, at: int) -> dict[str, Any]:
    """The response to a request that was not streamed."""
    output = output_of(piece, new_id, status_of(piece.finish))
    return ended(response, output, piece.finish, piece.usage, at)


def failed(response: dict[str, Any], output: Iterable[Item], message: str) -> dict[str, Any]:
    error = {"code": "server_error", "message": message}
    return {**response, "status": "failed", "error": error, "output": list(output)}


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def logprobs_of(tokens: Iterable[Json]) -> list[Item]:
    """As the API has them: the same as those of chat/completions, but for what else engines put in."""
    return [
        {**_logprob(token), "top_logprobs": [_logprob(other) for other in token.get("top_logprobs") or ()]}
        for token in tokens
    ]


def _logprob(token: Json) -> Item:
    return {"token": token["token"], "bytes": token.get("bytes") or [], "logprob": token["logprob"]}
