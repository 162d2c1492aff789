"""What the ledger of shared memory asks the node to do: performed in order, by a shell without an opinion."""

from __future__ import annotations

from dataclasses import dataclass

from actorrt.types import ProcessId, SegmentId


@dataclass(frozen=True, slots=True)
class Spill:
    """Copy the segment to a file, then report `spilled` or `spill_failed`. Nothing else happens to it meanwhile."""

    segment: SegmentId


@dataclass(frozen=True, slots=True)
class DropMemory:
    """Close the node's descriptor of its memory."""

    segment: SegmentId


@dataclass(frozen=True, slots=True)
class DropFile:
    segment: SegmentId


@dataclass(frozen=True, slots=True)
class Return:
    """Tell its creator that it may fill the segment again. The node keeps its descriptor."""

    segment: SegmentId


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask its creator to unmap and close the segment, and to say so: `let_go`."""

    segment: SegmentId


@dataclass(frozen=True, slots=True)
class Grant:
    """The creator may write what it asked for as `request`."""

    creator: ProcessId
    request: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no room, and none can be made: what else is there is being read, or the disk is full."""

    creator: ProcessId
    request: int
    size: int
    cause: str


Action = Spill | DropMemory | DropFile | Return | Recall | Grant | Refuse
