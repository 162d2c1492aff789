"""What a call takes of a model, for the capacity queue: its tokens, as far as its bytes tell, and whose it is.

Pure. How many bytes a token has is learnt from what engines say of prompts that they have read.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from ..capacity.prefix_index import BLOCK_TOKENS
from ..capacity_queue.messages import QueueCost
from .engines.interface import EngineCall

# Where nothing is known yet.
BYTES_PER_TOKEN: Final = 4.0
# One prompt's part in what is learnt, and the least that says something.
_PART: Final = 0.05
_LEAST_TOKENS: Final = 64
_BLOCK_BYTES: Final = int(BLOCK_TOKENS * BYTES_PER_TOKEN)
MOST_BLOCKS: Final = 1024
# What stands before it in a body differs between clients and requests.
_BEGINNINGS: Final = (b'"messages"', b'"prompt"', b'"input"')
_GENERATES: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"})
_READS: Final = frozenset({"/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score"})
BANDS: Final = frozenset({"priority", "flex", "batch"})


class _Body(msgspec.Struct):
    """Of a request's body, what is of matter here; anything may be of the wrong type, which is others' to say."""

    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n_predict: Any = None
    n: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    user: Any = None
    metadata: Any = None


_decoder: Final = msgspec.json.Decoder(_Body)
_NOTHING: Final = _Body()


class PromptSizes:
    """How long prompts of a model are, by the bytes of their requests."""

    def __init__(self) -> None:
        self.bytes_per_token = BYTES_PER_TOKEN

    def tokens(self, size: int) -> int:
        return int(size / self.bytes_per_token) + 1

    def learn(self, size: int, tokens: int) -> None:
        """A request of so many bytes had a prompt of so many tokens."""
        if tokens >= _LEAST_TOKENS:
            self.bytes_per_token += _PART * (max(0.5, min(16.0, size / tokens)) - self.bytes_per_token)


def queue_cost_of(call: EngineCall, sizes: PromptSizes, tenant: str) -> QueueCost:
    if call.path not in _GENERATES:
        tokens = sizes.tokens(len(call.body)) if call.path in _READS else 0
        return QueueCost(tokens=tokens, max_tokens=0, tenant=tenant)
    try:
        said = _decoder.decode(call.body)
    except (ValueError, RecursionError):
        said = _NOTHING
    limits = (said.max_completion_tokens, said.max_output_tokens, said.max_tokens, said.n_predict)
    most = next((each for each in limits if _is_count(each)), None)
    answers = said.n if _is_count(said.n) and said.n > 0 else 1
    text = _text_of(call.body)
    return QueueCost(
        tokens=sizes.tokens(len(text)),
        max_tokens=None if most is None else most * answers,
        tenant=tenant,
        user=_user_of(said),
        band=said.service_tier if isinstance(said.service_tier, str) and said.service_tier in BANDS else "",
        chain=_chain_of(text),
    )


def prompt_bytes(call: EngineCall) -> int:
    return len(_text_of(call.body))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _text_of(body: bytes) -> memoryview:
    """Of a body, where the prompt begins. Two that begin alike there are taken for the same prompt so far."""
    at = min((found for mark in _BEGINNINGS if (found := body.find(mark)) >= 0), default=0)
    return memoryview(body)[at:]


def _chain_of(text: memoryview) -> tuple[int, ...]:
    """As prefix_index has it, of blocks of bytes that are about as long as blocks of tokens."""
    hashes: list[int] = []
    before = blake2b(digest_size=8)
    for end in range(_BLOCK_BYTES, min(len(text), MOST_BLOCKS * _BLOCK_BYTES) + 1, _BLOCK_BYTES):
        before.update(text[end - _BLOCK_BYTES : end])
        hashes.append(int.from_bytes(before.digest(), "little"))
    return tuple(hashes)


def _user_of(said: _Body) -> str:
    if isinstance(said.safety_identifier, str):
        return said.safety_identifier[:128]
    if isinstance(said.user, str):
        return said.user[:128]
    # Anthropic's name for it.
    found: object = said.metadata.get("user_id") if isinstance(said.metadata, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found[:128] if isinstance(found, str) else ""
