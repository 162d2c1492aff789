"""Detached actors that lost their node are made again, each once, by a node that is there."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core.kept_actors import KeptActors, Placed
from actorrt.types import ActorKey, ProcessId, actor_key, owner_of

A, B, C = (ProcessId(bytes([number]) * 8) for number in (1, 2, 3))


def test_the_actors_of_a_node_that_leaves_are_made_again_whatever_their_restarts() -> None:
    kept = KeptActors({}, ())
    one, two = actor_key(A, 1), actor_key(A, 2)
    kept.made(one, 0)
    kept.made(two, 3)
    assert kept.node_gone(A, died=False) == []
    assert kept.place([B, C]) == [Placed(one, B), Placed(two, C)]
    assert kept.place([B, C]) == []
    assert kept.moved(one, actor_key(B, 1))
    assert not kept.moved(one, actor_key(C, 9))
    assert kept.restarts(actor_key(B, 1)) == 0


def test_those_of_a_node_that_dies_if_they_may_restart() -> None:
    kept = KeptActors({}, ())
    actors = [actor_key(A, number) for number in range(3)]
    for actor, restarts in zip(actors, (0, 2, -1), strict=True):
        kept.made(actor, restarts)
    assert kept.node_gone(A, died=True) == [actors[0]]
    assert [placed.actor for placed in kept.place([B])] == actors[1:]
    assert [kept.restarts(actor) for actor in actors[1:]] == [1, -1]


def test_what_was_kept_waits_until_all_nodes_of_before_are_here_or_gone() -> None:
    of_left, of_here = actor_key(A, 1), actor_key(B, 1)
    kept = KeptActors({of_left: 0, of_here: 0}, [B])
    assert kept.is_homeless(of_left)
    assert kept.place([C]) == []
    kept.joined(B)
    assert kept.place([B, C]) == [Placed(of_left, C)]


def test_a_node_that_does_not_answer_is_followed_by_another_one() -> None:
    actor = actor_key(A, 1)
    kept = KeptActors({actor: 0}, ())
    assert kept.place([]) == []
    assert kept.place([B]) == [Placed(actor, B)]
    kept.not_moved(actor, C)
    assert kept.place([B]) == []
    kept.node_gone(B, died=True)
    assert kept.place([C]) == [Placed(actor, C)]
    kept.not_moved(actor, C)
    assert kept.place([C]) == [Placed(actor, C)]


@pytest.mark.parametrize("answers", [False, True])
def test_an_actor_that_is_killed_while_it_moves_does_not_come_back(answers: bool) -> None:
    actor = actor_key(A, 1)
    kept = KeptActors({actor: 0}, ())
    kept.place([B])
    kept.ended(actor)
    if answers:
        assert not kept.moved(actor, actor_key(B, 1))
    assert kept.place([B]) == []
    assert len(kept) == 0


class Histories(RuleBasedStateMachine):
    """Nodes come, leave and die; requests to make an actor again are lost, and answers come late."""

    @initialize()
    def begin(self) -> None:
        self.kept = KeptActors({}, ())
        self.nodes: list[ProcessId] = []
        self.count = 0
        # By the first key of each actor: its key now, and the number of copies that the head has taken for it.
        self.first: dict[ActorKey, ActorKey] = {}
        self.asked: list[Placed] = []
        self.lost: set[ActorKey] = set()

    def _next(self) -> int:
        self.count += 1
        return self.count

    @rule()
    def join(self) -> None:
        node = ProcessId(self._next().to_bytes(8, "big"))
        self.nodes.append(node)
        self.kept.joined(node)

    @precondition(lambda self: self.nodes)
    @rule(which=st.integers(0), restarts=st.integers(-1, 2))
    def make(self, which: int, restarts: int) -> None:
        actor = actor_key(self.nodes[which % len(self.nodes)], self._next())
        self.kept.made(actor, restarts)
        self.first[actor] = actor

    @precondition(lambda self: self.nodes)
    @rule(which=st.integers(0), died=st.booleans())
    def node_ends(self, which: int, died: bool) -> None:
        node = self.nodes.pop(which % len(self.nodes))
        for actor in self.kept.node_gone(node, died=died):
            self.lost.add(actor)

    @rule()
    def place(self) -> None:
        for placed in self.kept.place(self.nodes):
            assert placed.node in self.nodes
            assert owner_of(placed.actor) not in self.nodes
            self.asked.append(placed)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0), answers=st.booleans())
    def answer(self, which: int, answers: bool) -> None:
        placed = self.asked.pop(which % len(self.asked))
        if not answers or placed.node not in self.nodes:
            self.kept.not_moved(placed.actor, placed.node)
            return
        made = actor_key(placed.node, self._next())
        if self.kept.moved(placed.actor, made):
            (first,) = [first for first, now in self.first.items() if now == placed.actor]
            self.first[first] = made

    @invariant()
    def each_actor_is_there_once_or_about_to_be(self) -> None:
        if not hasattr(self, "kept"):
            return
        here = [now for now in self.first.values() if now not in self.lost]
        assert len(self.kept) == len(here)
        for actor in here:
            assert actor in self.kept
            assert self.kept.is_homeless(actor) == (owner_of(actor) not in self.nodes)


Histories.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestHistories = Histories.TestCase
