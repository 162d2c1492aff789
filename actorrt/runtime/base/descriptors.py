"""The descriptors of this process: which numbers they get, and how many there may be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
from typing import Final

# What is handed to another process lies above the numbers that it is given it as.
_HIGH: Final = 10
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})


def open_standard_streams() -> None:
    """Open what of 0, 1 and 2 is closed: else a socket gets that number, which event loops and children cannot bear."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        null = os.dup(null)
    os.close(null)


def high(fd: int) -> int:
    """The same file under a number that is free in a process to be started; closed by exec. `fd` is closed."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    finally:
        os.close(fd)


def allow_more() -> bool:
    """Raise this process's own limit as far as the system allows. False if it is there already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return True
    return False


def allow_more_after(error: OSError) -> bool:
    """True if it was for want of descriptors, and there may be more now: worth another try."""
    return error.errno in _NONE_LEFT and allow_more()


def most_for_objects() -> int:
    """How many descriptors may be taken by what can be refused; the others are for links, pipes and processes."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit - min(1000, limit // 4)
