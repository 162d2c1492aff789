"""Any server that speaks the OpenAI protocol (vLLM, SGLang, llama.cpp's own), in a process that the replica owns."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from ..config import LLMConfig, ServerEngine
from .adapters import AdapterTable, with_field
from .chosen_tools import with_chosen_tools
from .discovery import Discovered, discover
from .engine_process import Launch
from .interface import Capacity, Delta, EngineCall, EngineError, EngineFacts, Head
from .keeper import EngineKeeper, free_port
from .openai_http import OpenAIHttp
from .place import new_place
from .request_fields import Refused
from .served import ServedEngine

logger = logging.getLogger("actorrt.serve.replica")

_HOST: Final = "127.0.0.1"
_FIELD: Final = re.compile(r"\{(port|free_port|host|model_id|gpus|session)\}")
# Where neither the engine nor its configuration says how long a request may be.
_CONTEXT: Final = 32_768
_LOAD: Final = "/v1/load_lora_adapter"
_UNLOAD: Final = "/v1/unload_lora_adapter"


class Server(ServedEngine):
    """What it answers and holds is asked of it each time it has come up, where the configuration does not say so."""

    def __init__(self, config: LLMConfig, engine: ServerEngine) -> None:
        super().__init__(config.model_id)
        self._config = engine
        self._place = new_place(config.model_id)
        self._adapters = AdapterTable(config.max_adapters)
        self._found = Discovered(frozenset(engine.paths or ()))
        self._numbers: dict[str, int] = {}
        self._told = False
        self._keeper = EngineKeeper(
            config.model_id,
            self._launch,
            self._learn,
            self._progress,
            start_timeout_s=engine.start_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            health_path=engine.health_path,
            keep_alive=engine.keep_alive,
        )

    def facts(self) -> EngineFacts:
        config, found = self._config, self._found
        slots = min(config.slots, found.slots) if found.slots else config.slots
        context = config.context or found.context
        kv_tokens = config.kv_tokens or found.kv_tokens
        context = context or min(kv_tokens, _CONTEXT) or _CONTEXT
        continues = found.is_llamacpp if config.continues_chat is None else config.continues_chat
        return EngineFacts(
            "server",
            found.paths,
            Capacity(kv_tokens or slots * context, slots, context, config.ranks),
            continues_chat=continues,
            takes_tools=found.takes_tools,
            adapters=self._adapters.names(),
        )

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        if self._numbers and call.method == "POST":
            chosen = self._adapters.chosen_in(call.body)
            scales = [{"id": number, "scale": float(name == chosen)} for name, number in self._numbers.items()]
            call = call._replace(body=with_field(call.body, "lora", json.dumps(scales).encode()))
        if self._found.is_llamacpp:
            try:
                call = with_chosen_tools(call)
            except Refused as refusal:
                yield Head(refusal.status, (("content-type", "application/json"),))
                yield Delta(refusal.body())
                return
        answer = super().generate(call)
        try:
            async for item in answer:
                yield item
        finally:
            await answer.aclose()

    async def load_adapter(self, name: str, path: str) -> None:
        self._adapters.add(name, path)
        if not self._keeper.is_started:
            return
        try:
            await self._load(await self._keeper.http(), name, path)
        except BaseException:
            self._adapters.remove(name)
            raise

    async def unload_adapter(self, name: str) -> None:
        self._adapters.remove(name)
        self._numbers.pop(name, None)
        if self._keeper.is_started and _UNLOAD in self._found.paths:
            await self._ask(_UNLOAD, {"lora_name": name})

    async def _load(self, http: OpenAIHttp, name: str, path: str) -> None:
        if _LOAD in self._found.paths:
            status, answer = await http.ask("POST", _LOAD, json.dumps({"lora_name": name, "lora_path": path}).encode())
            if status >= 400:
                raise EngineError(f"the engine of {self._name} does not load adapter {name}: {answer[:300]!r}")
        elif self._found.is_llamacpp:
            self._numbers[name] = await self._number_of(http, name, path)
        else:
            raise EngineError(f"the engine of {self._name} loads no adapters: it has no {_LOAD}")

    async def _number_of(self, http: OpenAIHttp, name: str, path: str) -> int:
        """llama.cpp loads adapters only as it starts: ours must be among those of its command line."""
        _, answer = await http.ask("GET", "/lora-adapters")
        listed: list[dict[str, Any]] = json.loads(answer or b"[]")
        for each in listed:
            if _is_same_file(str(each.get("path")), path):
                return int(each["id"])
        there = ", ".join(str(each.get("path")) for each in listed) or "none"
        raise EngineError(
            f"llama.cpp's server has not loaded adapter {name} ({path}) as it started: it has {there}; "
            f"add `--lora {path}` to the command, or use the llamacpp engine"
        )

    async def sleep(self) -> None:
        if "/sleep" not in self._found.paths:
            raise EngineError(f"the engine of {self._name} has no /sleep")
        await self._ask("/sleep?level=1", timeout_s=self._config.start_timeout_s)

    async def wake(self) -> None:
        await self._ask("/wake_up", timeout_s=self._config.start_timeout_s)

    def _launch(self) -> Launch:
        config = self._config
        port = config.port or free_port()
        values = {
            "port": str(port),
            "free_port": str(free_port()),
            "host": _HOST,
            "model_id": self._name,
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "session": str(self._place.log.parent.parent),
        }

        # Not str.format: commands carry JSON.
        def filled(text: str) -> str:
            return _FIELD.sub(lambda found: values[found[1]], text)

        env = {name: filled(value) for name, value in config.env.items()}
        return Launch(tuple(filled(each) for each in config.command), self._place.log, env, port=port)

    async def _learn(self, http: OpenAIHttp) -> None:
        config = self._config
        self._found = await discover(http, paths=None if config.paths is None else frozenset(config.paths))
        self._numbers.clear()
        for name, path in self._adapters.known.items():
            await self._load(http, name, path)
        if not self._told and not (config.context or self._found.context):
            self._told = True
            logger.warning(
                "the engine of %s does not say how long a request may be: %d tokens are taken for it (context=)",
                self._name,
                self.facts().capacity.context,
            )


def _is_same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
