"""How an engine that has read a prompt hands it over to another one that answers: as far as these two engines can."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from .interface import Delta, Engine, EngineCall, EngineError, Head
from .served import object_in

if TYPE_CHECKING:
    from .llamacpp import LlamaCpp

logger = logging.getLogger("actorrt.serve.replica")

_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
# vLLM's own proxy for disaggregated prefill says this (examples and NixlConnector of its documentation).
_TO_READ: Final = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip
# Of an answer that nobody wants, since only its prompt is to be read.
_OF_ANSWERS: Final = ("stream_options", "max_completion_tokens", "min_tokens", "logprobs", "top_logprobs", "best_of")
# vLLM's engine that answers has no hidden states of the prompt, and fails at these (its issue 50792).
_OF_PROMPTS: Final = ("prompt_logprobs", "echo", "use_beam_search")
_CACHED: Final = re.compile(rb'(?<!\\)("cached_tokens":\s*)\d+')
# A file that nobody has fetched for so long is not wanted any more.
_KEPT_S: Final = 120.0
_FILES: Final = "actorrt-*.slot"
_STEP: Final = 256
# What goes wrong with a folder goes wrong with each request: it is said so often.
_SAID_AGAIN_S: Final = 600.0


class Handover(NamedTuple):
    """What was read, for the engine that answers; with a status of 400 or more what the engine said instead."""

    status: int
    headers: tuple[tuple[str, str], ...]
    data: bytes
    """Empty: it cannot be handed over, and is to be read where it is answered."""
    cached: int | None = None
    """Tokens of the prompt that the engine had read before, if it says so."""


def is_handed_over(call: EngineCall) -> bool:
    """Whether it has one prompt and one answer. Everything else is read by the engine that answers."""
    if call.path not in _PATHS:
        return False
    body = object_in(call.body)
    prompt = body.get("prompt")
    is_one = not isinstance(prompt, list) or all(isinstance(each, int) for each in cast("list[Any]", prompt))
    is_one = is_one and body.get("n") in (None, 1) and body.get("best_of") in (None, 1)
    # 0 asks for the log probabilities of a prompt too.
    return is_one and all(body.get(name) is None or body[name] is False for name in _OF_PROMPTS)


def with_cached(item: Head | Delta, cached: int | None) -> Head | Delta:
    """The same with what was cached where its prompt was read: all of a prompt that was handed over looks cached."""
    if cached is None or isinstance(item, Head) or b'"cached_tokens"' not in item.data:
        return item
    return item._replace(data=_CACHED.sub(rb"\g<1>%d" % cached, item.data))


class Connector(Protocol):
    def close(self) -> None:
        """Nothing is read or answered any more."""
        ...

    async def read(self, call: EngineCall) -> Handover:
        """Read the prompt of a call. EngineError if that fails."""
        ...

    def answer(
        self, call: EngineCall, data: bytes | None, cached: int | None = None
    ) -> AsyncGenerator[Head | Delta, None]:
        """Answer it, its prompt as it was handed over; None: it was not, and is read here. `cached`: of `Handover`."""
        ...


async def _read_by(engine: Engine, call: EngineCall, fields: dict[str, Any]) -> Handover:
    """The engine's answer of one token."""
    body = object_in(call.body)
    for name in _OF_ANSWERS:
        body.pop(name, None)
    asked = {**body, "stream": False, "max_tokens": 1, **fields}
    answer = engine.generate(call._replace(body=json.dumps(asked).encode(), stream=False))
    head, parts = Head(502, ()), list[bytes]()
    try:
        async for item in answer:
            if isinstance(item, Head):
                head = item
            else:
                parts.append(item.data)
    finally:
        await answer.aclose()
    data = b"".join(parts)
    return Handover(head.status, head.headers, data, _cached_in(object_in(data)))


async def _answer_by(engine: Engine, call: EngineCall, cached: int | None) -> AsyncGenerator[Head | Delta, None]:
    answer = engine.generate(call)
    try:
        async for item in answer:
            yield with_cached(item, cached)
    finally:
        await answer.aclose()


def _cached_in(answer: dict[str, Any]) -> int | None:
    usage = answer.get("usage")
    details = cast("dict[str, Any]", usage).get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else None


def _with(call: EngineCall, **fields: Any) -> EngineCall:
    """The call with these fields, whatever its client had said of them."""
    return call._replace(body=json.dumps({**object_in(call.body), **fields}).encode())


