"""The programs that a node works for: those that have joined, and those whose detached actors go on without them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

import msgspec

from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.messages import JoinDriver

from ..links.link import Link


class Joined(NamedTuple):
    """A program that is here, and the link to its driver."""

    driver: JoinDriver
    # It may have ended, and the program not.
    link: Link
    ended: asyncio.Event


class Programs:
    """Runs on the node's loop."""

    def __init__(self) -> None:
        self._joined: dict[JobKey, Joined] = {}
        self._of_detached: dict[JobKey, JoinDriver] = {}
        # How many detached actors of each live.
        self._detached: Counter[JobKey] = Counter()

    def join(self, driver: JoinDriver, link: Link) -> Employer:
        job = JobKey(link.peer)
        self._joined[job] = Joined(driver, link, asyncio.Event())
        return Employer(job)

    def leave(self, link: Link) -> JoinDriver | None:
        """The process behind a link has ended, or says that it leaves; the program that it was of. If its own link is
        lost, any other one says so too."""
        found = self._joined.get(JobKey(link.peer))
        if found is None or (found.link is not link and not found.link.closed):
            return None
        del self._joined[JobKey(link.peer)]
        found.ended.set()
        return found.driver

    def joined(self, job: ProcessId) -> Joined | None:
        """A program that has not ended."""
        return self._joined.get(JobKey(job))

    def of(self, employer: Employer) -> JoinDriver | None:
        """The program that workers of `employer` should look like; None if it has ended."""
        if employer.detached:
            return self._of_detached.get(employer.job)
        found = self._joined.get(employer.job)
        return None if found is None else found.driver

    def finds_modules_at(self, job: JobKey, sys_path: list[bytes]) -> None:
        """Where a program looks for its modules by now."""
        if (joined := self._joined.get(job)) is not None:
            driver = msgspec.structs.replace(joined.driver, sys_path=sys_path)
            self._joined[job] = joined._replace(driver=driver)
            if job in self._of_detached:
                self._of_detached[job] = driver

    def listener(self, employer: Employer) -> Link | None:
        """Who wants to see what workers print; those of detached actors are seen by who made them."""
        found = self._joined.get(employer.job)
        if found is None or not found.driver.log_to_driver or found.link.closed:
            return None
        return found.link

    # ---- detached actors

    def detach(self, job: JobKey) -> Employer:
        """A program makes one more detached actor, which runs on workers of their own that look like the program's."""
        if (found := self._joined.get(job)) is not None:
            self._of_detached[job] = found.driver
        self._detached[job] += 1
        return Employer(job, True)

    def adopt(self, job: JobKey, driver: JoinDriver | None) -> None:
        """A program that ended elsewhere has a detached actor here from now on; workers look like its own."""
        if driver is not None:
            self._of_detached.setdefault(job, driver)

    def detached_ended(self, job: JobKey) -> bool:
        """One of them is dead; whether it was the last and its program has ended: their workers have nobody left.

        A program may have ended before a worker of its made one.
        """
        self._detached[job] -= 1
        if self._detached[job] or job in self._joined:
            return False
        del self._detached[job]
        self._of_detached.pop(job, None)
        return True

    def is_over(self, job: JobKey) -> bool:
        """A program has ended: whether it has made detached actors, and the last of them is dead."""
        if self._detached[job]:
            return False
        del self._detached[job]
        return self._of_detached.pop(job, None) is not None
