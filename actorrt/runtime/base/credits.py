"""How many more items the producer of a stream may send."""

from __future__ import annotations

from actorrt.wire.messages import UNLIMITED


def more_credits(left: int, given: int) -> int:
    """What is left after `given` more have come."""
    return UNLIMITED if UNLIMITED in (left, given) else left + given
