"""Start the nodes of a cluster that outlives programs, on this machine, and stop them.

A cluster has one head, beside its first node; other nodes join by its address. Programs join with `init(address)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from actorrt.config import Settings
from actorrt.core.durable import StoreRefusedError
from actorrt.core.options import InitOptions
from actorrt.types import PROCESS_ID_SIZE, ProcessId

from ..base.socket_paths import reachable, socket_path
from ..machine.session_folder import INFO, facts_of, is_name, opened, sessions_folder
from ..machine.session_logs import sweep
from ..node.head_store import check_store
from ..node.node_launch import Launched, facts_in, launch_with
from .driver import wait_for_node

DEFAULT_NAME: Final = "default"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HEAD_KEY: Final = "cluster/head"
# See node_machine.NEAR, which loads more than a command needs.
_NEAR: Final = "near"
_LOOK_S: Final = 0.02

# The nodes that this very program has started, until they have ended and it has heard of that.
_children: set[int] = set()


class _Found(NamedTuple):
    """A node that `start_head` or `start_node` has begun here, as the mark of its session says."""

    session: str
    node: ProcessId
    head: ProcessId
    facts: dict[str, Any]

    @property
    def keeps_head(self) -> bool:
        return bool(self.facts.get("store"))

    def pids(self) -> list[int]:
        """Its node's, and its head's, as far as they live; the node ends the head."""
        ids = [self.node, *([self.head] if self.keeps_head else [])]
        return [pid for process in ids if (pid := _listener(socket_path(self.session, process)))]


def start_head(*, name: str = DEFAULT_NAME, store: str | None = None, **options: Any) -> str:
    """Start a cluster: its head and a node on this machine, which go on when this program ends. Returns its address.

    `store` is where the head keeps names and all else that survives it: a path or `sqlite:///PATH` (a file that is made
    if it is not there), or `redis://HOST:PORT/DB` for a head that may be started again on another machine; by default
    a file `NAME.db` in ~/.local/state/actorrt (or $ACTORRT_STATE_DIR). A head that is started with the store of one
    that has ended, or goes on elsewhere, takes its place. Options are those of `init` for a node: num_cpus, num_gpus,
    resources, object_store_memory, preload_modules.

    Raises ConnectionError if the store cannot be used or is another cluster's, RuntimeError if this cluster has its
    head here already or the node does not start, ValueError or TypeError for a wrong option.
    """
    settings, parsed = Settings.from_environment(), _parse(options)
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster cannot be named {name!r}: letters, digits and . _ - make a name")
    address = _store_address(settings, store, name)
    for found in _all_found(settings):
        if found.facts.get("cluster") == name and found.keeps_head and found.pids():
            raise RuntimeError(
                f"cluster {name!r} has its head on this machine already, at {found.session}: join it, stop it with "
                "`actorrt stop`, or choose another name"
            )
    try:
        known = asyncio.run(check_store(address, name, _HEAD_KEY))
    except StoreRefusedError as error:
        raise ConnectionError(str(error)) from None
    head = ProcessId(known or os.urandom(PROCESS_ID_SIZE))
    facts = {"head": head.hex(), "driver_pid": 0, "cluster": name, "store": address, **facts_in(settings, parsed)}
    return _start(settings, launch_with(settings, facts), head)


def start_node(address: str = "auto", **options: Any) -> str:
    """Start a node on this machine that joins the cluster at `address`; it goes on when this program ends.

    `address`: what `start_head` has returned, or "auto" for the newest cluster that has its head on this machine.
    Returns the address by which programs of this machine join the node. Options are those of `start_head`.

    Raises ConnectionError if no cluster is there, RuntimeError if the node does not start.
    """
    settings, parsed = Settings.from_environment(), _parse(options)
    found = _head_at(settings, address)
    facts = {
        "head": found.head.hex(),
        "driver_pid": 0,
        "cluster": found.facts["cluster"],
        "head_address": _NEAR,
        "head_session": found.session,
        **facts_in(settings, parsed),
    }
    return _start(settings, launch_with(settings, facts), None)


def stop_nodes(timeout_s: float = 15.0) -> list[str]:
    """End what `start_head` and `start_node` have started on this machine, nodes before heads; the addresses of all.

    Each gets SIGTERM, and SIGKILL after `timeout_s` seconds. What a head's store has stays: a head that is started with
    it again has all of it.
    """
    settings = Settings.from_environment()
    found = [each for each in _all_found(settings) if each.pids()]
    # Who has joined leaves first, so that the head knows.
    for each in sorted(found, key=lambda one: one.keeps_head):
        # The node says goodbye and ends its head, which is there yet if the node was not.
        for pid in each.pids():
            _end(pid, timeout_s)
    sweep(sessions_folder(settings))
    _reap()
    return [each.session for each in found]


def _reap() -> None:
    for pid in list(_children):
        with contextlib.suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                continue
        _children.discard(pid)


def _parse(options: Mapping[str, Any]) -> InitOptions:
    allowed = ("num_cpus", "num_gpus", "resources", "object_store_memory", "preload_modules")
    for name in options:
        if name not in allowed:
            raise TypeError(f"a node takes no option {name!r}; there are {', '.join(allowed)}")
    return InitOptions.parse(options)


def _store_address(settings: Settings, store: str | None, name: str) -> str:
    if store:
        return store if "://" in store else os.path.abspath(store)
    folder = settings.state_dir or os.path.join(Path.home(), ".local", "state", "actorrt")
    return os.path.join(os.path.abspath(folder), f"{name}.db")


def _start(settings: Settings, launched: Launched, head: ProcessId | None) -> str:
    """Wait until the node listens, and the head if it is there too."""
    deadline = time.monotonic() + settings.start_timeout_s
    try:
        wait_for_node(launched, settings.start_timeout_s)
        while head is not None and not _listener(socket_path(launched.session, head)):
            if time.monotonic() > deadline or not _listener(socket_path(launched.session, launched.node)):
                raise RuntimeError(f"the head has not started: {launched.last_words()}")
            time.sleep(_LOOK_S)
    except BaseException:
        launched.kill()
        raise
    launched.leave()
    _children.add(launched.pid)
    return launched.session


def _head_at(settings: Settings, address: str) -> _Found:
    heads = [
        each for each in _all_found(settings) if each.keeps_head and _listener(socket_path(each.session, each.head))
    ]
    if address == "auto":
        if not heads:
            raise ConnectionError("no cluster has its head on this machine: `actorrt start --head` starts one")
        return heads[0]
    folder = os.path.realpath(address)
    for each in heads:
        if os.path.realpath(each.session) == folder:
            return each
    raise ConnectionError(f"no cluster has its head at {address!r}")


def _all_found(settings: Settings) -> list[_Found]:
    """Newest first."""
    folder = sessions_folder(settings)
    found: list[_Found] = []
    for name in sorted(filter(is_name, os.listdir(folder)), reverse=True):
        session = os.path.join(folder, name)
        with contextlib.suppress(OSError, ValueError, KeyError), opened(session) as opened_folder:
            mark = os.open(INFO, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened_folder)
            try:
                facts: dict[str, Any] = json.loads(facts_of(mark))
            finally:
                os.close(mark)
            if facts.get("cluster"):
                node, head = (ProcessId(bytes.fromhex(facts[which])) for which in ("node", "head"))
                found.append(_Found(session, node, head, facts))
    return found


def _listener(path: str) -> int:
    """The process that listens at a Unix socket; 0 if none does."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        with reachable(path) as address:
            probe.connect(address)
        pid: int = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[
            0
        ]
        return pid
    return 0


def _end(pid: int, timeout_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(fd, number)
                if select.select([fd], [], [], timeout_s)[0]:
                    return
        finally:
            os.close(fd)
