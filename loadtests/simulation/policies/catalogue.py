"""All policies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .central import Fifo, ShortestHeld
from .credits import Apart, ByCredits
from .direct import PowerOfTwo, RoundRobin
from .ours import PARTS, Ours
from .peers import Classes, Deficits, Sticky
from .policy import Policy
from .prefixes import PrefixOnly, ShortestUncached
from .split import Split
from .views import View

if TYPE_CHECKING:
    from ..fleet import Fleet

STALE_S: Final = 0.1
SPLIT: Final = "ours-split"


@dataclass(frozen=True, slots=True)
class Entry:
    what: str
    make: Callable[[Fleet, float], Policy]
    """From a fleet and how old what routers know of others may be."""


def _requests(view: View) -> list[int]:
    return view.requests


def _tokens(view: View) -> list[int]:
    return view.tokens


POLICIES: Final[dict[str, Entry]] = {
    "round-robin": Entry("one after the other", lambda fleet, _: RoundRobin("round-robin", fleet)),
    "two-requests": Entry(
        "of two by chance, that with fewer requests",
        lambda fleet, stale: PowerOfTwo("two-requests", fleet, stale, _requests),
    ),
    "two-tokens": Entry(
        "of two by chance, that with fewer tokens", lambda fleet, stale: PowerOfTwo("two-tokens", fleet, stale, _tokens)
    ),
    "shortest-requests": Entry(
        "fewest requests, held while all slots are taken (Ray's capacity queue)",
        lambda fleet, _: ShortestHeld("shortest-requests", fleet),
    ),
    "shortest-uncached": Entry(
        "fewest tokens to be read, less what is there of the prompt",
        lambda fleet, stale: ShortestUncached("shortest-uncached", fleet, stale),
    ),
    "prefix-only": Entry(
        "where most of the prompt was read", lambda fleet, stale: PrefixOnly("prefix-only", fleet, stale)
    ),
    "sticky": Entry(
        "where the prompt's beginning lies until that is saturated; held by tenant (llm-d)",
        lambda fleet, stale: Sticky("sticky", fleet, max(stale, 0.05)),
    ),
    "deficits": Entry(
        "fewest tokens to be read and kept; deficit round robin with deadlines (Dynamo)",
        lambda fleet, stale: Deficits("deficits", fleet, stale),
    ),
    "classes": Entry("a tree of prefixes, slots by class (SMG)", lambda fleet, stale: Classes("classes", fleet, stale)),
    "fifo": Entry("held in one queue by tokens, first come first served", lambda fleet, _: Fifo("fifo", fleet)),
    "ours": Entry("the capacity queue", lambda fleet, _: Ours("ours", fleet)),
}

POLICIES.update(
    {
        "ours-apart": Entry(
            "ours in a process of its own, half a millisecond away", lambda fleet, _: Apart("ours-apart", fleet)
        ),
        "ours-credits": Entry("the same with credits", lambda fleet, _: ByCredits("ours-credits", fleet)),
        SPLIT: Entry(
            "ours with prompts read by the first --prefill replicas, and answered by the others",
            lambda fleet, _: Split(SPLIT, fleet),
        ),
    }
)
# What a run compares where no policy is named.
USUAL: Final = tuple(name for name in POLICIES if name not in ("ours-apart", "ours-credits", SPLIT))


def _without(part: str) -> Entry:
    name = f"ours-no-{part}"
    return Entry(f"ours without {PARTS[part]}", lambda fleet, _: Ours(name, fleet, frozenset({part})))


POLICIES.update({f"ours-no-{part}": _without(part) for part in PARTS})


class UnknownPolicyError(Exception):
    """A sentence with the names that there are."""


def names(wanted: list[str]) -> list[str]:
    """Of "all" those that are not ours with a part less, of "parts" ours whole and with each part less."""
    found: list[str] = []
    for name in wanted:
        if name == "all":
            found += USUAL
        elif name == "parts":
            found += ["ours", *(each for each in POLICIES if each.startswith("ours-no-"))]
        elif name in POLICIES:
            found.append(name)
        else:
            raise UnknownPolicyError(
                f"there is no policy {name!r}: there are {', '.join(POLICIES)}; and all, parts for several"
            )
    return list(dict.fromkeys(found))
