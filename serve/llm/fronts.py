"""What the replicas of a front know of each other: each has counts of its own, and all know the same adapters."""

from __future__ import annotations

import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from ..base.request_context import get_replica_context
from ..declaration.spec import DeploymentId
from ..routing.broadcast import ask_all, ask_in_turn, replicas_of
from ..routing.handle import DeploymentHandle
from .batches.counts import together
from .catalogue import Claim

if TYPE_CHECKING:
    from .batches.counts import Kept, ModelBatches
    from .metrics import Totals

# A replica that takes longer is left out.
ANSWER_S: Final = 2.0


class Fronts:
    """All replicas of the front that this is a replica of."""

    def __init__(self) -> None:
        context = get_replica_context()
        self.me = context.replica_id
        self._numbers = itertools.count()
        self._handle: DeploymentHandle[Any] = DeploymentHandle(DeploymentId(context.app_name, context.deployment))

    async def totals(self) -> dict[str, Totals]:
        """What each has counted, by its id."""
        return cast("dict[str, Totals]", await self._all("totals"))

    async def batches(self, kept: list[Kept]) -> tuple[list[Kept], list[ModelBatches]]:
        """What all of them have of batches. They are asked for what is `kept`, all the same, only where that is nothing
        here.
        """
        return together((await self._all("batch_counts", not kept)).values(), kept)

    async def tell_adapter(self, model_id: str, name: str, path: str) -> None:
        """Let all know of an adapter that was loaded live."""
        await self._all("know_adapter", model_id, name, path)

    async def tell_unloaded(self, model_id: str, name: str) -> None:
        """Let all forget it."""
        await self._all("forget_adapter", model_id, name)

    def new_claim(self) -> Claim:
        return Claim(self.me, next(self._numbers))

    async def claim(self, model_id: str, name: str, by: Claim, *, loads: bool) -> str:
        """Have an adapter to oneself, among all fronts, until it is released: "", or the reason why not.

        Of two that want it at once one has it: both ask the same front first.
        """
        alive = await replicas_of(self._handle) | {self.me}
        asked = ask_in_turn(self._handle, "claim_adapter", model_id, name, by, alive, loads, timeout_s=ANSWER_S)
        async with aclosing(asked):
            async for _, reason in asked:
                if isinstance(reason, str) and reason:
                    return reason
        return ""

    async def release(self, model_id: str, name: str, by: Claim) -> None:
        await self._all("release_adapter", model_id, name, by)

    async def adapters(self) -> tuple[dict[str, dict[str, str]], bool]:
        """Which adapters were loaded live, by model: what the others know. And whether all have said so."""
        known: dict[str, dict[str, str]] = {}
        answers = await ask_all(self._handle, "live_adapters", timeout_s=ANSWER_S)
        for their in answers.values():
            if isinstance(their, dict):
                for model_id, adapters in cast("dict[str, dict[str, str]]", their).items():
                    known.setdefault(model_id, {}).update(adapters)
        return known, not any(isinstance(answer, Exception) for answer in answers.values())

    async def _all(self, method: str, *args: Any) -> dict[str, Any]:
        answers = await ask_all(self._handle, method, *args, timeout_s=ANSWER_S)
        return {id: answer for id, answer in answers.items() if not isinstance(answer, Exception)}
