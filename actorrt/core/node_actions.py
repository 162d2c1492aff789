"""What a node's decisions about workers and leases ask its shell to do: performed in order, without an opinion."""

from __future__ import annotations

from dataclasses import dataclass

from actorrt.exceptions import ActorrtError
from actorrt.types import LeaseId, ProcessId

from .workers import WorkerKind

# Who is to be reminded: a worker by its process id, or a start by its number.
Timer = ProcessId | int


@dataclass(frozen=True, slots=True)
class Fork:
    """Have the zygote make this worker, then report `forked`, `fork_failed` or `fork_lost`."""

    process: ProcessId
    kind: WorkerKind


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a worker with all that it has started; `exited` follows."""

    process: ProcessId


@dataclass(frozen=True, slots=True)
class SendRetire:
    """It gets no more work, and ends once nobody needs what it owns; `finish`: nor before its tasks' calls end."""

    process: ProcessId
    finish: bool


@dataclass(frozen=True, slots=True)
class SendLeave:
    """It is to cancel what it runs, and to end."""

    process: ProcessId
    reason: str


@dataclass(frozen=True, slots=True)
class AskIfNeeded:
    """Do others need what it owns? Report `needed`."""

    process: ProcessId


@dataclass(frozen=True, slots=True)
class CallBack:
    """Tell the holder of these leases that others wait for them."""

    owner: ProcessId
    leases: tuple[LeaseId, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to `ask`. `wanted`: others wait already."""

    request: int
    lease: LeaseId
    process: ProcessId
    gpus: tuple[int, ...]
    wanted: bool


@dataclass(frozen=True, slots=True)
class Share:
    """The answer to `ask_shared`."""

    request: int
    workers: tuple[ProcessId, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The answer to either, where there is none."""

    request: int
    error: ActorrtError


@dataclass(frozen=True, slots=True)
class Remind:
    """Report `due` after `delay_s` seconds; it takes the place of the timer's earlier reminder."""

    timer: Timer
    delay_s: float


@dataclass(frozen=True, slots=True)
class Unremind:
    """No reminder is wanted; there may be none."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class StartAgain:
    """For the log: a worker has ended while it started, and another one is made after a pause."""

    story: str
    pause_s: float


@dataclass(frozen=True, slots=True)
class Bury:
    """A worker has ended: its sockets, pipes and files go, and who asks why is told."""

    process: ProcessId
    cause: str
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Unmake:
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
    | Remind
    | Unremind
    | StartAgain
    | Bury
    | Unmake
)
