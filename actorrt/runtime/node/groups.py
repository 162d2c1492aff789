"""A node's placement groups: messages in, the decisions of core/placement_groups.py performed. Nothing is decided here.

The node is the whole cluster: what it reserves, it reserves of itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from actorrt import exceptions
from actorrt.core.leases import UNIT
from actorrt.core.placement import Cluster, Demand, Never
from actorrt.core.placement_groups import Commit, GroupAction, GroupSpec, PlacementGroups, Release, Reserve, Tell
from actorrt.types import Employer, GroupId, ProcessId
from actorrt.wire.messages import CreateGroup, LeaseRequest, ListGroups


class Bundles(Protocol):
    """The node's workers, whose resources these are."""

    def reserve(
        self, group: GroupId, attempt: int, bundles: Mapping[int, Mapping[str, int]], waits: bool, /
    ) -> None: ...
    def commit(self, group: GroupId, attempt: int, /) -> None: ...
    def release(self, group: GroupId, attempt: int, why: str, /) -> None: ...
    @property
    def free(self) -> Mapping[str, int]: ...
    @property
    def rooms(self) -> Mapping[int, int]: ...


def spec_of(asked: CreateGroup) -> GroupSpec:
    """A group, as the table knows it."""
    return GroupSpec(
        asked.group,
        tuple(asked.bundles),
        asked.strategy,
        asked.employer,
        asked.name,
        asked.namespace,
        asked.detached,
        tuple(map(tuple, asked.labels)),
    )


class Groups:
    """Runs on the node's loop."""

    def __init__(self, node: ProcessId, name: str, total: Mapping[str, int]) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._cluster = Cluster()
        self._cluster.join(node, total, name=name)
        self._table = PlacementGroups(self._cluster)
        # Those who wait until a group is there.
        self._waiters: dict[GroupId, list[asyncio.Future[None]]] = {}
        self._change_is_due = False

    def join(self, bundles: Bundles) -> None:
        """Take bundles of these from now on."""
        self._bundles = bundles

    # ---- what programs ask

    def create(self, asked: CreateGroup) -> None:
        """Raises PlacementGroupError where it cannot be."""
        self._report()
        self._perform(self._table.create(spec_of(asked)))

    def remove(self, group: GroupId) -> None:
        self._report()
        self._perform(self._table.remove(group, "it was removed"))

    def employer_ended(self, employer: Employer) -> None:
        self._report()
        self._perform(self._table.employer_ended(employer))

    async def until_created(self, group: GroupId) -> None:
        """Wait until it is there. Raises PlacementGroupError once it is gone."""
        while not self._table.is_created(group):
            self._table.check(group)
            waiter: asyncio.Future[None] = self._loop.create_future()
            waiters = self._waiters.setdefault(group, [])
            waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in waiters:
                    waiters.remove(waiter)

    async def admit(self, wanted: LeaseRequest) -> None:
        """Wait until what a request is to run in is there. Raises what makes that impossible."""
        strategy = wanted.strategy
        if strategy.group:
            try:
                await self.until_created(strategy.group)
            except exceptions.PlacementGroupError as error:
                kind = exceptions.ActorPlacementGroupRemoved if wanted.actor else exceptions.TaskPlacementGroupRemoved
                raise kind(wanted.actor or "the task", error.group, error.cause) from None
        elif strategy.node or strategy.labels:
            self._report()
            choice = self._cluster.choose(Demand(wanted.shape, strategy, self._node))
            if isinstance(choice, Never):
                shape = {name: amount / UNIT for name, amount in wanted.shape.items()}
                kind = exceptions.ActorUnschedulableError if wanted.actor else exceptions.TaskUnschedulableError
                raise kind(wanted.actor or "the task", shape, choice.why)

    def rows(self, asked: ListGroups | None = None) -> list[dict[str, Any]]:
        """How groups stand, as programs are shown it: one, or all."""
        wanted = asked or ListGroups()
        return self._table.rows(wanted.group, wanted.namespace, wanted.name)

    def tables(self) -> tuple[object, ...]:
        """Whatever has tables that could grow."""
        return (self, self._table)

    # ---- what becomes of bundles (workers.GroupAnswers)

    def reserved(self, group: GroupId, attempt: int) -> None:
        self._loop.call_soon(self._reserved, group, attempt)

    def refused(self, group: GroupId, attempt: int) -> None:
        self._loop.call_soon(self._refused, group, attempt)

    def freed(self) -> None:
        if not self._change_is_due and len(self._table):
            self._change_is_due = True
            self._loop.call_soon(self._changed)

    def _reserved(self, group: GroupId, attempt: int) -> None:
        self._report()
        self._perform(self._table.reserved(self._node, group, attempt))

    def _refused(self, group: GroupId, attempt: int) -> None:
        self._report()
        self._perform(self._table.refused(self._node, group, attempt))

    def _changed(self) -> None:
        self._change_is_due = False
        self._report()
        self._perform(self._table.changed())

    def _report(self) -> None:
        self._cluster.report(self._node, self._bundles.free, self._bundles.rooms)

    def _perform(self, actions: tuple[GroupAction, ...]) -> None:
        for action in actions:
            match action:
                case Reserve():
                    self._bundles.reserve(action.group, action.attempt, action.bundles, action.waits)
                case Commit():
                    self._bundles.commit(action.group, action.attempt)
                case Release():
                    self._bundles.release(action.group, action.attempt, action.why)
                case Tell():
                    for waiter in self._waiters.pop(action.group, ()):
                        if not waiter.done():
                            waiter.set_result(None)
