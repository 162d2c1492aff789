"""A node asks the processes of its session how they stand, all at once, and waits for none longer than a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from actorrt import exceptions
from actorrt.core.roll_call import Listed, Member, entry, no_answer
from actorrt.wire.messages import Facts

from ..machine.process import process_state


async def call(
    members: Iterable[Listed], ask: Callable[[Member], Awaitable[Facts]], answer_s: float
) -> list[dict[str, Any]]:
    """What each of them says of itself within `answer_s`, or why it does not."""
    return await asyncio.gather(*(_told(one, ask, answer_s) for one in members))


async def _told(one: Listed, ask: Callable[[Member], Awaitable[Facts]], answer_s: float) -> dict[str, Any]:
    if one.trouble:
        return entry(one, {})
    try:
        async with asyncio.timeout(answer_s):
            answer = await ask(one.member)
    except TimeoutError:
        return entry(one, {}, no_answer(answer_s, _state_of(one.member)))
    except exceptions.ActorrtError as error:
        return entry(one, {}, str(error))
    return entry(one, answer.data)


def _state_of(member: Member) -> str | None:
    return "" if member.role == "node" else process_state(member.pid)
