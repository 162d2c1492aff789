"""What a worker's executor asks of the runtime of its process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from actorrt.config import Settings
from actorrt.types import ProcessId

from ..base.loop_thread import LoopThread
from ..links.link import Link
from ..links.peers import Peers
from ..links.running import Child
from ..owner.entries import Entry
from ..owner.membership import Membership
from ..owner.objects import Objects
from ..owner.program import Program, Tenancy
from ..owner.segments_client import SegmentsClient


class Host(Protocol):
    """The runtime, as its worker knows it."""

    settings: Settings
    process: ProcessId
    session: str

    @property
    def thread(self) -> LoopThread: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def node(self) -> Link: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def segments(self) -> SegmentsClient: ...
    @property
    def program(self) -> Program: ...
    @property
    def tenancy(self) -> Tenancy: ...

    async def map_segment(self, entry: Entry) -> None: ...
    async def until_done(self, calls: Iterable[Child], timeout_s: float) -> None:
        """Return when these calls have their outcomes, or the time is up; runtime loop."""

    def note_last_calls(self) -> None:
        """This process is about to end: the calls that it makes from now on are waited for."""

    def is_borrowed(self) -> bool:
        """True while others hold, or are about to hold, refs and handles to what this process owns; runtime loop."""
        ...

    @property
    def has_calls(self) -> bool:
        """True while calls of this process have no outcome yet; runtime loop."""
        ...
