"""Find workers that were stopped (SIGSTOP) and never went on: nothing comes from them, and no socket closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from .process import process_state

STOPPED: Final = "T"
# How often it is looked within the time after which a worker is given up.
LOOKS: Final = 8
# So many processes are looked at in one turn of the loop.
AT_ONCE: Final = 64


async def watch_for_stalls(
    pids: Callable[[], Collection[int]], stalled: Callable[[int], object], timeout_s: float
) -> None:
    """Call `stalled(pid)` for a process that has been found stopped throughout `timeout_s`. Runs until it is cancelled.

    One that a debugger holds is in another state, and is left alone.
    """
    since: dict[int, float] = {}
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(timeout_s / LOOKS)
        stopped: set[int] = set()
        for index, pid in enumerate(list(pids())):
            if index % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if process_state(pid) == STOPPED:
                stopped.add(pid)
                if loop.time() - since.setdefault(pid, loop.time()) >= timeout_s:
                    stalled(pid)
        since = {pid: then for pid, then in since.items() if pid in stopped}