class KvTransfer:
    """Two servers with vLLM's protocol that have a connector between them: each says where what it has read lies."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None: ...

    async def read(self, call: EngineCall) -> Handover:
        found = await _read_by(self._engine, call, {"kv_transfer_params": _TO_READ})
        if found.status >= 400:
            return found
        params = object_in(found.data).get("kv_transfer_params")
        if not isinstance(params, dict):
            raise EngineError(
                "the engine that has read a prompt says no kv_transfer_params: was it started with a connector "
                "(vLLM: --kv-transfer-config)?"
            )
        return Handover(200, (), json.dumps(params).encode(), found.cached)

    def answer(
        self, call: EngineCall, data: bytes | None, cached: int | None = None
    ) -> AsyncGenerator[Head | Delta, None]:
        if data is not None:
            call = _with(call, kv_transfer_params=json.loads(data))
        elif "kv_transfer_params" in (body := object_in(call.body)):
            # A client could name what others have had read.
            del body["kv_transfer_params"]
            call = call._replace(body=json.dumps(body).encode())
        return _answer_by(self._engine, call, cached)


class _Slots:
    """llama.cpp's slots, each with the request that it had last: one that begins alike need not be read again."""

    def __init__(self, count: int) -> None:
        self._free = dict.fromkeys(range(count), b"")
        self._room = asyncio.Semaphore(count)

    async def take(self, body: bytes) -> int:
        await self._room.acquire()
        slot = max(self._free, key=lambda each: _alike(self._free[each], body))
        del self._free[slot]
        return slot

    def give_back(self, slot: int, body: bytes) -> None:
        self._free[slot] = body
        self._room.release()


def _alike(one: bytes, other: bytes) -> int:
    at, most = 0, min(len(one), len(other))
    while at < most and one[at : at + _STEP] == other[at : at + _STEP]:
        at += _STEP
    return at


class SlotFiles:
    """llama.cpp's slots as files in a folder that both reach; each is deleted as it is fetched.

    One that nobody fetches, since a process or its request ended before, goes as it is old, by whoever uses the folder.
    """

    def __init__(self, engine: LlamaCpp, slots: int, folder: Path) -> None:
        """EngineError if nothing can be saved there."""
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise EngineError(f"slots are to be saved in {folder}, which is no folder that this process may write in")
        self._engine, self._folder = engine, folder
        self._slots = _Slots(slots)
        self._troubles = _Troubles()
        self._written: dict[Path, float] = {}
        self._timer = asyncio.get_running_loop().call_later(_KEPT_S, self._forget)

    async def read(self, call: EngineCall) -> Handover:
        slot = await self._slots.take(call.body)
        try:
            found = await _read_by(self._engine, call, {"id_slot": slot, "cache_prompt": True})
            if found.status >= 400:
                return found
            name = f"actorrt-{uuid.uuid4().hex}.slot"
            file = self._folder / name
            self._written[file] = time.time()
            is_saved = await self._save(slot, file)
        finally:
            self._slots.give_back(slot, call.body)
        return Handover(200, (), name.encode() if is_saved else b"", found.cached)

    async def _save(self, slot: int, file: Path) -> bool:
        """Whether all of it was written. Else no part of it is left, which would take the room of others."""
        is_saved = False
        try:
            if not (is_saved := await self._engine.save_slot(slot, file.name) > 0):
                raise EngineError("llama.cpp has written nothing")
        except EngineError as error:
            self._troubles.say("a slot could not be saved in %s (is there room?): %s", self._folder, error)
        finally:
            if not is_saved:
                _delete(file)
        return is_saved

    def close(self) -> None:
        self._timer.cancel()
        for file in self._written:
            _delete(file)

    def _forget(self) -> None:
        loop, until = asyncio.get_running_loop(), time.time() - _KEPT_S
        self._timer = loop.call_later(_KEPT_S, self._forget)
        self._written = {file: at for file, at in self._written.items() if at > until}
        # The folder may be another machine's.
        loop.run_in_executor(None, _delete_old, self._folder, until)

    async def answer(
        self, call: EngineCall, data: bytes | None, cached: int | None = None
    ) -> AsyncGenerator[Head | Delta, None]:
        if data is None and not is_handed_over(call):
            # Of several answers llama.cpp takes a slot for each by itself.
            answer = _answer_by(self._engine, call, None)
            try:
                async for item in answer:
                    yield item
            finally:
                await answer.aclose()
            return
        slot = await self._slots.take(call.body if data is None else b"")
        try:
            if data is not None and not await self._restore(slot, data.decode()):
                cached = None
            answer = _answer_by(self._engine, _with(call, id_slot=slot, cache_prompt=True), cached)
            try:
                async for item in answer:
                    yield item
            finally:
                await answer.aclose()
        finally:
            self._slots.give_back(slot, call.body)

    async def _restore(self, slot: int, name: str) -> bool:
        try:
            await self._engine.restore_slot(slot, name)
        except EngineError as error:
            self._troubles.say("a slot could not be restored from %s: %s", self._folder, error)
            return False
        finally:
            _delete(self._folder / name)
        return True


class _Troubles:
    def __init__(self) -> None:
        self._said_at = -math.inf

    def say(self, what: str, *facts: object) -> None:
        now = time.monotonic()
        if now - self._said_at >= _SAID_AGAIN_S:
            self._said_at = now
            logger.warning("%s; prompts are read where they are answered meanwhile", what % facts)


def _delete(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _delete_old(folder: Path, until: float) -> None:
    with suppress(OSError):
        for file in folder.glob(_FILES):
            with suppress(OSError):
                if file.stat().st_mtime <= until:
                    file.unlink()
