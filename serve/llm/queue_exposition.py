"""What `/metrics` says of capacity queues: the ledger by replica and rank, and who waits by tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..capacity_queue.statuses import QueueStatus

# Attribute of a line, name, help.
_LINES: Final = (
    ("kv_tokens", "actorrt_queue_line_tokens", "Tokens that a rank of a replica holds"),
    ("used", "actorrt_queue_line_tokens_used", "Tokens of what runs there, as expected"),
    ("backlog", "actorrt_queue_line_backlog_tokens", "Tokens of prompts that are not read yet"),
    ("running", "actorrt_queue_line_running", "Requests that run there"),
    ("others", "actorrt_queue_line_others", "Requests that its engine says to have beside these"),
    ("others_tokens", "actorrt_queue_line_others_tokens", "Tokens that its engine says to have beyond those used"),
    ("slots", "actorrt_queue_line_slots", "Requests that may run there at once"),
)
_TENANTS: Final = (
    ("waiting", "actorrt_queue_waiting", "Requests that wait"),
    ("tokens", "actorrt_queue_waiting_tokens", "Their tokens, as expected"),
    ("longest_s", "actorrt_queue_longest_wait_seconds", "How long the first of them has waited"),
)
_COUNTS: Final = (
    ("granted", "actorrt_queue_admitted", "Requests that were admitted since the queue began"),
    ("refused", "actorrt_queue_refused", "Requests that were refused since the queue began"),
    ("short", "actorrt_queue_short", "Answers that were longer than expected"),
)


def queue_families(queues: Iterable[QueueStatus]) -> Iterator[Any]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    there = [each for each in queues if not each.trouble]
    if not there:
        return
    for attribute, name, help in _LINES:
        family: Any = GaugeMetricFamily(name, help, labels=("deployment", "replica", "rank", "role"))
        for queue in there:
            for line in queue.lines:
                labels = (queue.deployment, line.replica, str(line.rank), line.role)
                family.add_metric(labels, getattr(line, attribute))
        yield family
    for attribute, name, help in _TENANTS:
        family = GaugeMetricFamily(name, help, labels=("deployment", "tenant"))
        for queue in there:
            for tenant, waits in (queue.tenants or {}).items():
                family.add_metric((queue.deployment, tenant), getattr(waits, attribute))
        yield family
    for attribute, name, help in _COUNTS:
        family = CounterMetricFamily(name, help, labels=("deployment",))
        for queue in there:
            family.add_metric((queue.deployment,), getattr(queue, attribute))
        yield family
