"""`queues()`: what each capacity queue has, and who waits in it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from actorrt import ActorHandle, exceptions, is_initialized

from ..base import connection
from ..base.background import run_from_here
from ..exceptions import ServeError
from .looks import check_name
from .statuses import QueueStatus

# A queue that takes longer is shown without its numbers.
ANSWER_S: Final = 5.0
_SILENT: Final = "its queue does not answer, so it may wait there"

Queues = dict[tuple[str, str], ActorHandle[Any]]


def queues() -> list[QueueStatus]:
    """The capacity queues of all applications. It blocks, for seconds at most; empty if Serve does not run."""
    if not is_initialized():
        return []
    try:
        found: Queues = connection.ask(lambda it: it.queues.remote())
    except ServeError:
        return []
    return run_from_here(ask_all(found))


def why(request_id: str) -> list[str]:
    """What requests of this id (x-request-id) wait for in capacity queues, or where they run: a sentence for each. It
    blocks, for seconds at most; empty if there is none, or Serve does not run. ValueError for what is no request's id.
    """
    check_name(request_id)
    if not is_initialized():
        return []
    try:
        found: Queues = connection.ask(lambda it: it.queues.remote())
    except ServeError:
        return []
    return run_from_here(_why(found, request_id))


async def _why(queues: Queues, request_id: str) -> list[str]:
    said = await asyncio.gather(*(_why_in(queue, request_id) for queue in queues.values()))
    return [f"{app}#{name}: {each}" for (app, name), sentences in zip(queues, said, strict=True) for each in sentences]


async def _why_in(queue: ActorHandle[Any], request_id: str) -> list[str]:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await queue.why.remote(request_id)
    except (TimeoutError, exceptions.ActorrtError):
        return [_SILENT]


async def ask_all(queues: Queues) -> list[QueueStatus]:
    return list(await asyncio.gather(*(_ask(app, name, queue) for (app, name), queue in queues.items())))


async def _ask(application: str, deployment: str, queue: ActorHandle[Any]) -> QueueStatus:
    try:
        async with asyncio.timeout(ANSWER_S):
            said: dict[str, Any] = await queue.statistics.remote()
    except (TimeoutError, exceptions.ActorrtError) as error:
        return QueueStatus(application, deployment, trouble=str(error) or "it does not answer")
    return QueueStatus.of(application, deployment, said)


async def all_queues() -> list[QueueStatus]:
    """The same within a process of Serve's."""
    found: Queues = await connection.connect().controller.queues.remote()
    return await ask_all(found)
