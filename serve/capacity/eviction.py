"""Whom to stop for a request of a higher band: the least work that makes room for it on one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .ledger import Lease, Line


def work(lease: Lease) -> int:
    """What is lost when it is stopped: the tokens that were read and written for it."""
    return lease.prompt - lease.unread + lease.generated


def victims(line: Line, tokens: int, sheddable: Iterable[Lease]) -> Sequence[Lease] | None:
    """Those whose end makes room on a line for so many tokens, those of least work first; None if none do."""
    if not line.is_open or line.kv_tokens < tokens:
        return None
    chosen: list[Lease] = []
    for lease in sorted(sheddable, key=work):
        chosen.append(lease)
        if _fits(line, tokens, chosen):
            break
    else:
        return None
    # One that was chosen early may not be needed beside a larger one that came after it.
    for lease in reversed(chosen[:-1]):
        rest = [each for each in chosen if each is not lease]
        if _fits(line, tokens, rest):
            chosen = rest
    return chosen


def _fits(line: Line, tokens: int, without: Sequence[Lease]) -> bool:
    running = line.running - sum(lease.slots for lease in without)
    if not running:
        return True
    others = line.others
    used = line.used + others.tokens - sum(lease.tokens for lease in without)
    backlog = line.backlog - sum(lease.unread for lease in without)
    return running + others.slots < line.slots and backlog <= line.most_backlog and used + tokens <= line.fill_tokens
