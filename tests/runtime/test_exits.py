"""What a process knows of others that have ended, before it has joined a session and once its node is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.exceptions import LinkError
from actorrt.runtime.owner.exits import Exits
from actorrt.types import ProcessId
from actorrt.wire.messages import Exit

NODE, OTHER = ProcessId(b"node...."), ProcessId(b"process2")


class NotJoined:
    """A process whose node has not taken it in."""

    @property
    def node(self) -> Any:
        raise LinkError("this driver has not joined its session")


def test_a_process_that_has_not_joined_knows_no_end_of_another() -> None:
    exits = Exits(cast(Any, NotJoined()))
    assert not exits.node_is_gone
    assert not asyncio.run(exits.end_of(OTHER)).known


@pytest.mark.parametrize("gone", [True, False])
def test_a_process_that_has_joined_asks_its_node_for_as_long_as_it_is_there(gone: bool) -> None:
    async def ask(question: object) -> Exit:
        return Exit("killed")

    node = SimpleNamespace(peer=NODE, closed=gone, ask=ask)
    exits = Exits(cast(Any, SimpleNamespace(node=node, peers=SimpleNamespace(dead=set()))))
    assert exits.node_is_gone == gone
    assert asyncio.run(exits.end_of(OTHER)).cause == ("the node ended" if gone else "killed")
