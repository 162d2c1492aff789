"""What people are told of a capacity queue: its ledger by line, who waits by tenant, and why one request does.

Pure: it looks at what the hub has, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..capacity.credit_messages import Room
from ..capacity.credits import NOBODY
from ..capacity.engine_load import NOTHING
from ..capacity.eviction import work
from ..capacity.explain import explain
from ..capacity.fair_order import Band
from ..capacity.ledger import Lease, Line
from ..capacity.queue import Ask, CapacityQueue
from ..capacity.unit import TOKENS, Unit


def lines_shown(queue: CapacityQueue, idle: Callable[[Line], Room]) -> list[dict[str, Any]]:
    """`idle`: what of a line lies in credits unused. Those that read prompts for others say so by their `role`."""
    shown = [_line_shown(line, idle(line), queue.unit.size) for line in queue.ledger.lines.values()]
    if queue.prefill is not None:
        shown += [{**_line_shown(line, NOTHING, queue.unit.size), "role": "prefill"} for line in queue.prefill.lines()]
    return shown


def _line_shown(line: Line, idle: Room, size: int) -> dict[str, Any]:
    # By credits nothing is said to run that does not.
    by_credits = sum(lease.slots for lease in line.leases.values() if lease.router == NOBODY) - idle.slots
    backlog = sum(lease.unread for lease in line.leases.values() if lease.router != NOBODY)
    begun = sum(lease.has_begun for lease in line.leases.values())
    done = sum(work(lease) for lease in line.leases.values() if lease.router != NOBODY)
    return {
        "replica": line.id.replica, "rank": line.id.rank,
        "kv_tokens": line.kv_tokens // size, "used": (line.used - idle.tokens) // size,
        "backlog": backlog, "running": line.running - idle.slots, "slots": line.slots, "is_open": line.is_open,
        "begun": begun + by_credits, "done": done // size, "credits": idle.slots,
        "others": line.others.slots, "others_tokens": line.others.tokens,
    }  # fmt: skip


def tenants_shown(asked: Iterable[Ask], bands: Sequence[Band], unit: Unit, now: float) -> dict[str, dict[str, Any]]:
    """Of those that wait."""
    tenants: dict[str, dict[str, Any]] = {}
    for ask in asked:
        found = tenants.setdefault(ask.tenant, {"waiting": 0, "tokens": 0, "longest_s": 0.0, "bands": {}})
        found["waiting"] += 1
        band = bands[ask.band].name
        found["bands"][band] = found["bands"].get(band, 0) + 1
        found["tokens"] += ask.tokens // unit.size
        found["longest_s"] = max(found["longest_s"], now - ask.arrived)
    return tenants


def runs(lease: Lease, unit: Unit) -> str:
    """Where a request is that has its place."""
    at = f"replica {lease.line.id.replica}, rank {lease.line.id.rank}"
    if lease.router == NOBODY:
        return f"it runs at {at}, by a credit of its router"
    state = "runs at" if lease.has_begun else "was sent to"
    come = f" of which {lease.generated} have come" if unit is TOKENS else ""
    return f"it {state} {at}, with {unit.say(lease.tokens)}{come}"


def waits(queue: CapacityQueue, ask: Ask, band: str, now: float) -> str:
    """What one that has no place waits for, and how long still."""
    waited = f"it has waited for {now - ask.arrived:.3g} s in band {band}"
    found = explain(queue, ask, now)
    if found is None:
        there = "credits come back from where its session ran last"
        if not queue.longest:
            there = "no replica reads prompts yet" if queue.ledger.most_tokens else "no replica serves yet"
        return f"{waited}: {there}"
    wait_s = found.starts_in_s
    when = "nothing has left the queue of late" if wait_s is None else f"it will start in about {wait_s:.3g} s"
    unit = queue.unit
    with_tokens = f" with {unit.say(found.tokens_ahead)}" if unit is TOKENS else ""
    before = f"{found.requests_ahead} requests{with_tokens} are before it"
    return f"{waited} for {unit.say_of(ask.tokens, ask.output)}: {found.reason}; {before}; {when}"
