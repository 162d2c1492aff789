"""What each replica is taken to hold: as it says, as others of its deployment say, or as the settings do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, cast

from ..capacity.need import LineId
from ..capacity.unit import Unit
from ..policies.policy import MOST
from .config import OFFER, CapacityQueueConfig
from .messages import Offer

# In requests: a need is so many tokens twice over, since a line does not take one that is all prompt.
PER_REQUEST: Final = 2
REQUESTS: Final = Unit("requests", PER_REQUEST)
# Prompts are no matter there.
ENDLESS_RATE: Final = 1e15
# An offer says tokens and requests at the least.
_LEAST_PARTS: Final = 2


class Replica:
    """As the queue knows it."""

    __slots__ = ("lines", "offer", "said", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        # Whether it has told this queue what it runs.
        self.said = False
        self.offer: Offer | None = None
        self.lines: list[LineId] = []

    def hear(self, offer: Offer | None) -> None:
        """It has told this queue what it runs, and what it has."""
        self.said, self.offer = True, offer

    def serve(self, lines: list[LineId]) -> None:
        self.lines = lines


def checked(said: object) -> Offer:
    """What a deployment's code says that its replica holds. ValueError for what is no such offer."""
    parts = cast("tuple[Any, ...]", said) if isinstance(said, tuple | list) else ()
    if _LEAST_PARTS <= len(parts) <= len(Offer._fields):
        offer = Offer(*parts)
        counts = (offer.kv_tokens, offer.slots, offer.ranks, offer.context)
        rate: Any = offer.prefill_rate
        is_rate = isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= MOST
        if is_rate and all(type(each) is int and 0 <= each <= MOST for each in counts) and offer.ranks:
            return offer
    raise ValueError(
        f"{OFFER}() must give tokens, requests, tokens of prompts a second (or 0) and ranks, each at most {MOST}, "
        f"not {said!r:.200}"
    )


def offer_of(
    replica: Replica, replicas: Collection[Replica], config: CapacityQueueConfig, max_ongoing: int
) -> Offer | None:
    """None: it is not known yet."""
    in_requests = Offer(PER_REQUEST * max_ongoing, max_ongoing, ENDLESS_RATE)
    if config.units == "requests":
        return in_requests
    if (offer := replica.offer) is not None:
        # More than its deployment lets it run it would refuse.
        return offer._replace(slots=min(offer.slots, -(-max_ongoing // offer.ranks)))
    if config.units == "tokens":
        if config.kv_tokens is not None:
            # What its code does with them is not known: no prompts wait there.
            return Offer(config.kv_tokens, max_ongoing, ENDLESS_RATE)
        said = next((each for each in replicas if each.offer is not None), None)
        return None if said is None else offer_of(said, replicas, config, max_ongoing)
    # It may be either.
    if replica.said:
        return in_requests
    said = next((each for each in replicas if each.said), None)
    return None if said is None else offer_of(said, replicas, config, max_ongoing)


def context_of(*kinds: Collection[Replica]) -> int:
    """Tokens that one prompt and its answer have at most where each of these kinds takes part; 0: not known."""
    most = [max((each.offer.context for each in kind if each.offer is not None), default=0) for kind in kinds]
    return min(filter(None, most), default=0)


def counts_requests(config: CapacityQueueConfig, replicas: Collection[Replica]) -> bool:
    """Whether needs are in requests, and not in tokens."""
    if config.units != "auto":
        return config.units == "requests"
    return all(each.offer is None for each in replicas)
