"""Build an application of models: `build_openai_app(configs)` gives a graph for `serve.run` and `actorrt serve`.

The front is a deployment of its own, and so is each model, so that an answer can go on when a model's replica dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from ..capacity_queue.by_lease import ByLease
from ..declaration.declaration import Application, Deployment
from ..declaration.options import DeploymentOptions, parse_options
from ..declaration.router_options import RequestRouterConfig
from .config import FrontConfig, LLMConfig, has_capacity_queue
from .front import Front
from .replica import Model, Reader
from .responses.store import bind_store

# The front waits for models: what they cannot take waits in front of them.
_FRONT_REQUESTS: Final = 10_000
_WITHOUT_SLOTS: Final = 256
# Their code waits by await alone: it needs no thread beside the one that has the links, and no token is handed over.
_NO_HOP: Final[Mapping[str, Any]] = {"on_runtime_loop": True}
FRONT: Final = "front"
"""The deployment that speaks to clients."""
MODEL_PREFIX: Final = "model:"
"""Deployments of models have names that begin so."""
PREFILL_PREFIX: Final = "prefill:"
"""Those of replicas that read a model's prompts."""
_NOT_IN_NAMES: Final = str.maketrans({"#": "-", "/": "-", "\n": "-"})


def build_openai_app(
    configs: LLMConfig | Iterable[LLMConfig | Mapping[str, Any]] | Mapping[str, Any],
    front: FrontConfig | Mapping[str, Any] | None = None,
) -> Application[Front]:
    """An application that serves these models. As in Ray, they may also stand in {"llm_configs": [...]}.

    ValueError if a name stands for two models, or a configuration is wrong.
    """
    models = _models(configs)
    settings = front if isinstance(front, FrontConfig) else FrontConfig(**(front or {}))
    _check_names(models)
    names: set[str] = set()
    bound = [
        (_without_options(each), build_llm_deployment(each, name=_deployment_name(each.model_id, names)))
        for each in models
    ]
    options = DeploymentOptions(
        name=FRONT,
        num_replicas=settings.num_replicas,
        max_ongoing_requests=_FRONT_REQUESTS,
        actor_options=_NO_HOP,
    )
    return Deployment[Front](Front, options).bind(settings, bound, bind_store(settings))


def build_llm_deployment(config: LLMConfig | Mapping[str, Any], *, name: str | None = None) -> Application[Model]:
    """One model as a node of a graph, without a front. `name`: of its deployment, else it is made of `model_id`."""
    model = _model(config)
    slots = getattr(model.engine, "slots", None)
    default = DeploymentOptions(
        name=name or _deployment_name(model.model_id, set()),
        max_ongoing_requests=2 * slots if slots is not None else _WITHOUT_SLOTS,
    )
    options = parse_options(model.deployment, default)
    options = replace(options, actor_options={**options.actor_options, **_NO_HOP})
    if model.prefill is None:
        return Deployment[Model](Model, options).bind(_without_options(model))
    # No model's deployment has such a name.
    reading = f"{PREFILL_PREFIX}{options.name.removeprefix(MODEL_PREFIX)}"
    readers = _readers(model, reading)
    router = options.request_router
    kwargs = {**router.request_router_kwargs, "prefill": reading}
    options = replace(options, request_router=replace(router, request_router_kwargs=kwargs))
    return Deployment[Model](Model, options).bind(_without_options(model), readers)


def _readers(model: LLMConfig, name: str) -> Application[Reader]:
    """The replicas that read the model's prompts."""
    assert model.prefill is not None
    slots = getattr(model.prefill.engine or model.engine, "slots", _WITHOUT_SLOTS)
    default = DeploymentOptions(name=name, max_ongoing_requests=2 * slots, request_router=RequestRouterConfig(ByLease))
    options = replace(parse_options(model.prefill.deployment, default), name=name)
    options = replace(options, actor_options={**options.actor_options, **_NO_HOP})
    return Deployment[Reader](Reader, options).bind(_without_options(model))


def _without_options(config: LLMConfig) -> LLMConfig:
    """As replicas are given it: other options of its deployment, as a tenant's limits, are no reason for new ones."""
    if config.prefill is not None:
        config = config.model_copy(update={"prefill": config.prefill.model_copy(update={"deployment": {}})})
    if not has_capacity_queue(config):
        return config.model_copy(update={"deployment": {}})
    router = parse_options(config.deployment, DeploymentOptions(name="")).request_router
    bands = {name: value for name, value in router.request_router_kwargs.items() if name == "bands"}
    kept = replace(router, request_router_kwargs=bands)
    return config.model_copy(update={"deployment": {"request_router": kept}})


def _models(configs: Any) -> list[LLMConfig]:
    if isinstance(configs, LLMConfig):
        return [configs]
    if hasattr(configs, "llm_configs"):
        configs = configs.llm_configs
    elif isinstance(configs, Mapping):
        given = cast("Mapping[str, Any]", configs)
        if "llm_configs" not in given:
            return [_model(given)]
        configs = given["llm_configs"]
    models = [_model(each) for each in configs]
    if not models:
        raise ValueError("there is no model: give at least one LLMConfig")
    return models


def _model(config: Any) -> LLMConfig:
    if isinstance(config, LLMConfig):
        return config
    if not isinstance(config, Mapping):
        raise TypeError(f"a model is an LLMConfig or a mapping of its fields, not of type {type(config).__name__}")
    return LLMConfig(**cast("Mapping[str, Any]", config))


def _check_names(models: Iterable[LLMConfig]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        for name in (model.model_id, *model.aliases, *(each.name for each in model.adapters)):
            if name in seen:
                raise ValueError(f"the name {name!r} stands for model {seen[name]!r} and for {model.model_id!r}")
            seen[name] = model.model_id


def _deployment_name(model_id: str, taken: set[str]) -> str:
    base = name = MODEL_PREFIX + model_id.translate(_NOT_IN_NAMES).strip()
    number = 2
    while name in taken:
        name = f"{base}-{number}"
        number += 1
    taken.add(name)
    return name
