"""LoRA adapters that come and go while their model serves: `/v1/load_lora_adapter` and its opposite, as in vLLM.

All replicas of the model load it, and all of the front know it. A replica of the model that starts later loads it with
the first request for it, which brings its path. What was begun is brought to its end, whether or not the client stays.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from ..base.background import to_its_end
from ..routing.broadcast import ask_all
from .engines.interface import EngineError
from .failures import RETRY_AFTER_S
from .problems import Problem
from .reading import parse, wrong_type

if TYPE_CHECKING:
    from .catalogue import Served
    from .exchange import Exchange
    from .services import Services

# llama.cpp loads its model again for it.
LOAD_S: Final = 600.0
_MOST_NAME: Final = 256
_MOST_PATH: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A name is a model's, a part of a file's at some engines, and stands before "=" and a path (`ADAPTER`).
_NOT_IN_NAMES: Final = re.compile(rf"[=/\\]|{_CONTROL.pattern}")


async def load(services: Services, exchange: Exchange, name: str) -> None:
    fields = await _read(services, exchange)
    adapter, path = _name(fields), _path(fields)
    await to_its_end(_load(services, _model(services, fields), adapter, path))
    await _succeed(exchange, f"Success: LoRA adapter '{adapter}' added successfully.")


async def _load(services: Services, served: Served, adapter: str, path: str) -> None:
    if served.config.prefill is not None:
        reason = "its prompts are read by replicas of their own, which would not hear of it: name it in the LLMConfig"
        raise Problem(400, f"model {served.model_id!r} takes no adapters while it runs: {reason}", param="model")
    async with _alone(services, served, adapter, loads=True):
        await served.facts()  # which waits for its start
        answers = await ask_all(served.handle, "load_adapter", adapter, path, timeout_s=LOAD_S)
        failures = [each for each in answers.values() if isinstance(each, Exception)]
        if not answers:
            raise Problem(503, "the model is not available", code="model_unavailable", retry_after_s=RETRY_AFTER_S)
        if failures:
            await ask_all(served.handle, "unload_adapter", adapter, timeout_s=LOAD_S)
            raise _refused(failures[0], "lora_path")
        services.catalogue.know_adapter(served.model_id, adapter, path)
        await services.fronts().tell_adapter(served.model_id, adapter, path)


async def unload(services: Services, exchange: Exchange, name: str) -> None:
    fields = await _read(services, exchange)
    adapter = _name(fields)
    await to_its_end(_unload(services, _live(services, adapter), adapter))
    await _succeed(exchange, f"Success: LoRA adapter '{adapter}' removed successfully.")


async def _unload(services: Services, served: Served, adapter: str) -> None:
    async with _alone(services, served, adapter, loads=False):
        if _live(services, adapter) is not served:
            raise Problem(409, f"adapter {adapter!r} is another one by now", param="lora_name")
        # No request may choose it any more when it goes.
        services.catalogue.forget_adapter(served.model_id, adapter)
        await services.fronts().tell_unloaded(served.model_id, adapter)
        answers = await ask_all(served.handle, "unload_adapter", adapter, timeout_s=LOAD_S)
    # A replica that has not loaded it is as it should be.
    failures = [each for each in answers.values() if isinstance(each, Exception) and not isinstance(each, ValueError)]
    if failures:
        raise _refused(failures[0], "lora_name")


@contextlib.asynccontextmanager
async def _alone(services: Services, served: Served, adapter: str, *, loads: bool) -> AsyncGenerator[None]:
    """Within this no other request changes it, at whichever replica of the front. Problem 400 if one does already."""
    fronts = services.fronts()
    by = fronts.new_claim()
    try:
        if reason := await fronts.claim(served.model_id, adapter, by, loads=loads):
            raise Problem(400, reason, param="lora_name")
        yield
    finally:
        await fronts.release(served.model_id, adapter, by)


def _live(services: Services, adapter: str) -> Served:
    catalogue = services.catalogue
    found = catalogue.names().get(adapter)
    if found is None or adapter not in catalogue.live[found.served.model_id]:
        raise Problem(404, f"there is no adapter {adapter!r} that was loaded live", param="lora_name")
    return found.served


async def _read(services: Services, exchange: Exchange) -> dict[str, Any]:
    if not services.config.live_adapters:
        message = "adapters are not loaded by requests here: set live_adapters=True in FrontConfig"
        raise Problem(403, message, code="not_allowed")
    return parse(await exchange.body(services.config.max_body_bytes))


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise Problem(400, f"{name!r} is missing", param=name, code="missing_required_parameter")
    if not isinstance(value, str) or not value:
        raise wrong_type(name, "a string that is not empty", value)
    return value


def _name(fields: dict[str, Any]) -> str:
    name = _text(fields, "lora_name")
    if len(name) > _MOST_NAME or _NOT_IN_NAMES.search(name):
        message = (
            f"'lora_name' must be 1 to {_MOST_NAME} characters, none of them '=', '/', '\\' or a control character"
        )
        raise Problem(400, message, param="lora_name", code="invalid_value")
    return name


def _path(fields: dict[str, Any]) -> str:
    path = _text(fields, "lora_path")
    if len(path) > _MOST_PATH or _CONTROL.search(path):
        message = f"'lora_path' must be 1 to {_MOST_PATH} characters, none of them a control character"
        raise Problem(400, message, param="lora_path", code="invalid_value")
    return path


def _model(services: Services, fields: dict[str, Any]) -> Served:
    name = fields.get("model")
    if name is None:
        name = fields.get("base_model_name")
    if name is not None and not isinstance(name, str):
        raise wrong_type("model", "a string", name)
    return services.catalogue.choose(name).served


def _refused(error: Exception, param: str) -> Problem:
    """A file that is not there, or one that the engine does not take, is a mistake of who asked for it."""
    text = str(getattr(error, "cause", error))
    if isinstance(error, ValueError | EngineError):
        return Problem(400, text, param=param, code="adapter_refused")
    return Problem(503, f"the adapter could not be changed in all replicas: {text}", code="model_unavailable")


async def _succeed(exchange: Exchange, text: str) -> None:
    await exchange.respond(200, [(b"content-type", b"text/plain; charset=utf-8")], text.encode())
