"""How what a head decides gets to its store: one write at a time, and whoever waits is told once it is there.

While the store cannot be used, all that needs it waits. core/durable.py decides; stores are in actorrt/store/.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from actorrt.core.durable import Durable, StoreRefusedError, Verdict, Write, take_over
from actorrt.store.store import Store, StoreUnavailableError, open_store

logger = logging.getLogger("actorrt")

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
# A store that is not there is told of once, and then again so often.
TELL_S: Final = 30.0


class HeadStore:
    """The store of one head. Runs on its loop."""

    def __init__(self, store: Store, cluster: str, durable: Durable) -> None:
        self.durable = durable
        # Done once another head has the store.
        self.fenced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._store = store
        self._cluster = cluster
        self._wanted = asyncio.Event()
        # Who waits for a write or a look that has not been begun, and who for the one that has.
        self._waiting: list[asyncio.Future[None]] = []
        self._covered: list[asyncio.Future[None]] = []
        self._under_way: Write | None = None
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def settled(self) -> None:
        """Wait until all that was decided by now is in the store, and the store is still this head's.

        It never returns once another head has the store: whoever asks is to ask that one.
        """
        self.write_soon()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def write_soon(self) -> None:
        """Have what has changed written; nobody waits for it."""
        self._wanted.set()

    async def close(self, grace_s: float) -> None:
        """Write what is left, for `grace_s` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.settled()
        self._work.cancel()
        await asyncio.wait([self._work])
        await self._store.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, tell_at = FIRST_PAUSE_S, 0.0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            write = self.durable.next()
            if write is not self._under_way:
                # What was decided up to now is in it.
                self._covered += self._waiting
                self._waiting.clear()
                self._under_way = write
            try:
                found = await self._store.write(write, self._cluster)
            except (StoreUnavailableError, StoreRefusedError) as error:
                if loop.time() >= tell_at:
                    logger.warning("the store %s cannot be used, and is tried again: %s", self._store.name, error)
                    tell_at = loop.time() + TELL_S
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
                self._wanted.set()
                continue
            if pause_s > FIRST_PAUSE_S:
                logger.warning("the store %s can be used again", self._store.name)
                pause_s, tell_at = FIRST_PAUSE_S, 0.0
            match self.durable.answered(write, found):
                case Verdict.WRITTEN:
                    covered, self._covered = self._covered, []
                    for waiter in covered:
                        if not waiter.done():
                            waiter.set_result(None)
                case Verdict.FORGOTTEN:
                    logger.warning("the store %s has lost what it had, and gets all again", self._store.name)
                    self._wanted.set()
                case Verdict.FENCED:
                    self.fenced.set_result(None)
                    return
            if self._waiting or self.durable.statistics().unwritten:
                self._wanted.set()


async def take_store(address: str, cluster: str, writer: str) -> HeadStore:
    """Make the store this head's own, once it can be used. Raises StoreRefusedError."""
    store = open_store(address)
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            snapshot = await store.load()
            write = take_over(snapshot, cluster, writer)
            if await store.write(write, cluster) == write.mark:
                return HeadStore(store, cluster, Durable(write.mark, snapshot.entries))
            # Another one has written meanwhile.
        except StoreUnavailableError as error:
            logger.warning("the store %s cannot be used, and is tried again: %s", store.name, error)
        except StoreRefusedError as error:
            await store.close()
            raise StoreRefusedError(f"the store {store.name} cannot be used: {error}") from None
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


async def check_store(address: str, cluster: str, key: str) -> bytes | None:
    """Whether a head of this cluster could use the store now, and the value of an entry. Nothing is written.

    Raises StoreRefusedError, whose text is a sentence for who has typed the address.
    """
    store = open_store(address)
    try:
        snapshot = await store.load()
        take_over(snapshot, cluster, "")
        entry = snapshot.entries.get(key)
        return None if entry is None else entry.value
    except (StoreUnavailableError, StoreRefusedError) as error:
        raise StoreRefusedError(f"the store {store.name} cannot be used: {error}") from None
    finally:
        await store.close()
