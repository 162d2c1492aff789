"""A model of an engine from what it is seen to do: least squares over a short series of requests.

The time to the first token of lone prompts gives overhead and rate of reading; the time from token to token by how many
streams run gives the step's; by how much one of them has in its cache, what that adds. How often a stream goes on while
a prompt is read gives how much of it a step reads.
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
    reads: Sequence[tuple[int, float, float]] = ()
    """Tokens of a prompt that came beside one stream, seconds to its first token, and seconds from token to token of
    the stream meanwhile."""


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
    model = replace(
        base,
        prefill_tokens_per_s=float(1 / per_token),
        overhead_s=max(0.0, float(overhead)),
        decode_step_s=step,
        decode_step_per_request_s=per_request,
        decode_step_per_context_token_s=per_context,
        slots=seen.slots,
    )
    return _with_chunks(model, seen, float(per_token))


def _with_chunks(model: EngineModel, seen: Seen, per_token: float) -> EngineModel:
    """How much a step reads follows from how many tokens a stream gets while a prompt is read. What it takes beside one
    that gives a token is what reading takes; the rest of what it takes alone is the step's own.
    """
    if not seen.reads:
        return model
    chunks = [tokens * gap / max(gap, first - model.overhead_s) for tokens, first, gap in seen.reads]
    chunk = max(1, round(float(np.median(chunks))))
    reading = float(np.median([gap for _, _, gap in seen.reads])) - model.decode_s(1, 0)
    # At most as fast as alone.
    per_read = min(per_token, reading / chunk) if reading > 0 else per_token
    return replace(
        model,
        chunk_tokens=chunk + 1,
        # One was the stream's.
        batch_tokens=max(chunk + 1, seen.slots),
        prefill_tokens_per_s=1 / per_read,
        read_step_s=(chunk + 1) * (per_token - per_read),
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
