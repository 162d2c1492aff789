"""What the controller calls on a replica. Whatever comes of a call is an answer here, an error as a sentence: an
exception would end the care for the replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from actorrt import ActorHandle, ObjectRef, available_resources, cancel, cluster_resources, exceptions, kill

from ..base.topics import Topic
from ..declaration.spec import DeploymentSpec, resources_of
from ..replica.replica import ReplicaSettings
from .reconcile import lacking_resources, missing_resources
from .replica_record import STOP_TIMEOUT_S, ReplicaRecord

logger = logging.getLogger("actorrt.serve")

# A replica sees to its limit itself, and logs what it cuts off; then this much longer is waited for it.
OVERTIME_S: Final = 5.0
# The part of that which atexit handlers have in any case.
LEAST_EXIT_S: Final = 1.0


async def death(handle: ActorHandle[Any]) -> str:
    """Why it died, when it has."""
    try:
        await handle.until_death.remote()
    except Exception as error:
        return _in_a_line(error)
    return "it ended"


async def place(handle: ActorHandle[Any]) -> str:
    """ "" once it has a process, else why it gets none."""
    try:
        await handle.where.remote()
    except Exception as error:
        return _in_a_line(error)
    return ""


async def construct(replica: ReplicaRecord, handle: ActorHandle[Any], *, first_try: bool) -> str:
    """ "" if it is ready to serve, else why not."""
    spec = replica.spec
    settings = ReplicaSettings(
        spec.id.app,
        spec.id.name,
        replica.id,
        spec.code,
        spec.config,
        spec.options.max_ongoing_requests,
        replica.config_version,
        first_try=first_try,
    )
    try:
        trouble: str = await handle.start.remote(settings)
    except (exceptions.TaskError, exceptions.TaskCancelledError) as error:
        # SystemExit and the like, which are no errors of user code for a replica.
        return f"its constructor was ended by {_in_a_line(error)}"
    except Exception as error:
        return f"its process ended while it was constructed: {_in_a_line(error)}"
    return trouble


async def reconfigure(handle: ActorHandle[Any], spec: DeploymentSpec) -> str:
    """ "" if it has taken the configuration, else why not."""
    timeout_s = spec.options.reconfigure_timeout_s
    ref: ObjectRef[str] = handle.reconfigure.remote(spec.config, spec.options.max_ongoing_requests, spec.config_version)
    try:
        async with asyncio.timeout(timeout_s):
            return await ref
    except TimeoutError:
        cancel(ref)
        return f"reconfigure() did not end within {timeout_s:g} s (reconfigure_timeout_s)"
    except Exception as error:
        return _in_a_line(error)


async def drain(replica: ReplicaRecord, handle: ActorHandle[Any], topic: Topic) -> None:
    """Return when it has no request left, or its time is up."""
    options = replica.spec.options
    # It refuses what still comes; once no router sends to it any more, it has only what it has.
    draining = handle.drain.remote()
    await topic.acted_on(topic.version, options.graceful_shutdown_wait_loop_s)
    replica.may_drain_from(time.monotonic())
    try:
        async with asyncio.timeout(options.graceful_shutdown_timeout_s):
            await draining
    except (TimeoutError, exceptions.ActorrtError) as error:
        logger.debug("replica %s did not drain: %s", replica.id, error)


async def stop(replica: ReplicaRecord, handle: ActorHandle[Any]) -> None:
    """End it. User code that is there may clean up for the rest of its graceful_shutdown_timeout_s."""
    limit_s = replica.time_to_clean_up(time.monotonic())
    if limit_s is None:
        kill(handle)
    else:
        await end_replica(handle, limit_s)


async def end_replica(handle: ActorHandle[Any], limit_s: float = STOP_TIMEOUT_S) -> None:
    """Let user code clean up, then have the process leave in order, or kill it when its time is over."""
    end_by = time.monotonic() + limit_s
    try:
        async with asyncio.timeout(limit_s + OVERTIME_S):
            await handle.stop.remote(limit_s)
            await handle.leave.remote(max(LEAST_EXIT_S, end_by - time.monotonic()))
    except TimeoutError:
        logger.warning("%s did not end within %.3g s and is killed", handle, limit_s + OVERTIME_S)
    except exceptions.ActorDiedError:
        return  # it has left
    except exceptions.ActorrtError as error:
        logger.warning("%s did not end by itself and is killed: %s", handle, error)
    kill(handle)


async def illness(replica: ReplicaRecord, handle: ActorHandle[Any]) -> str:
    """Check its health for as long as it serves: why it is given up, or "" when it serves no more."""
    options = replica.spec.options
    while True:
        await asyncio.sleep(options.health_check_period_s)
        if not replica.is_routed:
            return ""
        try:
            async with asyncio.timeout(options.health_check_timeout_s):
                trouble: str = await handle.check_health.remote()
        except TimeoutError:
            trouble = f"no answer within {options.health_check_timeout_s:g} s"
        except exceptions.ActorError:
            return ""  # it is dead, which is told elsewhere
        except Exception as error:
            trouble = _in_a_line(error)
        if illness := replica.checked(trouble):
            return illness


async def explain(replica: ReplicaRecord) -> tuple[str, dict[str, float]]:
    """What it waits for, and how much of it others have."""
    asked = resources_of(replica.spec)
    available, total = await asyncio.gather(
        asyncio.to_thread(available_resources), asyncio.to_thread(cluster_resources)
    )
    missing = missing_resources(asked, available, total) or "its process is being started"
    return missing, lacking_resources(asked, available, total)


def _in_a_line(error: BaseException) -> str:
    """What an error says, without the traceback that it may hold; its type if it says nothing."""
    cause = getattr(error, "cause", error)
    lines = [line for line in str(cause).splitlines() if line.strip()]
    if not lines:
        return type(cause).__name__
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1].strip()}"
