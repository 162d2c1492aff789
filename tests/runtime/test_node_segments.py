"""What a node says of an object that it does not have: it asks whether the owner has ended, and guesses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from actorrt import exceptions
from actorrt.runtime.node.node_segments import NodeSegments
from actorrt.types import ProcessId
from actorrt.wire.messages import Done, OpenSegment, Ping, Question

OWNER, READER = ProcessId(b"an owner"), ProcessId(b"a reader")


class Peers:
    """Reaches processes, or knows that they have ended."""

    process = ProcessId(b"the node")

    def __init__(self, *alive: ProcessId) -> None:
        self._alive = alive
        self.asked: list[tuple[ProcessId, Question]] = []

    def get(self, process: ProcessId) -> None:
        """There are no links yet."""

    def serve(self, serves: object) -> None:
        """Nobody asks."""

    async def ask(self, process: ProcessId, question: Question) -> Done:
        self.asked.append((process, question))
        if process not in self._alive:
            raise exceptions.LinkError(f"process {process.hex()} has ended")
        return Done()


class Link:
    peer = READER
    closed = False


async def opened(peers: Peers, folder: Path) -> None:
    segments = NodeSegments(cast("Any", peers), 1 << 20, str(folder))
    try:
        await segments.open(cast("Any", Link()), OpenSegment(OWNER, 7))
    finally:
        segments.close()


async def test_an_owner_without_a_link_that_answers_a_dial_has_freed_the_object(tmp_path: Path) -> None:
    peers = Peers(OWNER)
    with pytest.raises(exceptions.ObjectFreedError, match="its last ref is gone"):
        await opened(peers, tmp_path)
    assert peers.asked == [(OWNER, Ping())]


async def test_one_that_is_known_to_have_ended_has_taken_the_object_with_it(tmp_path: Path) -> None:
    with pytest.raises(exceptions.OwnerDiedError, match="its owner ended"):
        await opened(Peers(), tmp_path)
