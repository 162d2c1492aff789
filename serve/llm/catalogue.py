"""Which names there are for which models, and what is known of their engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..capacity_queue.config import cost_function
from ..exceptions import DeploymentUnavailableError
from .config import has_capacity_queue, lowest_band
from .demand import PromptSizes
from .engines.interface import EngineFacts
from .problems import Problem

if TYPE_CHECKING:
    from ..routing.handle import DeploymentHandle
    from .config import LLMConfig

# So many names are told to who asked for none of them.
_NAMED_IN_ERRORS = 20


class Served:
    """A model with the handle of its deployment."""

    def __init__(self, config: LLMConfig, handle: DeploymentHandle[Any]) -> None:
        self.config = config
        self.handle = handle
        self.generate = handle.generate.options(stream=True)
        # Whether requests wait in a capacity queue, which is told what each takes; and how long prompts are.
        self.is_queued = has_capacity_queue(config)
        self.lowest_band = lowest_band(config)
        self.own_cost = cost_function(config.cost)
        self.sizes = PromptSizes()
        self._facts: EngineFacts | None = None

    @property
    def deployment(self) -> tuple[str, str]:
        return self.handle.app_name, self.handle.deployment_name

    @property
    def model_id(self) -> str:
        return self.config.model_id

    async def facts(self) -> EngineFacts:
        """What its engine is and can. It waits for the engine's start; then it is known."""
        if (facts := self._facts) is None:
            facts = self._facts = await self.ask("facts")
        return facts

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What one of its replicas says to a question that takes no time. DeploymentUnavailableError if none does."""
        try:
            async with asyncio.timeout(self.config.queue_timeout_s):
                return await getattr(self.handle, method).remote(*args, **kwargs)
        except TimeoutError:
            raise self.no_room() from None

    def no_room(self) -> DeploymentUnavailableError:
        limit_s = self.config.queue_timeout_s
        return DeploymentUnavailableError(self.handle.deployment_name, f"no replica had room within {limit_s:g} s")


class Chosen(NamedTuple):
    """What a name in a request stands for."""

    served: Served
    name: str
    """By which the engine knows it: the model's own name, or an adapter's."""


class Claim(NamedTuple):
    """Whose matter an adapter is while it is loaded or unloaded."""

    front: str
    number: int


class Catalogue:
    def __init__(self, models: Iterable[Served], since: int) -> None:
        """`since`: when they came to be here, in seconds of Unix time."""
        self.since = since
        self.models = {each.model_id: each for each in models}
        self._names: dict[str, Chosen] = {}
        # Adapters that were loaded live, by model: their paths by their names.
        self.live: dict[str, dict[str, str]] = {model_id: {} for model_id in self.models}
        # Those that are being loaded or unloaded, and by whom: nobody else may change them.
        self._claims: dict[str, dict[str, Claim]] = {model_id: {} for model_id in self.models}
        self._unloads: set[tuple[str, str]] | None = None
        for served in self.models.values():
            config = served.config
            for name in (config.model_id, *config.aliases):
                self._names[name] = Chosen(served, config.model_id)
            for adapter in config.adapters:
                self._names[adapter.name] = Chosen(served, adapter.name)

    def choose(self, name: str | None) -> Chosen:
        """Problem 404 with the known names. Where there is one model only, it need not be named."""
        if name is None:
            if len(self.models) == 1:
                return self._names[next(iter(self.models))]
            raise Problem(400, f"'model' is missing: {self._known()}", param="model", code="missing_required_parameter")
        if (found := self._names.get(name)) is None:
            raise Problem(
                404, f"there is no model {name[:256]!r}: {self._known()}", param="model", code="model_not_found"
            )
        return found

    def names(self) -> Mapping[str, Chosen]:
        return self._names

    def know_adapter(self, model_id: str, name: str, path: str) -> None:
        """An adapter that is loaded live is a model from now on."""
        if (served := self.models.get(model_id)) is not None:
            self.live[model_id][name] = path
            self._names[name] = Chosen(served, name)

    def forget_adapter(self, model_id: str, name: str) -> None:
        if self._unloads is not None:
            self._unloads.add((model_id, name))
        if self.live.get(model_id, {}).pop(name, None) is not None:
            del self._names[name]

    @contextlib.contextmanager
    def noting_unloads(self) -> Generator[Container[tuple[str, str]]]:
        """The adapters, as (model, name), that are unloaded within this: also those that are not known here yet."""
        noted = self._unloads = set[tuple[str, str]]()
        try:
            yield noted
        finally:
            self._unloads = None

    def claim(self, model_id: str, name: str, by: Claim, alive: Container[str], *, loads: bool) -> str:
        """Let one request change an adapter, up to its `release`. Else the reason why not, as a sentence.

        What a front that is not `alive` has claimed is anybody's.
        """
        claims, served = self._claims[model_id], self.models[model_id]
        for claimed, claim in list(claims.items()):
            if claim.front not in alive:
                del claims[claimed]
        if name in claims:
            return f"{name!r} is being loaded or unloaded already"
        if loads:
            if (known := self._names.get(name)) is not None:
                return f"{name!r} is a name of {known.served.model_id!r} already"
            most = served.config.max_adapters
            held = {*self.live[model_id], *claims}
            if len(served.config.adapters) + len(held) >= most:
                return f"{most} adapters are loaded, as many as max_adapters allows"
        claims[name] = by
        return ""

    def release(self, model_id: str, name: str, by: Claim) -> None:
        if self._claims[model_id].get(name) == by:
            del self._claims[model_id][name]

    def _known(self) -> str:
        names = sorted(self._names)
        more = len(names) - _NAMED_IN_ERRORS
        shown = ", ".join(names[:_NAMED_IN_ERRORS])
        return f"there are {shown}" + (f" and {more} more" if more > 0 else "")
