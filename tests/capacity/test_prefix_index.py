"""Which lines hold the beginning of a prompt: as a plain model of caches says it, and in bounded memory."""

from __future__ import annotations

import random
from collections import Counter

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
    assert index.hits(chain) == [("long", 30), ("short", 10)]
    assert index.hits(chain, most=1) == [("long", 30)]
    assert index.hits((7,)) == []
    assert index.hits(()) == []


def test_what_was_not_used_for_long_is_forgotten_and_of_a_prompt_its_end_first() -> None:
    index = PrefixIndex[str](10)
    index.note("a", (1, 2, 3), 50)
    index.note("a", (7, 8, 9), 50)
    assert index.hits((1, 2, 3)) == [("a", 20)]
    assert index.hits((7, 8, 9)) == [("a", 30)]
    index.note("a", tuple(range(100, 110)), 50)
    assert index.hits(tuple(range(100, 110))) == [("a", 50)]
    assert len(index) == 5


def test_a_line_that_ends_is_forgotten() -> None:
    index = PrefixIndex[str](10)
    index.note("a", (1, 2), 100)
    index.note("b", (1, 2), 100)
    index.drop("a")
    index.drop("a")
    assert index.hits((1, 2)) == [("b", 20)]
    index.drop("b")
    assert len(index) == 0


def test_a_cache_that_keeps_less_than_it_should_is_thought_smaller_until_it_keeps_what_is_expected() -> None:
    index = PrefixIndex[str](10)
    index.correct("a", 30, 0)
    index.note("a", (7,), 1000)
    for _ in range(10):
        index.correct("a", 30, 0)
    index.note("a", tuple(range(100)), 1000)
    held = len(index)
    assert held < 50
    for _ in range(100):
        index.correct("a", 30, 30)
    index.note("a", tuple(range(100)), 1000)
    assert len(index) == 100


def prompts(dice: random.Random) -> list[tuple[int, ...]]:
    """Prompts that part anywhere, as paths in a tree; some go on where others end."""
    found: list[tuple[int, ...]] = [()]
    for number in range(12):
        before = dice.choice(found)
        before = before[: dice.randint(0, len(before))]
        found.append(before + tuple((number << 8) + depth for depth in range(dice.randint(1, 12))))
    return found[1:]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_with_room_for_all_it_says_how_much_of_a_prompt_each_line_has_read(dice: random.Random) -> None:
    index, read = PrefixIndex[int](1), dict[int, set[tuple[int, ...]]]()
    chains = prompts(dice)
    for _ in range(40):
        line, chain = dice.randrange(5), dice.choice(chains)
        if dice.random() < 0.1:
            index.drop(line)
            read.pop(line, None)
        index.note(line, chain, 10_000)
        read.setdefault(line, set()).update(chain[: depth + 1] for depth in range(len(chain)))
        asked = dice.choice(chains)
        beginnings = [asked[: depth + 1] for depth in range(len(asked))]
        held = {line: sum(map(blocks.__contains__, beginnings)) for line, blocks in read.items()}
        hits = index.hits(asked)
        assert dict(hits) == {line: depth for line, depth in held.items() if depth}
        assert [index.held(line, asked) for line in range(5)] == [held.get(line, 0) for line in range(5)]
        most = dice.randint(1, 4)
        assert [depth for _, depth in index.hits(asked, most)] == [depth for _, depth in hits][:most]
        assert len(index) == sum(map(len, read.values()))


def test_of_many_that_hold_a_prompt_alike_all_have_their_turn() -> None:
    index, lines = PrefixIndex[int](1), range(40)
    for line in lines:
        index.note(line, (1, 2), 100)
    index.note(7, (1, 2, 3), 100)
    looks = [index.hits((1, 2, 3), 16) for _ in lines]
    assert all(look[0] == (7, 3) and len({line for line, _ in look}) == 16 for look in looks)
    counts = Counter(line for look in looks for line, _ in look[1:])
    assert set(counts) == set(lines) - {7}
    assert max(counts.values()) - min(counts.values()) <= 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_what_is_found_is_what_is_held_and_no_more_than_fits(dice: random.Random) -> None:
    index, read = PrefixIndex[int](1), set[tuple[int, int]]()
    chains, most = prompts(dice), dice.randint(1, 30)
    for _ in range(60):
        line, chain = dice.randrange(3), dice.choice(chains)
        index.note(line, chain, most)
        read.update((line, block) for block in chain)
        assert dict(index.hits(chain)).get(line, 0) == index.held(line, chain) == min(len(chain), most)
        found = {(line, block) for chain in chains for line, depth in index.hits(chain) for block in chain[:depth]}
        assert found <= read
        assert len(found) == len(index)
        assert len(index) <= 3 * most
    for line in range(3):
        index.drop(line)
    assert not any(map(index.hits, chains))
    assert len(index) == 0


def test_a_conversation_that_moves_stays_known_where_it_was() -> None:
    index = PrefixIndex[str](1)
    turns = [tuple(range(length)) for length in (3, 5, 9, 12)]
    for turn, line in zip(turns, "aaba", strict=True):
        index.note(line, turn, 100)
    assert index.hits(turns[-1]) == [("a", 12), ("b", 9)]
    assert sorted(index.hits((*turns[1], 99))) == [("a", 5), ("b", 5)]


def test_what_no_line_holds_any_more_is_kept_nowhere() -> None:
    index = PrefixIndex[str](10)
    index.note("a", tuple(range(8)), 100)
    index.note("a", (100, 101, 102, 103, 104, 105, 106, 107), 100)
    assert index.hits(tuple(range(8))) == [("a", 20)]
    index.note("b", (0, 1, 2, 50), 100)
    shared = index._root.children[0]
    assert shared.end == 3
    assert list(shared.children) == [50]
