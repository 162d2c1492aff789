"""What a request takes of a model's replica, as its request router is told before anything has been tokenized.

An estimate by the length of texts: it costs microseconds, and a router has to know sizes rather than numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import msgspec

from ..policies.policy import Cost
from .json_kinds import is_whole
from .wishes import NO_WISHES, Wishes

# Of English text in UTF-8; other scripts have more bytes a character and fewer characters a token.
BYTES_PER_TOKEN: Final = 4
# What a chat template puts around a message.
PER_MESSAGE: Final = 4
# What engines read; everything else in a request says how.
_READ: Final = (
    "messages", "system", "prompt", "suffix", "input", "instructions", "content",
    "query", "queries", "documents", "texts", "items", "text_1", "text_2", "data_1", "data_2",
)  # fmt: skip
# They read these as JSON, with the names in it.
_READ_AS_JSON: Final = ("tools", "functions")
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
# Of all answers together: no cache holds as many tokens.
_MOST: Final = 2**52
# A picture or a sound, which has another size in tokens than its text in base64.
_LONG_URL: Final = "data:"
_ENCODED: Final = frozenset({"data", "file_data", "url"})


@dataclass(frozen=True, slots=True)
class ModelCost(Cost):
    """`tokens` is the sum of prompt and the longest answer that was asked for."""

    prompt_tokens: int = 0
    """Estimated; those given as ids are counted."""
    max_tokens: int | None = None
    """Of all answers together (`n`, several prompts); None: there is no limit, and `tokens` has the prompt only."""
    model: str = ""
    """As the engine knows it: the model, or an adapter of it."""
    tenant: str = ""
    """"" without keys."""
    adapter: str = ""
    """The adapter of the model that it needs."""
    wishes: Wishes = NO_WISHES
    """What its client says of when and where it is to run."""
    prompt_bytes: int = 0
    """Of the texts in the prompt, with what stands around messages; without what came as ids of tokens."""
    prompt_ids: int = 0
    """Tokens of the prompt that came as their ids."""


def cost_of(
    fields: Mapping[str, Any], *, model: str, tenant: str, adapter: str = "", wishes: Wishes = NO_WISHES
) -> ModelCost:
    """Of a request in any of the APIs; what is not of its type counts nothing, and is somebody else's to refuse."""
    size, ids = _read_in([fields[name] for name in _READ if name in fields])
    for name in _READ_AS_JSON:
        if isinstance(value := fields.get(name), list):
            size += len(msgspec.json.encode(value))
    messages: Any = fields.get("messages")
    if isinstance(messages, list):
        size += PER_MESSAGE * BYTES_PER_TOKEN * len(cast("list[Any]", messages))
    prompt = ids - (-size // BYTES_PER_TOKEN)
    limit = next((value for name in _LIMITS if _is_count(value := fields.get(name))), None)
    if limit is not None:
        limit = min(limit * _answers(fields), _MOST)
    return ModelCost(1, prompt + (limit or 0), prompt, limit, model, tenant, adapter, wishes, size, ids)


def without_deadline(cost: Cost) -> Cost:
    if isinstance(cost, ModelCost) and cost.wishes.timeout_s is not None:
        return replace(cost, wishes=cost.wishes._replace(timeout_s=None))
    return cost


def with_ticket(cost: Cost, ticket: str) -> Cost:
    """With the place that it had before."""
    return replace(cost, wishes=cost.wishes._replace(ticket=ticket)) if isinstance(cost, ModelCost) else cost


def with_more(cost: Cost, size: int) -> Cost:
    """With so many bytes more to be read: of what was its answer at first."""
    return replace(cost, prompt_bytes=max(0, cost.prompt_bytes + size)) if isinstance(cost, ModelCost) else cost


def _answers(fields: Mapping[str, Any]) -> int:
    prompt: Any = fields.get("prompt")
    prompts = 1
    if isinstance(prompt, list) and prompt and not is_whole(cast("list[Any]", prompt)[0]):
        prompts = len(cast("list[Any]", prompt))
    number: Any = fields.get("n")
    return prompts * max(1, number if _is_count(number) else 1)


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 0


def _read_in(values: list[Any]) -> tuple[int, int]:
    """The bytes of all texts in them, and how many ids of tokens."""
    size, ids = 0, 0
    todo = values
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            if not each.startswith(_LONG_URL):
                size += len(each) if each.isascii() else len(each.encode("utf-8", "replace"))
        elif isinstance(each, list):
            items = cast("list[Any]", each)
            if items and is_whole(items[0]):
                ids += len(items)
            else:
                todo += items
        elif isinstance(each, dict):
            todo += [item for name, item in cast("dict[str, Any]", each).items() if name not in _ENCODED]
    return size, ids
