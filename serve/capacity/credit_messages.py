"""What the queue and a router tell each other about credits.

Either may be lost, come twice, or come late: each carries all that its sender has to say, and a number by which an
older one is known. A credit is room on a line, in tokens and slots, that one router may fill and empty as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .need import LineId


class Room(NamedTuple):
    tokens: int
    slots: int


class Credit(NamedTuple):
    """`line`, of `incarnation`, and how much of it may be filled: less than is filled already means no more. Of what
    is filled no more than `unread` may be prompts that are not read yet.
    """

    line: LineId
    incarnation: int
    room: Room
    unread: int = 0


class Grants(NamedTuple):
    """From the queue to one router: all its credits, by number. One that is not there any more is to be left."""

    epoch: int
    version: int
    credits: Mapping[int, Credit]
    # The last report that came, and the last usage that was counted.
    heard: int
    counted: int


class Usage(NamedTuple):
    """What a router's requests were served, by band, tenant and user: tokens by their weights. Counted once."""

    number: int
    served: Mapping[tuple[str, str, str], float]


class Report(NamedTuple):
    """From a router to the queue: which of its grants it goes by, and of each credit what it may fill or has filled,
    and, for people, what of that is filled.
    """

    router: str
    epoch: int
    number: int
    version: int
    held: Mapping[int, Room]
    usage: Usage
    filled: Mapping[int, Room] = MappingProxyType({})
