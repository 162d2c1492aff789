"""Which versions of actorrt and of Python may talk to each other. Nothing here waits.

Links of two protocols never mix. Within one protocol a cluster is upgraded one node after the other: patch releases
mix, and so do two minor releases that follow each other, for the time of the upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# By how far two minor releases of one major release are apart: whether they mix. Further apart: no.
MIXES: Final[Mapping[int, bool]] = {0: True, 1: True}


def numbers(version: str) -> tuple[int, int] | None:
    """The major and the minor number; None for a version that is none."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    if major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit():
        return int(major), int(minor)
    return None


def mix(one: str, other: str) -> bool:
    """Whether these versions of actorrt may be in one cluster, if they speak one protocol."""
    first, second = numbers(one), numbers(other)
    if first is None or second is None:
        return one == other
    return first[0] == second[0] and MIXES.get(abs(first[1] - second[1]), False)


def why_not_protocol(mine: int, my_version: str, theirs: int, their_version: str) -> str:
    """Empty if both speak one protocol, else a sentence that says what to do."""
    if mine == theirs:
        return ""
    return (
        f"actorrt {their_version} speaks protocol {theirs}, actorrt {my_version} speaks {mine}: install the same "
        "actorrt version on both sides"
    )


def why_not_version(mine: str, theirs: str) -> str:
    """The same for versions of one protocol."""
    if mix(mine, theirs):
        return ""
    return (
        f"actorrt {theirs} and actorrt {mine} do not mix: a cluster has one version, or for an upgrade two that follow "
        "each other"
    )


def why_not_python(mine: str, theirs: str) -> str:
    """The same for Python: any patch releases of one minor release mix."""
    wanted = mine.split(".")[:2]
    if theirs.split(".")[:2] == wanted:
        return ""
    return (
        f"Python {theirs} cannot exchange objects with Python {mine}: install Python {'.'.join(wanted)} on both sides"
    )
