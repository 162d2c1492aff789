"""How llama.cpp is asked so that it soon sees that nobody waits any more: it looks when it has something to say.

So it is asked for its progress while it reads a prompt, which is taken out again, and for a stream where an answer is
wanted as a whole, which is put together here as it would have been. Nothing here waits.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from ..resume.events import a_dict, a_list, events
from .adapters import with_field
from .interface import EngineCall

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
_PROGRESS: Final = b'"prompt_progress"'
_ASKED: Final = b'"return_progress"'
# What does not change the shape of an answer. With any other field it is asked for as it came.
_PLAIN: Final = frozenset(
    {"model", "messages", "prompt", "stream", "max_tokens", "max_completion_tokens", "n_predict", "n", "stop", "seed"}
    | {"temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "logit_bias"}
    | {"repeat_penalty", "repeat_last_n", "grammar", "json_schema", "response_format", "ignore_eos", "cache_prompt"}
    | {"chat_template_kwargs", "reasoning_effort", "lora", "user", "metadata", "store", "service_tier", "id_slot"}
)


def with_progress(call: EngineCall) -> EngineCall | None:
    """The streamed call that also brings progress; None where that would be no help, or its client asks for it."""
    if call.path not in (CHAT, COMPLETION) or _ASKED in call.body:
        return None
    return call._replace(body=with_field(call.body, "return_progress", b"true"))


def without_progress(data: bytes) -> bytes:
    """The events but those that only tell how much of the prompt was read."""
    if _PROGRESS not in data:
        return data
    return b"".join(each.raw for each in events(data) if _PROGRESS not in each.data)


def as_stream(call: EngineCall) -> EngineCall | None:
    """The streamed call that brings what this one asks for as a whole; None where `Whole` would not be the same."""
    if call.path not in (CHAT, COMPLETION):
        return None
    try:
        body = a_dict(msgspec.json.decode(call.body))
    except (ValueError, RecursionError):
        return None
    if not body or body.get("stream") or body.get("n") not in (None, 1) or not _PLAIN.issuperset(body):
        return None
    if call.path == CHAT:
        messages = a_list(body.get("messages"))
        # An answer that the client has begun is repeated where it is not streamed.
        if not messages or a_dict(messages[-1]).get("role") == "assistant":
            return None
    elif not isinstance(body.get("prompt"), str):
        return None
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    return call._replace(body=msgspec.json.encode(asked), stream=True)


class Whole:
    """Events in, the answer out that stands for all of them."""

    def __init__(self, path: str) -> None:
        self._is_chat = path == CHAT
        self._texts: dict[str, list[str]] = {"content": []}
        self._finish: object = None
        self._last: dict[str, Any] = {}
        self._error: dict[str, Any] = {}

    def feed(self, data: bytes) -> None:
        for each in events(without_progress(data)):
            value = each.value()
            if value is None:
                continue
            if "error" in value:
                self._error = value
                continue
            self._last.update(value)
            for choice in cast("list[dict[str, Any]]", value.get("choices") or ()):
                self._finish = choice.get("finish_reason") or self._finish
                self._add({"content": choice["text"]} if "text" in choice else a_dict(choice.get("delta")))

    def _add(self, said: Mapping[str, Any]) -> None:
        for name, piece in said.items():
            if name != "role" and isinstance(piece, str):
                self._texts.setdefault(name, []).append(piece)

    def answer(self) -> tuple[int, bytes]:
        """Status and JSON."""
        if self._error:
            status = a_dict(self._error["error"]).get("code")
            return status if isinstance(status, int) and 400 <= status < 600 else 500, msgspec.json.encode(self._error)
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        choice: dict[str, Any]
        if self._is_chat:
            message = {"role": "assistant", **texts}
            choice = {"finish_reason": self._finish, "index": 0, "message": message}
            self._last["object"] = "chat.completion"
        else:
            choice = {"text": texts["content"], "index": 0, "logprobs": None, "finish_reason": self._finish}
        return 200, msgspec.json.encode({**self._last, "choices": [choice]})
