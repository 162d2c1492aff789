"""What a client sees of one streamed answer: when tokens came, what the usage says, and whether it was whole. Pure."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

_DATA: Final = b"data: "


@dataclass(slots=True)
class Seen:
    """Fed with bytes as they come, cut anywhere, and the time at which they came. Times are seconds of one clock."""

    asked_at: float
    first_at: float | None = None
    """When the first event with text came."""
    last_at: float | None = None
    gaps: list[float] = field(default_factory=list[float])
    """Seconds between the arrivals of text, the first one aside."""
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    done: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes, now: float) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        brought_text = False
        for event in events:
            brought_text |= self._read(event)
        if not brought_text:
            return
        if self.last_at is None:
            self.first_at = now
        else:
            self.gaps.append(now - self.last_at)
        self.last_at = now

    def _read(self, event: bytes) -> bool:
        """Whether there was text in it."""
        if not event.startswith(_DATA):
            return False
        data = event[len(_DATA) :]
        if data == b"[DONE]":
            self.done = True
            return False
        try:
            told: Any = json.loads(data)
        except ValueError:
            self.error = f"an event that is no JSON: {data[:80]!r}"
            return False
        if "error" in told:
            self.error = str(told["error"].get("message", told["error"]))
            return False
        if usage := told.get("usage"):
            self.completion_tokens, self.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        text = False
        for choice in told.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            text |= bool((choice.get("delta") or {}).get("content") or choice.get("text"))
        return text

    @property
    def truncated(self) -> bool:
        """The stream ended, and its end was not in it."""
        return self.error is None and not (self.done and self.finish_reason and self.completion_tokens is not None)

    @property
    def ttft(self) -> float | None:
        """Seconds from the request to the first text."""
        return None if self.first_at is None else self.first_at - self.asked_at

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first, by the usage's count; None for an answer of one token."""
        if self.first_at is None or self.last_at is None or not self.completion_tokens or self.completion_tokens < 2:
            return None
        return (self.last_at - self.first_at) / (self.completion_tokens - 1)
