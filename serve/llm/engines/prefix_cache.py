"""A key-value cache in blocks: those of finished requests stay, and serve later requests that begin alike.

As in vLLM ("Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP'23): a full block
of a prompt has a key that stands for it and for everything before it, so equal keys mean equal beginnings. Blocks
without a user are evicted when room is needed, the longest unused first.
"""

from collections.abc import Sequence


class PrefixCache:
    """Counts blocks; there is nothing in them."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.private = 0  # blocks in use that have no key: not full, or generated just now
        self._users: dict[int, int] = {}  # by key: how many hold it
        self._idle: dict[int, None] = {}  # keys that nobody holds; the longest unused first

    @property
    def used(self) -> int:
        """Blocks that someone holds."""
        return self.private + len(self._users)

    @property
    def idle(self) -> int:
        """Blocks that nobody holds, kept for those who begin alike."""
        return len(self._idle)

    def known(self, keys: Sequence[int]) -> int:
        """How many blocks of this beginning are there."""
        for count, key in enumerate(keys):
            if key not in self._users and key not in self._idle:
                return count
        return len(keys)

    def take(self, keys: Sequence[int], private: int) -> bool:
        """Hold these blocks, which are known, and as many new ones; False, and nothing is held, if there is no room."""
        woken = sum(key in self._idle for key in keys)
        if self.used + woken + private > self.blocks:
            return False
        for key in keys:
            self._idle.pop(key, None)
            self._users[key] = self._users.get(key, 0) + 1
        self.private += private
        while self.used + len(self._idle) > self.blocks:
            del self._idle[next(iter(self._idle))]
        return True

    def name(self, keys: Sequence[int]) -> int:
        """Give private blocks, full now, their keys, under which they are held from now on.

        Stops at a key that is there already (someone else has read the same), since a block has one key and a key one
        block: returns how many were named; the rest stays private.
        """
        for count, key in enumerate(keys):
            if key in self._users or key in self._idle:
                return count
            self._users[key] = 1
            self.private -= 1
        return len(keys)

    def release(self, keys: Sequence[int], private: int) -> None:
        """Hold them no more. The last blocks of a beginning are evicted before its first ones."""
        self.private -= private
        for key in reversed(keys):
            users = self._users[key] - 1
            if users:
                self._users[key] = users
            else:
                del self._users[key]
                self._idle[key] = None
