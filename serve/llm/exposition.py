"""`/metrics`: what was counted, in Prometheus's text format, by the package prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from .batch_exposition import batch_families
from .problems import Problem
from .queue_exposition import queue_families

if TYPE_CHECKING:
    from ..capacity_queue.statuses import QueueStatus
    from .batches.counts import Kept, ModelBatches
    from .metrics import Totals
    from .tallies import Histogram

_BY: Final = ("gen_ai_operation_name", "gen_ai_request_model", "tenant")
_OF: Final = ("gen_ai_request_model", "tenant")
# Which replica of the front has counted.
_FRONT: Final = "front"


def exposition(
    totals: Mapping[str, Totals],
    engines: Mapping[str, Mapping[str, float]],
    queues: Iterable[QueueStatus] = (),
    kept: Iterable[Kept] = (),
    batches: Iterable[ModelBatches] = (),
) -> tuple[bytes, bytes]:
    """The text and its content type. `totals`: what each replica of the front has counted, by its id, which is a label:
    when one goes no counter goes back. `engines`: what each model's engines say of themselves, by model. `queues`: what
    their capacity queues do. `kept`, `batches`: how many batches there are, and how far their requests are.

    Problem 501 without prometheus-client.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        message = "/metrics needs the package prometheus-client: pip install 'actorrt[llm]'"
        raise Problem(501, message, code="not_installed") from None
    registry = CollectorRegistry(auto_describe=False)
    families = [*_families(totals, engines), *queue_families(queues), *batch_families(kept, batches)]
    registry.register(_Families(families))
    return generate_latest(registry), CONTENT_TYPE_LATEST.encode()


class _Families:
    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


# Attribute of Totals, name, help, labels.
_HISTOGRAMS: Final = (
    ("first_token", "gen_ai_server_time_to_first_token_seconds", "From the request to its first token", _BY),
    ("each_token", "gen_ai_server_time_per_output_token_seconds", "From a token to the next", _BY),
    (
        "duration",
        "gen_ai_server_request_duration_seconds",
        "From the request to the end of its answer",
        (*_BY, "error_type"),
    ),
    ("tokens", "gen_ai_client_token_usage", "Tokens of a request", (*_BY, "gen_ai_token_type")),
)
_COUNTERS: Final = (
    ("cached_tokens", "actorrt_llm_cached_tokens", "Tokens of prompts that were not read again", _OF),
    ("resumes", "actorrt_llm_resumes", "How often an answer went on at another replica", _OF),
    ("aborted", "actorrt_llm_aborted", "Requests whose client left", _OF),
    ("given_up", "actorrt_llm_given_up", "Requests of which engines died twice", _OF),
    ("refused", "actorrt_llm_refused", "Requests that came to no model", ("status",)),
    ("batch_requests", "actorrt_llm_batch_requests", "Requests of batches that were answered", ("outcome",)),
)


def _families(totals: Mapping[str, Totals], engines: Mapping[str, Mapping[str, float]]) -> Iterator[Any]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for attribute, name, help, labels in _HISTOGRAMS:
        family: Any = HistogramMetricFamily(name, help, labels=(*labels, _FRONT))
        for id, each in totals.items():
            histogram: Histogram = getattr(each, attribute)
            for values, (counts, total) in histogram.series.items():
                family.add_metric((*values, id), list(_buckets(histogram.bounds, counts)), total[0])
        yield family
    for attribute, name, help, labels in _COUNTERS:
        family = CounterMetricFamily(name, help, labels=(*labels, _FRONT))
        for id, each in totals.items():
            for values, value in getattr(each, attribute).series.items():
                family.add_metric((*values, id), value)
        yield family
    family = GaugeMetricFamily("actorrt_llm_running", "Requests, those that wait included", labels=(*_OF, _FRONT))
    for id, each in totals.items():
        for values, value in each.running.series.items():
            family.add_metric((*values, id), value)
    yield family
    for name in sorted({name for said in engines.values() for name in said}):
        help = "What engines say of themselves, summed up over replicas"
        family = GaugeMetricFamily(f"actorrt_llm_engine_{name}", help, labels=_OF[:1])
        for model, said in engines.items():
            if name in said:
                family.add_metric((model,), said[name])
        yield family


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    below = 0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        below += count
        yield (bound if isinstance(bound, str) else repr(float(bound))), below
