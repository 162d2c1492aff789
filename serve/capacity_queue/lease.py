"""A request that asks the queue, as its router has it: how it came, and once it has a place, the lease of that."""

from __future__ import annotations

from typing import Protocol

from ..policies.policy import Cost, Grant, Policy, Request
from .alone import Place
from .messages import QueueCost, Tag, incarnation_of


class Keeper(Policy, Protocol):
    """Whose leases they are."""

    router: str
    epoch: int

    def settle(self, lease: Lease, used: Cost) -> None: ...
    def progress(self, lease: Lease, generated: int) -> None: ...


class Lease(Grant):
    """One record from when a request is asked for until its place is given back; a request that is asked for anew has
    another one, so what is said of the first is nothing to it.
    """

    __slots__ = (
        "_tag", "arrived", "band", "cost", "deadline", "epoch", "generated", "given_at", "id", "number", "output",
        "place", "prefill", "prompt", "rank", "request", "returns",
    )  # fmt: skip

    policy: Keeper

    def __init__(
        self,
        policy: Keeper,
        request: Request,
        cost: QueueCost,
        band: str,
        arrived: float,
        deadline: float | None,
        id: int = 0,
        *,
        returns: bool = False,
    ) -> None:
        self.policy = policy
        self.request = request
        self.cost = cost
        self.band = band
        self.arrived = arrived
        self.deadline = deadline
        # By which the queue knows it while it waits.
        self.id = id
        # It is not refused for want of room any more.
        self.returns = returns

    def ask_as(self, id: int) -> None:
        self.id = id

    def come_back(self) -> None:
        """It had a place before: it is not refused for want of room any more."""
        self.returns = True

    def count_at(self, place: Place) -> None:
        self.place = place

    def grow(self, generated: int) -> int:
        """Its answer has so many tokens by now. How many it had before."""
        before, self.generated = self.generated, generated
        return before

    def give(
        self,
        replica: str,
        number: int,
        rank: int,
        prompt: int,
        output: int,
        place: Place | None,
        now: float,
        prefill: tuple[str, int] | None = None,
    ) -> None:
        """It runs there. `place` is where it is counted; None: its replica is not known here yet."""
        self.replica = replica
        self.number = number
        self.rank = rank
        self.prompt = prompt
        self.output = output
        self.place = place
        self.given_at = now
        self.epoch = self.policy.epoch
        # Who reads its prompt; None: whoever answers.
        self.prefill: tuple[str, int] | None = prefill
        self._tag: Tag | None = None
        self.generated = 0

    def anew(self) -> Lease:
        """The same request, asked for once more, in its old place."""
        return Lease(self.policy, self.request, self.cost, self.band, self.arrived, self.deadline, returns=True)

    @property
    def queue_ms(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.waited_ms(self.given_at)

    def waited_ms(self, until: float) -> int:
        return max(0, int((until - self.arrived) * 1000))

    @property
    def tag(self) -> Tag:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What goes to the replica with the request."""
        if self._tag is None:
            cost = self.cost
            self._tag = Tag(
                self.epoch, incarnation_of(self.replica), self.number, self.rank, self.queue_ms, self.policy.router,
                self.prompt, self.output, cost.model, cost.tenant, cost.user, self.band,
                prefill=self.prefill,
            )  # fmt: skip
        return self._tag

    def settle(self, used: Cost) -> None:
        self.policy.settle(self, used)

    def progress(self, tokens: int) -> None:
        self.policy.progress(self, tokens)

    def __repr__(self) -> str:
        where = f"{self.replica}: {self.number}" if hasattr(self, "number") else "waits"
        return f"Lease({where})"
