"""The processes of Serve and of its node, to be killed."""

import json
import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import actorrt
from actorrt.exceptions import ActorDiedError, ActorNotFoundError, ActorUnavailableError
from actorrt.runtime.machine.session_folder import INFO
from actorrt.serve.base.connection import NAMESPACE


def pid_of(name: str) -> int:
    """Of a named actor; of the next one, should the question have gone to one that was killed."""
    while True:
        with suppress(ActorUnavailableError, ActorDiedError, ActorNotFoundError):
            actor: Any = actorrt.get_actor(name, namespace=NAMESPACE)
            found: actorrt.ObjectRef[int] = actor.__ray_call__.remote(lambda _: os.getpid())  # pyright: ignore[reportUnknownLambdaType]
            return actorrt.get(found)


def pid_of_head() -> int:
    info = Path(actorrt.get_runtime_context().get_temp_dir(), INFO)
    head = json.loads(info.read_text())["head"]
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(info.with_name(f"{head}.sock")))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")


def end(*pids: int) -> None:
    """Killed, and gone."""
    # Stopped first, so that none of them learns that another has died.
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, sent)
    for pid in pids:
        until_gone(pid)


def until_gone(pid: int) -> None:
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        select.select([fd], [], [])
        os.close(fd)
