"""What the ledger of shared memory asks the node to do: performed in order, by a shell without an opinion."""

from __future__ import annotations

import msgspec

from actorrt.types import ProcessId, SegmentId


class Spill(msgspec.Struct, frozen=True):
    """Copy the segment to a file, then report `spilled` or `spill_failed`. Nothing else happens to it meanwhile."""

    segment: SegmentId


class DropMemory(msgspec.Struct, frozen=True):
    """Close the node's descriptor of its memory."""

    segment: SegmentId


class DropFile(msgspec.Struct, frozen=True):
    segment: SegmentId


class Return(msgspec.Struct, frozen=True):
    """Tell its creator that it may fill the segment again. The node keeps its descriptor."""

    segment: SegmentId


class Recall(msgspec.Struct, frozen=True):
    """Ask its creator to unmap and close the segment, and to say so: `let_go`."""

    segment: SegmentId


class Grant(msgspec.Struct, frozen=True):
    """The creator may write what it asked for as `request`."""

    creator: ProcessId
    request: int


class Refuse(msgspec.Struct, frozen=True):
    """There is no room, and none can be made: what else is there is being read, or the disk is full."""

    creator: ProcessId
    request: int
    size: int
    cause: str


Action = Spill | DropMemory | DropFile | Return | Recall | Grant | Refuse
