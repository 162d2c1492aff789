"""Names: one holder at a time, whoever claims, drops and dies in whatever order."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorrt.core.directory import Directory, Held, Holder
from actorrt.types import ProcessId, actor_key

NAMES = st.sampled_from(["a", "b"])
SPACES = st.sampled_from(["x", "y"])
ACTORS = st.builds(
    lambda owner, seq: owner + bytes(7) + bytes([seq]), st.sampled_from([b"o" * 8, b"p" * 8]), st.integers(0, 2)
)


class Names(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory()
        self.model: dict[tuple[str, str], bytes] = {}

    @rule(space=SPACES, name=NAMES, actor=ACTORS)
    def claim(self, space: str, name: str, actor: bytes) -> None:
        holder, mine = self.directory.claim(space, name, actor, b"info of " + actor)
        expected = self.model.setdefault((space, name), actor)
        assert holder == Holder(expected, b"info of " + expected)
        assert mine == (expected == actor)

    @rule(space=SPACES, name=NAMES, actor=ACTORS)
    def drop(self, space: str, name: str, actor: bytes) -> None:
        self.directory.drop(space, name, actor)
        if self.model.get((space, name)) == actor:
            del self.model[space, name]

    @rule(owner=st.sampled_from([b"o" * 8, b"p" * 8]))
    def owner_dies(self, owner: bytes) -> None:
        self.directory.drop_owner(owner)
        self.model = {key: actor for key, actor in self.model.items() if not actor.startswith(owner)}

    @invariant()
    def it_knows_what_the_model_knows(self) -> None:
        assert self.directory.names(None) == sorted(self.model)
        for space in "xy":
            assert self.directory.names(space) == sorted(key for key in self.model if key[0] == space)
            for name in "ab":
                found = self.directory.find(space, name)
                assert (found.actor if found else None) == self.model.get((space, name))


TestNames = Names.TestCase
TestNames.settings = settings(max_examples=25, stateful_step_count=20)


HELD = st.sampled_from([("s", "a"), ("s", "b"), ("t", "a")])
NODES = st.sampled_from([ProcessId(bytes([number]) * 8) for number in (1, 2)])
OWNED = st.builds(actor_key, NODES, st.integers(0, 2))
CHANGES = st.one_of(
    st.tuples(st.just("claim"), HELD, OWNED, NODES),
    st.tuples(st.just("drop"), HELD, OWNED),
    st.tuples(st.just("drop owner"), NODES),
    st.tuples(st.just("join"), NODES, st.dictionaries(HELD, OWNED)),
    st.tuples(st.just("leave"), NODES),
    st.tuples(st.just("take")),
)


@given(st.lists(CHANGES, max_size=30))
def test_a_store_that_is_told_of_changes_has_what_the_directory_has(events: list[tuple[Any, ...]]) -> None:
    kept: dict[tuple[str, str], Holder] = {}
    directory = Directory(kept)

    def take() -> None:
        for key, holder in directory.take_changes().items():
            if holder is None:
                kept.pop(key, None)
            else:
                kept[key] = holder

    for event in events:
        match event:
            case ("claim", (space, name), actor, node):
                directory.claim(space, name, actor, b"", node)
            case ("drop", (space, name), actor):
                directory.drop(space, name, actor)
            case ("drop owner", node):
                directory.drop_owner(node)
            case ("join", node, names):
                directory.join(node, {}, [Held(name, space, actor, b"") for (space, name), actor in names.items()])
            case ("leave", node):
                directory.leave(node)
                assert node not in [holder.node for key in directory.names(None) if (holder := directory.find(*key))]
            case _:
                take()
    take()
    assert {key: directory.find(*key) for key in directory.names(None)} == kept
    assert sorted(Directory(kept).names(None)) == directory.names(None)
    assert directory.take_changes() == {}
