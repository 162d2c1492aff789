"""LoRA adapters that come and go while their model serves: `/v1/load_lora_adapter` and its opposite, as in vLLM.

All replicas of the model load it, and all of the front know it. A replica of the model that starts later loads it with
the first request for it, which brings its path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..broadcast import ask_all
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


async def load(services: Services, exchange: Exchange, name: str) -> None:
    fields = await _read(services, exchange)
    adapter, path = _text(fields, "lora_name"), _text(fields, "lora_path")
    served = _model(services, fields)
    catalogue = services.catalogue
    if (known := catalogue.names().get(adapter)) is not None:
        raise Problem(400, f"{adapter!r} is a name of {known.served.model_id!r} already", param="lora_name")
    loading = catalogue.loading[served.model_id]
    if adapter in loading:
        raise Problem(400, f"{adapter!r} is being loaded already", param="lora_name")
    loaded = len(served.config.adapters) + len(catalogue.live[served.model_id]) + len(loading)
    if loaded >= served.config.max_adapters:
        raise Problem(400, f"{served.config.max_adapters} adapters are loaded, as many as max_adapters allows")
    loading.add(adapter)
    try:
        await served.facts()  # which waits for its start
        answers = await ask_all(served.handle, "load_adapter", adapter, path, timeout_s=LOAD_S)
        failures = [each for each in answers.values() if isinstance(each, Exception)]
        if not answers:
            raise Problem(503, "the model is not available", code="model_unavailable", retry_after_s=RETRY_AFTER_S)
        if failures:
            await ask_all(served.handle, "unload_adapter", adapter, timeout_s=LOAD_S)
            raise _refused(failures[0], "lora_path")
        catalogue.know_adapter(served.model_id, adapter, path)
    finally:
        loading.discard(adapter)
    await services.fronts().tell_adapter(served.model_id, adapter, path)
    await _succeed(exchange, f"Success: LoRA adapter '{adapter}' added successfully.")


async def unload(services: Services, exchange: Exchange, name: str) -> None:
    fields = await _read(services, exchange)
    adapter = _text(fields, "lora_name")
    catalogue = services.catalogue
    found = catalogue.names().get(adapter)
    if found is None or adapter not in catalogue.live[found.served.model_id]:
        raise Problem(404, f"there is no adapter {adapter!r} that was loaded live", param="lora_name")
    served = found.served
    # No request may choose it any more when it goes.
    catalogue.forget_adapter(served.model_id, adapter)
    await services.fronts().tell_unloaded(served.model_id, adapter)
    answers = await ask_all(served.handle, "unload_adapter", adapter, timeout_s=LOAD_S)
    # A replica that has not loaded it is as it should be.
    failures = [each for each in answers.values() if isinstance(each, Exception) and not isinstance(each, ValueError)]
    if failures:
        raise _refused(failures[0], "lora_name")
    await _succeed(exchange, f"Success: LoRA adapter '{adapter}' removed successfully.")


async def _read(services: Services, exchange: Exchange) -> dict[str, Any]:
    if not services.config.live_adapters:
        message = "adapters are not loaded by requests here: set live_adapters=True in FrontConfig"
        raise Problem(403, message, code="not_allowed")
    # What was begun is ended, whether or not the client stays.
    return parse(await exchange.body(services.config.max_body_bytes))


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise Problem(400, f"{name!r} is missing", param=name, code="missing_required_parameter")
    if not isinstance(value, str) or not value:
        raise wrong_type(name, "a string that is not empty", value)
    return value


def _model(services: Services, fields: dict[str, Any]) -> Served:
    name = fields.get("model", fields.get("base_model_name"))
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
