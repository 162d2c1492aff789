"""Where an engine has its files: its log beside the session's, its socket in the session's folder."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actorrt import get_runtime_context, is_initialized

_NUMBERS: Final = itertools.count(1)
# What the kernel takes as the path of a socket.
_SOCKET_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class Place:
    log: Path
    unix_socket: str


def new_place(name: str) -> Place:
    """Names that no other engine has; the folders are there. `name` is what a person looks for."""
    unique = f"engine-{os.getpid()}-{next(_NUMBERS)}"
    shown = "".join(each if each.isalnum() or each in "-_." else "-" for each in name)[:60]
    folder = Path(get_runtime_context().get_temp_dir() if is_initialized() else tempfile.gettempdir())
    path = folder / f"{unique}.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        # Anybody may write there: nobody is to listen before the engine does.
        path = Path("/tmp") / f"actorrt-{unique}-{secrets.token_hex(16)}.sock"
    return Place(folder / "logs" / f"{unique}-{shown}.log", str(path))
