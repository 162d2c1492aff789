"""The bytes of an OpenAI completion, streamed or whole, as llama.cpp's server forms them.

What is the same in all events of a stream is made once, so that a token costs the joining of three pieces.
"""

import json
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Usage:
    prompt: int
    completion: int
    cached: int

    def fields(self) -> dict[str, Any]:
        return {
            "completion_tokens": self.completion,
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to one request; its choices are told by their index."""

    chat: bool
    id: str
    model: str
    created: int

    def before_text(self, index: int) -> bytes:
        """What stands before the text of a token's event."""
        if self.chat:
            return f'data: {{"choices":[{{"finish_reason":null,"index":{index},"delta":{{"content":"'.encode()
        return f'data: {{"choices":[{{"index":{index},"logprobs":null,"finish_reason":null,"text":"'.encode()

    def after_text(self) -> bytes:
        return self._end_of_text() + self._tail() + b"}\n\n"

    def _end_of_text(self) -> bytes:
        return b'"}}],' if self.chat else b'"}],'

    def stamped(self, events: bytes, nanoseconds: int) -> bytes:
        """The events; those that bring text say at which time of CLOCK_MONOTONIC they were made."""
        end = self._end_of_text()
        stamp = b'%b"timings":{"emitted_ns":%d},' % (end, nanoseconds)
        return b"\n\n".join(
            event.replace(end, stamp) if b'"finish_reason":null' in event else event for event in events.split(b"\n\n")
        )

    def role(self, index: int) -> bytes:
        """The first event of a choice; only a chat has one."""
        if not self.chat:
            return b""
        return self._event({"finish_reason": None, "index": index, "delta": {"role": "assistant", "content": None}})

    def end(self, index: int, reason: str) -> bytes:
        """The last event of a choice."""
        if self.chat:
            return self._event({"finish_reason": reason, "index": index, "delta": {}})
        return self._event({"text": "", "index": index, "logprobs": None, "finish_reason": reason})

    def usage(self, usage: Usage) -> bytes:
        return b'data: {"choices":[],%b,"usage":%b}\n\n' % (self._tail(), _json(usage.fields()))

    def whole(self, texts: list[tuple[str, str]], usage: Usage) -> bytes:
        """The body of an answer that is not streamed, from each choice's text and reason to finish."""
        choices: list[dict[str, Any]] = []
        for index, (text, reason) in enumerate(texts):
            if self.chat:
                message = {"role": "assistant", "content": text, "refusal": None}
                choices.append({"finish_reason": reason, "index": index, "message": message, "logprobs": None})
            else:
                choices.append({"text": text, "index": index, "logprobs": None, "finish_reason": reason})
        head: dict[str, Any] = {"choices": choices, "created": self.created, "model": self.model}
        head |= {"system_fingerprint": "simulated", "object": "chat.completion" if self.chat else "text_completion"}
        return _json(head | {"usage": usage.fields(), "id": self.id})

    def _event(self, choice: dict[str, Any]) -> bytes:
        return b'data: {"choices":[%b],%b}\n\n' % (_json(choice), self._tail())

    def _tail(self) -> bytes:
        head = {"created": self.created, "id": self.id, "model": self.model, "system_fingerprint": "simulated"}
        return _json(head | {"object": "chat.completion.chunk" if self.chat else "text_completion"})[1:-1]


DONE = b"data: [DONE]\n\n"


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _json(value: object) -> bytes:
    return _encode(value).encode()
