"""llama.cpp from the package `xllamacpp`: its own HTTP server on a Unix socket, in a process that the replica owns."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from ..config import LlamaCppEngine, LLMConfig
from .adapters import AdapterTable, with_field
from .chosen_tools import with_chosen_tools
from .discovery import takes_tools
from .engine_process import Launch
from .gguf_file import adapter_path, gguf_path
from .interface import Beside, Capacity, Delta, EngineCall, EngineError, EngineFacts, Head
from .keeper import EngineKeeper
from .llamacpp_errors import as_openai
from .llamacpp_requests import Whole, as_stream, with_progress, without_progress
from .openai_http import OpenAIHttp
from .place import new_place
from .request_fields import Refused
from .served import ServedEngine, fetch, reason_in
from .whole_events import tokens_of_answer

logger = logging.getLogger("actorrt.serve.replica")

_PROGRAM: Final = Path(__file__).with_name("llamacpp_program.py")
_START_S: Final = 600.0
# For each thread. On a CPU a larger batch is hardly faster, and nothing else happens until it is read.
_CPU_BATCH: Final = 4
# It keeps nothing that it would have to write down.
_STOP_S: Final = 0.0
# What it says first to several prompts at once, and what clients take for a chunk.
_NOTHING: Final = b"data: null\n\n"
_SERVES: Final = frozenset({"/v1/models", "/tokenize", "/detokenize", "/metrics", "/props", "/slots", "/health"})
_GENERATES: Final = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"}
    | {"/completion", "/infill", "/apply-template", "/lora-adapters"}
)
_JSON: Final = (("content-type", "application/json; charset=utf-8"),)
_EMBEDS: Final = frozenset({"/v1/embeddings", "/embeddings"})
_RERANKS: Final = frozenset({"/v1/rerank", "/v1/reranking", "/rerank"})


class LlamaCpp(ServedEngine):
    """Its adapters are loaded with the model: another one means that the model is loaded again, between requests."""

    def __init__(self, config: LLMConfig, engine: LlamaCppEngine) -> None:
        super().__init__(config.model_id)
        self._config = engine
        self._place = new_place(config.model_id)
        self._adapters = AdapterTable(config.max_adapters)
        self._per_slot = max(1, engine.context // engine.slots)
        self._takes_tools = True
        self._keeper = EngineKeeper(
            config.model_id,
            self._launch,
            self._learn,
            self._progress,
            start_timeout_s=_START_S,
            stop_timeout_s=_STOP_S,
            stall_timeout_s=config.stall_timeout_s,
            health_path="/health",
            keep_alive=False,
        )

    async def start(self) -> EngineFacts:
        gguf_path(self._config.model)
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineError("the llamacpp engine needs a package that is not installed: pip install xllamacpp")
        return await super().start()

    @property
    def _reranks(self) -> bool:
        return self._config.params.get("pooling_type") in ("rank", 4)

    def facts(self) -> EngineFacts:
        config = self._config
        paths = _RERANKS if self._reranks else _EMBEDS if config.embeddings else _GENERATES
        capacity = Capacity(kv_tokens=config.context, slots=config.slots, context=self._per_slot)
        return EngineFacts(
            "llamacpp",
            _SERVES | paths,
            capacity,
            continues_chat=paths is _GENERATES,
            continues_forms=paths is _GENERATES,
            takes_tools=self._takes_tools,
            adapters=self._adapters.names(),
        )

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        async with self._adapters.use():
            if self._adapters.known and call.method == "POST":
                call = call._replace(body=self._choose_adapter(call.body))
            try:
                call = with_chosen_tools(call)
            except Refused as refusal:
                yield Head(refusal.status, _JSON)
                yield Delta(refusal.body())
                return
            answer = self._generate(call)
            try:
                async for item in answer:
                    if isinstance(item, Head) and item.status >= 400:
                        body = b"".join([each.data async for each in answer if isinstance(each, Delta)])
                        status, body = as_openai(item.status, body)
                        yield item._replace(status=status)
                        yield Delta(body)
                        return
                    if isinstance(item, Delta) and _NOTHING in item.data:
                        item = item._replace(data=item.data.replace(_NOTHING, b""))
                        if not item.data:
                            continue
                    yield item
            finally:
                await answer.aclose()

    def _generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        if call.stream:
            asked = with_progress(call)
            return super().generate(call) if asked is None else self._streamed(asked)
        asked = as_stream(call)
        return super().generate(call) if asked is None else self._whole(asked)

    async def _streamed(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        answer = super().generate(call)
        try:
            async for item in answer:
                # With several prompts, one may be read while another is answered.
                if isinstance(item, Head) or (data := without_progress(item.data)) is item.data:
                    yield item
                elif data:
                    yield item._replace(data=data)
        finally:
            await answer.aclose()

    async def _whole(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        answer = super().generate(call)
        try:
            head = await anext(answer)
            assert isinstance(head, Head)
            if not head.streams:
                yield head
                async for item in answer:
                    yield item
                return
            whole, tokens, beside = Whole(call.path), 0, Beside()
            async for item in answer:
                assert isinstance(item, Delta)
                whole.feed(item.data)
                tokens += item.tokens
                is_first = not beside.told
                if more := beside.came(item.tokens):
                    if is_first:
                        yield Head(200, _JSON)
                    yield Delta(b"", more)
            status, body = whole.answer()
            if not beside.told:
                yield Head(status, _JSON)
            elif status != 200:
                raise EngineError(f"the engine failed as it answered: {reason_in(body)}")
            yield Delta(body, max(0, (tokens_of_answer(body) or tokens) - beside.told))
        finally:
            await answer.aclose()

    def _choose_adapter(self, body: bytes) -> bytes:
        """Requests name an adapter as their model; llama.cpp wants to be told of each by its number."""
        chosen = self._adapters.chosen_in(body)
        scales = [{"id": number, "scale": float(name == chosen)} for number, name in enumerate(self._adapters.known)]
        return with_field(body, "lora", json.dumps(scales).encode())

    async def check(self) -> None:
        # For a change it is ended and started again.
        if not self._adapters.is_changing:
            await super().check()

    async def _ask(
        self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = 60.0, wrong: str = ""
    ) -> dict[str, Any]:
        async with self._adapters.use():
            return await super()._ask(path, body, timeout_s=timeout_s, wrong=wrong)

    async def load_adapter(self, name: str, path: str) -> None:
        file = adapter_path(name, path)
        async with self._adapters.change():
            self._adapters.add(name, str(file))
            if self._keeper.is_started:
                try:
                    await self._load_again()
                except BaseException:
                    self._adapters.remove(name)
                    await self._load_again()
                    raise

    async def unload_adapter(self, name: str) -> None:
        async with self._adapters.change():
            self._adapters.remove(name)
            if self._keeper.is_started:
                await self._load_again()

    async def _load_again(self) -> None:
        await self._keeper.stop()
        await self._keeper.start()

    async def save_slot(self, slot: int, file: str) -> int:
        """What a slot has of a prompt, as a file in the folder that is its parameter slot_save_path: so many bytes.

        0: it could not be written, or not all of it, which some versions of llama.cpp take for no error.
        """
        said = await self._ask(f"/slots/{slot}?action=save", {"filename": file})
        return int(said.get("n_written") or 0)

    async def restore_slot(self, slot: int, file: str) -> None:
        await self._ask(f"/slots/{slot}?action=restore", {"filename": file})

    async def sleep(self) -> None:
        raise EngineError("llama.cpp has no sleep of its own: stop it")

    async def wake(self) -> None:
        raise EngineError("llama.cpp has no sleep of its own: start it")

    def _launch(self) -> Launch:
        config = self._config
        given: dict[str, Any] = {
            "model.path": str(gguf_path(config.model)),
            "model_alias": [self._name],
            "hostnames": [self._place.unix_socket],
            "n_parallel": config.slots,
            "n_ctx": config.context,
            "cpuparams.n_threads": config.threads,
            "cpuparams_batch.n_threads": config.threads,
            "n_gpu_layers": config.gpu_layers,
            "embedding": config.embeddings,
            "endpoint_slots": True,
            "endpoint_metrics": True,
            # A connection keeps a thread while it is there: as many as may come, and some for questions of ours.
            "n_threads_http": 4 * config.slots + 32,
            "ui": False,
        }
        if not (config.embeddings or self._reranks):
            # One more for each slot that answers: what a step computes is for these first.
            if config.prefill_batch is not None:
                given["n_batch"] = config.prefill_batch + config.slots
            else:
                given["n_batch_without_gpu"] = _CPU_BATCH * config.threads + config.slots
        if config.chat_template is not None:
            given["chat_template"] = config.chat_template
        if self._adapters.known:
            given |= {"lora_adapters": list(self._adapters.known.values()), "lora_init_without_apply": True}
        given |= config.params
        # The replica may have its packages from elsewhere than this interpreter by itself.
        env = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
        command = (sys.executable, "-P", str(_PROGRAM), json.dumps(given))
        return Launch(command, self._place.log, env, unix_socket=self._place.unix_socket)

    async def _learn(self, http: OpenAIHttp) -> None:
        props = await fetch(http, "/props") or {}
        settings = props.get("default_generation_settings", {})
        # Less than was asked for, if the model was made for less.
        self._per_slot = int(settings.get("n_ctx", self._per_slot)) or self._per_slot
        self._takes_tools = takes_tools(props)
