"""What one request takes of a line, and what a line offers. A line is one rank of one replica. Tokens throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol


class LineId(NamedTuple):
    replica: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class LineFacts:
    """What an engine offers on one rank."""

    kv_tokens: int
    """Tokens that its key-value cache holds."""
    slots: int
    """Requests that run at once."""
    prefill_rate: float
    """Tokens of prompts a second, measured."""

    def __post_init__(self) -> None:
        if self.kv_tokens < 1 or self.slots < 1 or not self.prefill_rate > 0:
            raise ValueError(f"a line needs tokens, slots and a rate above zero, not {self}")


class Takes(Protocol):
    """Whatever takes something of a line: its prompt, the answer that is expected of it, and both."""

    @property
    def prompt(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def tokens(self) -> int: ...


class Need:
    """What a request takes: its prompt, and the answer that is expected of it. Not changed; one is made a request."""

    __slots__ = ("output", "prompt", "tokens")

    def __init__(self, prompt: int, output: int) -> None:
        if prompt < 0 or output < 0:
            raise ValueError(f"a request needs zero or more tokens, not {prompt} and {output}")
        self.prompt = prompt
        self.output = output
        self.tokens = prompt + output

    def __repr__(self) -> str:
        return f"Need({self.prompt}, {self.output})"


@dataclass(frozen=True, slots=True)
class Limits:
    """How full a line may be while another request is admitted."""

    fill: float = 0.9
    """Of its key-value tokens. The rest is for answers that are longer than expected."""
    prefill_s: float = 2.0
    """Seconds of prompts that wait to be read."""
    session_s: float = 1.0
    """The same, up to which a session stays at the line that it ran on last."""

    def __post_init__(self) -> None:
        if not 0 < self.fill <= 1:
            raise ValueError(f"fill must be above 0 and at most 1, not {self.fill}")
        if not self.prefill_s > 0:
            raise ValueError(f"prefill_s must be above 0, not {self.prefill_s}")
        if not self.session_s >= 0:
            raise ValueError(f"session_s must be zero or more, not {self.session_s}")


DEFAULT_LIMITS: Final = Limits()
