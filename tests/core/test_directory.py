"""Names: one holder at a time, whoever claims, drops and dies in whatever order."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actorrt.core.directory import Directory, Holder

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
