"""The environment variables that a worker is born with: who says what, and whose word counts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .workers import WorkerKind

# How many threads numeric libraries start.
THREADS: Final = "OMP_NUM_THREADS"
GPUS: Final = "CUDA_VISIBLE_DEVICES"


def environment_of(
    kind: WorkerKind,
    of_program: Mapping[str, str],
    gpus: Sequence[str],
    *,
    node_has_gpus: bool,
    node_says_threads: bool,
) -> dict[str, str]:
    """What the node says, unless the program says otherwise; then what the call has, and what it says.

    `gpus`: what CUDA calls those of the worker. `node_says_threads`: the node's own environment, which a worker
    inherits, says how many threads there are to be.
    """
    env: dict[str, str] = {}
    if not node_says_threads:
        env[THREADS] = "1"
    if node_has_gpus:
        # GPUs are for those who ask for them.
        env[GPUS] = ""
    env.update(of_program)
    if kind.cpus:
        env[THREADS] = str(kind.cpus)
    if kind.gpus:
        env[GPUS] = ",".join(gpus)
    env.update(kind.env)
    return env
