"""What `/load` says of capacity queues, for the chat page: tokens by replica, and who waits by tenant and band."""

from __future__ import annotations

from collections.abc import Container, Iterable
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..capacity_queue.statuses import QueueStatus

# Of a queue, so many ranks of replicas, and so many tenants: those of which most wait.
MOST_LINES: Final = 64
MOST_TENANTS: Final = 32


def queue_views(queues: Iterable[tuple[str, QueueStatus]], named: Container[str] | None) -> list[dict[str, Any]]:
    """Of the queues of these models. `named`: the tenants that whoever asks may see, of whom "" is none; None: all."""
    return [_view(model_id, queue, named) for model_id, queue in queues]


def _view(model_id: str, queue: QueueStatus, named: Container[str] | None) -> dict[str, Any]:
    view: dict[str, Any] = {"model": model_id}
    if queue.trouble:
        return {**view, "trouble": "the queue does not answer"}
    tenants = queue.tenants or {}
    seen = [item for item in tenants.items() if named is None or (item[0] and item[0] in named)]
    shown = nlargest(MOST_TENANTS, seen, key=lambda item: item[1].waiting)
    return {
        **view,
        "units": queue.units,
        "waiting": sum(each.waiting for each in tenants.values()),
        "replicas": [
            {
                "replica": line.replica, "rank": line.rank, "role": line.role, "tokens": line.kv_tokens,
                "reserved": line.used, "used": line.done, "running": line.running, "slots": line.slots,
                "others": line.others, "others_tokens": line.others_tokens,
            }
            for line in queue.lines[:MOST_LINES]
        ],
        "more_replicas": max(0, len(queue.lines) - MOST_LINES),
        "tenants": [
            {
                "tenant": name, "waiting": each.waiting, "tokens": each.tokens, "longest_s": round(each.longest_s, 3),
                "bands": each.bands,
            }
            for name, each in shown
        ],
        "more_tenants": len(tenants) - len(shown),
    }  # fmt: skip
