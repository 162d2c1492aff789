"""A node asks the processes of its session how they stand, all at once, and waits for none longer than a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from actorrt import exceptions
from actorrt.core.roll_call import Listed, Member, entry, no_answer
from actorrt.wire.messages import Facts

# A process whose runtime's thread runs answers in a millisecond; one that has 100,000 actors in some 50.
ANSWER_S: Final = 1.0


async def call(members: Iterable[Listed], ask: Callable[[Member], Awaitable[Facts]]) -> list[dict[str, Any]]:
    """What each of them says of itself, or why it does not."""
    return await asyncio.gather(*(_told(one, ask) for one in members))


async def _told(one: Listed, ask: Callable[[Member], Awaitable[Facts]]) -> dict[str, Any]:
    if one.trouble:
        return entry(one, {})
    try:
        async with asyncio.timeout(ANSWER_S):
            answer = await ask(one.member)
    except TimeoutError:
        return entry(one, {}, no_answer(ANSWER_S))
    except exceptions.ActorrtError as error:
        return entry(one, {}, str(error))
    return entry(one, answer.data)
