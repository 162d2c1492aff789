"""A store in a Redis server, for a head that may be started again on another machine. Needs the package `redis`.

What a write returns is in the server's memory; whether that survives the server is for its configuration to say
(`appendonly yes`, and `appendfsync always` for each write). A server that comes back without it, or with an older copy,
gets all again from the head that runs.
"""

from __future__ import annotations

import importlib
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from actorrt.core.durable import FORMAT, Entry, Mark, Snapshot, StoreRefusedError, Write

from .store import StoreUnavailableError

# The hashes that hold the mark and the entries of the one cluster of a database.
_STORE: Final = "actorrt:store"
_ENTRIES: Final = "actorrt:entries"
TIMEOUT_S: Final = 5.0
_EXTRA: Final = "the package `redis` is not installed: `pip install actorrt[redis]`"
# Compare the mark and, if it is the expected one, write all: the server runs nothing else meanwhile.
# ARGV: expected mark (3), new mark (3), format, cluster, "1" for whole; then the number of drops, them, and pairs.
_WRITE: Final = """
local found = redis.call('HMGET', KEYS[1], 'epoch', 'serial', 'writer')
local mark = {found[1] or '0', found[2] or '0', found[3] or ''}
if mark[1] ~= ARGV[1] or mark[2] ~= ARGV[2] or mark[3] ~= ARGV[3] then return mark end
redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'serial', ARGV[5], 'writer', ARGV[6])
if ARGV[9] == '1' then
    redis.call('HSET', KEYS[1], 'format', ARGV[7], 'cluster', ARGV[8])
    redis.call('DEL', KEYS[2])
end
local at = 11 + tonumber(ARGV[10])
for index = 11, at - 1 do redis.call('HDEL', KEYS[2], ARGV[index]) end
for index = at, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1]) end
return {ARGV[4], ARGV[5], ARGV[6]}
"""


class RedisStore:
    """One database of a server: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, `rediss://` for TLS, `unix://PATH`."""

    def __init__(self, address: str) -> None:
        try:
            self._client: Any = importlib.import_module("redis.asyncio")
            self._errors: Any = importlib.import_module("redis.exceptions")
        except ImportError:
            raise StoreRefusedError(_EXTRA) from None
        try:
            self._redis: Any = self._client.Redis.from_url(
                address, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, single_connection_client=False
            )
        except ValueError as error:
            raise StoreRefusedError(f"{error}: give it as redis://HOST:PORT/DB") from None
        parts = urlsplit(address)
        # What is before the last @ may be a password.
        self._name = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))

    @property
    def name(self) -> str:
        return self._name

    async def load(self) -> Snapshot:
        async with self._redis.pipeline(transaction=True) as both:
            both.hgetall(_STORE)
            both.hgetall(_ENTRIES)
            store, entries = await self._do(both.execute())
        if not store:
            return Snapshot(0, "", Mark(), {})
        facts: dict[str, str] = {name.decode(): text.decode() for name, text in store.items()}
        mark = Mark(int(facts["epoch"]), int(facts["serial"]), facts["writer"])
        known = {key.decode(): msgspec.msgpack.decode(value, type=Entry) for key, value in entries.items()}
        return Snapshot(int(facts["format"]), facts["cluster"], mark, known)

    async def write(self, write: Write, cluster: str) -> Mark:
        if write.mark == write.expected:
            epoch, serial, writer = await self._do(self._redis.hmget(_STORE, "epoch", "serial", "writer"))
            return Mark(int(epoch or 0), int(serial or 0), (writer or b"").decode())
        drops = [key for key, entry in write.changes.items() if entry is None]
        pairs = [
            each
            for key, entry in write.changes.items()
            if entry is not None
            for each in (key, msgspec.msgpack.encode(entry))
        ]
        arguments = (*write.expected, *write.mark, FORMAT, cluster, int(write.whole), len(drops), *drops, *pairs)
        epoch, serial, writer = await self._do(self._redis.eval(_WRITE, 2, _STORE, _ENTRIES, *arguments))
        return Mark(int(epoch), int(serial), writer.decode())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _do(self, request: Any) -> Any:
        errors = self._errors
        try:
            return await request
        except (errors.AuthenticationError, errors.NoPermissionError) as error:
            raise StoreRefusedError(f"the server refuses the user or password: {error}") from error
        except (errors.RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error
