"""Looks now and then how much memory is left, and has work ended where that is too little (core/memory_watch.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.memory_watch import MemoryWatch, Reading, Work
from actorrt.types import ProcessId
from actorrt.wire.messages import Facts, Query

from ..links.link import Link
from ..machine.memory import ProcessMemory, memory_of
from ..owner.under_way import Said

logger = logging.getLogger("actorrt")

# An owner that has not said within this time what its workers run is not waited for.
ANSWER_S: Final = 1.0


class Staff(Protocol):
    """The workers of a node."""

    def working(self) -> Mapping[ProcessId, int]:
        """The pids of those that may run something."""
        ...

    def living(self) -> Collection[ProcessId]: ...
    def end_for_memory(self, process: ProcessId, reason: str, /) -> None: ...


class MemoryKeeper:
    """Runs on the node's loop."""

    def __init__(
        self,
        threshold: float,
        interval_s: float,
        read: Callable[[], Iterable[Reading]],
        staff: Staff,
        owners: Callable[[], Iterable[Link]],
        own: Callable[[], Mapping[ProcessId, Said]],
    ) -> None:
        """`owners`: the links to all who may have work under way; `own`: what this node says of its own."""
        self._watch = MemoryWatch(threshold)
        self._interval_s = interval_s
        self._read = read
        self._staff = staff
        self._owners = owners
        self._own = own

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.look()
            except Exception:
                logger.exception("the memory could not be looked at")

    async def look(self) -> None:
        short = self._watch.short(self._read())
        if short is None:
            return
        works = await self._works()
        victim = self._watch.victim(short, works, self._staff.living())
        if victim is not None:
            logger.warning("worker %s is %s", victim.process.hex(), victim.reason)
            self._staff.end_for_memory(victim.process, victim.reason)

    async def _works(self) -> list[Work]:
        asked = [self._ask(link) for link in self._owners()]
        said: dict[ProcessId, list[Said]] = {}
        for one in [self._own(), *await asyncio.gather(*asked)]:
            for process, what in one.items():
                said.setdefault(process, []).append(what)
        found: list[Work] = []
        for process, pid in self._staff.working().items():
            memory = memory_of(pid)
            if memory is not None and process in said:
                found.append(_work(process, memory, said[process]))
        return found

    async def _ask(self, link: Link) -> Mapping[ProcessId, Said]:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer: Facts = await link.ask(Query("work"))
        except (TimeoutError, exceptions.ActorrtError):
            return {}
        data: Mapping[str, Any] = answer.data
        return {ProcessId(bytes.fromhex(process)): Said(*what) for process, what in data.items()}


def _work(process: ProcessId, memory: ProcessMemory, said: list[Said]) -> Work:
    """Of what several run in one worker, that counts which has the longest to lose."""
    ages = [memory.age_s if age is None else age for _, age, _ in said]
    names = sorted({what for what, _, _ in said})
    what = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} others"
    return Work(process, what, memory.used, max(ages), all(may_repeat for _, _, may_repeat in said))
