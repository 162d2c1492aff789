"""What a waiting request waits for, what is ahead of it, and when it will start."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from .ask import Ask
from .need import LineId
from .queue import CapacityQueue
from .unit import TOKENS

# Of those ahead so many are counted.
MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it as it is now: who comes later may still go first, by its band or its tenant's turn."""

    waited_s: float
    tokens: int
    band: str
    requests_ahead: int
    """In the order as it is now."""
    tokens_ahead: int
    starts_in_s: float | None
    """By how fast tokens went of late; None if nothing has gone."""
    deadline_in_s: float | None
    kept_line: LineId | None
    """A line that takes nothing else until it fits there."""
    reason: str


def explain(queue: CapacityQueue, ask: Ask, now: float) -> Explanation | None:
    """None if it does not wait."""
    if ask not in queue.order:
        return None
    requests = tokens = 0
    for each, _ in islice(queue.order.turns(), MOST_COUNTED):
        if each is ask:
            break
        requests += 1
        tokens += each.tokens
    kept = queue.kept_line(ask)
    return Explanation(
        waited_s=now - ask.arrived,
        tokens=ask.tokens,
        band=queue.order.bands[queue.order.band_of(ask)].name,
        requests_ahead=requests,
        tokens_ahead=tokens,
        starts_in_s=queue.drain.wait_s(tokens + ask.tokens, now),
        deadline_in_s=ask.deadline - now if ask.deadline < float("inf") else None,
        kept_line=kept,
        reason=_reason(queue, ask, requests, kept, now),
    )


def _reason(queue: CapacityQueue, ask: Ask, ahead: int, kept: LineId | None, now: float) -> str:
    tenant = queue.tenants.known[ask.tenant]
    ledger, say, say_of = queue.ledger, queue.unit.say, queue.unit.say_of
    if not tenant.may_run(ask.tokens):
        most = tenant.limits.running_tokens or 0
        return f"tenant {ask.tenant} runs {say(tenant.running_tokens)}, and {most // queue.unit.size} is its limit"
    if not any(line.is_open for line in ledger.lines.values()):
        return "no replica takes requests now"
    if ask.tokens > ledger.most_tokens:
        return f"it needs {say_of(ask.tokens, ask.output)}, and the largest replica holds {say(ledger.most_tokens)}"
    if kept is not None:
        has = max(0, ledger.lines[kept].room) // queue.unit.size
        return (
            f"it needs {say_of(ask.tokens, ask.output)} of replica {kept.replica}, which is kept for it and has {has}"
        )
    room = ledger.largest_room
    if room < 0:
        return "every replica is full" + (
            ": no slot is free, or prompts wait there to be read" if queue.unit is TOKENS else ""
        )
    if ask.tokens > room:
        has = room // queue.unit.size
        return f"it needs {say_of(ask.tokens, ask.output)}, and no replica has room for more than {has}"
    if queue.prefill is not None and (why := queue.prefill.why(ask)) is not None:
        return why
    if ahead:
        return f"{ahead} requests have their turn before it"
    return f"a replica has room for {say(room)}, but {_held_back(queue, ask, now)}"


def _held_back(queue: CapacityQueue, ask: Ask, now: float) -> str:
    number = queue.order.band_of(ask)
    band, share = queue.order.bands[number], queue.holdback.share(number, now)
    lines = [line for line in queue.ledger.lines.values() if line.free >= ask.tokens]
    if any(line.is_within(share) for line in lines) or share.backlog == 1:
        return "its band may not fill as much"
    fewer = f"fewer than {band.beside * max((line.slots for line in lines), default=0):g} requests"
    return f"beside higher bands band {band.name} begins where {fewer} run and little waits to be read"
