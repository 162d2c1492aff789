"""Which lines hold the beginning of a prompt in their key-value cache, as far as can be told from what ran there.

A prompt is a chain of hashes, one for each whole block of tokens, each of all tokens up to there: two prompts have the
same hash at a place only if they are the same until there. So chains are a tree, and the blocks between two of its
forks are one node (a radix tree): a look-up costs by how often prompts part, not by how long they are. A line that
holds a node holds those above it: of one prompt the last blocks are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final, Generic, TypeVar

BLOCK_TOKENS: Final = 512
MOST_HITS: Final = 16

# What one answer tells of how much a cache keeps.
_LESS: Final = 0.9
_MORE: Final = 1.02
_LEAST_SHARE: Final = 0.05

K = TypeVar("K")


def chain_of(tokens: Sequence[int], block: int = BLOCK_TOKENS) -> tuple[int, ...]:
    """The hashes of the whole blocks of a prompt, from its beginning."""
    hashes: list[int] = []
    before = b""
    for start in range(0, len(tokens) - block + 1, block):
        part = b"".join(token.to_bytes(4, "little") for token in tokens[start : start + block])
        before = blake2b(before + part, digest_size=8).digest()
        hashes.append(int.from_bytes(before, "little"))
    return tuple(hashes)


class _Node(Generic[K]):
    """Blocks that follow each other, from `start` to before `end` of a chain."""

    __slots__ = ("children", "end", "hashes", "last", "parent", "part", "start", "whole")

    def __init__(self, parent: _Node[K] | None, start: int, hashes: list[int], whole: Iterable[_Cache[K]] = ()) -> None:
        self.parent: _Node[K] | None = parent
        self.start: int = start
        self.hashes: list[int] = hashes
        self.end: int = start + len(hashes)
        # Who has the same hash there has all of them.
        self.last: int = hashes[-1] if hashes else 0
        # By their first block.
        self.children: dict[int, _Node[K]] = {}
        # Lines that hold all of it, and those that have forgotten its end, with where what they hold ends.
        self.whole: dict[_Cache[K], None] = dict.fromkeys(whole)
        self.part: dict[_Cache[K], int] = {}

    def extend(self, hashes: Sequence[int]) -> None:
        self.hashes.extend(hashes)
        self.end += len(hashes)
        self.last = hashes[-1]

    def take_off(self, at: int, upper: _Node[K]) -> None:
        """Its blocks before that place are those of `upper`, which comes before it, from now on."""
        self.hashes = self.hashes[at - self.start :]
        self.parent, self.start = upper, at

    def common(self, chain: Sequence[int]) -> int:
        """Up to where it is the same as a chain that has its first block."""
        end = self.end
        if end <= len(chain):
            if chain[end - 1] == self.last:
                return end
            high = end - 1
        else:
            high = len(chain)
        low, hashes, start = self.start + 1, self.hashes, self.start
        while low < high:
            middle = (low + high + 1) // 2
            if chain[middle - 1] == hashes[middle - 1 - start]:
                low = middle
            else:
                high = middle - 1
        return low

    def leave(self, cache: _Cache[K]) -> None:
        """It holds nothing of it now."""
        if cache in self.whole:
            del self.whole[cache]
        else:
            del self.part[cache]
        if not self.whole and not self.part and self.parent is not None:
            del self.parent.children[self.hashes[0]]


class _Cache(Generic[K]):
    """What one line holds."""

    __slots__ = ("blocks", "line", "nodes", "share")

    def __init__(self, line: K) -> None:
        self.line: K = line
        self.blocks: int = 0
        # The one that was used last at the end, and each before those above it.
        self.nodes: OrderedDict[_Node[K], None] = OrderedDict()
        # How much of its tokens it has been seen to keep.
        self.share: float = 1.0

    def add(self, blocks: int) -> None:
        """The last node that it holds has so many more."""
        self.blocks += blocks

    def expect(self, times: float) -> None:
        """It keeps so much more, or less, of its tokens than was thought."""
        self.share = min(1.0, max(_LEAST_SHARE, self.share * times))

    def use(self, node: _Node[K]) -> None:
        """It holds all of the node, and of those above it, from now on."""
        nodes = self.nodes
        while node.parent is not None:
            if self not in node.whole:
                self.blocks += node.end - node.part.pop(self, node.start)
                node.whole[self] = None
                nodes[node] = None
            nodes.move_to_end(node)
            node = node.parent

    def forget(self, most: int) -> None:
        """Of the node that was not used for longest the end, of so many blocks at most."""
        node = next(iter(self.nodes))
        end = node.part.get(self, node.end)
        if end - node.start <= most:
            self.blocks -= end - node.start
            del self.nodes[node]
            node.leave(self)
        else:
            self.blocks -= most
            node.whole.pop(self, None)
            node.part[self] = end - most


class PrefixIndex(Generic[K]):
    """Blocks by the lines that hold them. A line is forgotten as it was noted: by its key."""

    def __init__(self, block: int = BLOCK_TOKENS) -> None:
        self.block = block
        self._root: _Node[K] = _Node(None, 0, [])
        self._caches: dict[K, _Cache[K]] = {}

    def __len__(self) -> int:
        """Blocks of all lines."""
        return sum(cache.blocks for cache in self._caches.values())

    def note(self, line: K, chain: Sequence[int], kv_tokens: int) -> None:
        """A prompt was read there; `kv_tokens` is how many tokens it can hold."""
        cache = self._caches.get(line)
        if cache is None:
            cache = self._caches[line] = _Cache(line)
        most = int(kv_tokens * cache.share) // self.block
        # Of a prompt that does not fit, only its beginning.
        cache.use(self._node_of(cache, chain[:most]))
        while cache.blocks > most:
            cache.forget(cache.blocks - most)

    def _node_of(self, cache: _Cache[K], chain: Sequence[int]) -> _Node[K]:
        """The node that ends where the chain does, for a cache that will hold it."""
        node, depth, length = self._root, 0, len(chain)
        while depth < length:
            child = node.children.get(chain[depth])
            if child is not None:
                depth = child.common(chain)
                node = child if depth == child.end else self._split(child, depth)
            elif not node.children and not node.part and len(node.whole) == 1 and cache in node.whole:
                # Nobody else has it, as with turns of a conversation: it stays one node.
                cache.add(length - depth)
                node.extend(chain[depth:])
                return node
            else:
                child = node.children[chain[depth]] = _Node(node, depth, list(chain[depth:]))
                return child
        return node

    @staticmethod
    def _split(lower: _Node[K], at: int) -> _Node[K]:
        """Its blocks before that place become a node of their own."""
        above, start = lower.parent, lower.start
        assert above is not None
        upper: _Node[K] = _Node(above, start, lower.hashes[: at - start], lower.whole)
        above.children[lower.hashes[0]] = upper
        lower.take_off(at, upper)
        upper.children[lower.hashes[0]] = lower
        for cache, end in list(lower.part.items()):
            if end <= at:
                del lower.part[cache], cache.nodes[lower]
            if end >= at:
                upper.whole[cache] = None
            else:
                upper.part[cache] = end
        if not lower.whole and not lower.part:
            # All that had it have forgotten it.
            del upper.children[lower.hashes[0]]
        for cache in (*upper.whole, *upper.part):
            cache.nodes[upper] = None
            # Those above stay behind it.
            node = above
            while node.parent is not None:
                cache.nodes.move_to_end(node)
                node = node.parent
        return upper

    def correct(self, line: K, expected_tokens: int, cached_tokens: int) -> None:
        """An engine has said how much of a prompt it held. One that held less has lost what was thought to be there:
        from now on less is thought to fit, until it holds what is expected of it again.
        """
        cache = self._caches.get(line)
        if cache is None:
            return
        if cached_tokens + self.block <= expected_tokens:
            cache.expect(_LESS)
        elif expected_tokens:
            cache.expect(_MORE)

    def drop(self, line: K) -> None:
        """The line has ended, or has emptied its cache."""
        cache = self._caches.pop(line, None)
        if cache is not None:
            for node in cache.nodes:
                node.leave(cache)

    def held(self, line: K, chain: Sequence[int]) -> int:
        """How many tokens of a prompt's beginning one line holds."""
        cache = self._caches.get(line)
        if cache is None:
            return 0
        node, depth, found, length = self._root, 0, 0, len(chain)
        while depth < length:
            child = node.children.get(chain[depth])
            if child is None:
                break
            depth = child.common(chain)
            if cache not in child.whole:
                found = min(child.part.get(cache, found), depth)
                break
            found = depth
            if depth < child.end:
                break
            node = child
        return found * self.block

    def hits(self, chain: Sequence[int], most: int = MOST_HITS) -> list[tuple[K, int]]:
        """Lines that hold the longest beginnings of a prompt, with how many tokens: the longest first. Where more hold
        the same, all have their turn.
        """
        path: list[_Node[K]] = []
        node, depth, length = self._root, 0, len(chain)
        while depth < length:
            child = node.children.get(chain[depth])
            if child is None:
                break
            path.append(child)
            depth = child.common(chain)
            if depth < child.end:
                break
            node = child
        hits: list[tuple[K, int]] = []
        seen: set[_Cache[K]] = set()
        for node in reversed(path):
            # Who holds a node holds those above it.
            if len(node.whole) + len(node.part) == len(seen):
                continue
            whole, tokens = node.whole, min(node.end, depth) * self.block
            new = [cache for cache in islice(whole, most) if cache not in seen]
            if new and len(whole) > most:
                # It makes way for the next one, until all others were looked at.
                del whole[new[0]]
                whole[new[0]] = None
            hits += [(cache.line, tokens) for cache in new]
            seen.update(new)
            if node.part and len(hits) < most:
                ends = [(min(end, depth), cache) for cache, end in node.part.items()]
                ends.sort(key=_end, reverse=True)
                hits += [(cache.line, end * self.block) for end, cache in ends]
                seen.update(node.part)
            if len(hits) >= most:
                return hits[:most]
        return hits


def _end(held: tuple[int, object]) -> int:
    return held[0]
