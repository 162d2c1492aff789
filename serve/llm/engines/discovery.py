"""Ask an engine that is up what it answers and how much it holds: by its own descriptions, else by trying."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from .interface import EngineError
from .openai_http import OpenAIHttp
from .prometheus_text import split_sample
from .served import fetch

logger = logging.getLogger("actorrt.serve.replica")

# What engines without a description of theirs are tried for: an empty object is refused by what is there.
TRIED: Final = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
    "/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/audio/transcriptions", "/tokenize", "/detokenize",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
)  # fmt: skip
# By which llama.cpp is known, and how it makes a prompt of messages: what it is asked for other than others are.
_PROPS: Final = "/props"
_TEMPLATE: Final = "/apply-template"
_READ: Final = ("/v1/models", "/metrics", "/slots", _PROPS, "/lora-adapters")
_ABSENT: Final = frozenset({404, 405, 501})
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Discovered:
    """0 where nothing is known."""

    paths: frozenset[str]
    is_llamacpp: bool = False
    context: int = 0
    kv_tokens: int = 0
    slots: int = 0
    owned_by: str = ""
    takes_tools: bool = True
    models: tuple[str, ...] = field(default=())


async def discover(http: OpenAIHttp, *, paths: frozenset[str] | None = None) -> Discovered:
    """With `paths` it is not asked what it answers."""
    described, models, props, info = await asyncio.gather(
        fetch(http, "/openapi.json"), fetch(http, "/v1/models"), fetch(http, "/props"), fetch(http, "/get_server_info")
    )
    settings = (props or {}).get("default_generation_settings")
    is_llamacpp = isinstance(settings, dict) and "total_slots" in (props or {})
    if paths is not None:
        pass
    elif described is not None and isinstance(described.get("paths"), dict):
        # A page of numbers is often mounted beside what is described, as SGLang does.
        paths = frozenset(cast(dict[str, Any], described["paths"])) | await _tried(http, ("/metrics",), ())
    else:
        paths = await _tried(http, _READ, TRIED)
    if is_llamacpp:
        paths |= {_PROPS, *await _tried(http, (), (_TEMPLATE,))}
    listed: list[dict[str, Any]] = [each for each in (models or {}).get("data", []) if isinstance(each, dict)]
    context = max((_number(each.get("max_model_len")) for each in listed), default=0)
    kv_tokens = slots = 0
    if is_llamacpp and props is not None:
        slots = _number(props["total_slots"])
        context = _number(cast(dict[str, Any], settings).get("n_ctx"))
        kv_tokens = slots * context
    elif info is not None:
        context = context or _number(info.get("context_length"))
        kv_tokens = _number(info.get("max_total_num_tokens"))
    elif "/metrics" in paths:
        kv_tokens = await _vllm_kv_tokens(http)
    return Discovered(
        paths,
        is_llamacpp,
        context,
        kv_tokens,
        slots,
        str(listed[0].get("owned_by", "")) if listed else "",
        takes_tools(props or {}),
        tuple(str(each.get("id", "")) for each in listed),
    )


def takes_tools(props: Mapping[str, Any]) -> bool:
    """Whether the chat template of llama.cpp's /props has tools; it leaves them out where there are none."""
    caps = props.get("chat_template_caps")
    return not isinstance(caps, dict) or cast(dict[str, Any], caps).get("supports_tools") is not False


async def _tried(http: OpenAIHttp, read: Iterable[str], asked: Iterable[str]) -> frozenset[str]:
    there: set[str] = set()
    for method, path, body in [("GET", path, None) for path in read] + [("POST", path, b"{}") for path in asked]:
        with contextlib.suppress(EngineError):
            status, _ = await http.ask(method, path, body, timeout_s=10)
            if status not in _ABSENT:
                there.add(path)
    return frozenset(there)


async def _vllm_kv_tokens(http: OpenAIHttp) -> int:
    """Of one rank: the blocks that it has, by their size."""
    try:
        status, page = await http.ask("GET", "/metrics", timeout_s=10)
    except EngineError:
        return 0
    for line in page.decode(errors="replace").splitlines() if status == 200 else ():
        name, labels, _ = split_sample(line)
        if name == "vllm:cache_config_info":
            found = dict(_LABEL.findall(labels))
            return _number(found.get("block_size")) * _number(found.get("num_gpu_blocks"))
    return 0


def _number(value: object) -> int:
    try:
        return max(0, int(cast(Any, value)))
    except (TypeError, ValueError):
        return 0
