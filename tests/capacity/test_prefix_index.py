"""Which lines hold the beginning of a prompt: as a plain model of caches says it, and in bounded memory."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.serve.capacity.prefix_index import PrefixIndex, chain_of


def test_a_chain_says_where_two_prompts_part() -> None:
    one = chain_of(range(100), 10)
    other = chain_of([*range(55), 7, *range(56, 100)], 10)
    assert len(one) == len(other) == 10
    assert [a == b for a, b in zip(one, other, strict=True)] == [True] * 5 + [False] * 5
    assert chain_of(range(9), 10) == ()
    assert chain_of(range(19), 10) == one[:1]


def test_the_longest_beginnings_come_first() -> None:
    index = PrefixIndex[str](10)
    chain = (1, 2, 3, 4)
    index.note("short", chain[:1], 1000)
    index.note("long", chain[:3], 1000)
    index.note("other", (9, 8), 1000)
    assert list(index.hits(chain)) == [("long", 30), ("short", 10)]
    assert list(index.hits(chain, most=1)) == [("long", 30)]
    assert list(index.hits((7,))) == []
    assert list(index.hits(())) == []


def test_what_was_not_used_for_long_is_forgotten_and_of_a_prompt_its_end_first() -> None:
    index = PrefixIndex[str](10)
    index.note("a", (1, 2, 3), 50)
    index.note("a", (7, 8, 9), 50)
    assert list(index.hits((1, 2, 3))) == [("a", 20)]
    assert list(index.hits((7, 8, 9))) == [("a", 30)]
    index.note("a", tuple(range(100, 110)), 50)
    assert list(index.hits(tuple(range(100, 110)))) == [("a", 50)]
    assert len(index) == 5


def test_a_line_that_ends_is_forgotten() -> None:
    index = PrefixIndex[str](10)
    index.note("a", (1, 2), 100)
    index.note("b", (1, 2), 100)
    index.drop("a")
    index.drop("a")
    assert list(index.hits((1, 2))) == [("b", 20)]
    index.drop("b")
    assert len(index) == 0


def test_a_cache_that_keeps_less_than_it_should_is_thought_smaller_until_it_keeps_what_is_expected() -> None:
    index = PrefixIndex[str](10)
    for _ in range(10):
        index.correct("a", 30, 0)
    index.note("a", tuple(range(100)), 1000)
    held = len(index)
    assert held < 50
    for _ in range(100):
        index.correct("a", 30, 30)
    index.note("a", tuple(range(100)), 1000)
    assert len(index) == 100


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_it_finds_what_a_look_at_every_line_finds(dice: random.Random) -> None:
    index = PrefixIndex[int](1)
    # Prompts that share beginnings, as paths in a tree.
    chains = [tuple(hash((n >> shift, shift)) for shift in range(6, -1, -1)) for n in range(64)]
    lines = range(4)
    for _ in range(150):
        line, chain = dice.choice(lines), dice.choice(chains)[: dice.randint(1, 7)]
        if dice.random() < 0.05:
            index.drop(line)
        index.note(line, chain, 20)
        asked = dice.choice(chains)
        hits = list(index.hits(asked, most=4))
        assert [depth for _, depth in hits] == sorted((depth for _, depth in hits), reverse=True)
        assert len({line for line, _ in hits}) == len(hits)
        held = {
            line: max((depth for depth in range(1, 8) if line in dict(index.hits(asked[:depth], most=4))), default=0)
            for line in lines
        }
        assert {line for line, depth in held.items() if depth} == {line for line, _ in hits}
        assert len(index) <= 20 * len(lines)
    # The line that a prompt ran on last holds all of it.
    index.note(0, chains[5], 20)
    assert dict(index.hits(chains[5]))[0] == 7
