"""How fast an engine is and how much it holds: numbers that a file may give, fitted to a real server by fit.py."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


class ModelError(Exception):
    """A file holds no model of an engine, in a sentence."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A step reads at most `chunk_tokens` of prompts and gives each request that has read its prompt one token."""

    prefill_tokens_per_s: float = 10_000.0
    decode_step_s: float = 0.015
    decode_step_per_request_s: float = 0.00015
    decode_step_per_context_token_s: float = 2e-8
    """Of all tokens that the requests of the batch have by then: their key-value cache is read for each step."""
    chunk_tokens: int = 512
    slots: int = 128
    kv_tokens: int = 400_000
    block_tokens: int = 16
    hash_tokens: int = 512
    """Tokens of one block of the prefix cache, a multiple of `block_tokens`."""
    overhead_s: float = 0.0
    """What a request takes beside the engine's steps, before its first token."""
    batch_tokens: int = 0
    """Of one step, what is read and what is given together, as llama.cpp has it; 0: chunks do not get smaller by what
    is given beside."""
    read_step_s: float = 0.0
    """How much longer a step is that only reads."""
    handover_per_token_s: float = 2.6e-6
    """Where others read prompts: what each token's keys and values take to the engine that answers. 128 KiB a token, as
    of a model of 8 billion parameters, at 400 Gb/s."""
    slower_beside: float = 0.0
    """How much longer a step is, as a part of it, for each other engine at work: those of one machine share cores."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.default == 0 or (field.name.endswith("_s") and "per_s" not in field.name) else 1e-9
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e15:
                raise ModelError(f"{field.name} of an engine must be a number from {least:g} on, not {value!r}")
            if field.name in ("chunk_tokens", "slots", "kv_tokens", "block_tokens", "hash_tokens") and (
                value != int(value) or value < 1
            ):
                raise ModelError(f"{field.name} of an engine must be a whole number above zero, not {value!r}")
        if self.batch_tokens and not self.slots <= self.batch_tokens == int(self.batch_tokens):
            raise ModelError(
                f"batch_tokens of an engine must be 0 or at least its slots ({self.slots}), not {self.batch_tokens}"
            )
        if self.hash_tokens % self.block_tokens:
            raise ModelError(
                f"hash_tokens of an engine must be a multiple of block_tokens ({self.block_tokens}), "
                f"not {self.hash_tokens}"
            )
        if not self.decode_step_s and not self.decode_step_per_request_s:
            raise ModelError("a step of an engine takes some time: decode_step_s is 0")

    @property
    def longest(self) -> int:
        """Tokens of the longest request that fits alone, prompt and answer, with a block to spare."""
        return (self.kv_tokens // self.block_tokens) * self.block_tokens - 1

    @property
    def prefill_rate(self) -> float:
        """Tokens of prompts a second beside a batch that is half full, as a router would measure it."""
        chunk = self.chunk(self.slots // 2)
        return chunk / self.step_s(chunk, self.slots // 2, self.kv_tokens // 2)

    def chunk(self, decoding: int) -> int:
        """Tokens of prompts that a step reads at most in which so many requests decode."""
        if not self.batch_tokens:
            return self.chunk_tokens
        return max(1, min(self.chunk_tokens, self.batch_tokens - decoding))

    def step_s(self, read: int, decoding: int, context: int) -> float:
        """A step that reads so many tokens and gives so many, of requests with so many in the cache."""
        reading = read / self.prefill_tokens_per_s
        return reading + (self.decode_s(decoding, context) if decoding else self.read_step_s)

    def decode_s(self, requests: int, context: int) -> float:
        """How much longer a step is by the requests that decode in it."""
        if not requests:
            return 0.0
        return (
            self.decode_step_s
            + self.decode_step_per_request_s * (requests - 1)
            + self.decode_step_per_context_token_s * context
        )


def save(model: EngineModel, path: Path) -> None:
    path.write_text(json.dumps(asdict(model), indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> EngineModel:
    """Raises ModelError in a sentence."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"the engine's file cannot be read: {error}") from None
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from None
    known = {field.name for field in fields(EngineModel)}
    if not isinstance(found, dict) or (unknown := set(found) - known):
        what = f"{', '.join(sorted(unknown))} in it" if isinstance(found, dict) else "what is in it"
        raise ModelError(f"{path} is no model of an engine: {what} is not known; there are {', '.join(sorted(known))}")
    return EngineModel(**found)
