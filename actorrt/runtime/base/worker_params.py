"""What a worker is born with."""

from __future__ import annotations

import msgspec

from actorrt.types import Employer, ProcessId


class WorkerParams(msgspec.Struct, frozen=True):
    """What a worker is born with; opaque to the zygote. Paths and arguments are what `any_text` makes of them."""

    process: ProcessId
    node: ProcessId
    session: bytes
    mode: str
    employer: Employer
    namespace: str
    sys_path: list[bytes]
    main_file: bytes
    argv: list[bytes]
    cpus: int
    # As CUDA calls them.
    gpus: list[str]
    # The environment of the call, which its own calls inherit.
    env: dict[str, str]
    node_id: ProcessId
    store_limit: int
