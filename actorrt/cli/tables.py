"""Tables and notes that commands print: plain lines, so that they can be searched and piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import actorrt

state = actorrt.util.state


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as what is in them; the last one is not padded."""
    lines = [[*map(str, head)], *([str(each) for each in row] for row in rows)]
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(text.ljust(wide[at]) for at, text in enumerate(line)).rstrip() for line in lines)


def size(count: int) -> str:
    """Bytes as people read them."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if unit != "B" else f"{count} B"


def note_missing(missing: Iterable[state.Missing]) -> None:
    """Say on stderr who has not answered."""
    for each in missing:
        print(f"not asked: {each.role} {each.worker_id} (pid {each.pid}): {each.trouble}", file=sys.stderr)
