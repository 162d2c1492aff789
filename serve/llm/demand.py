"""What a call takes of a model, for the capacity queue: its tokens, as far as its texts tell, and whose it is.

Pure. How many bytes a token has is learnt from what engines say of prompts that they have read.
"""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import blake2b
from typing import Final

from ..capacity.prefix_index import BLOCK_TOKENS
from ..capacity_queue.messages import QueueCost
from ..policies.policy import Cost
from .costs import ModelCost
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
# JSON writes a text in about twice its bytes at most, and an id of a token in so many.
_JSON_SHARE: Final = 2
_ID_BYTES: Final = 8
_READS: Final = frozenset({"/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score"})


class PromptSizes:
    """How long prompts of a model are, by the bytes of their texts."""

    def __init__(self) -> None:
        self.bytes_per_token = BYTES_PER_TOKEN

    def tokens(self, cost: ModelCost) -> int:
        return int(cost.prompt_bytes / self.bytes_per_token) + 1 + cost.prompt_ids

    def learn(self, cost: ModelCost, tokens: int) -> None:
        """A request of this cost had a prompt of so many tokens."""
        size = cost.prompt_bytes
        tokens -= cost.prompt_ids
        if tokens >= _LEAST_TOKENS:
            self.bytes_per_token += _PART * (max(0.5, min(16.0, size / tokens)) - self.bytes_per_token)


def queue_cost_of(call: EngineCall, sizes: PromptSizes, cost: ModelCost) -> QueueCost:
    """Of a call that stands for a request of this cost."""
    wishes = cost.wishes
    if call.path not in _GENERATES:
        tokens = sizes.tokens(cost) if call.path in _READS else 0
        return QueueCost(
            tokens=tokens,
            max_tokens=0,
            tenant=cost.tenant,
            band=wishes.band,
            deadline_s=wishes.timeout_s,
            ticket=wishes.ticket,
        )
    return QueueCost(
        tokens=sizes.tokens(cost),
        max_tokens=cost.max_tokens,
        tenant=cost.tenant,
        user=wishes.user,
        band=wishes.band,
        deadline_s=wishes.timeout_s,
        chain=_chain_of(_text_of(call.body, cost)),
        session=wishes.session,
        adapter=cost.adapter,
        ticket=wishes.ticket,
    )


_NOT_SAID: Final = QueueCost()


def filled_up(own: Cost, estimate: QueueCost) -> QueueCost:
    """What somebody says of a call; what he leaves open is as estimated. A Cost is the tokens of the prompt."""
    if not isinstance(own, QueueCost):
        return replace(estimate, tokens=own.tokens)
    names = [each.name for each in fields(own)]
    left = {name: getattr(estimate, name) for name in names if getattr(own, name) == getattr(_NOT_SAID, name)}
    return replace(own, **left)


def _text_of(body: bytes, cost: ModelCost) -> memoryview:
    """Of a body, from where the prompt begins, no more than the prompt may be. Two that begin alike there are taken for
    the same prompt so far.
    """
    at = min((found for mark in _BEGINNINGS if (found := body.find(mark)) >= 0), default=0)
    most = _JSON_SHARE * cost.prompt_bytes + _ID_BYTES * cost.prompt_ids
    return memoryview(body)[at : at + most]


def _chain_of(text: memoryview) -> tuple[int, ...]:
    """As prefix_index has it, of blocks of bytes that are about as long as blocks of tokens."""
    hashes: list[int] = []
    before = blake2b(digest_size=8)
    for end in range(_BLOCK_BYTES, min(len(text), MOST_BLOCKS * _BLOCK_BYTES) + 1, _BLOCK_BYTES):
        before.update(text[end - _BLOCK_BYTES : end])
        hashes.append(int.from_bytes(before.digest(), "little"))
    return tuple(hashes)
