"""Ask replicas of a deployment aside of their requests: every one for what is its own, or any, also if all are full."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..declaration.spec import DeploymentId
from .router import router_of

if TYPE_CHECKING:
    from actorrt import ObjectRef

    from .handle import DeploymentHandle
    from .target import Target


async def ask_all(handle: DeploymentHandle[Any], method: str, *args: Any, timeout_s: float) -> dict[str, Any]:
    """What each replica answers, by its id: a value, or the error that it raised or met.

    It takes no place among a replica's requests. TimeoutError of the replicas that have not answered by then.
    """
    targets = await _targets(handle)
    refs: list[ObjectRef[Any]] = [target.aside.remote(method, *args) for target in targets.values()]
    answers = await asyncio.gather(*(_answer(ref, timeout_s) for ref in refs))
    return dict(zip(targets, answers, strict=True))


async def ask_in_turn(
    handle: DeploymentHandle[Any], method: str, *args: Any, timeout_s: float
) -> AsyncGenerator[tuple[str, Any], None]:
    """As `ask_all`, but in the order of the ids, which is the same for all who ask, and each after the one before."""
    targets = await _targets(handle)
    for id in sorted(targets):
        yield id, await _answer(targets[id].aside.remote(method, *args), timeout_s)


async def replicas_of(handle: DeploymentHandle[Any]) -> frozenset[str]:
    """The ids of those that can be asked."""
    return frozenset(await _targets(handle))


async def ask_any(handle: DeploymentHandle[Any], method: str, *args: Any, timeout_s: float) -> Any:
    """What the first replica that answers says, one after the other being asked in the same way. LookupError if none
    does.
    """
    for target in (await _targets(handle)).values():
        answer = await _answer(target.aside.remote(method, *args), timeout_s)
        if not isinstance(answer, Exception):
            return answer
    raise LookupError(f"no replica of {handle.deployment_name} answers {method}")


async def count_replicas(handle: DeploymentHandle[Any]) -> int:
    """How many there are that take requests."""
    return len(await _targets(handle))


async def _targets(handle: DeploymentHandle[Any]) -> dict[str, Target]:
    router = router_of(DeploymentId(handle.app_name, handle.deployment_name))
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    router.when_told(partial(_tell, loop, told))
    await told
    return router.targets()


async def _answer(ref: ObjectRef[Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            return await ref
    except Exception as error:
        return error


def _tell(loop: asyncio.AbstractEventLoop, told: asyncio.Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_set, told)


def _set(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
