"""What a worker is born with."""

from __future__ import annotations

import msgspec


class WorkerParams(msgspec.Struct, frozen=True):
    """What a worker is born with; opaque to the zygote."""

    process: bytes
    node: bytes
    session: str
    mode: str
    job: int
    namespace: str
    sys_path: list[str]
    main_file: str
    argv: list[str]
    cpus: int
    # As CUDA calls them.
    gpus: list[str]
    # The environment of the call, which its own calls inherit.
    env: dict[str, str]
    node_id: bytes
    store_limit: int
