"""`/metrics`: what was counted, in Prometheus's text format, by the package prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from .problems import Problem

if TYPE_CHECKING:
    from .metrics import Totals
    from .tallies import Counter, Histogram

_BY: Final = ("gen_ai_operation_name", "gen_ai_request_model", "tenant")
_OF: Final = ("gen_ai_request_model", "tenant")


def exposition(totals: Totals, engines: Mapping[str, Mapping[str, float]]) -> tuple[bytes, bytes]:
    """The text and its content type. `engines`: what each model's engines say of themselves, by model.

    Problem 501 without prometheus-client.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        message = "/metrics needs the package prometheus-client: pip install 'actorrt[llm]'"
        raise Problem(501, message, code="not_installed") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(_families(totals, engines))))
    return generate_latest(registry), CONTENT_TYPE_LATEST.encode()


class _Families:
    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


def _families(totals: Totals, engines: Mapping[str, Mapping[str, float]]) -> Iterator[Any]:
    yield _histogram(
        "gen_ai_server_time_to_first_token_seconds", "From the request to its first token", _BY, totals.first_token
    )
    yield _histogram(
        "gen_ai_server_time_per_output_token_seconds", "Between tokens after the first", _BY, totals.each_token
    )
    yield _histogram(
        "gen_ai_server_request_duration_seconds",
        "From the request to the end of its answer",
        (*_BY, "error_type"),
        totals.duration,
    )
    yield _histogram("gen_ai_client_token_usage", "Tokens of a request", (*_BY, "gen_ai_token_type"), totals.tokens)
    yield _counter("actorrt_llm_cached_tokens", "Tokens of prompts that were not read again", _OF, totals.cached_tokens)
    yield _counter("actorrt_llm_resumes", "Answers that went on at another replica", _OF, totals.resumes)
    yield _counter("actorrt_llm_aborted", "Requests whose client left", _OF, totals.aborted)
    yield _counter("actorrt_llm_refused", "Requests that were answered by no model", ("status",), totals.refused)
    yield _gauge(
        "actorrt_llm_running", "Requests at a model, those that wait for it included", _OF, totals.running.series
    )
    names = sorted({name for said in engines.values() for name in said})
    for name in names:
        series = {(model,): said[name] for model, said in engines.items() if name in said}
        yield _gauge(
            f"actorrt_llm_engine_{name}", "What engines say of themselves, all replicas together", _OF[:1], series
        )


def _histogram(name: str, help: str, labels: tuple[str, ...], histogram: Histogram) -> Any:
    from prometheus_client.metrics_core import HistogramMetricFamily

    family = HistogramMetricFamily(name, help, labels=labels)
    for values, (counts, total) in histogram.series.items():
        below = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(_number, histogram.bounds), "+Inf"), counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(values, buckets, total[0])
    return family


def _number(bound: float) -> str:
    return repr(float(bound))


def _counter(name: str, help: str, labels: tuple[str, ...], counter: Counter) -> Any:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(name, help, labels=labels)
    for values, value in counter.series.items():
        family.add_metric(values, value)
    return family


def _gauge(name: str, help: str, labels: tuple[str, ...], series: Mapping[tuple[str, ...], float]) -> Any:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family
