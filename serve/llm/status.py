"""`status()` and `batch_statuses()`: which models run, by which engines, and how much they have to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from .. import api
from ..base.background import run_from_here
from ..routing.broadcast import ask_all
from .app import FRONT, MODEL_PREFIX
from .batches.counts import Counts, together

if TYPE_CHECKING:
    from ..routing.handle import DeploymentHandle
    from .engines.interface import EngineFacts

# A replica that takes longer is not shown.
ANSWER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The replicas of a model, together."""

    application: str
    model: str
    """As its deployment is named, without the prefix."""
    engine: str
    """The kind of its engine."""
    replicas: int
    """Those that answered."""
    slots: int
    """Requests that run at once, in all of them."""
    context: int
    """Tokens of the longest request."""
    running: int
    waiting: int
    """Requests that wait inside of engines."""
    adapters: tuple[str, ...] = ()
    asleep: int = 0
    """Replicas whose engine sleeps."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The batches that a front keeps of one model."""

    application: str
    model: str
    """As their files name it; "" for files that no front has read yet."""
    batches: Counts
    requests: Counts


def batch_statuses() -> list[BatchStatus]:
    """The batches of all applications. It blocks, for seconds at most; empty if Serve does not run."""
    handles = [
        api.get_deployment_handle(FRONT, application)
        for application, overview in api.status().applications.items()
        if FRONT in overview.deployments
    ]
    return run_from_here(_batches(handles))


async def _batches(handles: list[DeploymentHandle[Any]]) -> list[BatchStatus]:
    said = await asyncio.gather(*(ask_all(each, "batch_counts", timeout_s=ANSWER_S) for each in handles))
    return [
        BatchStatus(handle.app_name, each.model, each.batches, each.requests)
        for handle, answers in zip(handles, said, strict=True)
        for each in together(answers.values())[1]
    ]


def status() -> list[ModelStatus]:
    """The models of all applications. It blocks, for seconds at most; empty if Serve does not run."""
    handles = [
        api.get_deployment_handle(deployment, application)
        for application, overview in api.status().applications.items()
        for deployment in overview.deployments
        if deployment.startswith(MODEL_PREFIX)
    ]
    return run_from_here(_all(handles))


async def _all(handles: list[DeploymentHandle[Any]]) -> list[ModelStatus]:
    found = await asyncio.gather(*(_one(each) for each in handles))
    return [each for each in found if each is not None]


async def _one(handle: DeploymentHandle[Any]) -> ModelStatus | None:
    facts, said = await asyncio.gather(
        ask_all(handle, "facts", timeout_s=ANSWER_S), ask_all(handle, "statistics", timeout_s=ANSWER_S)
    )
    engines: list[EngineFacts] = [each for each in facts.values() if not isinstance(each, Exception)]
    if not engines:
        return None
    numbers = [cast("Mapping[str, float]", each) for each in said.values() if isinstance(each, dict)]
    capacities = [each.capacity for each in engines]

    def total(name: str) -> int:
        return int(sum(each.get(name, 0) for each in numbers))

    return ModelStatus(
        handle.app_name,
        handle.deployment_name.removeprefix(MODEL_PREFIX),
        engines[0].kind,
        len(engines),
        sum(each.slots * each.ranks for each in capacities),
        min(each.context for each in capacities),
        total("running"),
        total("waiting"),
        tuple(sorted({name for each in engines for name in each.adapters})),
        total("asleep"),
    )
