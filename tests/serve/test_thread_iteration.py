"""Blocking iterables, iterated in a thread."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from actorrt.serve.replica.thread_iteration import iterate_in_thread


class Cursor(Iterator[int]):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def __next__(self) -> int:
        self.notes.append("next")
        return 1

    def close(self) -> None:
        self.notes.append("closed")


async def test_what_still_waits_for_a_thread_when_it_is_closed_is_closed_and_never_begins() -> None:
    busy = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(busy.wait)
        cursor = Cursor()
        items = iterate_in_thread(cursor, threads)
        first = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        busy.set()
    assert cursor.notes == ["closed"]
