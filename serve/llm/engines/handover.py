"""How an engine that has read a prompt hands it over to another one that answers: as far as these two engines can."""

from __future__ import annotations

import asyncio
import json
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

_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
# vLLM's own proxy for disaggregated prefill says this (examples and NixlConnector of its documentation).
_TO_READ: Final = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip
# Of an answer that nobody wants, since only its prompt is to be read.
_OF_ANSWERS: Final = ("stream_options", "max_completion_tokens", "min_tokens", "logprobs", "top_logprobs", "best_of")
# A file that nobody has fetched for so long is not wanted any more.
_KEPT_S: Final = 120.0
_STEP: Final = 256


class Handover(NamedTuple):
    """What was read, for the engine that answers; with a status of 400 or more what the engine said instead."""

    status: int
    headers: tuple[tuple[str, str], ...]
    data: bytes


def is_handed_over(call: EngineCall) -> bool:
    """Whether it has one prompt and one answer. Everything else is read by the engine that answers."""
    if call.path not in _PATHS:
        return False
    body = object_in(call.body)
    prompt = body.get("prompt")
    is_one = not isinstance(prompt, list) or all(isinstance(each, int) for each in cast("list[Any]", prompt))
    return is_one and body.get("n") in (None, 1) and body.get("best_of") in (None, 1)


class Connector(Protocol):
    def close(self) -> None:
        """Nothing is read or answered any more."""
        ...

    async def read(self, call: EngineCall) -> Handover:
        """Read the prompt of a call. EngineError if that fails."""
        ...

    def answer(self, call: EngineCall, data: bytes | None) -> AsyncGenerator[Head | Delta, None]:
        """Answer it, its prompt as it was handed over; None: it was not, and is read here."""
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
    return Handover(head.status, head.headers, b"".join(parts))


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
        return Handover(200, (), json.dumps(params).encode())

    def answer(self, call: EngineCall, data: bytes | None) -> AsyncGenerator[Head | Delta, None]:
        if data is not None:
            call = _with(call, kv_transfer_params=json.loads(data))
        return self._engine.generate(call)


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
    """llama.cpp's slots as files in a folder that both reach; each is deleted as it is fetched."""

    def __init__(self, engine: LlamaCpp, slots: int, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._slots = _Slots(slots)
        self._written: dict[Path, float] = {}

    async def read(self, call: EngineCall) -> Handover:
        self._forget(time.monotonic() - _KEPT_S)
        slot = await self._slots.take(call.body)
        try:
            found = await _read_by(self._engine, call, {"id_slot": slot, "cache_prompt": True})
            if found.status >= 400:
                return found
            name = f"{uuid.uuid4().hex}.slot"
            self._written[self._folder / name] = time.monotonic()
            await self._engine.save_slot(slot, name)
        finally:
            self._slots.give_back(slot, call.body)
        return Handover(200, (), name.encode())

    def close(self) -> None:
        self._forget(time.monotonic())

    def _forget(self, until: float) -> None:
        """Files that were written so long ago: of requests that were given up between the two, where one is there."""
        for file in [file for file, at in self._written.items() if at <= until]:
            del self._written[file]
            with suppress(OSError):
                file.unlink()

    async def answer(self, call: EngineCall, data: bytes | None) -> AsyncGenerator[Head | Delta, None]:
        if data is None and not is_handed_over(call):
            # Of several answers llama.cpp takes a slot for each by itself.
            answer = self._engine.generate(call)
            try:
                async for item in answer:
                    yield item
            finally:
                await answer.aclose()
            return
        slot = await self._slots.take(call.body if data is None else b"")
        try:
            if data is not None:
                name = data.decode()
                try:
                    await self._engine.restore_slot(slot, name)
                finally:
                    with suppress(OSError):
                        (self._folder / name).unlink()
            answer = self._engine.generate(_with(call, id_slot=slot, cache_prompt=True))
            try:
                async for item in answer:
                    yield item
            finally:
                await answer.aclose()
        finally:
            self._slots.give_back(slot, call.body)
