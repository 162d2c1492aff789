"""Ask every replica of a deployment the same: for what is the replica's own, and no request that any could answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .router import router_of
from .spec import DeploymentId

if TYPE_CHECKING:
    from actorrt import ObjectRef

    from .handle import DeploymentHandle


async def ask_all(handle: DeploymentHandle[Any], method: str, *args: Any, timeout_s: float) -> dict[str, Any]:
    """What each replica answers, by its id: a value, or the error that it raised or met. TimeoutError for the slow.

    Replicas of which this process has no news yet are not asked: call the deployment once before.
    """
    targets = router_of(DeploymentId(handle.app_name, handle.deployment_name)).targets()
    refs: list[ObjectRef[Any]] = [target.aside.remote(method, *args) for target in targets.values()]
    answers = await asyncio.gather(*(_answer(ref, timeout_s) for ref in refs))
    return dict(zip(targets, answers, strict=True))


async def _answer(ref: ObjectRef[Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            return await ref
    except Exception as error:
        return error
