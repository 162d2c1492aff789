"""What `/metrics` says of batches: how many there are by status, and their requests by model and state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .batches.counts import Kept, ModelBatches

_STATES: Final = ("queued", "running", "done", "failed")


def batch_families(kept: Iterable[Kept], batches: Iterable[ModelBatches]) -> Iterator[Any]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    statuses: Counter[str] = Counter()
    for each in kept:
        statuses[each.status] += each.batches
    family = GaugeMetricFamily("actorrt_llm_batches", "Batches that are kept, by status", labels=("status",))
    for status, number in sorted(statuses.items()):
        family.add_metric((status,), number)
    yield family
    family = GaugeMetricFamily(
        "actorrt_llm_batch_lines", "Requests of batches that are kept", labels=("gen_ai_request_model", "state")
    )
    for each in batches:
        for state in _STATES:
            family.add_metric((each.model, state), getattr(each.requests, state))
    yield family
