"""Prefill and decode on separate replicas: whoever answers has the prompt read first, by the replica of its lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from actorrt import get_runtime_context

from ..capacity_queue.by_lease import ReadBy, read_by
from ..capacity_queue.current_lease import current_lease
from ..exceptions import DeploymentUnavailableError, ReplicaUnavailableError, RequestRefusedError
from .config import LlamaCppEngine, LLMConfig
from .engines.handover import Connector, Handover, KvTransfer, SlotFiles, is_handed_over
from .engines.interface import RANK, Delta, Engine, EngineCall, EngineError, EngineFacts, Head

if TYPE_CHECKING:
    from ..routing.handle import DeploymentHandle

# What its engine would answer without a prompt that was handed over. Messages and Responses are made from chat.
_READ_ELSEWHERE: Final = frozenset(
    {"/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank", "/rerank", "/v1/score", "/score", "/completion"}
    | {"/infill", "/v1/audio/transcriptions"}
)
_UNREAD: Final = (RequestRefusedError, ReplicaUnavailableError, DeploymentUnavailableError)


def of_its_kind(config: LLMConfig, *, reads: bool) -> LLMConfig:
    """The model as it is for a replica that reads prompts, or for one that answers."""
    prefill = config.prefill
    if prefill is None:
        return config
    engine = (prefill.engine or config.engine) if reads else config.engine
    if isinstance(engine, LlamaCppEngine):
        params = {**engine.params, "slot_save_path": f"{_folder(config)}/"}
        engine = engine.model_copy(update={"params": params})
    return config.model_copy(update={"engine": engine})


def connector_of(config: LLMConfig, engine: Engine) -> Connector:
    """`config`: of its kind, with `prefill`."""
    if isinstance(config.engine, LlamaCppEngine):
        return SlotFiles(cast(Any, engine), config.engine.slots, _folder(config))
    return KvTransfer(engine)


def revision_of(config: LLMConfig) -> str:
    """The same of two replicas that may hand over to each other. `config`: as it was given."""
    prefill = config.prefill
    if prefill is None:
        return ""
    reads = prefill.engine or config.engine
    adapters = [each.model_dump_json() for each in config.adapters]
    engines = [each.model_dump_json() for each in (config.engine, reads)]
    said = "\n".join((config.model_id, *engines, str(prefill.folder), *adapters))
    return blake2b(said.encode(), digest_size=8).hexdigest()


def answered(facts: EngineFacts) -> EngineFacts:
    """What is left of an engine's paths where others read its prompts."""
    return replace(facts, paths=facts.paths - _READ_ELSEWHERE)


def _folder(config: LLMConfig) -> Path:
    assert config.prefill is not None
    return Path(config.prefill.folder or get_runtime_context().get_temp_dir())


class Answers:
    """A replica's engine that answers, with the replicas that read for it."""

    def __init__(self, connector: Connector, readers: DeploymentHandle[Any]) -> None:
        self._connector, self._readers = connector, readers

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        """See `Engine.generate`. EngineError also if the prompt could not be read: the request then asks again."""
        lease, data, cached = current_lease.get(), None, None
        # Without a queue its router knows nobody who reads: then it is read here.
        by = None if lease is None else read_by(lease)
        if by is not None and not is_handed_over(call):
            by = None
        if by is not None:
            found = await self._read(call, by)
            if found.status >= 400:
                yield Head(found.status, found.headers)
                yield Delta(found.data)
                return
            if found.data:
                data, cached = found.data, found.cached
        answer = self._connector.answer(call, data, cached)
        try:
            async for item in answer:
                yield item
        finally:
            await answer.aclose()

    async def _read(self, call: EngineCall, by: ReadBy) -> Handover:
        # The rank of an engine is none of another's.
        call = call._replace(headers=tuple(each for each in call.headers if each[0] != RANK))
        try:
            return Handover(*await self._readers.read.options(cost=by).remote(call))
        except _UNREAD as error:
            raise EngineError(f"the prompt was not read: {error}") from error
