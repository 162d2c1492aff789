"""Waiting on the event loop for processes to end, by pidfd. Works for any process, not only for children."""

from __future__ import annotations

import asyncio
import os
from typing import Final

# Of the flags of a process in /proc: it runs no code of its own any more (PF_EXITING). Its files are closed after that.
_EXITING: Final = 0x4


def is_ending(pid: int) -> bool:
    """Whether a process has ended or is being taken down by the kernel. False where that cannot be found out."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name before may hold anything, brackets too.
            state, *rest = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return state in (b"Z", b"X") or bool(int(rest[5]) & _EXITING)


def watch_pid(pid: int) -> asyncio.Future[None]:
    """A future that is done once the process has ended (at once if there is none). Cancel it to stop watching.

    It does not reap: a child stays a zombie until somebody waits for it.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        return ended
    return watch_pidfd(fd)


def watch_pidfd(fd: int) -> asyncio.Future[None]:
    """The same for a pidfd, which is closed in the end. Taken early, it cannot mean a later process of the same id."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ended() -> None:
        if not future.done():
            future.set_result(None)

    def release(_: asyncio.Future[None]) -> None:
        if not loop.is_closed():
            loop.remove_reader(fd)
        os.close(fd)

    loop.add_reader(fd, ended)
    future.add_done_callback(release)
    return future


async def wait_child(pid: int) -> int | None:
    """Wait for a child to end and reap it; its wait status, None if it is not (or no longer) ours to reap."""
    await watch_pid(pid)
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it has ended, nothing is waited for
    except ChildProcessError:
        return None
    return status if reaped else None
