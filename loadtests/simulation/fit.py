"""A model of an engine from what it is seen to do: least squares over a short series of requests.

The time to the first token of lone prompts gives overhead and rate of reading; the time from token to token by how many
streams run gives the step's; by how much one of them has in its cache, what that adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .engine_model import EngineModel, ModelError


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a server."""

    firsts: Sequence[tuple[int, float]]
    """Tokens of a prompt that came alone, and seconds to its first token."""
    steps: Sequence[tuple[int, int, float]]
    """Streams that ran at once, tokens that they had in the cache together, and seconds from token to token."""
    slots: int
    """The most streams that ran at once."""


def fitted(seen: Seen, base: EngineModel) -> EngineModel:
    """What was not measured is as in `base`. ModelError if what was measured fits no engine."""
    if len({tokens for tokens, _ in seen.firsts}) < 2 or not seen.steps:
        raise ModelError("to fit a model prompts of two lengths at least and a stream are needed")
    tokens = np.array([[1.0, tokens] for tokens, _ in seen.firsts])
    (overhead, per_token), *_ = np.linalg.lstsq(tokens, np.array([first for _, first in seen.firsts]), rcond=None)
    if per_token <= 0:
        raise ModelError("longer prompts were not read in more time: measure it with nothing else on the server")
    streams = [step for step, _, _ in seen.steps]
    contexts = [context for _, context, _ in seen.steps]
    times = np.array([time for _, _, time in seen.steps])
    columns = [np.ones(len(times))]
    is_batched, has_contexts = len(set(streams)) > 1, len(set(contexts)) > 1
    if is_batched:
        columns.append(np.array(streams, dtype=float) - 1)
    if has_contexts and len(times) > len(columns) + 1:
        columns.append(np.array(contexts, dtype=float))
    found = _not_negative(np.stack(columns, axis=1), times)
    step = float(found[0])
    per_request = float(found[1]) if is_batched else 0.0
    per_context = float(found[-1]) if len(columns) == 2 + is_batched and len(columns) > 1 + is_batched else 0.0
    return replace(
        base,
        prefill_tokens_per_s=float(1 / per_token),
        overhead_s=max(0.0, float(overhead)),
        decode_step_s=step,
        decode_step_per_request_s=per_request,
        decode_step_per_context_token_s=per_context,
        slots=seen.slots,
    )


def _not_negative(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares; whatever comes out below zero counts for nothing, and the others are found anew."""
    kept = list(range(columns.shape[1]))
    found = np.zeros(columns.shape[1])
    while kept:
        solved, *_ = np.linalg.lstsq(columns[:, kept], values, rcond=None)
        if solved.min() >= 0:
            found[kept] = solved
            break
        del kept[int(solved.argmin())]
    return found
