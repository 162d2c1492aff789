"""The deployment of a model: one engine in a replica, which handles call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..capacity_queue.current_lease import current_lease
from .config import LLMConfig
from .engines.factory import make_engine
from .engines.handover import Connector
from .engines.interface import ADAPTER, RANK, EngineCall, EngineFacts
from .prefill import Answers, answered, connector_of, of_its_kind, revision_of
from .sleeper import Sleeper

if TYPE_CHECKING:
    from ..routing.handle import DeploymentHandle

logger = logging.getLogger("actorrt.serve.replica")


def load_of(statistics: Mapping[str, float], facts: EngineFacts) -> tuple[int | None, int]:
    """Tokens that an engine has in its key-value cache, if it says so, and requests. llama.cpp counts in its cache also
    what it only keeps, and gives up for others: such tokens are none.
    """
    used = statistics.get("kv_tokens_used")
    if used is None and "kv_share" in statistics and "/slots" not in facts.paths:
        used = statistics["kv_share"] * facts.capacity.kv_tokens
    return None if used is None else int(used), int(statistics["running"] + statistics["waiting"])


class Model:
    """Made by Serve with a configuration, in a process of its own. Its engine is up when its constructor returns."""

    reads = False
    # How prompts are handed over, where others read them.
    _connector: Connector | None = None

    async def __init__(  # pyright: ignore[reportGeneralTypeIssues]
        self, config: LLMConfig, readers: DeploymentHandle[Any] | None = None
    ) -> None:
        """`readers`: those that read its prompts, where others do."""
        self._revision = revision_of(config)
        self._config = config = of_its_kind(config, reads=self.reads)
        self._adapters_change = asyncio.Lock()
        self._engine = make_engine(config)
        self._generate = self._engine.generate
        if config.prefill is not None:
            self._connector = connector_of(config, self._engine)
            if readers is not None:
                self._generate = Answers(self._connector, readers).generate
        self._sleeper = Sleeper(self._engine, config.model_id, config.sleep_after_s)
        for adapter in config.adapters:
            await self._engine.load_adapter(adapter.name, adapter.path)
        facts = await self._engine.start()
        self._facts = facts if config.prefill is None else answered(facts)
        self._sleeper.begin()

    async def generate(self, call: EngineCall) -> AsyncGenerator[tuple[Any, ...], None]:
        """See `Engine.generate`. Of a model that sleeps, the first request waits until it is awake.

        Plain tuples with the fields of Head and Delta: named ones take seven times as long to pickle.
        """
        async with self._sleeper.awake():
            await self._have_adapter(call)
            call = self._at_its_rank(call)
            answer = self._generate(call)
            try:
                async for item in answer:
                    yield tuple(item)
            finally:
                await answer.aclose()

    def _at_its_rank(self, call: EngineCall) -> EngineCall:
        """The call with the rank that a capacity queue gave it, for an engine that has several."""
        lease = current_lease.get()
        if lease is None or self._facts.capacity.ranks == 1 or any(name == RANK for name, _ in call.headers):
            return call
        return call._replace(headers=(*call.headers, (RANK, str(lease.rank))))

    async def _have_adapter(self, call: EngineCall) -> None:
        """Load the adapter that a call is for, if it came to its model before this replica did."""
        found = next((value for name, value in call.headers if name == ADAPTER), None)
        if found is None:
            return
        name, _, path = found.partition("=")
        async with self._adapters_change:
            if name not in self._facts.adapters:
                await self._engine.load_adapter(name, path)
                self._with_adapters([*self._facts.adapters, name])

    async def facts(self) -> EngineFacts:
        return self._facts

    async def queue_offer(self) -> tuple[int, int, float, int, str, int]:
        """What a capacity queue may give of it: tokens and requests at once of each rank, a rate that nobody has
        measured yet, how many ranks there are, of which revision it is, and tokens of one prompt and its answer.
        """
        capacity = self._facts.capacity
        return capacity.kv_tokens, capacity.slots, 0.0, capacity.ranks, self._revision, capacity.context

    async def queue_load(self) -> tuple[int | None, int | None] | None:
        """What its engine has now, for a capacity queue."""
        return None if self._sleeper.asleep else load_of(await self._engine.statistics(), self._facts)

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        async with self._sleeper.awake():
            return await self._engine.tokenize(text, add_special=add_special)

    async def detokenize(self, tokens: list[int]) -> str:
        async with self._sleeper.awake():
            return await self._engine.detokenize(tokens)

    async def load_adapter(self, name: str, path: str) -> EngineFacts:
        async with self._sleeper.awake(), self._adapters_change:
            await self._engine.load_adapter(name, path)
            return self._with_adapters([*self._facts.adapters, name])

    async def unload_adapter(self, name: str) -> EngineFacts:
        async with self._sleeper.awake(), self._adapters_change:
            await self._engine.unload_adapter(name)
            return self._with_adapters([each for each in self._facts.adapters if each != name])

    def _with_adapters(self, names: list[str]) -> EngineFacts:
        self._facts = replace(self._facts, adapters=tuple(names))
        return self._facts

    async def sleep(self) -> None:
        """Once the requests that are here have ended. The next request wakes it."""
        await self._sleeper.sleep()

    async def wake(self) -> None:
        async with self._sleeper.awake():
            pass

    async def statistics(self) -> dict[str, float]:
        if self._sleeper.asleep:
            return {"running": 0, "waiting": self._sleeper.waiting, "asleep": 1}
        return {**await self._engine.statistics(), "asleep": 0}

    async def check_health(self) -> None:
        if not self._sleeper.asleep:
            await self._engine.check()

    async def __del__(self) -> None:
        if self._connector is not None:
            self._connector.close()
        if hasattr(self, "_sleeper"):  # else its constructor has failed before there was an engine
            await self._sleeper.end()
            await self._engine.stop()


class Reader(Model):
    """Only reads prompts, for the replicas of its model that answer."""

    reads = True

    async def read(self, call: EngineCall) -> tuple[Any, ...]:
        """See `Connector.read`."""
        assert self._connector is not None
        async with self._sleeper.awake():
            await self._have_adapter(call)
            return tuple(await self._connector.read(self._at_its_rank(call)))
