"""Which lines hold the beginning of a prompt in their key-value cache, as far as can be told from what ran there.

A prompt is a chain of hashes, one for each whole block of tokens, each of all tokens up to there: two prompts have the
same hash at a place only if they are the same until there. A line that holds a block holds those before it: a chain is
touched from its end, so that of one prompt the last blocks are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
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


class PrefixIndex(Generic[K]):
    """Blocks by the lines that hold them. A line is forgotten as it was noted: by its key."""

    def __init__(self, block: int = BLOCK_TOKENS) -> None:
        self.block = block
        self._holders: dict[int, dict[K, None]] = {}
        # Of each line, the block that was used last at the end.
        self._held: dict[K, OrderedDict[int, None]] = {}
        # How much of its tokens a line has been seen to keep.
        self._shares: dict[K, float] = {}

    def __len__(self) -> int:
        """Blocks of all lines."""
        return sum(map(len, self._held.values()))

    def note(self, line: K, chain: Sequence[int], kv_tokens: int) -> None:
        """A prompt was read there; `kv_tokens` is how many tokens it can hold."""
        held = self._held.setdefault(line, OrderedDict())
        holders = self._holders
        most = int(kv_tokens * self._shares.get(line, 1.0)) // self.block
        # Of a prompt that does not fit, only its beginning.
        for block in reversed(chain[:most]):
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = None
                holders.setdefault(block, {})[line] = None
        while len(held) > most:
            self._forget(line, held.popitem(last=False)[0])

    def correct(self, line: K, expected_tokens: int, cached_tokens: int) -> None:
        """An engine has said how much of a prompt it held. One that held less has lost what was thought to be there:
        from now on less is thought to fit, until it holds what is expected of it again.
        """
        share = self._shares.get(line, 1.0)
        if cached_tokens + self.block <= expected_tokens:
            self._shares[line] = max(_LEAST_SHARE, share * _LESS)
        elif expected_tokens and share < 1.0:
            self._shares[line] = min(1.0, share * _MORE)

    def drop(self, line: K) -> None:
        """The line has ended, or has emptied its cache."""
        self._shares.pop(line, None)
        for block in self._held.pop(line, ()):
            self._forget(line, block)

    def _forget(self, line: K, block: int) -> None:
        holders = self._holders[block]
        del holders[line]
        if not holders:
            del self._holders[block]

    def hits(self, chain: Sequence[int], most: int = MOST_HITS) -> Iterator[tuple[K, int]]:
        """Lines that hold the longest beginnings of a prompt, with how many tokens: the longest first."""
        holders = self._holders
        # The first blocks that nobody holds: from there on nobody holds any.
        low, high = 0, len(chain)
        while low < high:
            middle = (low + high) // 2
            if chain[middle] in holders:
                low = middle + 1
            else:
                high = middle
        seen: dict[K, None] = {}
        depth = low
        while depth:
            for line in holders[chain[depth - 1]]:
                if line not in seen:
                    yield line, depth * self.block
                    seen[line] = None
                    if len(seen) == most:
                        return
            # Who holds a block holds those before it: the next depth that more lines hold is found by halving too.
            below = 0
            while below < depth:
                middle = (below + depth) // 2
                if len(holders[chain[middle]]) > len(seen):
                    below = middle + 1
                else:
                    depth = middle
