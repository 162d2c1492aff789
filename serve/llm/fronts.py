"""What the replicas of a front know of each other: each has counts of its own, and all know the same adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ..broadcast import ask_all
from ..handle import DeploymentHandle
from ..request_context import get_replica_context
from ..spec import DeploymentId

if TYPE_CHECKING:
    from .metrics import Totals

# A replica that takes longer is left out.
ANSWER_S: Final = 2.0


class Fronts:
    """All replicas of the front that this is a replica of."""

    def __init__(self) -> None:
        context = get_replica_context()
        self.me = context.replica_id
        self._handle: DeploymentHandle[Any] = DeploymentHandle(DeploymentId(context.app_name, context.deployment))

    async def totals(self) -> dict[str, Totals]:
        """What each has counted, by its id."""
        return cast("dict[str, Totals]", await self._all("totals"))

    async def tell_adapter(self, model_id: str, name: str, path: str) -> None:
        """Let all know of an adapter that was loaded live."""
        await self._all("know_adapter", model_id, name, path)

    async def tell_unloaded(self, model_id: str, name: str) -> None:
        """Let all forget it."""
        await self._all("forget_adapter", model_id, name)

    async def adapters(self) -> dict[str, dict[str, str]]:
        """Which adapters were loaded live, by model: what the others know."""
        known: dict[str, dict[str, str]] = {}
        for their in (await self._all("live_adapters")).values():
            for model_id, adapters in their.items():
                known.setdefault(model_id, {}).update(adapters)
        return known

    async def _all(self, method: str, *args: Any) -> dict[str, Any]:
        answers = await ask_all(self._handle, method, *args, timeout_s=ANSWER_S)
        return {id: answer for id, answer in answers.items() if not isinstance(answer, Exception)}
