"""What a node's decisions about workers and leases ask its shell to do: performed in order, without an opinion."""

from __future__ import annotations

from typing import Final

import msgspec

from actorrt.exceptions import ActorrtError
from actorrt.types import GroupId, LeaseId, ProcessId

from .workers import WorkerKind

# Who is to be reminded: a worker by its process id, a start by its number, or AGEING.
Timer = ProcessId | int
# The timer of those who wait in line, by whose ticks they grow old.
AGEING: Final[Timer] = -1


class Fork(msgspec.Struct, frozen=True):
    """Have the zygote make this worker, then report `forked`, `fork_failed` or `fork_lost`."""

    process: ProcessId
    kind: WorkerKind


class Kill(msgspec.Struct, frozen=True):
    """Kill a worker with all that it has started; `exited` follows."""

    process: ProcessId


class SendRetire(msgspec.Struct, frozen=True):
    """It gets no more work, and ends once nobody needs what it owns; `finish`: nor before its tasks' calls end."""

    process: ProcessId
    finish: bool


class SendLeave(msgspec.Struct, frozen=True):
    """It is to cancel what it runs, and to end."""

    process: ProcessId
    reason: str


class AskIfNeeded(msgspec.Struct, frozen=True):
    """Do others need what it owns? Report `needed`."""

    process: ProcessId


class CallBack(msgspec.Struct, frozen=True):
    """Tell the holder of these leases that others wait for them."""

    owner: ProcessId
    leases: tuple[LeaseId, ...]


class Grant(msgspec.Struct, frozen=True):
    """The answer to `ask`. `wanted`: others wait already."""

    request: int
    lease: LeaseId
    process: ProcessId
    gpus: tuple[int, ...]
    wanted: bool


class Share(msgspec.Struct, frozen=True):
    """The answer to `ask_shared`."""

    request: int
    workers: tuple[ProcessId, ...]


class Refuse(msgspec.Struct, frozen=True):
    """The answer to either, where there is none."""

    request: int
    error: ActorrtError


class Reserved(msgspec.Struct, frozen=True):
    """The answer to `reserve`: the bundles of this attempt are set aside."""

    group: GroupId
    attempt: int


class Unreserved(msgspec.Struct, frozen=True):
    """The answer to `reserve` where there is no room now."""

    group: GroupId
    attempt: int


class Freed(msgspec.Struct, frozen=True):
    """There is more free than before, for placement groups that wait elsewhere."""


class Remind(msgspec.Struct, frozen=True):
    """Report `due` after `delay_s` seconds; it takes the place of the timer's earlier reminder."""

    timer: Timer
    delay_s: float


class Unremind(msgspec.Struct, frozen=True):
    """No reminder is wanted; there may be none."""

    timer: Timer


class StartAgain(msgspec.Struct, frozen=True):
    """For the log: a worker has ended while it started, and another one is made after a pause."""

    story: str
    pause_s: float


class Bury(msgspec.Struct, frozen=True):
    """A worker has ended: its sockets, pipes and files go, and who asks why is told."""

    process: ProcessId
    cause: str
    out_of_memory: bool


class Unmake(msgspec.Struct, frozen=True):
    """A worker was never made."""

    process: ProcessId


NodeAction = (
    Fork
    | Kill
    | SendRetire
    | SendLeave
    | AskIfNeeded
    | CallBack
    | Grant
    | Share
    | Refuse
    | Reserved
    | Unreserved
    | Freed
    | Remind
    | Unremind
    | StartAgain
    | Bury
    | Unmake
)
