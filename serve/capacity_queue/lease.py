"""A request as its router has it: how it came, as long as it waits, and the lease that the queue gave it."""

from __future__ import annotations

from typing import Protocol

from ..policy import Cost, Grant, Policy, Request
from .alone import Place
from .messages import QueueCost, Tag, incarnation_of


class Keeper(Policy, Protocol):
    """Whose leases they are."""

    router: str
    epoch: int

    def settle(self, lease: Lease, used: Cost) -> None: ...
    def progress(self, lease: Lease, generated: int) -> None: ...


class Wait:
    """How a request came, and by which id the queue knows it, another one whenever it is asked for anew."""

    __slots__ = ("arrived", "band", "cost", "deadline", "id", "returns")

    def __init__(self, cost: QueueCost, band: str, arrived: float, deadline: float | None) -> None:
        self.cost, self.band, self.arrived, self.deadline = cost, band, arrived, deadline
        self.id = 0
        # It is not refused for want of room any more.
        self.returns = False


class Lease(Grant):
    """The grant of one request: what the queue gave."""

    __slots__ = (
        "_tag", "epoch", "generated", "given_at", "keeper", "number", "output", "place", "prefill", "prompt", "rank",
        "request", "wait",
    )  # fmt: skip

    def __init__(
        self,
        policy: Keeper,
        replica: str,
        number: int,
        rank: int,
        prompt: int,
        output: int,
        request: Request,
        wait: Wait,
        now: float,
    ) -> None:
        self.policy, self.replica = policy, replica
        self.keeper = policy
        self.number, self.rank, self.prompt, self.output = number, rank, prompt, output
        self.epoch = policy.epoch
        # Who reads its prompt; None: whoever answers.
        self.prefill: tuple[str, int] | None = None
        self._tag: Tag | None = None
        # As it came, should it not begin there.
        self.request, self.wait = request, wait
        self.given_at = now
        # Where it is counted; None: its replica is not known here yet.
        self.place: Place | None = None
        self.generated = 0

    @property
    def queue_ms(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return max(0, int((self.given_at - self.wait.arrived) * 1000))

    @property
    def tag(self) -> Tag:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What goes to the replica with the request."""
        if self._tag is None:
            cost, band, router = self.wait.cost, self.wait.band, self.keeper.router
            self._tag = Tag(
                self.epoch, incarnation_of(self.replica), self.number, self.rank, self.queue_ms, router,
                self.prompt, self.output, cost.model, cost.tenant, cost.user, band,
                prefill=self.prefill,
            )  # fmt: skip
        return self._tag

    def settle(self, used: Cost) -> None:
        self.keeper.settle(self, used)

    def progress(self, tokens: int) -> None:
        self.keeper.progress(self, tokens)

    def __repr__(self) -> str:
        return f"Lease({self.replica}: {self.number})"
