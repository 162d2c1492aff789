"""Waiting on the event loop for processes to end, by pidfd. Works for any process, not only for children."""

from __future__ import annotations

import asyncio
import os


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
