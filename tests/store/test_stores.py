"""What both stores promise, with a real file and a real redis-server."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actorrt.core.durable import (
    FORMAT,
    NOBODY,
    Durable,
    Entry,
    Mark,
    Snapshot,
    StoreRefusedError,
    Verdict,
    Write,
    take_over,
)
from actorrt.store.store import Store, StoreUnavailableError, open_store

from .redis_server import RedisServer

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "folder" / "store.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@asynccontextmanager
async def opened(address: str) -> AsyncGenerator[Store]:
    store = open_store(address)
    try:
        yield store
    finally:
        await store.close()


async def take(store: Store, writer: str) -> Durable:
    snapshot = await store.load()
    first = take_over(snapshot, "blue", writer)
    assert await store.write(first, "blue") == first.mark
    return Durable(first.mark, snapshot.entries)


async def write(store: Store, durable: Durable) -> Verdict:
    next_write = durable.next()
    return durable.answered(next_write, await store.write(next_write, "blue"))


async def test_what_is_written_is_there_for_the_next_head(address: str) -> None:
    async with opened(address) as store:
        assert await store.load() == Snapshot(0, "", NOBODY, {})
        durable = await take(store, "a")
        durable.put("name/ü/x", b"\0\xff")
        durable.put("gone", b"")
        assert await write(store, durable) is Verdict.WRITTEN
        durable.put("name/ü/x", b"second")
        durable.drop("gone")
        assert await write(store, durable) is Verdict.WRITTEN
        assert await write(store, durable) is Verdict.WRITTEN  # a look
    async with opened(address) as store:
        assert await store.load() == Snapshot(FORMAT, "blue", Mark(1, 2, "a"), {"name/ü/x": Entry(2, b"second")})
        next_head = await take(store, "b")
        assert next_head.get("name/ü/x") == Entry(2, b"second")
        assert (await store.load()).mark == Mark(2, 0, "b")


async def test_the_older_of_two_heads_is_fenced_while_it_runs(address: str) -> None:
    async with opened(address) as one, opened(address) as two:
        old = await take(one, "a")
        old.put("k", b"1")
        assert await write(one, old) is Verdict.WRITTEN
        new = await take(two, "b")
        assert await write(one, old) is Verdict.FENCED
        old.put("k", b"2")
        assert await write(one, old) is Verdict.FENCED
        new.put("l", b"3")
        assert await write(two, new) is Verdict.WRITTEN
        assert (await two.load()).entries == {"k": Entry(1, b"1"), "l": Entry(1, b"3")}


async def test_a_write_on_top_of_another_mark_changes_nothing(address: str) -> None:
    async with opened(address) as store:
        await take(store, "a")
        mine = Mark(7, 1, "x")
        found = await store.write(Write(Mark(7, 0, "x"), mine, {"k": Entry(1, b"")}), "blue")
        assert found == Mark(1, 0, "a")
        assert (await store.load()).entries == {}


async def test_a_store_of_another_cluster_is_refused(address: str) -> None:
    async with opened(address) as store:
        await take(store, "a")
        with pytest.raises(StoreRefusedError, match="it is the store of cluster 'blue', not of 'green'"):
            take_over(await store.load(), "green", "b")


async def test_a_large_directory_is_written_and_read_whole(address: str) -> None:
    async with opened(address) as store:
        durable = await take(store, "a")
        for number in range(3000):
            durable.put(f"name/{number}", bytes(1000))
        assert await write(store, durable) is Verdict.WRITTEN
        assert len((await store.load()).entries) == 3000


def written_until_killed(address: str, kill_after: int) -> int:
    """The number of the last write that a process was told of, which is killed some writes after it has begun."""
    command = [sys.executable, str(WRITER), address, "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(kill_after):
            assert writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read().split()
    return int(rest[-1]) if rest else kill_after


@pytest.mark.parametrize("kill_after", [1, 7, 40])
async def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_writes(address: str, kill_after: int) -> None:
    acknowledged = await asyncio.to_thread(written_until_killed, address, kill_after)
    async with opened(address) as store:
        entries = (await store.load()).entries
        stored = int(entries["a"].value[: len(entries["a"].value) // 200])
        # The last one may have been written and not said.
        assert stored in (acknowledged, acknowledged + 1)
        # All of a batch, or nothing.
        assert entries["a"] == entries["b"]
        await take(store, "b")


# ---- SQLite


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "store.db"
    async with opened(f"sqlite://{path}") as store:
        await take(store, "a")
        assert store.name == str(path)
        for each in path.parent.iterdir():
            assert each.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["text", "a database of another program"])
async def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.db"
    if content == "text":
        path.write_text("no database at all, but a file of the user's\n" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text TEXT)")
        connection.close()
    before = path.read_bytes()
    async with opened(str(path)) as store:
        with pytest.raises(StoreRefusedError):
            await store.load()
    assert path.read_bytes() == before


async def test_a_file_that_is_removed_while_it_is_used_gets_all_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(str(path)) as store:
        durable = await take(store, "a")
        durable.put("k", b"1")
        assert await write(store, durable) is Verdict.WRITTEN
        for each in tmp_path.iterdir():
            each.unlink()
        durable.put("l", b"2")
        assert await write(store, durable) is Verdict.FORGOTTEN
        assert await write(store, durable) is Verdict.WRITTEN
    async with opened(str(path)) as store:
        assert (await store.load()).entries == {"k": Entry(1, b"1"), "l": Entry(1, b"2")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("to mount a small file system takes root")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk_makes_writes_wait_and_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    async with opened(str(small_disk / "store.db")) as store:
        durable = await take(store, "a")
        durable.put("k", b"1")
        assert await write(store, durable) is Verdict.WRITTEN
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        durable.put("large", bytes(200_000))
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await write(store, durable)
        durable.put("l", b"2")
        ballast.unlink()
        assert await write(store, durable) is Verdict.WRITTEN
        assert await write(store, durable) is Verdict.WRITTEN
        assert set((await store.load()).entries) == {"k", "large", "l"}


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("etcd://host", "etcd:// is no kind of store"),
        ("sqlite://relative.db", "a file is named as sqlite:///PATH"),
    ],
)
def test_an_address_of_no_store_is_refused_in_one_sentence(address: str, sentence: str) -> None:
    with pytest.raises(StoreRefusedError, match=sentence):
        open_store(address)


# ---- Redis


async def test_a_server_that_is_gone_for_a_while_makes_writes_wait_and_loses_nothing(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as store:
        durable = await take(store, "a")
        durable.put("k", b"1")
        assert await write(store, durable) is Verdict.WRITTEN
        redis_server.kill()
        durable.put("l", b"2")
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await write(store, durable)
        redis_server.start()
        assert await write(store, durable) is Verdict.WRITTEN
        assert set((await store.load()).entries) == {"k", "l"}


async def test_a_server_that_comes_back_empty_gets_all_again(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as store:
        durable = await take(store, "a")
        durable.put("k", b"1")
        assert await write(store, durable) is Verdict.WRITTEN
        redis_server.forget()
        verdicts: list[Verdict] = []
        while Verdict.WRITTEN not in verdicts:
            # The connection to the one before breaks first.
            try:
                verdicts.append(await write(store, durable))
            except StoreUnavailableError:
                assert not verdicts
        assert verdicts == [Verdict.FORGOTTEN, Verdict.WRITTEN]
        assert (await store.load()).entries == {"k": Entry(1, b"1")}


async def test_a_server_that_is_stopped_answers_late_and_each_write_is_applied_once(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as store:
        durable = await take(store, "a")
        redis_server.send(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, redis_server.send, signal.SIGCONT)
        durable.put("k", b"1")
        assert await write(store, durable) is Verdict.WRITTEN
        assert (await store.load()).entries == {"k": Entry(1, b"1")}


async def test_no_password_is_in_the_name_of_a_store(redis_server: RedisServer) -> None:
    async with opened(redis_server.url.replace("redis://", "redis://user:se@cret@")) as store:
        assert store.name == redis_server.url
