"""How many batches there are of each model, and how far their requests are: for people. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from .states import OPEN, Status

_FAILED: Final = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED})
# Of those that end, what has no answer yet gets none any more.
_ASKS: Final = frozenset({Status.VALIDATING, Status.IN_PROGRESS})


class Kept(NamedTuple):
    """Batches of one model in one state, as the store has them."""

    model: str
    """As their files name it; "" until they were read."""
    status: str
    batches: int
    total: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Counts:
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class ModelBatches:
    model: str
    batches: Counts
    """Queued are those whose file is still to be read; failed also those that expired or were cancelled."""
    requests: Counts
    """Lines of their files."""


def together(said: Iterable[Any], kept: Iterable[Kept] = ()) -> tuple[list[Kept], list[ModelBatches]]:
    """Of what replicas of a front have said: the same batches each, unless it has not looked, or was not asked since
    they are `kept`; and what is in hand at each. Errors are of those that have not answered.
    """
    kept = list(kept)
    running: Counter[str] = Counter()
    for each in said:
        if isinstance(each, tuple):
            theirs, in_hand = cast("tuple[list[tuple[Any, ...]], dict[str, int]]", each)
            kept = [Kept(*row) for row in theirs] or kept
            running.update(in_hand)
    return kept, counted(kept, running)


def counted(kept: Iterable[Kept], running: Mapping[str, int]) -> list[ModelBatches]:
    """By model. `running`: requests that models have in hand."""
    by_model: dict[str, list[Kept]] = {}
    for each in kept:
        by_model.setdefault(each.model, []).append(each)
    return [_of_model(model, by_model[model], running.get(model, 0)) for model in sorted(by_model)]


def _of_model(model: str, kept: list[Kept], running: int) -> ModelBatches:
    queued = sum(each.batches for each in kept if each.status == Status.VALIDATING)
    done = sum(each.batches for each in kept if each.status == Status.COMPLETED)
    failed = sum(each.batches for each in kept if each.status in _FAILED)
    batches = Counts(queued, sum(each.batches for each in kept) - queued - done - failed, done, failed)
    # What has just ended may not be written down yet.
    running = min(running, _left(kept, OPEN))
    to_come = max(0, _left(kept, _ASKS) - running)
    completed, wrong = sum(each.completed for each in kept), sum(each.failed for each in kept)
    return ModelBatches(model, batches, Counts(to_come, running, completed, wrong))


def _left(kept: Iterable[Kept], among: Collection[Status]) -> int:
    """Requests that have no answer, of batches in these states."""
    return sum(max(0, each.total - each.completed - each.failed) for each in kept if each.status in among)
