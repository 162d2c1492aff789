"""The key-value cache of an engine: blocks of few tokens, and a prefix cache over hashes of many.

A hash stands for a part of a prompt and all before it, and takes `per_hash` blocks. Those that nobody uses stay until
room is wanted, the longest unused first; the end of a prompt goes before its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence


class KvBlocks:
    __slots__ = ("_idle", "_users", "blocks", "per_hash", "private")

    def __init__(self, blocks: int, per_hash: int) -> None:
        self.blocks, self.per_hash = blocks, per_hash
        # Blocks in use that have no hash.
        self.private = 0
        self._users: dict[int, int] = {}
        self._idle: dict[int, None] = {}

    @property
    def used(self) -> int:
        return self.private + self.per_hash * len(self._users)

    @property
    def idle(self) -> int:
        return self.per_hash * len(self._idle)

    @property
    def room(self) -> int:
        """Blocks that may be taken, those of idle hashes among them."""
        return self.blocks - self.private - self.per_hash * len(self._users)

    def known(self, chain: Sequence[int], most: int) -> int:
        """How many hashes of this beginning are there."""
        users, idle = self._users, self._idle
        count = 0
        for hash in chain:
            if count == most or (hash not in users and hash not in idle):
                break
            count += 1
        return count

    def take(self, shared: Sequence[int], private: int) -> bool:
        """Use these hashes, which are known, and new blocks; False, and nothing has changed, if there is no room."""
        idle = self._idle
        woken = [hash for hash in shared if hash in idle]
        if len(woken) * self.per_hash + private > self.room:
            return False
        for hash in woken:
            del idle[hash]
        users = self._users
        for hash in shared:
            users[hash] = users.get(hash, 0) + 1
        self.take_private(private)
        return True

    def take_private(self, blocks: int) -> None:
        """There is room for them."""
        self.private += blocks
        idle = self._idle
        if not idle:
            return
        over = self.used + self.per_hash * len(idle) - self.blocks
        while over > 0:
            del idle[next(iter(idle))]
            over -= self.per_hash

    def name(self, chain: Sequence[int]) -> int:
        """Private blocks are full and have hashes from now on; up to one that is known from another. How many."""
        users, idle = self._users, self._idle
        count = 0
        for hash in chain:
            if hash in users or hash in idle:
                break
            users[hash] = 1
            count += 1
        self.private -= count * self.per_hash
        return count

    def release(self, shared: Sequence[int], private: int) -> None:
        self.private -= private
        users, idle = self._users, self._idle
        for hash in reversed(shared):
            count = users[hash] - 1
            if count:
                users[hash] = count
            else:
                del users[hash]
                idle[hash] = None
