"""The folder of a session: its name, the mark that makes it one of ours, and the lock that says that it lives.

    <temporary folder>/actorrt-<uid>/<time>-<pid>-<id of its node>/
        session.json    the mark: what the session was begun with; locked (flock) by its node and by who began it
        logs/           stays when the session has ended, and the mark with it
        <id>.sock, <id>.at, spill/

Whatever else lies there, or beside it, is the user's. Nothing here follows a symbolic link, and what cannot be read,
locked or understood is left alone: a lock that somebody holds is a session that lives, and one that was made on another
machine, or before this one was started anew, says nothing about its processes.

Imports little: this runs before anything else of the runtime is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Generator, Mapping
from typing import Any, Final, cast

from actorrt.config import Settings
from actorrt.types import ProcessId

from ..base.descriptors import high

LOGS: Final = "logs"
INFO: Final = "session.json"
_NAME: Final = re.compile(r"\d{8}-\d{6}-\d+-([0-9a-f]{16})")
# A mark is never larger; what is, is no mark.
_MARK_BYTES: Final = 16 << 20
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sessions_folder(settings: Settings) -> str:
    """The folder below which all sessions of this user lie, made if it is not there. Only the user may look in.

    Raises OSError with a sentence that says what to set.
    """
    base = os.path.abspath(settings.temp_dir) if settings.temp_dir else tempfile.gettempdir()
    folder = os.path.join(base, f"actorrt-{os.getuid()}")
    try:
        if settings.temp_dir:
            os.makedirs(base, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        # Behind a link could lie anybody's files.
        fd = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        raise OSError(
            error.errno,
            f"sessions cannot lie in {folder} ({error.strerror}); set ACTORRT_TEMP_DIR to a folder of your own",
        ) from error
    try:
        status = os.fstat(fd)
        if status.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user; set ACTORRT_TEMP_DIR to a folder of your own")
        if status.st_mode & 0o077:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    return folder


def is_name(name: str) -> bool:
    """True if a session may be called so."""
    return _NAME.fullmatch(name) is not None


def node_of(session: str) -> ProcessId:
    """The id of a session's node; its folder is named after it. Raises ValueError for any other path."""
    found = _NAME.fullmatch(os.path.basename(os.path.realpath(session)))
    if found is None:
        raise ValueError(f"{session!r} is no session's folder")
    return ProcessId(bytes.fromhex(found[1]))


def begin(folder: str, node: ProcessId, facts: Mapping[str, Any]) -> tuple[str, int]:
    """Make the folder of a new session; its path, and a descriptor of its mark, which holds the lock."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{node.hex()}"
    session = os.path.join(folder, name)
    os.mkdir(session, 0o700)
    os.mkdir(os.path.join(session, LOGS), 0o700)
    draft = os.path.join(session, f"{INFO}.new")
    mark = high(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        # Under its own name only once it is locked: nobody ever finds it as that of an ended session.
        known = {"session": name, "boot": _boot(), "locked": _lock(mark), **facts}
        with open(mark, "w", encoding="utf-8", closefd=False) as file:
            json.dump(known, file)
        os.rename(draft, os.path.join(session, INFO))
    except BaseException:
        os.close(mark)
        raise
    return session, mark


def facts_of(mark: int) -> bytes:
    """What stands in a mark, JSON."""
    return os.pread(mark, min(os.fstat(mark).st_size, _MARK_BYTES), 0)


@contextlib.contextmanager
def opened(session: str) -> Generator[int]:
    """A descriptor of a session's folder. Raises OSError if there is none, or if it is a link."""
    fd = os.open(session, _FOLDER_FLAGS)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def if_ended(session: str) -> Generator[int | None]:
    """A descriptor of the folder of a session that has ended, which nobody else takes for one meanwhile; else None.

    None is also what is no session's folder, another user's, and whatever has begun on another machine or boot.
    """
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(opened(session))
            mark = os.open(INFO, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            held.callback(os.close, mark)
            ended = _is_ours(folder, mark, os.path.basename(session)) and _is_free(folder, mark)
        except OSError:
            ended, folder = False, -1
        yield folder if ended else None


def _is_ours(folder: int, mark: int, name: str) -> bool:
    for status, kind in ((os.fstat(folder), stat.S_ISDIR), (os.fstat(mark), stat.S_ISREG)):
        if status.st_uid != os.getuid() or not kind(status.st_mode):
            return False
    try:
        facts: Any = json.loads(facts_of(mark))
    except ValueError:
        return False
    boot = _boot()
    if not is_name(name) or not boot or not isinstance(facts, dict):
        return False
    wanted = {"session": name, "boot": boot, "locked": True}
    return wanted.items() <= cast("dict[str, Any]", facts).items()


def _is_free(folder: int, mark: int) -> bool:
    if not _lock(mark):
        return False
    # Whoever had it before may have removed the session.
    found, now = os.fstat(mark), os.stat(INFO, dir_fd=folder, follow_symlinks=False)
    return (found.st_dev, found.st_ino) == (now.st_dev, now.st_ino)


def _lock(fd: int) -> bool:
    # Some shared file systems have no locks: what lies there is known by nobody but its own processes.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _boot() -> str:
    """This run of this machine; containers on it have the same, as they have its locks. "" if it is not to be had."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""
