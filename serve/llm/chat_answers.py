"""What engines answer to chat/completions, read into the few things that the other APIs are made of. No I/O.

Engines name the same thing differently: the thoughts of a model are `reasoning_content` (llama.cpp, SGLang) or
`reasoning` (vLLM), the stop string that ended an answer is `stop_reason` (vLLM) or `matched_stop` (SGLang). Some give
calls of tools without an id, or all with the same index, their arguments as an object, or a text as a list of parts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

Json = Mapping[str, Any]

# How an answer ends that the engine itself gave up (vLLM, SGLang).
GIVEN_UP: Final = frozenset({"abort", "error"})


class ChatError(Exception):
    """The engine's answer is an error, or is none that chat/completions has. `status` is what it would be as HTTP."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message, status)
        self.message, self.status = message, status

    def __str__(self) -> str:
        return self.message


class ToolCall(NamedTuple):
    """A call of a tool, or a piece of one: then `id` and `name` stand in its first piece only."""

    number: int
    """The `index` that tells calls of one answer apart."""
    id: str
    """"" also where the engine gives none."""
    name: str
    arguments: str

    def goes_on(self, number: int, id: str) -> bool:
        """Whether it is a further piece of the call with this number and id."""
        return self.number == number and not (self.name and self.id and self.id != id)


@dataclass(frozen=True, slots=True)
class Usage:
    prompt: int = 0
    """Tokens of the prompt, those of `cached` included."""
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


class Piece(NamedTuple):
    """A chunk of a streamed answer, or a whole one."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    """Why it ended: stop, length, tool_calls, content_filter; None as long as it goes on."""
    stop: str | None = None
    """The stop string that ended it, where the engine says so."""
    usage: Usage | None = None
    read: Usage | None = None
    """What is known of the prompt while it is read, where the engine says so."""
    logprobs: tuple[Json, ...] = ()


# Asks for an answer that goes on with the last message, the assistant's. Engines of one kind know that this is meant,
# those of another are told so; each ignores what it does not know.
GO_ON: Final[Json] = {"add_generation_prompt": False, "continue_final_message": True}


def prefill_of(turns: Sequence[Json]) -> str:
    """What the assistant has said already, where it is to go on; "" if it is to begin.

    Engines of one kind repeat it in an answer that is not streamed.
    """
    last = turns[-1]
    return "" if last["role"] != "assistant" or "tool_calls" in last else last["content"] or ""


def read_answer(answer: Json) -> Piece:
    """A whole answer. Raises ChatError."""
    return _read(answer, "message")


def read_chunk(chunk: Json) -> Piece:
    """The data of one event of a stream. Raises ChatError."""
    return _read(chunk, "delta")


def _read(answer: Json, key: str) -> Piece:
    if (error := answer.get("error")) is not None:
        raise _said(error)
    usage = answer.get("usage")
    read = _usage(cast("Json", usage)) if isinstance(usage, dict) else None
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise ChatError("the engine's answer has no choices")
    if not choices:
        return Piece(usage=read)
    if isinstance(progress := answer.get("prompt_progress"), dict):
        return Piece(usage=read, read=_progress(cast("Json", progress)))
    choice = cast("Json", choices[0])
    said = cast("Json", choice.get(key) or {})
    stop: Any = choice.get("stop_reason") or choice.get("matched_stop")
    logprobs = cast("Json", choice.get("logprobs") or {})
    finish: Any = choice.get("finish_reason")
    if isinstance(finish, str) and finish in GIVEN_UP:
        raise ChatError(f"the engine gave its answer up: it ended by {finish!r}")
    calls: Any = said.get("tool_calls") or ()
    if isinstance(calls, dict):
        calls = [calls]
    return Piece(
        text=_text(said.get("content")),
        reasoning=said.get("reasoning_content") or said.get("reasoning") or "",
        refusal=said.get("refusal") or "",
        tool_calls=tuple(_call(call, at) for at, call in enumerate(cast("list[Json]", calls))),
        finish=finish,
        stop=stop if isinstance(stop, str) else None,
        usage=read,
        logprobs=tuple(cast("list[Json]", logprobs.get("content") or ())),
    )


def _text(content: Any) -> str:
    if not isinstance(content, list):
        return content or ""
    parts = cast("list[Json]", content)
    return "".join(part["text"] for part in parts if part.get("type") == "text")


def _call(call: Json, at: int) -> ToolCall:
    function = cast("Json", call.get("function") or {})
    number, arguments = call.get("index"), function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(at if number is None else number, call.get("id") or "", function.get("name") or "", arguments or "")


def _usage(usage: Json) -> Usage:
    prompt = cast("Json", usage.get("prompt_tokens_details") or {})
    completion = cast("Json", usage.get("completion_tokens_details") or {})
    return Usage(
        prompt=usage.get("prompt_tokens") or 0,
        completion=usage.get("completion_tokens") or 0,
        cached=prompt.get("cached_tokens") or 0,
        reasoning=completion.get("reasoning_tokens") or 0,
    )


def _progress(said: Json) -> Usage | None:
    """Of llama.cpp, asked for `return_progress`."""
    total, cached = said.get("total"), said.get("cache")
    return Usage(prompt=total, cached=cached) if isinstance(total, int) and isinstance(cached, int) else None


def _said(error: object) -> ChatError:
    if not isinstance(error, dict):
        return ChatError(str(error))
    fields = cast("Json", error)
    code: Any = fields.get("code")
    message: Any = fields.get("message")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return ChatError(message if isinstance(message, str) else "the engine failed", status)
